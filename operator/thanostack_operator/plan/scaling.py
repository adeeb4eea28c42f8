"""How many ingestors each ring's StatefulSet has, who drains, and when one may go.

    out of the ring ─► settled ─► drain started ─► drained ─► a replica less ─► volume kept
                                       └─ not drained in drainTimeout ─► the same, with a warning

- A StatefulSet removes from the top, and with parallel management all surplus pods at once: so
  replicas fall by one, only for the highest ordinal, only when no surplus pod is left.
- They rise at once: the ring admits one by one.
- They never fall because a StatefulSet is gone: members and pods that exist say what it had.
- A ring that left the spec: all its ingestors drain, then the StatefulSet goes, then the rest.
- An ingestor that is wanted again stops draining.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from thanostack_operator.api.receive import Ring, ScaleDown
from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import RING_LABEL, Object, ingestor_name, ingestor_pod

from .drains import Drains
from .observed import Observed, Ref, dig
from .outcome import Action, CancelDrain, Event, Waiting
from .ring import RingStep
from .times import Timers, duration_s


@dataclass
class Scaling:
    """What the rings' StatefulSets become.

    Args:
        replicas: of the StatefulSet of each ring of the spec.
        removed: names of rings that left the spec and still have objects.
        held: live objects of rings that left the spec which have to stay for now.
        leaving: ingestors that are on their way out and still there, by ring.
        actions: drains that start and end.
        waiting: what ingestors that leave wait for.
        events: what was decided.
    """

    replicas: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    held: set[Ref] = field(default_factory=set)
    leaving: dict[str, list[str]] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def ordinals_of(stack: str, ring: str, pods: Iterable[str]) -> set[int]:
    """Return the ordinals of the pods of a ring among pods of the stack."""
    prefix = f"{ingestor_name(stack, ring)}-"
    tails = [pod[len(prefix) :] for pod in pods if pod.startswith(prefix)]
    return {int(tail) for tail in tails if tail.isdecimal()}


def scale(stack: ThanosStack, observed: Observed, step: RingStep, timers: Timers) -> Scaling:
    """Return replicas and drains of every ring, those that left the spec included."""
    scaler = _Scaler(stack.name, observed, step, Drains(observed, timers), Scaling())
    for ring in stack.spec.receive.rings:
        scaler.scale(ring)
    labelled = _labelled_rings(observed)
    scaler.scaling.removed = sorted(set(labelled) - {r.name for r in stack.spec.receive.rings})
    for name in scaler.scaling.removed:
        scaler.remove(name, labelled[name])
    scaling = scaler.scaling
    scaling.actions += scaler.drains.actions
    scaling.waiting += scaler.drains.waiting
    return scaling


def _labelled_rings(observed: Observed) -> dict[str, dict[Ref, Object]]:
    """Return the live objects of each ring."""
    rings: dict[str, dict[Ref, Object]] = {}
    for ref, live in observed.objects.items():
        ring = dig(live, "metadata", "labels", RING_LABEL)
        if ring is not None:
            rings.setdefault(ring, {})[ref] = live
    return rings


@dataclass
class _Scaler:
    stack: str
    observed: Observed
    step: RingStep
    drains: Drains
    scaling: Scaling

    def scale(self, ring: Ring) -> None:
        """Decide the replicas of a ring of the spec."""
        inside = {member.ordinal for member in self.step.members.get(ring.name, ())}
        wanted = max(ring.replicas, *(ordinal + 1 for ordinal in inside), 0)
        pods = ordinals_of(self.stack, ring.name, self.observed.pods)
        live = self.observed.find("StatefulSet", ingestor_name(self.stack, ring.name))
        if live is None:
            replicas = max(wanted, *(ordinal + 1 for ordinal in pods), 0)
        else:
            replicas = max(wanted, self._shrunk(ring, inside, pods, live))
        self.scaling.replicas[ring.name] = replicas
        self._cancel_drains(ring, inside | set(range(ring.replicas)))

    def _shrunk(self, ring: Ring, inside: set[int], pods: set[int], live: Object) -> int:
        """Return the replicas of a StatefulSet after the next removal, if one is due."""
        replicas = int(dig(live, "spec", "replicas", default=1))
        leaving = [n for n in range(ring.replicas, max([replicas, *(n + 1 for n in pods)]))
                   if n not in inside]  # fmt: skip
        if not leaving:
            return replicas
        named = {n: ingestor_pod(self.stack, ring.name, n) for n in leaving}
        self.scaling.leaving[ring.name] = list(named.values())
        timeout_s = duration_s(ring.scale_down.drain_timeout)
        blocked = self._why_not_settled()
        may_go = {n for n in leaving if n < replicas
                  and self.drains.may_go(named[n], timeout_s, blocked)}  # fmt: skip
        terminating = sorted(n for n in pods if n >= replicas)
        if terminating:
            pod = ingestor_pod(self.stack, ring.name, terminating[-1])
            self.scaling.waiting.append(Waiting(f"remove {pod}", "its pod still ends"))
            return replicas
        if replicas - 1 not in may_go:
            return replicas
        self.scaling.events.append(self.drains.gone(named[replicas - 1]))
        return replicas - 1

    def _why_not_settled(self) -> str:
        if self.step.settled or (self.step.text is None and not self.observed.routers):
            return ""
        return "routers may still forward to it"

    def _cancel_drains(self, ring: Ring, kept: set[int]) -> None:
        for ordinal in sorted(kept):
            pod = ingestor_pod(self.stack, ring.name, ordinal)
            drain = self.observed.drains.get(pod)
            if drain is not None and drain.state in ("draining", "drained", "failed"):
                self.scaling.actions.append(CancelDrain(pod))

    def remove(self, ring: str, objects: dict[Ref, Object]) -> None:
        """Decide which live objects of a ring that left the spec stay."""
        pods = ordinals_of(self.stack, ring, self.observed.pods)
        sets = {ref: live for ref, live in objects.items() if ref.kind == "StatefulSet"}
        if not sets:
            self._hold(ring, objects, pods)
            return
        expected = pods.union(
            *(range(dig(s, "spec", "replicas", default=1)) for s in sets.values())
        )
        blocked = self._why_not_settled()
        if ring in self.step.members:
            blocked = "its ring is still in the hashrings"
        names = [ingestor_pod(self.stack, ring, ordinal) for ordinal in sorted(expected)]
        if ring not in self.step.members:
            # Only then do drains hold rollouts: the ring itself may wait for one to leave.
            self.scaling.leaving[ring] = names
        # What a removed ring's timeout was is no longer known.
        timeout_s = duration_s(ScaleDown().drain_timeout)
        going = [self.drains.may_go(pod, timeout_s, blocked) for pod in names]
        if all(going):
            self.scaling.events += [self.drains.gone(pod) for pod in names]
            self.scaling.held |= set(objects) - set(sets)
        else:
            self.scaling.held |= set(objects)

    def _hold(self, ring: str, objects: dict[Ref, Object], pods: set[int]) -> None:
        """Keep what a removed ring's last pods are reached by until they are gone."""
        if pods:
            self.scaling.held |= set(objects)
            self.scaling.leaving[ring] = [ingestor_pod(self.stack, ring, n) for n in sorted(pods)]
            reason = f"{len(pods)} of its pods still end"
            self.scaling.waiting.append(Waiting(f"remove ring {ring}", reason))
