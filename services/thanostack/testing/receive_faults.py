"""What breaks a receive cluster under load, and the books that say what it cost.

    Trial ──for each fault──> break, mend ── write on ── read everything back ──> Tally

A fault chooses its victim and its moments from the run's randomness. One node is down at a time, so
a quorum lives throughout: *nothing* may be refused, at the first answer, without retries. Only what
was on its way through a router at the moment of its `kill -9` is excused, as nobody can answer for
a dead process: a request counts as *cut* if its connection broke, its router was killed, and the
kill was between its first byte and its end.

After each fault, and while an ingestor is dead, everything is read through the querier: *lost* is
an acknowledged sample that is not there, *invented* one that is there and was never sent.

A fault follows at once upon the former: a node that is ready is up, whatever the routers believe. A
node behind a link that is mended is up when it takes writes again, as retransmissions have pauses.

The last three faults need a place of their own for their victim: see `hostile_places`.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from thanostack.testing.held_samples import Held, missing, n_missing, of_query, size, without
from thanostack.testing.hostile_places import Link, SmallDisk, network_of_its_own, small_disk
from thanostack.testing.processes import until
from thanostack.testing.receive_cluster import Cluster, Node, Place, running_cluster
from thanostack.testing.write_senders import ACKNOWLEDGED, RESET, Senders, Write

_EXTERNAL: Final = "tenant_id"
_DISK_MIB: Final = 64
END: Final = "end"
"""Instead of a fault's name: of the tally of what came behind the last one."""


@dataclass
class Tally:
    """What one fault cost: writes, then samples.

    Args:
        run, ring, fault: which.
        sent, acknowledged: writes.
        refused: writes that were answered with something else, or not at all, by outcome.
        cut: writes on their way through a router at the moment of its `kill -9`.
        readable, lost, invented: samples; readable are those acknowledged during this fault.
        slowest_s: the longest that a write took.
        details: of what is wrong.
    """

    run: int
    ring: int
    fault: str
    sent: int = 0
    acknowledged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    readable: int = 0
    lost: int = 0
    invented: int = 0
    slowest_s: float = 0.0
    details: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return everything but the details in one line."""
        refused = ", ".join(f"{n} x {outcome}" for outcome, n in sorted(self.refused.items()))
        return (
            f"run {self.run:<4} ring {self.ring} {self.fault:17} writes: {self.sent} sent, "
            f"{self.acknowledged} acknowledged, {self.refused.total()} refused"
            f"{f' ({refused})' if refused else ''}, {self.cut} cut; samples: {self.readable} "
            f"readable, {self.lost} lost, {self.invented} invented; slowest {self.slowest_s:.2f} s"
        )

    @property
    def is_good(self) -> bool:
        """Return whether nothing was refused, lost or invented."""
        return not (self.refused.total() or self.lost or self.invented)


@dataclass
class Trial:
    """One run: senders with a number of their own upon a cluster, and faults in a row.

    Args:
        cluster: that is broken.
        senders: that write to it.
        source: of victims and moments.
        patience_s: how long what is acknowledged may take to be readable.
    """

    cluster: Cluster
    senders: Senders
    source: random.Random
    patience_s: float = 30.0
    counted: list[int] = field(init=False)
    """Of each sender, how many writes are in a tally."""

    def __post_init__(self) -> None:
        self.counted = [0] * len(self.senders.senders)

    def pause(self, least_s: float, most_s: float) -> None:
        """Wait a moment, under load."""
        time.sleep(self.source.uniform(least_s, most_s))

    def victim(self) -> Node:
        """Return an ingestor of the ring."""
        return self.source.choice(self.cluster.ring)

    def run(self, faults: Iterable[tuple[str, Fault]]) -> Iterator[Tally]:
        """Yield what each of some faults cost, then what was left: every write is in one tally."""
        try:
            for name, fault in faults:
                yield self._suffer(name, fault)
        finally:
            self.senders.halt()
        yield self._tally(END)

    def _suffer(self, name: str, fault: Fault) -> Tally:
        """Let a fault happen, write on, and read back all that this run has written."""
        self.pause(0, 0.3)
        fault(self)
        self.senders.await_writes(3)
        return self._tally(name)

    def _tally(self, name: str) -> Tally:
        tally = Tally(self.senders.run, self.cluster.ring_size, name)
        before, self.counted = self.counted, self.senders.mark()
        self._count_writes(tally, self.senders.between(before, self.counted))
        self._read(tally, before)
        return tally

    def check_now(self) -> None:
        """Read back all that is acknowledged, while something is broken.

        Raises:
            AssertionError: if anything is lost.
        """
        mark = self.senders.mark()
        acknowledged = self.senders.acknowledged([0] * len(mark), mark)
        lost = self._await_all(acknowledged)[1]
        assert not lost, f"not readable while a node is down: {lost[:5]}"

    def _count_writes(self, tally: Tally, writes: Sequence[Write]) -> None:
        for write in writes:
            tally.sent += 1
            tally.slowest_s = max(tally.slowest_s, write.ended_s - write.begun_s)
            if write.outcome == ACKNOWLEDGED:
                tally.acknowledged += 1
            elif _is_cut(write, self.cluster.kills):
                tally.cut += 1
            else:
                tally.refused[write.outcome] += 1
                tally.details.append(f"{write.outcome} by {write.endpoint}: {write.text}")

    def _read(self, tally: Tally, before: list[int]) -> None:
        acknowledged = self.senders.acknowledged([0] * len(before), self.senders.mark())
        during = self.senders.acknowledged(before, self.counted)
        held, lost = self._await_all(acknowledged)
        sent = self.senders.sent()
        invented = missing(held, sent)
        tally.lost = n_missing(acknowledged, held)
        tally.readable = size(during) - n_missing(during, held)
        tally.invented = n_missing(held, sent)
        tally.details += [f"lost {line}" for line in lost[:5]]
        tally.details += [f"invented {line}" for line in invented[:5]]

    def _await_all(self, acknowledged: Held) -> tuple[Held, list[str]]:
        """Read until all is there: a querier takes seconds to hear that a node is back."""
        deadline = time.monotonic() + self.patience_s
        while True:
            held = self.held()
            lost = missing(acknowledged, held)
            if not lost or time.monotonic() > deadline:
                return held, lost
            time.sleep(0.5)

    def held(self) -> Held:
        """Return every sample of this run that can be read."""
        at_s = self.senders.begun_ms / 1000 + 7200
        query = f'{{__name__=~".+",run="{self.senders.run}"}}[3h]'
        return without(of_query(self.cluster.query, query, at_s), _EXTERNAL)


Fault = Callable[[Trial], None]


def _is_cut(write: Write, kills: Sequence[tuple[str, float, float]]) -> bool:
    return write.outcome == RESET and any(
        name == write.endpoint and write.begun_s <= ended_s and begun_s <= write.ended_s
        for name, begun_s, ended_s in kills
    )


def kill_ingestor(trial: Trial) -> None:
    """`kill -9`, writes and reads without it, and a new life in the same directory."""
    victim = trial.victim()
    victim.server.kill()
    trial.pause(0.2, 2)
    trial.check_now()
    victim.restart()


def kill_router(trial: Trial) -> None:
    """`kill -9`; its clients go to the other one."""
    victim = trial.source.choice(trial.cluster.routers)
    trial.cluster.kill_router(victim)
    trial.pause(0.2, 1)
    trial.cluster.revive_router(victim)


def restart_router(trial: Trial) -> None:
    """SIGTERM; the Service goes on sending it connections for a moment."""
    _restart_router(trial, trial.source.choice(trial.cluster.routers))


def restart_ingestor(trial: Trial) -> None:
    """SIGTERM, and a new life as soon as the old one has ended."""
    victim = trial.victim()
    victim.server.stop()
    victim.restart()


def slow_ingestor(trial: Trial) -> None:
    """A peer that accepts and does not answer, for less or more than the forward timeout."""
    victim = trial.victim()
    victim.pause()
    try:
        trial.pause(1, 8)
    finally:
        victim.resume()


def rolling_restart(trial: Trial) -> None:
    """Every ingestor and every router is restarted, the next one when the last one is ready."""
    for node in trial.cluster.ring:
        node.server.stop()
        node.restart()
    for router in trial.cluster.routers:
        _restart_router(trial, router)


def grow(trial: Trial) -> None:
    """Two ingestors more; for a while the routers have different rings."""
    trial.cluster.resize(5, trial.source.uniform(0, 1))
    trial.pause(0.5, 1)


def shrink(trial: Trial) -> None:
    """Two ingestors less; what they hold stays readable."""
    trial.cluster.resize(3, trial.source.uniform(0, 1))
    trial.pause(0.5, 1)


def black_hole(link: Link, victim: int) -> Fault:
    """Return a fault: packets to and from an ingestor vanish, for less or more than the timeout."""

    def fault(trial: Trial) -> None:
        link.black_hole()
        try:
            trial.pause(1, 7)
            trial.check_now()
        finally:
            link.heal()
        _await_appended(trial.cluster.ingestors[victim])

    return fault


def flapping_link(link: Link, victim: int) -> Fault:
    """Return a fault: the way to an ingestor is there and not there, in turn."""

    def fault(trial: Trial) -> None:
        try:
            for _ in range(5):
                link.black_hole()
                trial.pause(0.1, 1)
                link.heal()
                trial.pause(0.1, 0.5)
        finally:
            link.heal()
        _await_appended(trial.cluster.ingestors[victim])

    return fault


def full_disk(disk: SmallDisk, victim: int) -> Fault:
    """Return a fault: an ingestor's disk has no byte left, then has space again."""

    def fault(trial: Trial) -> None:
        node = trial.cluster.ingestors[victim]
        disk.fill()
        try:
            until("a full disk", lambda: _stands_still(node, trial.senders), 20)
            trial.pause(0.5, 3)
            trial.check_now()
        finally:
            disk.free()
        _await_appended(node)

    return fault


def _stands_still(node: Node, senders: Senders) -> bool:
    """Return whether a node stores nothing of what is written."""
    before = node.appended()
    senders.await_writes(3)
    return node.appended() == before


def _await_appended(node: Node) -> None:
    """Wait until a node has stored more than now.

    Raises:
        TimeoutError: if it does not within ten seconds.
    """
    before = node.appended()
    until(f"{node.name} to take writes again", lambda: node.appended() > before, 10)


def _restart_router(trial: Trial, router: Node) -> None:
    router.server.process.terminate()
    trial.pause(0, 0.5)
    trial.cluster.service.remove(router.name)
    router.server.process.wait(60)
    trial.cluster.revive_router(router)


FAULTS: Final[dict[str, Fault]] = {
    "kill-ingestor": kill_ingestor,
    "kill-router": kill_router,
    "restart-ingestor": restart_ingestor,
    "restart-router": restart_router,
    "slow-ingestor": slow_ingestor,
    "rolling-restart": rolling_restart,
    "grow": grow,
    "shrink": shrink,
}


def drawn(
    source: random.Random, ring_size: int, faults: Mapping[str, Fault]
) -> list[tuple[str, Fault]]:
    """Return three to five faults in a row; a ring of three can only grow, one of five shrink."""
    chosen = []
    for _ in range(source.randint(3, 5)):
        impossible = "shrink" if ring_size == 3 else "grow"
        name = source.choice([name for name in faults if name != impossible])
        if name in {"grow", "shrink"}:
            ring_size = 8 - ring_size
        chosen.append((name, faults[name]))
    return chosen


@contextlib.contextmanager
def plain_cluster(folder: Path) -> Iterator[tuple[Cluster, Mapping[str, Fault]]]:
    """Run five ingestors that are processes as any other, and yield them with their faults."""
    with running_cluster(folder, [Place()] * 5) as cluster:
        yield cluster, FAULTS


@contextlib.contextmanager
def hostile_cluster(folder: Path) -> Iterator[tuple[Cluster, Mapping[str, Fault]]]:
    """Run five ingestors, one behind a link that can be cut, one on a disk that can be filled.

    Raises:
        NotPossibleHere: without root, `ip` or `mount`.
    """
    with network_of_its_own() as link, small_disk(folder / "disk", _DISK_MIB) as disk:
        places = [Place()] * 5
        places[1] = Place(link.host, link.prefix)
        places[2] = Place(folder=disk.folder / "ingestor-2")
        with running_cluster(folder, places) as cluster:
            yield (
                cluster,
                {
                    **FAULTS,
                    "black-hole": black_hole(link, 1),
                    "flapping-link": flapping_link(link, 1),
                    "full-disk": full_disk(disk, 2),
                },
            )
