"""The objects to apply and to prune: what is desired now, against what is live.

    manifests ─► what is not too early ─► fingerprint ─► live templates where a rollout is held
                                                                    │
                       apply what differs, prune what is no longer asked for ◄┘

Only what carries an owner reference to this very stack is ever pruned, and volumes never are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import (
    HASHRINGS_ANNOTATION,
    HASHRINGS_KEY,
    RING_LABEL,
    Object,
    hashrings_name,
    query_name,
    receive_name,
)
from thanostack_operator.manifests.stack_objects import desired_objects

from .additions import Addition, additions
from .comparison import Drift, differences, drifts, stamped
from .contests import Contests, is_contested, may_try
from .observed import Observed, Ref, dig, items_of
from .ownership import is_owned
from .published import annotation_of
from .ring import RingStep, factor_of, knows_ring, lagging
from .rollout import PROGRESS_DEADLINE_S, Rollouts, Rules, roll_out
from .scaling import Scaling
from .times import Timers, seconds
from .volumes import RingVolumes, is_replaced, with_live_size
from .workload import Component, is_rolling

_DRIFT_TOLD_MAX = 20
# Bound: that many of that length fit the message of a condition, so that each is told once.
_ADDITIONS_TOLD_MAX = 20
_ADDITION_TEXT_MAX = 200

Targets = dict[tuple[str, str], Object]


def targets_of(
    stack: ThanosStack,
    observed: Observed,
    step: RingStep,
    scaling: Scaling,
    volumes: Iterable[RingVolumes],
    version: str,
) -> Targets:
    """Return every object to have now, with its fingerprint, in the order of application.

    Without a published ring there are neither hashrings nor routers among them, and no new
    routers while a ring is too small for them.
    """
    found = desired_objects(
        stack,
        version,
        step.members or None,
        scaling.replicas,
        knows_service_monitors=observed.service_monitors,
        leaving_rings=scaling.removed,
    )
    targets: Targets = {}
    sets = {("StatefulSet", ring.name): ring for ring in volumes}
    routers, small = ("Deployment", receive_name(stack.name)), _small_ring(stack, step)
    for wanted in found:
        key = (wanted["kind"], wanted["metadata"]["name"])
        if key == ("ConfigMap", hashrings_name(stack.name)) and step.text is not None:
            wanted = _hashrings(wanted, step.text)
        if key in sets:
            inside = [member.ordinal + 1 for member in step.members.get(sets[key].ring, ())]
            wanted = with_live_size(wanted, sets[key], max(inside, default=0))
        if key == routers and small and observed.find(*key) is None:
            continue
        if key[0] == "PodDisruptionBudget" and _routers_lag(stack, observed):
            wanted = _held_budget(wanted, observed.find(*key))
        targets[key] = stamped(wanted)
    return targets


def _routers_lag(stack: ThanosStack, observed: Observed) -> bool:
    """Return whether a router may still write by another replication factor than the spec's."""
    live = observed.find("Deployment", receive_name(stack.name))
    factor = stack.spec.receive.replication_factor
    return live is not None and (is_rolling(live) or factor_of(live) != factor)


def _held_budget(wanted: Object, live: Object | None) -> Object:
    """Return a ring's budget that lets no more ingestors go than before."""
    former = dig(live, "spec", "maxUnavailable")
    if RING_LABEL not in wanted["metadata"]["labels"] or not isinstance(former, int):
        return wanted
    fewest = min(former, wanted["spec"]["maxUnavailable"])
    return wanted | {"spec": wanted["spec"] | {"maxUnavailable": fewest}}


def _hashrings(wanted: Object, text: str) -> Object:
    """Return the ConfigMap with a text and the annotation that vouches for it.

    While routers lag, the text that stands is kept, whatever the spec would have.
    """
    metadata = wanted["metadata"]
    annotations = (metadata.get("annotations") or {}) | {HASHRINGS_ANNOTATION: annotation_of(text)}
    return wanted | {
        "metadata": metadata | {"annotations": annotations},
        "data": (wanted.get("data") or {}) | {HASHRINGS_KEY: text},
    }


@dataclass
class Changes:
    """What to write.

    Args:
        rollouts: which workloads may change.
        apply: objects that are missing or differ.
        prune: objects that are no longer asked for.
        owned: the stack's objects afterwards; without uid if they are not there yet.
        drift: what others changed, one sentence each.
        contested: what others change whenever it is applied, one sentence each.
    """

    rollouts: Rollouts
    apply: list[Object] = field(default_factory=list)
    prune: list[Ref] = field(default_factory=list)
    owned: list[Ref] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    contested: list[str] = field(default_factory=list)


def changes_of(
    stack: ThanosStack,
    observed: Observed,
    step: RingStep,
    scaling: Scaling,
    targets: Targets,
    components: list[Component],
    timers: Timers,
) -> Changes:
    """Return what differs from the desired objects, workloads as far as they may change now."""
    workloads = [
        (component, targets[component.kind, component.name])
        for component in components
        if (component.kind, component.name) in targets
    ]
    rules = Rules(
        _why_hashrings_move(stack, observed, step, scaling),
        {receive_name(stack.name): _small_ring(stack, step)},
        _urgent(stack, observed),
    )
    changes = Changes(roll_out(workloads, observed, rules, timers))
    _compare(changes, targets | changes.rollouts.objects, stack, observed, timers)
    rollouts = changes.rollouts
    in_use = bool(rollouts.held or rollouts.changing or any(c.rolling for c in components))
    for ref, live in observed.objects.items():
        if (ref.kind, ref.name) not in targets and is_owned(stack, live):
            keeps = ref in scaling.held or _is_needed(stack, ref, step, in_use=in_use)
            (changes.owned if keeps else changes.prune).append(ref)
    return changes


def _compare(
    changes: Changes,
    targets: Targets,
    stack: ThanosStack,
    observed: Observed,
    timers: Timers,
) -> None:
    """Find the targets that are missing or differ, and which of that is drift."""
    contests = Contests(observed, timers)
    refs = {(ref.kind, ref.name): ref for ref in observed.objects}
    applied = _applied_before(stack) - {(ref.kind, ref.name) for ref in observed.namesakes}
    for key, target in targets.items():
        ref = refs.get(key)
        changes.owned.append(ref or Ref(target["apiVersion"], *key))
        if ref is None:
            changes.apply.append(target)
            if key in applied and not (key[0] == "StatefulSet" and is_replaced(timers, key[1])):
                changes.drift.append(f"{key[0]} {key[1]} was deleted; it is made again")
            continue
        live = observed.objects[ref]
        if key[0] == "StatefulSet" and dig(live, "metadata", "deletionTimestamp"):
            continue  # it is made anew when it is gone
        found = changes.rollouts.differences.get(key)
        found = differences(target, live) if found is None else found
        age_s = contests.age_s(target, live, found)
        if found and may_try(age_s):
            changes.apply.append(target)
        drifted = drifts(target, live, found)
        if is_contested(age_s):
            changes.contested += [_contest_text(key, drift) for drift in drifted]
        else:
            changes.drift += [_drift_text(key, drift) for drift in drifted]
    del changes.drift[_DRIFT_TOLD_MAX:]
    del changes.contested[_DRIFT_TOLD_MAX:]


def additions_of(stack: ThanosStack, targets: Targets, observed: Observed) -> list[str]:
    """Return what others added to the stack's objects, one sentence each."""
    texts = [
        _addition_text((ref.kind, ref.name), addition)
        for ref, live in sorted(observed.objects.items(), key=lambda item: item[0])
        if (ref.kind, ref.name) in targets and is_owned(stack, live)
        for addition in additions(targets[ref.kind, ref.name], live)
    ]
    return texts[:_ADDITIONS_TOLD_MAX]


def owned_of(stack: ThanosStack, observed: Observed) -> list[Ref]:
    """Return the live objects that are this stack's."""
    return [ref for ref, live in observed.objects.items() if is_owned(stack, live)]


def _is_needed(stack: ThanosStack, ref: Ref, step: RingStep, *, in_use: bool) -> bool:
    """Return whether an object that is not desired has to stay for now.

    Hashrings and routers outlive damage that is not mended yet; files that pods of a former
    template mount stay until no such pod is left, and so does what keeps ingestors for them.
    """
    if step.text is None and (ref.kind, ref.name) in (
        ("ConfigMap", hashrings_name(stack.name)),
        ("Deployment", receive_name(stack.name)),
    ):
        return True
    return ref.kind in ("ConfigMap", "PodDisruptionBudget") and in_use


def _applied_before(stack: ThanosStack) -> set[tuple[str, str]]:
    """Return the objects that were seen to exist."""
    return {
        (str(dig(item, "kind")), str(dig(item, "name")))
        for item in items_of(stack.status, "inventory")
        if dig(item, "uid")
    }


def _drift_text(key: tuple[str, str], drift: Drift) -> str:
    by = f" by {drift.manager}" if drift.manager else ""
    difference = drift.difference
    return (
        f"{key[0]} {key[1]}: {difference.name} was changed{by} to {_short(difference.old)}; "
        f"it becomes {_short(difference.new)} again"
    )


def _addition_text(key: tuple[str, str], addition: Addition) -> str:
    what, whose = f"{key[0]} {key[1]}: {addition.name}", f" was added by {addition.manager}; "
    return _short(what + whose, _ADDITION_TEXT_MAX - 8) + "it stays"


def _contest_text(key: tuple[str, str], drift: Drift) -> str:
    difference = drift.difference
    return (
        f"{key[0]} {key[1]}: {difference.name} becomes {_short(difference.old)} whenever "
        f"{_short(difference.new)} is applied: find the webhook or policy that does it, and exempt "
        "this stack or have the spec say the same"
    )


def _short(value: object, length_max: int = 80) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= length_max else text[: length_max - 3] + "..."


def _why_hashrings_move(
    stack: ThanosStack, observed: Observed, step: RingStep, scaling: Scaling
) -> str:
    """Return why no pod may be replaced now for the hashrings' sake; empty if one may."""
    if step.text is None:
        return ""
    if step.publishes:
        return f"the hashrings change: {'; '.join(step.notes)}"
    if not step.settled:
        changed = seconds(dig(stack.status, "hashrings", "changedAt"))
        if changed is not None and observed.now - changed > PROGRESS_DEADLINE_S:
            return ""
        return next(iter(lagging(observed, step.text)), "the hashrings changed just now")
    leaving = [pod for pods in scaling.leaving.values() for pod in pods]
    return f"{', '.join(leaving[:5])} leaves" if leaving else ""


def _urgent(stack: ThanosStack, observed: Observed) -> frozenset[str]:
    """Return the queriers' name if they have to learn of a ring, which waits for them."""
    rings = [ring.name for ring in stack.spec.receive.rings]
    knowing = all(knows_ring(stack, observed, ring) for ring in rings)
    return frozenset() if knowing else frozenset({query_name(stack.name)})


def _small_ring(stack: ThanosStack, step: RingStep) -> str:
    """Return why routers cannot take the spec's replication factor yet; empty if they can."""
    factor = stack.spec.receive.replication_factor
    for ring, members in step.members.items():
        if len(members) < factor:
            return f"ring {ring} has {len(members)} members and needs {factor}"
    return ""
