"""One request on its way to the nodes that get a part of it, until its fate is settled.

    forwards ──CallEnd──> FanOut ──Answer──> Quorum ──Verdict──> settled
                  timeout ──cancels what is open──^

Settled is not finished: what is still open goes on in the background until the timeout, so that
every replica that can have the data gets it.

Everything here runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, Protocol

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
        self._timer = loop.call_later(timeout_s, self._expire)

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
            text = f"{code_name(end.code)}: {end.text[:_REASON_CHARACTERS_MAX]}"
            self._reasons[node, text] += len(series)
        self._quorum.add(series, first, answer)
        if not self.settled.done() and (verdict := self._quorum.verdict()) is not None:
            self.settled.set_result(verdict)
        if self._quorum.is_complete:
            self._timer.cancel()

    def error(self, verdict: Verdict) -> ThanostackError | None:
        """Return what a request with this verdict failed with, None if it did not."""
        if verdict is Verdict.STORED:
            return None
        quorum = self._quorum
        n_missing = len(quorum.stored) - int(quorum.stored.sum())
        reasons = [
            f"{node}: {text} ({count} series)"
            for (node, text), count in self._reasons.most_common(_REASONS_SHOWN)
        ]
        more = len(self._reasons) - len(reasons)
        reasons += [f"{more} more"] * bool(more)
        return _ERRORS[verdict](
            f"{n_missing} of {len(quorum.stored)} series are not on {quorum.needed} of "
            f"{quorum.replicas} replicas: {'; '.join(reasons)}"
        )

    def _expire(self) -> None:
        end = CallEnd(GrpcCode.DEADLINE_EXCEEDED, f"no answer within {self._timeout_s:g} s")
        for forward in list(self._open.values()):
            forward.cancel(end)
        if not self.settled.done():
            # Not reached unless a forward got lost; a sender must have an answer even then.
            self.settled.set_result(Verdict.UNAVAILABLE)
