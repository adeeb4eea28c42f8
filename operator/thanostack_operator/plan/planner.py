"""`plan()`: what a stack asks for and what was observed → everything to do now.

    spec ─► checks ─► ring step ─► scaling ─► objects ─► rollout ─► comparison ─► apply, prune
                                                                        │
                        conditions, status, events ◄── volumes that grow┘

Nothing is remembered between plans but what the status says, so an operator that is killed at any
point goes on from what it sees. Every part decides for itself and says why it waits; this module
joins them. Four outcomes: a deletion, a refusal of a wrong spec or a taken name, a look without a
touch while paused, and all there is to do.
"""

from __future__ import annotations

from collections.abc import Iterable

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import FINALIZER, Object, receive_name
from thanostack_operator.manifests.stack_objects import desired_objects

from .capacity import follow_events, volumes_claim
from .changes import Changes, additions_of, changes_of, owned_of, targets_of
from .checks import fixed_field_problems, spec_problems
from .comparison import stamped
from .conditions import flips, is_told
from .deletion import Deletion, delete, finalizers
from .growth import Growth, grow
from .observed import Observed, items_of
from .outcome import Action, Event, GrowClaim, Plan, ReplaceSet, TouchPod, Waiting
from .ownership import NAME_TAKEN, name_problems
from .published import annotation_of, read_published
from .ring import RingStep, ring_step
from .scaling import Scaling, ordinals_of, scale
from .shrinking import hidden_history
from .status import FOREIGN_FIELDS, Findings, status_of
from .times import Timers
from .volumes import RingVolumes, is_replaced, volumes_of
from .workload import components

# Nothing wakes the loop when a router loads its hashrings or a drain ends: they have to be asked.
BUSY_RECHECK_S = 3.0
REST_RECHECK_S = 60.0


def plan(stack: ThanosStack, observed: Observed, *, operator_version: str) -> Plan:
    """Return what to do now.

    Args:
        stack: the resource, its status as last written or as whatever became of it.
        observed: what there is.
        operator_version: the version of images where the spec names none.
    """
    version = stack.spec.version or operator_version
    findings = Findings(
        components(stack, observed), version=version, operator_version=operator_version
    )
    timers = Timers(items_of(stack.status, "transitions"), observed.now)
    volumes = volumes_of(stack, observed)
    findings.volumes = volumes_claim(volumes, timers)
    if stack.deleting:
        first = _made_before_deletion(stack, observed, volumes, timers, operator_version)
        return _deletion(stack, observed, findings, timers, first)
    published = read_published(stack, observed)
    findings.step = RingStep(published.text, published.members)
    findings.problems = spec_problems(stack, observed)
    if findings.problems:
        return _refusal(stack, observed, findings, timers)
    step = ring_step(stack, observed, published, timers)
    scaling = scale(stack, observed, step, timers)
    targets = targets_of(stack, observed, step, scaling, volumes, operator_version)
    findings.problems = name_problems(stack, targets, observed)
    findings.problems = findings.problems or fixed_field_problems(stack, targets, observed)
    if findings.problems:
        return _refusal(stack, observed, findings, timers)
    findings.additions = additions_of(stack, targets, observed)
    if stack.spec.paused:
        for ring in volumes:  # a StatefulSet that is absent is known as replaced when this ends
            is_replaced(timers, ring.name)
        return _paused(stack, observed, findings, step, timers)
    changes = changes_of(stack, observed, step, scaling, targets, findings.components, timers)
    growth = grow(stack, observed, volumes, step, scaling, changes, timers)
    return _everything(stack, observed, findings, timers, step, scaling, changes, growth)


def _made_before_deletion(
    stack: ThanosStack,
    observed: Observed,
    volumes: Iterable[RingVolumes],
    timers: Timers,
    version: str,
) -> list[Object] | None:
    """Return the StatefulSets that were deleted here and whose pods would be left behind.

    None are returned yet while one of these still goes; without any the answer is None.
    """
    replaced = [v for v in volumes if is_replaced(timers, v.name) and (v.is_leaving or v.runs_on)]
    if FINALIZER not in stack.finalizers or not replaced or spec_problems(stack, observed):
        return None
    absent = {v.name: v.ring for v in replaced if v.runs_on}
    replicas = {
        ring: max(ordinals_of(stack.name, ring, observed.pods)) + 1 for ring in absent.values()
    }
    return [
        stamped(wanted)
        for wanted in desired_objects(stack, version, None, replicas)
        if wanted["kind"] == "StatefulSet" and wanted["metadata"]["name"] in absent
    ]


def _deletion(
    stack: ThanosStack,
    observed: Observed,
    findings: Findings,
    timers: Timers,
    first: list[Object] | None,
) -> Plan:
    """Return the next steps of a deletion; the status is left to those who watch it end."""
    deletion = delete(stack, observed, timers) if first is None else Deletion()
    published = read_published(stack, observed)
    findings.step = RingStep(published.text, published.members)
    findings.pending = [f"{wait.step}: {wait.reason}" for wait in deletion.waiting]
    findings.owned = owned_of(stack, observed)
    status = status_of(stack, observed, findings, timers)
    return Plan(
        apply=tuple(first or ()),
        actions=tuple(deletion.actions),
        prune=tuple(deletion.prune),
        waiting=tuple(deletion.waiting),
        status=status,
        events=(*deletion.events, *flips(stack, status["conditions"])),
        recheck_s=BUSY_RECHECK_S,
    )


def _refusal(stack: ThanosStack, observed: Observed, findings: Findings, timers: Timers) -> Plan:
    """Return the plan that says what is wrong and touches nothing."""
    timers.keep_all()
    findings.owned = owned_of(stack, observed)
    status = status_of(stack, observed, findings, timers)
    waiting = [Waiting("act on the spec", problem.message) for problem in findings.problems]
    # Nothing wakes the loop when an object goes that is not ours.
    taken = any(problem.reason == NAME_TAKEN for problem in findings.problems)
    return Plan(
        waiting=tuple(waiting),
        status=status,
        events=tuple(flips(stack, status["conditions"])),
        recheck_s=BUSY_RECHECK_S if taken else REST_RECHECK_S,
    )


def _paused(
    stack: ThanosStack, observed: Observed, findings: Findings, step: RingStep, timers: Timers
) -> Plan:
    """Return the plan that looks without a touch."""
    findings.step = RingStep(findings.step.text, findings.step.members, waiting=step.waiting)
    findings.upgrading = _still_rolling(stack, findings)
    findings.owned = owned_of(stack, observed)
    status = status_of(stack, observed, findings, timers)
    events = [*_additions_told(stack, findings), *flips(stack, status["conditions"])]
    return Plan(status=status, events=tuple(events))


def _additions_told(stack: ThanosStack, findings: Findings) -> list[Event]:
    """Return an event for each addition that the status does not tell of yet."""
    new = [text for text in findings.additions if not is_told(stack, "NoDrift", text)]
    return [Event("Warning", FOREIGN_FIELDS, text) for text in new]


def _touches(observed: Observed, step: RingStep) -> list[Action]:
    """Return the routers to have the hashrings delivered to at once."""
    if step.text is None:
        return []
    value = annotation_of(step.text)
    return [
        TouchPod(router.pod, value)
        for router in observed.routers
        if router.annotation != value and router.config_hash != float(value)
    ]


def _everything(
    stack: ThanosStack,
    observed: Observed,
    findings: Findings,
    timers: Timers,
    step: RingStep,
    scaling: Scaling,
    changes: Changes,
    growth: Growth,
) -> Plan:
    """Return the plan that does all that may be done now."""
    actions = [*finalizers(stack, holds=growth.holds), *_touches(observed, step), *scaling.actions]
    actions += growth.actions
    waiting = [*_ring_waiting(stack, step), *scaling.waiting, *changes.rollouts.waiting]
    waiting += growth.waiting
    hidden = hidden_history(stack, findings.step.members, step)
    findings.step = step
    findings.pending = _pending(changes, waiting, actions)
    rollouts = changes.rollouts
    changing = [*_still_rolling(stack, findings), *rollouts.changing, *rollouts.held]
    findings.upgrading = list(dict.fromkeys(changing))
    findings.stalled, findings.drift = rollouts.stalled, changes.drift
    findings.contested = changes.contested
    findings.owned = changes.owned
    status = status_of(stack, observed, findings, timers)
    events = [Event("Normal", "RingChanged", note) for note in step.notes]
    events += [*hidden, *scaling.events]
    events += [Event("Warning", "Drift", text) for text in changes.drift]
    events += [*_additions_told(stack, findings), *growth.events]
    events += follow_events(stack, findings.volumes)
    busy = bool(findings.pending or findings.rolling or _is_unsettled(step))
    return Plan(
        apply=tuple(changes.apply),
        actions=(*actions, *growth.retries),
        prune=tuple(changes.prune),
        waiting=tuple(waiting),
        status=status,
        events=(*events, *flips(stack, status["conditions"])),
        recheck_s=BUSY_RECHECK_S if busy else REST_RECHECK_S,
    )


def _still_rolling(stack: ThanosStack, findings: Findings) -> list[str]:
    """Return the components whose rollout goes on; one that only grows is not upgraded."""
    conditions = items_of(stack.status, "conditions")
    if ("UpgradeInProgress", "True") not in [(c.get("type"), c.get("status")) for c in conditions]:
        return []
    return findings.rolling


def _is_unsettled(step: RingStep) -> bool:
    return step.text is not None and not step.settled


def _pending(changes: Changes, waiting: list[Waiting], actions: list[Action]) -> list[str]:
    """Return what is done now and what waits, for people; empty at rest."""
    pending = [f"apply {w['kind']} {w['metadata']['name']}" for w in changes.apply]
    pending += [f"delete {ref.kind} {ref.name}" for ref in changes.prune]
    pending += [f"{wait.step}: {wait.reason}" for wait in waiting]
    names = [_named(action) for action in actions]
    return pending or names


def _named(action: Action) -> str:
    match action:
        case GrowClaim(name, size):
            return f"grow PersistentVolumeClaim {name} to {size}"
        case ReplaceSet(ref):
            return f"replace StatefulSet {ref.name}"
    return f"{type(action).__name__} {getattr(action, 'pod', '')}".strip()


def _ring_waiting(stack: ThanosStack, step: RingStep) -> list[Waiting]:
    waiting = [
        Waiting(f"ring {ring}: {what.partition(': ')[0]}", what.partition(": ")[2])
        for ring, what in step.waiting.items()
    ]
    if step.text is None:
        name = receive_name(stack.name)
        waiting.append(Waiting(f"make {name}", "no ring is published yet"))
    return waiting
