"""Who is in each hashring after this plan: one step at most, and what the next one waits for.

    publish first ──► [acknowledged by every router] ──► one joins │ one leaves │ zones │ tenants
                                 ▲                                     │
                                 └─────────────────────────────────────┘

Rules, each the answer to what broke elsewhere:
- A ring is first published when all its desired ingestors are ready, so it is never too small.
- Nothing moves until every running router has the hash of the text that stands; else routers that
  lag disagree by two steps.
- At most one member changes a step. The highest ordinal that is not desired leaves, if the others
  are ready and enough; else the lowest ready ordinal that is missing joins.
- A member that becomes unready stays: shrinking the ring when something crashed drowns the rest.
- A ring that joins others is published when every querier knows it: what is written can be read.
- A ring that left the spec goes when every ring of the spec was published.

Source: Thanos `pkg/receive` (a ring smaller than the replication factor fails);
thanos-receive-controller issues 69, 70, 75, 89, 91, 92.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from thanostack_operator.api.receive import Ring
from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.hashrings import Member, config_hash, render
from thanostack_operator.manifests.names import ingestor_name, query_name, receive_name

from .observed import Ingestor, Observed, dig
from .published import Members, Published
from .times import Timers
from .workload import is_rolling

# A router forwards for at most 5 s by the ring that it had; the rest is margin.
SETTLE_S = 10.0
# Bound: of the replication factor, by the schema.
_FACTOR_MAX = 5
_FACTOR_FLAG = "--receive.replication-factor="


@dataclass(frozen=True)
class RingStep:
    """The hashrings after this plan.

    Args:
        text: what the ConfigMap has to hold; None if nothing can be published yet.
        members: in ``text``, by ring.
        changed: names of rings whose members or zones this plan changes.
        publishes: whether this plan writes a text that does not stand yet.
        acknowledged: whether ``text`` stood already and every running router has it.
        settled: ``acknowledged``, for so long that no router still forwards by a former text.
        notes: what this plan changes, for people.
        waiting: by ring, the next step and what it waits for.
    """

    text: str | None = None
    members: Members = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    publishes: bool = False
    acknowledged: bool = False
    settled: bool = False
    notes: tuple[str, ...] = ()
    waiting: dict[str, str] = field(default_factory=dict)


def lagging(observed: Observed, text: str) -> list[str]:
    """Return, for people, the running routers that do not have a text in force."""
    expected = config_hash(text)
    return [
        f"router {router.pod} "
        + (
            f"does not tell its hashrings ({router.error or 'no answer'})"
            if router.config_hash is None
            else "has former hashrings"
        )
        for router in observed.routers
        if router.config_hash != expected
    ]


def ring_step(
    stack: ThanosStack, observed: Observed, published: Published, timers: Timers
) -> RingStep:
    """Return the hashrings after this plan."""
    if published.damage and published.members:
        text = render(stack, published.members)
        return RingStep(text, published.members, publishes=True, notes=(published.damage,))
    first, unready = _first_members(stack, observed, published.members)
    if published.text is None:
        return _published(stack, RingStep(waiting=unready), first, {})
    unread = {name: why for name in first if (why := _unread(stack, observed, name))}
    first = {name: members for name, members in first.items() if name not in unread}
    here = RingStep(published.text, published.members, waiting=unready | unread)
    behind = lagging(observed, published.text)
    if behind:
        return replace(here, waiting=_waiting_for_routers(stack, here, behind[0]))
    elapsed_s = timers.elapsed_s(f"acknowledged/{int(config_hash(published.text))}")
    here = replace(here, acknowledged=True, settled=elapsed_s >= SETTLE_S)
    return _move(stack, observed, here, first)


def _first_members(
    stack: ThanosStack, observed: Observed, members: Members
) -> tuple[dict[str, tuple[Member, ...]], dict[str, str]]:
    """Return the members of rings that can be published first, and why others cannot be."""
    first: dict[str, tuple[Member, ...]] = {}
    waiting: dict[str, str] = {}
    floor = _floor(stack, observed)
    for ring in stack.spec.receive.rings:
        if ring.name in members:
            continue
        seen = _seen(observed, ring)
        unready = [n for n in range(ring.replicas) if not (n in seen and seen[n].ready)]
        if unready:
            waiting[ring.name] = f"publish the ring: {_ingestors(unready)} not ready"
        elif ring.replicas < floor.members:
            waiting[ring.name] = f"publish the ring: {floor.reason}"
        else:
            first[ring.name] = tuple(_member(ring, seen[n]) for n in range(ring.replicas))
    return first, waiting


def knows_ring(stack: ThanosStack, observed: Observed, ring: str) -> bool:
    """Return whether the queriers' live template reads a ring."""
    live = observed.find("Deployment", query_name(stack.name))
    service = f".{ingestor_name(stack.name, ring)}."
    containers = dig(live, "spec", "template", "spec", "containers", default=[])
    return any(service in str(flag) for c in containers for flag in dig(c, "args", default=[]))


def _unread(stack: ThanosStack, observed: Observed, ring: str) -> str:
    """Return why a ring would be written to and not be read; empty if it would be."""
    name = query_name(stack.name)
    live = observed.find("Deployment", name)
    if live is None or (knows_ring(stack, observed, ring) and not is_rolling(live)):
        return ""
    return f"publish the ring: {name} does not read it yet"


def _waiting_for_routers(stack: ThanosStack, here: RingStep, reason: str) -> dict[str, str]:
    return here.waiting | {
        ring.name: f"acknowledge the hashrings: {reason}"
        for ring in stack.spec.receive.rings
        if ring.name in here.members
    }


def _move(stack: ThanosStack, observed: Observed, here: RingStep, first: Members) -> RingStep:
    """Return the step from hashrings that every router has."""
    names = [ring.name for ring in stack.spec.receive.rings]
    gone = {ring: of for ring, of in here.members.items() if ring not in names}
    if gone and any(name not in here.members and name not in first for name in names):
        held = dict.fromkeys(gone, "leave the hashrings: other rings are not published yet")
        return replace(here, waiting=here.waiting | held)
    if gone or first:
        return _published(stack, here, first, gone)
    return _member_step(stack, observed, here)


def _published(stack: ThanosStack, here: RingStep, first: Members, gone: Members) -> RingStep:
    """Return a step by which whole rings enter and leave."""
    if not first and not gone:
        return here
    members = {ring: of for ring, of in here.members.items() if ring not in gone} | dict(first)
    notes = [f"ring {ring} is published with {len(of)} ingestors" for ring, of in first.items()]
    notes += [f"ring {ring} leaves the hashrings" for ring in gone]
    return RingStep(
        render(stack, members),
        members,
        frozenset(first) | frozenset(gone),
        publishes=True,
        notes=tuple(notes),
        waiting=here.waiting,
    )


def _member_step(stack: ThanosStack, observed: Observed, here: RingStep) -> RingStep:
    """Return a step by which one member of one ring changes, or no member but the text."""
    waiting = dict(here.waiting)
    floor = _floor(stack, observed)
    for ring in stack.spec.receive.rings:
        former = here.members.get(ring.name, ())
        if not former:
            continue
        after, note = _next_members(ring, former, _seen(observed, ring), floor)
        if after == former:
            waiting |= {ring.name: note} if note else {}
            continue
        members = dict(here.members) | {ring.name: after}
        text = render(stack, members)
        # Other rings wait for this step; what they wait for is computed once it is done.
        return RingStep(
            text,
            members,
            frozenset({ring.name}),
            publishes=True,
            notes=(f"ring {ring.name}: {note}",),
            waiting=waiting,
        )
    text = render(stack, here.members)
    if text != here.text:
        notes = ("tenants or order of the rings change",)
        return RingStep(text, here.members, publishes=True, notes=notes, waiting=waiting)
    return replace(here, waiting=waiting)


@dataclass(frozen=True)
class _Floor:
    """How small a ring may be.

    Args:
        members: the least number of members.
        reason: why so many.
    """

    members: int
    reason: str


def _floor(stack: ThanosStack, observed: Observed) -> _Floor:
    """Return how small a ring may be for the routers that run, not only for the spec.

    A replication factor that falls reaches the routers by a rollout; until it is over some of them
    may need as many members as any factor.
    """
    factor = stack.spec.receive.replication_factor
    live = observed.find("Deployment", receive_name(stack.name))
    if live is not None and is_rolling(live):
        return _Floor(_FACTOR_MAX, "the routers are rolling out")
    least = max(factor, factor_of(live or {}))
    return _Floor(least, f"the routers need {least} members")


def factor_of(deployment: dict[str, object]) -> int:
    """Return the replication factor that a Deployment's template gives its routers."""
    return max(1, *_factors(deployment), 1)


def _factors(deployment: dict[str, object]) -> Iterator[int]:
    for container in dig(deployment, "spec", "template", "spec", "containers", default=[]):
        for flag in dig(container, "args", default=[]):
            name, _, value = str(flag).partition(_FACTOR_FLAG)
            if not name and value.isdecimal():
                yield int(value)


def _next_members(
    ring: Ring, former: tuple[Member, ...], seen: dict[int, Ingestor], floor: _Floor
) -> tuple[tuple[Member, ...], str]:
    """Return the members after one step and what it is; the former and what it waits for."""
    inside = {member.ordinal for member in former}
    surplus = [ordinal for ordinal in inside if ordinal >= ring.replicas]
    missing = [ordinal for ordinal in range(ring.replicas) if ordinal not in inside]
    waiting = ""
    if surplus:
        leaves = max(surplus)
        waiting = _why_it_stays(leaves, inside, seen, floor)
        if not waiting:
            return tuple(m for m in former if m.ordinal != leaves), f"ingestor {leaves} leaves"
    ready = [ordinal for ordinal in missing if ordinal in seen and seen[ordinal].ready]
    if ready:
        joins = _member(ring, seen[ready[0]])
        return tuple(sorted((*former, joins))), f"ingestor {joins.ordinal} joins"
    if missing and not waiting:
        waiting = f"admit ingestor {missing[0]}: it is not ready"
    if surplus or missing:
        return former, waiting
    return _rezoned(ring, former, seen)


def _why_it_stays(leaves: int, inside: set[int], seen: dict[int, Ingestor], floor: _Floor) -> str:
    step = f"let ingestor {leaves} leave"
    if len(inside) - 1 < floor.members:
        return f"{step}: {floor.reason}"
    unready = sorted(n for n in inside - {leaves} if not (n in seen and seen[n].ready))
    return f"{step}: {_ingestors(unready)} not ready" if unready else ""


def _rezoned(
    ring: Ring, former: tuple[Member, ...], seen: dict[int, Ingestor]
) -> tuple[tuple[Member, ...], str]:
    """Return the members with the zones of their nodes, all in one step: none joins or leaves.

    A zone that changes reshuffles the replicas of what the ring already holds, so one that is not
    known for a moment changes nothing.
    """
    after = tuple(
        _member(ring, seen[m.ordinal])
        if m.ordinal in seen and seen[m.ordinal].ready and seen[m.ordinal].zone
        else (m if ring.zones == "Auto" else Member(m.ordinal))
        for m in former
    )
    return after, "zones change" if after != former else ""


def _member(ring: Ring, ingestor: Ingestor) -> Member:
    return Member(ingestor.ordinal, ingestor.zone if ring.zones == "Auto" else "")


def _seen(observed: Observed, ring: Ring) -> dict[int, Ingestor]:
    return {ingestor.ordinal: ingestor for ingestor in observed.ingestors.get(ring.name, ())}


def _ingestors(ordinals: list[int]) -> str:
    several = len(ordinals) > 1
    shown = ", ".join(map(str, ordinals[:5])) + (", …" if len(ordinals) > 5 else "")
    return f"ingestor{'s' * several} {shown} {'are' if several else 'is'}"
