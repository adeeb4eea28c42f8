"""What becomes of a stack that is deleted, and the finalizer that gives it the time.

    Flush: routers go ──► no router runs ──► every ingestor is drained ──► finalizer released
    Keep:  nothing holds it: owner references have the objects collected; volumes stay

A StatefulSet that is being replaced is made first, so that its pods have an owner again.
Either way volumes stay: the operator never deletes one. An ingestor that cannot be drained in its
ring's `drainTimeout` does not hold the deletion up; an event says so. Neither does a router that
nobody hears of for `ROUTERS_END_S`, nor pausing. What never took a write has nothing to drain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from thanostack_operator.api.receive import ScaleDown
from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import (
    FINALIZER,
    RING_LABEL,
    hashrings_name,
    ingestor_pod,
    receive_name,
)

from .drains import Drains
from .observed import Observed, Ref, dig
from .outcome import Action, Event, SetFinalizers, Waiting
from .ownership import is_owned
from .scaling import ordinals_of
from .times import Timers, duration_s

# Its grace is shorter; a router that still seems to run then is on a node that was lost.
ROUTERS_END_S = 600.0


@dataclass
class Deletion:
    """What to do for a stack that is deleted."""

    actions: list[Action] = field(default_factory=list)
    prune: list[Ref] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def finalizers(stack: ThanosStack, *, holds: bool = False) -> list[Action]:
    """Return the change by which a stack that lives has the finalizer of its policy.

    Args:
        stack: it.
        holds: whether it has one whatever its policy says.
    """
    wanted = holds or stack.spec.deletion_policy == "Flush"
    if wanted == (FINALIZER in stack.finalizers):
        return []
    others = tuple(name for name in stack.finalizers if name != FINALIZER)
    return [SetFinalizers((*others, FINALIZER) if wanted else others)]


def delete(stack: ThanosStack, observed: Observed, timers: Timers) -> Deletion:
    """Return the next steps of a deletion; none once the finalizer is released."""
    if FINALIZER not in stack.finalizers:
        return Deletion()
    release = SetFinalizers(tuple(name for name in stack.finalizers if name != FINALIZER))
    if stack.spec.deletion_policy == "Keep":
        return Deletion([release])
    if _took_no_write(stack, observed):
        return Deletion([release])
    routers = [ref for ref, live in observed.objects.items()
               if (ref.kind, ref.name) == ("Deployment", receive_name(stack.name))
               and is_owned(stack, live)]  # fmt: skip
    blocked = ""
    if routers or (observed.routers and timers.elapsed_s("routers end") < ROUTERS_END_S):
        blocked = f"{len(observed.routers)} routers still run"
    drains = Drains(observed, timers)
    pods = _ingestors(stack, observed)
    gone = [drains.may_go(pod, timeout_s, blocked) for pod, timeout_s in pods]
    if blocked or not all(gone):
        return Deletion(drains.actions, routers, drains.waiting)
    return Deletion([release], events=[drains.gone(pod) for pod, _ in pods])


def _took_no_write(stack: ThanosStack, observed: Observed) -> bool:
    """Return whether there never were hashrings, so that no router can have written anything."""
    published = observed.find("ConfigMap", hashrings_name(stack.name))
    remembered = dig(stack.status, "hashrings")
    return published is None and remembered is None and not observed.routers


def _ingestors(stack: ThanosStack, observed: Observed) -> list[tuple[str, float]]:
    """Return every ingestor that there is or should be, with the timeout of its drain."""
    timeouts = {ring.name: ring.scale_down.drain_timeout for ring in stack.spec.receive.rings}
    expected: dict[str, set[int]] = {ring: set() for ring in (*timeouts, *observed.ingestors)}
    for ref, live in observed.objects.items():
        ring = dig(live, "metadata", "labels", RING_LABEL)
        if ring is not None and ref.kind == "StatefulSet" and is_owned(stack, live):
            replicas = range(int(dig(live, "spec", "replicas", default=1)))
            expected.setdefault(ring, set()).update(replicas)
    return [
        (ingestor_pod(stack.name, ring, ordinal), duration_s(timeouts.get(ring, default)))
        for default in [ScaleDown().drain_timeout]
        for ring in sorted(expected)
        for ordinal in sorted(expected[ring] | ordinals_of(stack.name, ring, observed.pods))
    ]
