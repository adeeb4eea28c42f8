"""One run against a receive cluster: a load, faults in a row, and the books on each.

    Trial ──for each fault──> break, mend ── write on ── read everything back ──> Tally

A quorum lives throughout: *nothing* may be refused, at the first answer, without retries. Only what
was on its way through a router at the moment of its `kill -9` is excused, as nobody can answer for
a dead process: a request counts as *cut* if its connection broke, its router was killed, and the
kill was between its first byte and its end.

After each fault, and while an ingestor is dead, everything is read through the querier: *lost* is
an acknowledged sample that is not there, *invented* one that is there and was never sent.

The faults themselves are in `receive_faults`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from thanostack.testing.held_samples import Held, missing, n_missing, of_query, size, without
from thanostack.testing.receive_cluster import Cluster, Node
from thanostack.testing.write_senders import ACKNOWLEDGED, RESET, Senders, Write

_EXTERNAL: Final = ("tenant_id", "replica")
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
        self.senders.await_writes(6)
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

    def held(self, node: Node | None = None) -> Held:
        """Return every sample of this run that can be read, or that one node has."""
        at_s = self.senders.begun_ms / 1000 + 7200
        of_node = f',replica="{node.name}"' if node else ""
        query = f'{{__name__=~".+",run="{self.senders.run}"{of_node}}}[3h]'
        found = of_query(self.cluster.query, query, at_s, dedup="false" if node else "true")
        return without(found, *_EXTERNAL)


Fault = Callable[[Trial], None]


def _is_cut(write: Write, kills: Sequence[tuple[str, float, float]]) -> bool:
    return write.outcome == RESET and any(
        name == write.endpoint and write.begun_s <= ended_s and begun_s <= write.ended_s
        for name, begun_s, ended_s in kills
    )
