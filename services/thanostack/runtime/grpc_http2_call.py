"""What our own HTTP/2 side keeps of one call, and what bounds all calls together.

    collecting ──request complete──> answering ──> done
        body grows, counted            the handler runs, on the loop or in the pool

A call's bytes stay counted for as long as anything can still hold them: a job in the pool keeps its
request even when the client has gone, so the job gives them back and not the connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from thanostack.runtime import grpc_messages as messages
from thanostack.runtime.call_queue import CallThreads
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure
from thanostack.runtime.grpc_call import ROLE_FIELD, CallContext, Handlers, Observer, Report
from thanostack.runtime.loop_turns import LoopTurns

# A streaming handler is held back when so much of its answer waits for the client.
_ANSWER_BYTES_WAITING: Final = 1 << 20
REQUEST_TIMEOUT_S: Final = 60.0


class ByteBudget:
    """How many bytes of requests may be held at once; safe from any thread.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Return the bytes that are reserved now."""
        return self._used

    def take(self, n_bytes: int) -> None:
        """Reserve bytes.

        Raises:
            GrpcFailure: UNAVAILABLE if that is more than is left.
        """
        with self._lock:
            if self._used + n_bytes <= self._limit:
                self._used += n_bytes
                return
        raise GrpcFailure(
            # Not RESOURCE_EXHAUSTED: that is a bound of a tenant, for which senders are told 429.
            GrpcCode.UNAVAILABLE,
            f"requests in flight exceed {self._limit} bytes; send again later",
        )

    def give(self, n_bytes: int) -> None:
        """Return bytes that were reserved."""
        with self._lock:
            self._used -= n_bytes
            assert self._used >= 0, "more bytes returned than reserved"


@dataclass(frozen=True)
class Http2Service:
    """What all connections of one server share.

    Args:
        handlers: by full method name.
        elsewhere: full names of methods that only grpcio serves.
        threads: run what is not inline.
        budget: of all requests together.
        observer: told about every call.
        report: told about exceptions that are bugs.
        message_bytes_max: of one request, compressed or not.
        connection_age_s: after which clients are asked to connect again; 0 for never.
        age_grace_s: how long calls may go on after that.
        request_timeout_s: from a request's headers to its last byte.
        role: what the server says that it is, in every answer; empty for nothing.
        turns: of the connections on the loop.
    """

    handlers: Handlers
    threads: CallThreads
    budget: ByteBudget
    observer: Observer
    report: Report
    message_bytes_max: int
    connection_age_s: float = 0.0
    age_grace_s: float = 60.0
    request_timeout_s: float = field(default_factory=lambda: REQUEST_TIMEOUT_S)
    role: str = ""
    elsewhere: frozenset[str] = frozenset()
    turns: LoopTurns = field(default_factory=LoopTurns)

    @property
    def trailers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields that end every answer besides its status."""
        return ((ROLE_FIELD.encode(), self.role.encode()),) if self.role else ()


class Outflow:
    """Holds a streaming handler's thread back until the client has read enough."""

    def __init__(self) -> None:
        self._waiting, self._is_open = 0, True
        self._condition = threading.Condition()

    def add(self, n_bytes: int) -> bool:
        """Count bytes that are about to be queued, waiting for room; False if nobody reads."""
        with self._condition:
            while self._is_open and self._waiting > _ANSWER_BYTES_WAITING:
                self._condition.wait()
            self._waiting += n_bytes
            return self._is_open

    def sent(self, n_bytes: int) -> None:
        """Discount bytes that have left."""
        with self._condition:
            self._waiting -= n_bytes
            if self._waiting <= _ANSWER_BYTES_WAITING:
                self._condition.notify_all()

    def close(self) -> None:
        """Let the handler's thread go: the client does not read any more."""
        with self._condition:
            self._is_open = False
            self._condition.notify_all()


class Http2Call:
    """One call on our own HTTP/2 side.

    Args:
        method: the full name.
        context: for the handler.
        encoding: what `grpc-encoding` said, `identity` without it.
        started: when its headers came, on the monotonic clock.
    """

    __slots__ = (
        "_body", "_expected", "_held", "_is_compressed", "context", "deadline", "encoding",
        "has_begun", "is_answering", "is_in_pool", "method", "n_sent", "outflow", "started",
    )  # fmt: skip

    def __init__(self, method: str, context: CallContext, encoding: bytes, started: float) -> None:
        self.method, self.context, self.encoding, self.started = method, context, encoding, started
        self.has_begun = self.is_answering = self.is_in_pool = self._is_compressed = False
        self.deadline: asyncio.TimerHandle | None = None
        self.outflow = Outflow()
        self._body = bytearray()
        self._expected, self._held = -1, 0
        self.n_sent = 0

    @property
    def size(self) -> int:
        """Return how much of the request is here, its prefix included."""
        return len(self._body)

    def collect(self, data: bytes, service: Http2Service) -> None:
        """Add a piece of the request.

        Raises:
            GrpcFailure: if the request is too big, or is more than one message.
        """
        service.budget.take(len(data))
        self._held += len(data)
        self._body += data
        if self._expected < 0 and len(self._body) >= messages.PREFIX_BYTES:
            self._is_compressed, length = messages.split_prefix(self._body)
            messages.check_size(length, service.message_bytes_max)
            self._expected = messages.PREFIX_BYTES + length
        if 0 <= self._expected < len(self._body):
            raise GrpcFailure(GrpcCode.UNIMPLEMENTED, "client streaming is not served here")

    def require_complete(self) -> None:
        """Refuse a request that ended too early.

        Raises:
            GrpcFailure: INTERNAL.
        """
        if self._expected != len(self._body):
            raise GrpcFailure(GrpcCode.INTERNAL, "the request ended in the middle of a message")

    @contextmanager
    def request(self, service: Http2Service) -> Iterator[bytes]:
        """Yield the plain request, whose size stays reserved inside the `with` block.

        Raises:
            GrpcFailure: if it cannot be decompressed, or does not fit into the budget.
        """
        body, self._body = bytes(memoryview(self._body)[messages.PREFIX_BYTES :]), bytearray()
        if not self._is_compressed:
            yield body
            return
        reserved = 0

        def reserve(n_bytes: int) -> None:
            nonlocal reserved
            service.budget.take(n_bytes)
            reserved += n_bytes

        try:
            size_max = service.message_bytes_max
            yield messages.decompress(body, self.encoding, size_max=size_max, reserve=reserve)
        finally:
            service.budget.give(reserved)

    def release(self, budget: ByteBudget) -> None:
        """Drop the request and return its bytes to the budget."""
        self._body = bytearray()
        budget.give(self._held)
        self._held = 0
