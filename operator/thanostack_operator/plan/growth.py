"""Volumes that grow without a pod being touched: claims first, then the StatefulSet anew.

    every claim asks for the size ──► the StatefulSet goes, its pods stay ──► it is made anew
      one patch each, if its class     an orphaning deletion of the very       with that size; it
      lets it grow                     object that was seen, no newer one      adopts its pods

- Each step is found from what is there: claims that are small, a StatefulSet that is, none at all.
  A killed operator goes on; the apply of an absent StatefulSet is the last step.
- `grow/<StatefulSet>` in `status.transitions` stands before the StatefulSet goes, so that its
  absence is not taken for somebody's edit.
- While a StatefulSet is about to go or is absent, the stack has its finalizer, whatever its policy:
  deleted in that moment, it would leave pods that nobody owns.
- Nothing of it happens while members of the ring move, one drains, or its pods are replaced; so
  the StatefulSet that is made anew has the template of the former one. Claims
  grow in a rollout that stalls all the same: room may be what it lacks.
- Nothing shrinks: a patch is for the claim as it was seen, and refused if that was written to.
- A claim that may not grow stops this and nothing else.
- Nothing waits until a driver did what was asked; `capacity.py` tells of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import FINALIZER, ingestor_pod

from .changes import Changes
from .observed import Observed, dig
from .outcome import Action, Event, GrowClaim, ReplaceSet, Waiting
from .ring import RingStep
from .scaling import Scaling
from .times import Timers
from .volumes import RingVolumes, growing, is_replaced, listed, timer_of
from .workload import is_rolling


@dataclass
class Growth:
    """What is done for volumes now.

    Args:
        actions: steps that are taken.
        retries: steps that were refused before and are tried again.
        waiting: steps that are not taken yet.
        events: what was decided.
        holds: whether the stack may not go now without its operator.
    """

    actions: list[Action] = field(default_factory=list)
    retries: list[Action] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    holds: bool = False


def grow(
    stack: ThanosStack,
    observed: Observed,
    volumes: Iterable[RingVolumes],
    step: RingStep,
    scaling: Scaling,
    changes: Changes,
    timers: Timers,
) -> Growth:
    """Return the next steps of each ring's volumes."""
    growth = Growth()
    refused = observed.refused()
    for ring in volumes:
        if ring.is_leaving or (ring.runs_on and is_replaced(timers, ring.name)):
            growth.holds = True
        if ring.is_leaving:
            timers.keep(timer_of(ring.name))
            reason = "the former one still goes"
            growth.waiting.append(Waiting(f"make StatefulSet {ring.name} anew", reason))
            continue
        if ring.live is None or not (ring.small or ring.set_is_small):
            continue
        is_begun = is_replaced(timers, ring.name)
        busy = _why_not_now(stack, observed, ring, step, scaling, changes)
        claims = [claim for claim in ring.small if claim not in ring.refused]
        if busy and (not claims or ring.name not in changes.rollouts.stalled):
            growth.waiting.append(Waiting(f"grow volumes of ring {ring.ring}", busy))
            continue
        timers.elapsed_s(timer_of(ring.name))
        for claim in claims:
            steps = (
                growth.retries if f"PersistentVolumeClaim/{claim}" in refused else growth.actions
            )
            steps.append(_grown(ring, claim))
        if claims and not is_begun:
            growth.events.append(Event("Normal", "VolumesGrow", growing(ring)))
        if ring.set_is_small and not ring.small and not ring.problem:
            growth.holds = True
            _replace(growth, ring, changes, is_begun=is_begun and FINALIZER in stack.finalizers)
    return growth


def _grown(ring: RingVolumes, claim: str) -> GrowClaim:
    metadata = ring.claims[claim]["metadata"]
    return GrowClaim(claim, ring.size, metadata["uid"], metadata["resourceVersion"])


def _replace(growth: Growth, ring: RingVolumes, changes: Changes, *, is_begun: bool) -> None:
    """Have a StatefulSet made anew, once status and finalizer say that this is what happens."""
    assert ring.ref is not None
    what = f"replace StatefulSet {ring.name}"
    applied = [(wanted["kind"], wanted["metadata"]["name"]) for wanted in changes.apply]
    if not is_begun or ("StatefulSet", ring.name) in applied:
        reason = "other fields of it change first" if is_begun else "it is next"
        growth.waiting.append(Waiting(what, reason))
        return
    version = str(dig(ring.live, "metadata", "resourceVersion", default=""))
    growth.actions.append(ReplaceSet(ring.ref, version, ring.size))
    message = f"StatefulSet {ring.name} is made anew for volumes of {ring.size}; its pods run on"
    growth.events.append(Event("Normal", "StatefulSetReplaced", message))


def _why_not_now(
    stack: ThanosStack,
    observed: Observed,
    ring: RingVolumes,
    step: RingStep,
    scaling: Scaling,
    changes: Changes,
) -> str:
    """Return what goes on in a ring that has to end first; empty if nothing does."""
    if step.publishes or (step.text is not None and not step.settled):
        return "the hashrings change"
    if leaving := scaling.leaving.get(ring.ring):
        return f"{listed(tuple(leaving))} leaves"
    wanted = next(r.replicas for r in stack.spec.receive.rings if r.name == ring.ring)
    there = min(wanted, int(dig(ring.live, "spec", "replicas", default=1)))
    inside = {member.ordinal for member in step.members.get(ring.ring, ())}
    if inside and (moving := inside ^ set(range(there))):
        return f"{ingestor_pod(stack.name, ring.ring, min(moving))} joins or leaves"
    for pod, drain in sorted(observed.drains.items()):
        if pod.startswith(f"{ring.name}-") and drain.state in ("draining", "drained", "failed"):
            return f"{pod} is {drain.state}"
    changing = (*changes.rollouts.held, *changes.rollouts.changing)
    if ring.name in changing or (ring.live is not None and is_rolling(ring.live)):
        return f"{ring.name} rolls out"
    return ""
