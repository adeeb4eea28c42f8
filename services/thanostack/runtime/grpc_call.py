"""What a gRPC method of ours is, and what it is told about the call it answers.

Handlers take and return raw bytes, so that hot methods can use kernels instead of message objects.
They do not know which of the two transports carries the call: grpcio, or our own HTTP/2 side
(`grpc_front`).

    Unary(function)          bytes → bytes
    ServerStream(function)   bytes → an iterator of bytes, pulled only as fast as the client reads

A handler fails by raising: an error of our tree is answered with its code from `error_mapping`, a
`GrpcFailure` with its own code, anything else with INTERNAL and a line in the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from thanostack.runtime.error_mapping import GrpcCode

ROLE_FIELD = "thanostack-role"
"""Trailing metadata in which a server of ours says what it is; unknown to everybody else."""

DEFAULT_THREADS = 32
MESSAGE_BYTES_MAX = 256 << 20


class CallContext:
    """One call, seen from its handler; safe to use from any thread.

    Args:
        metadata: what the client sent, keys in lower case; binary (`-bin`) entries are left out.
        peer: the client's address as `host:port`; `unix` where that is unknown.
        timeout_s: time that the client gives us; None for no limit.
    """

    __slots__ = ("_callbacks", "_deadline", "_is_active", "_lock", "metadata", "peer")

    def __init__(
        self, metadata: Mapping[str, str], peer: str, timeout_s: float | None = None
    ) -> None:
        self.metadata, self.peer = metadata, peer
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._callbacks: list[Callable[[], None]] = []
        self._is_active = True
        self._lock = threading.Lock()

    def is_active(self) -> bool:
        """Return whether anybody still waits for the answer."""
        remaining = self.time_remaining_s()
        return self._is_active and (remaining is None or remaining > 0)

    def time_remaining_s(self) -> float | None:
        """Return the seconds until the client's deadline, 0 when it passed, None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, once and from any thread, if the client goes away before the answer.

        A deadline that passes counts as going away. After the answer nothing is called.
        """
        with self._lock:
            if self._is_active:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Tell the handler that nobody waits any more; for transports."""
        for callback in self._end():
            callback()

    def finish(self) -> None:
        """Forget the callbacks: the answer is complete; for transports."""
        self._end()

    def _end(self) -> list[Callable[[], None]]:
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
            self._is_active = False
        return callbacks


UnaryHandler = Callable[[bytes, CallContext], bytes]
StreamHandler = Callable[[bytes, CallContext], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Unary:
    """One request, one answer.

    Args:
        handle: the method.
        inline: run it on the event loop where the transport allows; only for work of less than
            a millisecond that never waits.
        is_queued: run it on the threads of the server's `CallQueue`, and refuse it when too many
            wait there.
    """

    handle: UnaryHandler
    inline: bool = False
    is_queued: bool = False


@dataclass(frozen=True, slots=True)
class ServerStream:
    """One request, any number of answers; never queued."""

    handle: StreamHandler
    is_queued: ClassVar[bool] = False


Handlers = Mapping[str, Unary | ServerStream]


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """What an observer of calls is told when one has ended.

    Args:
        method: the full name, such as `/thanos.Store/Series`.
        is_stream: whether it answers with a stream.
        code: how it ended.
        duration_s: from the complete request to the last message handed to the transport.
        n_received: messages that came whole.
        n_sent: messages handed to the transport.
    """

    method: str
    is_stream: bool
    code: GrpcCode
    duration_s: float
    n_received: int = 0
    n_sent: int = 0


class Observer:
    """Is told about every call of a server or a client, from any thread; this one ignores it."""

    def started(self, method: str, *, is_stream: bool) -> None:
        """Take note of a call that begins, by its full name."""

    def ended(self, call: FinishedCall) -> None:
        """Take note of one that has ended."""

    def hit_bug(self) -> None:
        """Take note of a handler that raised what it should not; the call ends with INTERNAL."""


Report = Callable[[str, BaseException], None]
