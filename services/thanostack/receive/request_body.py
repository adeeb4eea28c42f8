"""Reading a write request's body within bounds.

    one body            compressed size, declared or as it arrives          → 413
    one slow sender     time until the body is complete                     → 503, come back
    all bodies at once  bytes that have arrived, and those decoded from them → 503, come back

A body that does not come says nothing about what is in it: 408, as 400, would make a Prometheus
drop its samples. Upstream closes the connection, after which it sends them again as well.

Only bytes that are really here are counted against all: a sender that declares much and sends
nothing takes nothing from the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from thanostack.lib.foundation.errors import LimitExceeded, Unavailable
from thanostack.lib.remotewrite.snappy_body import TOO_LARGE
from thanostack.runtime.http_common import Message, Receive
from thanostack.runtime.memory_limit import memory_limit_bytes

_BUSY_RETRY_S: Final = 1
_INFLIGHT_MIN: Final = 32 << 20
_INFLIGHT_MAX: Final = 512 << 20


class ClientGone(Exception):
    """The sender went away before its body was complete."""


@dataclass(frozen=True)
class BodyLimits:
    """What one sender may make us hold.

    Args:
        decoded_bytes_max: of one body once decompressed; 0 is no limit.
        inflight_bytes_max: of all bodies together.
        arrival_max_s: for a body that does not come in one piece.
    """

    decoded_bytes_max: int
    inflight_bytes_max: int
    arrival_max_s: float = 60.0

    @property
    def compressed_bytes_max(self) -> int:
        """Return the most bytes that a body may have while it is read."""
        if not self.decoded_bytes_max:
            return self.inflight_bytes_max
        # Source: snappy's bound for what does not compress.
        return 32 + self.decoded_bytes_max + self.decoded_bytes_max // 6

    def check_size(self, size: int) -> None:
        """Raise LimitExceeded for more compressed bytes than one body may have."""
        if size > self.compressed_bytes_max:
            raise LimitExceeded("size_bytes_limit", self.compressed_bytes_max, size, text=TOO_LARGE)


def inflight_bytes_of(memory_bytes: int) -> int:
    """Return how many bytes of requests a process of so much memory may hold.

    What is made of a request takes as much again or, where it is routed, several times as much; the
    rest is for series.
    """
    return min(max(memory_bytes // 8, _INFLIGHT_MIN), _INFLIGHT_MAX)


def inflight_bytes_max(asked: int) -> int:
    """Return how many bytes of requests this process may hold.

    Args:
        asked: by `--receive.inflight-bytes-max`; 0 for what its memory allows.
    """
    return asked or inflight_bytes_of(memory_limit_bytes())


class InflightBytes:
    """How many bytes of requests are held; used from the event loop only.

    Args:
        limit: beyond it a request is refused, unless it is the only one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    @property
    def left(self) -> int:
        """Return how many more bytes may be held; less than none if one alone has more."""
        return self._limit - self.held

    def has_room(self, n_bytes: int) -> bool:
        """Return whether so many more bytes may be held beside others."""
        return self.held + n_bytes <= self._limit

    def enter(self, n_bytes: int, *, alone: bool) -> None:
        """Take bytes.

        Raises:
            Unavailable: if others hold too many.
        """
        if not alone and not self.has_room(n_bytes):
            raise Unavailable("too many bytes of write requests in flight", _BUSY_RETRY_S)
        self.held += n_bytes


class HeldBytes:
    """The bytes that one request holds, counted against all."""

    __slots__ = ("_all", "_bytes")

    def __init__(self, everything: InflightBytes) -> None:
        self._all, self._bytes = everything, 0

    def add(self, n_bytes: int) -> None:
        """Hold more; raises Unavailable if others hold too many."""
        self._all.enter(n_bytes, alone=self._all.held == self._bytes)
        self._bytes += n_bytes

    def release(self) -> None:
        """Hold nothing any more."""
        self._all.held -= self._bytes
        self._bytes = 0


async def read_body(
    receive: Receive, declared: int, limits: BodyLimits, held: HeldBytes
) -> bytes | bytearray:
    """Return the compressed body of a request.

    Args:
        receive: of ASGI.
        declared: the content length, 0 if there is none.
        limits: see `BodyLimits`.
        held: grows with what arrives.

    Raises:
        LimitExceeded: if the body is, or says that it is, too large.
        Unavailable: if all bodies together are, or it takes too long to arrive.
        ClientGone: if it never will.
    """
    limits.check_size(declared)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        limits.check_size(len(body))
        held.add(len(body))
        return body
    try:
        async with asyncio.timeout(limits.arrival_max_s):
            return await _read_parts(message, receive, limits, held)
    except TimeoutError as error:
        text = f"the body did not arrive within {limits.arrival_max_s:g} s"
        raise Unavailable(text, _BUSY_RETRY_S) from error


async def _read_parts(
    message: Message, receive: Receive, limits: BodyLimits, held: HeldBytes
) -> bytearray:
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        part = message.get("body", b"")
        body += part
        limits.check_size(len(body))
        held.add(len(part))
        if not message.get("more_body"):
            return body
        message = await receive()
