"""One request on its way to the nodes that get a part of it, until its fate is settled.

    forwards ──CallEnd──> FanOut ──Answer──> Quorum ──Verdict──> settled
        │          timeout ──cancels what is open──^
        └──NOT_TRIED──> postponed ──the others are not enough──> tried after all

Settled is not finished: what is still open goes on in the background until the timeout, so that
every replica that can have the data gets it.

A forward to a node that is believed to be down is *postponed*: it costs a request nothing as long
as the other nodes are enough. It is tried as soon as they may not be, when more nodes are in
trouble than a quorum can spare, or one of the others takes long: a node that is back is no reason
to refuse a write, and whether it is back only a try can tell.

The timeout is the nodes', not ours. A process that was stopped for a while, or got no processor,
finds the timer due before it has read what the nodes answered meanwhile; it reads first.

Everything here runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from thanostack.lib.foundation.errors import (
    InvalidInput,
    QuorumNotReached,
    ReplicasExhausted,
    SampleRejected,
    ThanostackError,
)
from thanostack.lib.remotewrite.forward import Int32Array
from thanostack.receive.quorum import Answer, Quorum, Verdict
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_metrics import code_name
from thanostack.runtime.http2_client import CallEnd

PATIENCE_S: Final = 0.2
STANDSTILL_S: Final = 0.1
"""A timer that is so late says that the loop stood still."""
GRACE_S: Final = 0.5
"""For reading what came while the loop stood still; many round trips."""
_REASONS_SHOWN: Final = 8
_REASON_CHARACTERS_MAX: Final = 300
_ANSWERS: Final = {
    GrpcCode.OK: Answer.SUCCESS,
    GrpcCode.ALREADY_EXISTS: Answer.CONFLICT,
    GrpcCode.INVALID_ARGUMENT: Answer.INVALID,
    GrpcCode.RESOURCE_EXHAUSTED: Answer.LIMITED,
}
# What a peer answers if its replication factor is lower than ours: the flags are wrong, not the
# request, and a sender must keep what it has until they are mended.
_BAD_REPLICA: Final = "replica exceeds receiver replication factor"
_ERRORS: Final[dict[Verdict, type[ThanostackError]]] = {
    Verdict.CONFLICT: SampleRejected,
    Verdict.INVALID: InvalidInput,
    Verdict.LIMITED: ReplicasExhausted,
    Verdict.UNAVAILABLE: QuorumNotReached,
}


class Cancellable(Protocol):
    """A forward that can be given up."""

    def cancel(self, end: CallEnd) -> None:
        """End it with what is given."""


class _Postponed(NamedTuple):
    """A forward that is not tried yet: what it would answer, and how to try it."""

    series: Int32Array
    first: int
    node: str
    end: CallEnd
    attempt: Callable[[], None]


def answer_of(end: CallEnd) -> Answer:
    """Return what the end of a forward means for the series in it.

    Every code that says nothing about the request itself is transient: a sender loses nothing by
    another try.
    """
    if _BAD_REPLICA in end.text:
        return Answer.TRANSIENT
    return _ANSWERS.get(end.code, Answer.TRANSIENT)


class FanOut:
    """The forwards of one request.

    Args:
        quorum: of its series.
        timeout_s: after which open forwards are given up.
    """

    def __init__(self, quorum: Quorum, timeout_s: float) -> None:
        self._quorum = quorum
        self._open: dict[int, Cancellable] = {}
        self._timeout_s = timeout_s
        self._reasons: Counter[tuple[str, str]] = Counter()
        loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[Verdict] = loop.create_future()
        self._due_s = loop.time() + timeout_s
        self._timer = loop.call_at(self._due_s, self._time_out)
        self._loop, self._impatience = loop, self._timer
        self._postponed: list[_Postponed] = []
        self._is_expired = False
        self._in_trouble: set[str] = set()

    def begun(self, key: int, forward: Cancellable) -> None:
        """Remember a forward that is open, to be given up at the timeout."""
        self._open[key] = forward

    def ended(self, key: int) -> None:
        """Forget a forward that has ended; the timeout has nothing to do after the last one."""
        self._open.pop(key, None)

    def answer(self, series: Int32Array, first: int, node: str, end: CallEnd) -> None:
        """Take what one node says to one replica of some series, whose numbers begin at `first`."""
        answer = answer_of(end)
        if answer is not Answer.SUCCESS:
            self._in_trouble.add(node)
            text = f"{code_name(end.code)}: {end.text[:_REASON_CHARACTERS_MAX]}"
            self._reasons[node, text] += len(series)
        self._quorum.add(series, first, answer)
        if not self.settled.done() and (verdict := self._quorum.verdict()) is not None:
            self.settled.set_result(verdict)
        self._look_at_postponed()
        if self._quorum.is_complete:
            self._timer.cancel()

    def postpone(
        self, series: Int32Array, first: int, node: str, end: CallEnd,
        attempt: Callable[[], None],
    ) -> None:  # fmt: skip
        """Take note of a forward to a node that is down.

        Args:
            series: see `answer`, which is told if the forward turns out not to be needed.
            first: as well.
            node: as well.
            end: as well.
            attempt: called once if the forward is needed; tries it.
        """
        self._in_trouble.add(node)
        if not self._postponed:
            self._impatience = self._loop.call_later(
                min(PATIENCE_S, self._timeout_s / 2), self._try_postponed
            )
        self._postponed.append(_Postponed(series, first, node, end, attempt))
        self._look_at_postponed()

    def _look_at_postponed(self) -> None:
        if not self._postponed:
            return
        if self.settled.done() or self._is_expired:
            self._impatience.cancel()
            while self._postponed:
                kept = self._postponed.pop()
                self.answer(kept.series, kept.first, kept.node, kept.end)
        elif len(self._in_trouble) > self._quorum.replicas - self._quorum.needed:
            self._try_postponed()

    def _try_postponed(self) -> None:
        self._impatience.cancel()
        postponed, self._postponed = self._postponed, []
        for kept in postponed:
            kept.attempt()

    def error(self, verdict: Verdict) -> ThanostackError | None:
        """Return what a request with this verdict failed with, None if it did not."""
        if verdict is Verdict.STORED:
            return None
        quorum = self._quorum
        n_lost, n_series = int(quorum.lost.sum()), len(quorum.lost)
        # A request is settled by the first series that cannot be stored any more.
        at_least = "" if quorum.is_complete or n_lost == n_series else "at least "
        reasons = [
            f"{node}: {text} ({count} series)"
            for (node, text), count in self._reasons.most_common(_REASONS_SHOWN)
        ]
        more = len(self._reasons) - len(reasons)
        reasons += [f"{more} more"] * bool(more)
        return _ERRORS[verdict](
            f"{at_least}{n_lost} of {n_series} series are not on {quorum.needed} of "
            f"{quorum.replicas} replicas: {'; '.join(reasons)}"
        )

    def _time_out(self) -> None:
        if self._loop.time() - self._due_s > STANDSTILL_S:
            self._timer = self._loop.call_later(GRACE_S, self._expire)
        else:
            self._expire()

    def _expire(self) -> None:
        # First: what is given up here may be a reason to try others, and it is too late for that.
        self._is_expired = True
        self._look_at_postponed()
        end = CallEnd(GrpcCode.DEADLINE_EXCEEDED, f"no answer within {self._timeout_s:g} s")
        for forward in list(self._open.values()):
            forward.cancel(end)
        if not self.settled.done():
            # Not reached unless a forward got lost; a sender must have an answer even then.
            self.settled.set_result(Verdict.UNAVAILABLE)
