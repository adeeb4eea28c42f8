"""The volumes of each ring as they are: which claims ask for less than the spec, and why they may.

A StatefulSet makes a claim for each new pod by its template, and nobody may change that template.
So what one ring has of a size stands in three places: the spec, the StatefulSet, and each claim.

Claims are known by name, `data-<StatefulSet>-<ordinal>`, whoever made them. Those count whose
ordinal has a pod or is to have one; what is kept of a ring that was larger is left alone until the
ring grows over it again. A claim has a request, which is what is asked of it, and a capacity, which
follows when the driver has done it. What is done about all that is in `growth.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from thanostack_operator.api.receive import Ring
from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.ingestors import DATA_CLAIM
from thanostack_operator.manifests.names import Object, ingestor_name, ingestor_pod

from .comparison import quantity
from .observed import Observed, Ref, dig
from .scaling import ordinals_of
from .times import Timers

_REQUEST = ("spec", "resources", "requests", "storage")
_CAPACITY = ("status", "capacity", "storage")
_TOLD_MAX = 5


@dataclass(frozen=True)
class RingVolumes:
    """The volumes of one ring of the spec.

    Args:
        ring: its name.
        name: of its StatefulSet.
        size: that the spec asks for.
        ref: the live StatefulSet; None if there is none.
        live: its JSON.
        runs_on: whether there is no StatefulSet, and ingestors are there.
        claims: the claims that count, by name.
        small: names of those with a volume that ask for less than ``size``.
        unbound: names of those without one that ask for less: nobody can change these yet.
        refused: by name of a small one, why its class lets it not grow.
        problem: why some claims cannot grow and what to do, for people; empty if they can.
    """

    ring: str
    name: str
    size: str
    ref: Ref | None = None
    live: Object | None = None
    runs_on: bool = False
    claims: Mapping[str, Object] = field(default_factory=dict)
    small: tuple[str, ...] = ()
    unbound: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def set_is_small(self) -> bool:
        """Return whether new claims would ask for less than the spec."""
        return is_less(_template_size(self.live), self.size)

    @property
    def is_leaving(self) -> bool:
        """Return whether the StatefulSet was deleted and is still there."""
        return dig(self.live, "metadata", "deletionTimestamp") is not None

    @property
    def former_size(self) -> str:
        """Return the least that something of the ring still asks for."""
        asked = [request_of(self.claims[name]) for name in (*self.small, *self.unbound)]
        asked += [_template_size(self.live)] if self.set_is_small else []
        return min(asked, key=_value, default=self.size)


def is_less(size: str, than: str) -> bool:
    """Return whether one quantity is less than another; what is none compares to nothing."""
    one, other = quantity(size), quantity(than)
    return one is not None and other is not None and one < other


def request_of(claim: Object) -> str:
    """Return what a claim asks for."""
    return str(dig(claim, *_REQUEST, default=""))


def capacity_of(claim: Object) -> str:
    """Return what a claim has; empty while it has no volume."""
    return str(dig(claim, *_CAPACITY, default=""))


def class_of(claim: Object) -> str:
    """Return the StorageClass of a claim; empty if it has none."""
    return str(dig(claim, "spec", "storageClassName", default=""))


def growing(ring: RingVolumes) -> str:
    """Return what of a ring asks for less than the spec, for people."""
    claims = (*ring.small, *ring.unbound)
    what = f"claims {listed(claims)}" if claims else f"StatefulSet {ring.name}"
    later = f"; {listed(ring.unbound)} once there is a volume" if ring.unbound else ""
    return f"ring {ring.ring}: {what} from {ring.former_size} to {ring.size}{later}"


def listed(names: tuple[str, ...]) -> str:
    """Return names for people, the first ones of many."""
    return ", ".join(names[:_TOLD_MAX]) + (", …" if len(names) > _TOLD_MAX else "")


def claim_names(stack: ThanosStack, ring: Ring, observed: Observed) -> list[str]:
    """Return the names of the claims of a ring that count, whether they are there or not."""
    live = observed.find("StatefulSet", ingestor_name(stack.name, ring.name))
    replicas = max(ring.replicas, int(dig(live, "spec", "replicas", default=0)))
    ordinals = ordinals_of(stack.name, ring.name, observed.pods) | set(range(replicas))
    return [f"{DATA_CLAIM}-{ingestor_pod(stack.name, ring.name, n)}" for n in sorted(ordinals)]


def volumes_of(stack: ThanosStack, observed: Observed) -> list[RingVolumes]:
    """Return the volumes of each ring of the spec."""
    return [_ring_volumes(stack, ring, observed) for ring in stack.spec.receive.rings]


def _ring_volumes(stack: ThanosStack, ring: Ring, observed: Observed) -> RingVolumes:
    name, size = ingestor_name(stack.name, ring.name), ring.storage.size
    refs = [ref for ref in observed.objects if (ref.kind, ref.name) == ("StatefulSet", name)]
    found = observed.claims or {}
    claims = {
        claim: found[claim]
        for claim in claim_names(stack, ring, observed)
        if claim in found and dig(found[claim], "metadata", "deletionTimestamp") is None
    }
    less = tuple(claim for claim, live in claims.items() if is_less(request_of(live), size))
    small = tuple(claim for claim in less if dig(claims[claim], "status", "phase") == "Bound")
    volumes = RingVolumes(
        ring.name,
        name,
        size,
        ref=next(iter(refs), None),
        live=observed.objects[refs[0]] if refs else None,
        runs_on=not refs and bool(ordinals_of(stack.name, ring.name, observed.pods)),
        claims=claims,
        small=small,
        unbound=tuple(claim for claim in less if claim not in small),
        refused=frozenset(
            claim for claim in small if observed.expandable.get(class_of(claims[claim])) is False
        ),
    )
    return _with_problem(volumes, observed)


def _with_problem(volumes: RingVolumes, observed: Observed) -> RingVolumes:
    """Return the volumes with what keeps their claims from growing, if anything does."""
    problems = []
    if observed.claims is None and volumes.set_is_small:
        problems.append(
            "the operator may not list PersistentVolumeClaims: give it the chart's rights to them"
        )
    refused = tuple(claim for claim in volumes.small if claim in volumes.refused)
    if refused:
        classes = ", ".join(sorted({class_of(volumes.claims[claim]) for claim in refused}))
        problems.append(
            f"StorageClass {classes} does not let {listed(refused)} grow: set "
            f"allowVolumeExpansion: true on StorageClass {classes} if its driver can do it, or "
            "make a new ring with volumes of that size and remove this one"
        )
    failures = observed.refused()
    for claim in volumes.small:
        failure = failures.get(f"PersistentVolumeClaim/{claim}")
        if failure and claim not in volumes.refused:
            storage_class = class_of(volumes.claims[claim]) or "none"
            problems.append(
                f"{claim} (StorageClass {storage_class}) is refused to grow: {failure}: mend what "
                "that says, and it is tried again; or make a new ring with volumes of that size "
                "and remove this one"
            )
    if not problems:
        return volumes
    sizes = f"{volumes.former_size} and not {volumes.size}"
    text = f"ring {volumes.ring}: volumes of {sizes}: {'; '.join(problems)}"
    return replace(volumes, problem=text)


def _template_size(live: Object | None) -> str:
    return str(dig(live, "spec", "volumeClaimTemplates", 0, *_REQUEST, default=""))


def _value(size: str) -> Decimal:
    return quantity(size) or Decimal(0)


def timer_of(name: str) -> str:
    """Return the name of the timer that runs while the volumes of a StatefulSet grow."""
    return f"grow/{name}"


def is_replaced(timers: Timers, name: str) -> bool:
    """Return whether the volumes of a StatefulSet grow, so that it may be absent for a moment."""
    return timers.keep(timer_of(name)) is not None


def with_live_size(wanted: Object, volumes: RingVolumes, least: int) -> Object:
    """Return a desired StatefulSet whose volumes are those of the live one while that is smaller.

    Until it can be made anew, it has no new ingestor either: that would get a volume of the former
    size. Where the claims cannot grow, ingestors come all the same.

    Args:
        wanted: the desired object.
        volumes: of its ring.
        least: the replicas that the hashrings need.
    """
    live = volumes.live
    if live is None or not volumes.set_is_small:
        return wanted
    spec = wanted["spec"] | {"volumeClaimTemplates": _resized(wanted, _template_size(live))}
    if not volumes.problem:
        there = max(int(dig(live, "spec", "replicas", default=1)), least)
        spec["replicas"] = min(spec["replicas"], there)
    return wanted | {"spec": spec}


def _resized(wanted: Object, size: str) -> list[Object]:
    return [
        claim | {"spec": claim["spec"] | {"resources": {"requests": {"storage": size}}}}
        for claim in wanted["spec"]["volumeClaimTemplates"]
    ]
