"""Senders that do not wait for the receiver: a load of a fixed rate, whatever is answered.

    schedule ──due──> a sender that has no request under way ──request──> receiver
                 └── none: missed, so the rate was not what it says

Each sender has series of its own and one connection, and sends their next samples in order, so a
request that was refused leaves a gap and never an older sample for later. Nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter, deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, cast

import cramjam
import numpy as np
import uvloop

from thanostack.lib.model.label_runs import uvarint
from thanostack.testing.bodies import label, series_labels

PATIENCE_S: Final = 20.0
_TICK_S: Final = 0.002
_TIME_BYTES: Final = 6
"""Of a varint of milliseconds, from 2004 to 2109."""


class Template:
    """The request of one sender: only its timestamps change.

    Args:
        sender: its number; series carry it as the label `sender`.
        n_series: in each request, with one sample each.
    """

    def __init__(self, sender: int, n_series: int) -> None:
        raw, offsets = bytearray(), []
        for i in range(n_series):
            entry = series_labels(sender * n_series + i) + label("sender", str(sender))
            sample = b"\x09" + struct.pack("<d", float(i)) + b"\x10" + bytes(_TIME_BYTES)
            entry += b"\x12" + uvarint(len(sample)) + sample
            raw += b"\x0a" + uvarint(len(entry)) + entry
            offsets.append(len(raw) - _TIME_BYTES)
        self._raw = np.frombuffer(raw, np.uint8)
        self._at = np.asarray(offsets)

    def plain(self, t: int) -> bytes:
        """Return the request with this timestamp, in ms."""
        encoded = uvarint(t)
        assert len(encoded) == _TIME_BYTES
        for i, byte in enumerate(encoded):
            self._raw[self._at + i] = byte
        return self._raw.tobytes()


@dataclass
class Tally:
    """What became of requests.

    Args:
        due: how many should have been sent.
        missed: of those, how many were not, as every sender waited for an answer.
        statuses: answers by status.
        hasty: refusals (429, 503) without `Retry-After`.
        broken: connections that ended before the answer.
        late: requests that had no answer within the patience.
        latencies_s: of answers of 2xx.
        seconds: acknowledged requests by second of the load.
    """

    due: int = 0
    missed: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    hasty: int = 0
    broken: int = 0
    late: int = 0
    latencies_s: list[float] = field(default_factory=list)
    seconds: Counter[int] = field(default_factory=Counter)

    @property
    def acknowledged(self) -> int:
        """Return how many requests were answered with 2xx."""
        return sum(n for status, n in self.statuses.items() if status // 100 == 2)

    def quantile_s(self, q: float) -> float:
        """Return a quantile of the latency of acknowledged requests; 0 without any."""
        return float(np.quantile(self.latencies_s, q)) if self.latencies_s else 0.0


class Sender(asyncio.Protocol):
    """One connection, one request at a time.

    Args:
        number: of the sender.
        n_series: in each request.
        head: the request line and headers, without the length.
    """

    def __init__(self, number: int, n_series: int, head: bytes) -> None:
        self.number, self._head = number, head
        self.template = Template(number, n_series)
        # Timestamps, by what was answered; unknown without an answer.
        self.acknowledged: list[int] = []
        self.refused: list[int] = []
        self.unknown: list[int] = []
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[tuple[int, bool]] | None = None
        self._received = b""
        self._last = 0

    async def send(self, port: int, tally: Tally, begun: float) -> None:
        """Send the next request and count what becomes of it."""
        t = self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        started = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, has_retry = await self.ask(port, t)
        except TimeoutError:
            tally.late += 1
            self.unknown.append(t)
            self.close()
            return
        except OSError:
            tally.broken += 1
            self.unknown.append(t)
            return
        tally.statuses[status] += 1
        if status // 100 == 2:
            self.acknowledged.append(t)
            tally.latencies_s.append(time.monotonic() - started)
            tally.seconds[int(time.monotonic() - begun)] += 1
            return
        self.refused.append(t)
        tally.hasty += status in {429, 503} and not has_retry

    async def ask(self, port: int, t: int) -> tuple[int, bool]:
        """Send the samples of a time; return the status, and whether there was `Retry-After`.

        Raises:
            OSError: if the connection broke.
        """
        body = bytes(cramjam.snappy.compress_raw(self.template.plain(t)))
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, "127.0.0.1", port)
        assert self._transport is not None
        self._done, self._received = loop.create_future(), b""
        self._transport.write(b"%bcontent-length: %d\r\n\r\n" % (self._head, len(body)) + body)
        return await self._done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._received += data
        head, end, rest = self._received.lower().partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(rest) >= int(fields[b"content-length"]) and self._done and not self._done.done():
            self._done.set_result((int(head.split(b" ")[1]), b"retry-after" in fields))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("closed without an answer"))

    def close(self) -> None:
        """Give the connection up."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


class Senders:
    """All senders of one receiver.

    Args:
        port: of its remote-write endpoint.
        count: how many.
        n_series: of each.
        tenant: whose data it is.
    """

    def __init__(self, port: int, count: int, n_series: int, *, tenant: str) -> None:
        head = (
            "POST /api/v1/receive HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-encoding: snappy\r\n"
            "content-type: application/x-protobuf\r\nx-prometheus-remote-write-version: 0.1.0\r\n"
            f"thanos-tenant: {tenant}\r\n"
        ).encode()
        self.port, self.n_series = port, n_series
        self.all = [Sender(n, n_series, head) for n in range(count)]

    async def closed(self, n_senders: int, duration_s: float) -> Tally:
        """Let some senders send one request after the other."""
        tally, begun = Tally(), time.monotonic()

        async def work(sender: Sender) -> None:
            while time.monotonic() - begun < duration_s:
                tally.due += 1
                await sender.send(self.port, tally, begun)

        await asyncio.gather(*(work(sender) for sender in self.all[:n_senders]))
        return tally

    async def once(self, n_at_once: int = 8) -> Tally:
        """Let every sender send one request, a few at a time."""
        tally, begun, waiting = Tally(due=len(self.all)), time.monotonic(), deque(self.all)

        async def work() -> None:
            while waiting:
                await waiting.popleft().send(self.port, tally, begun)

        await asyncio.gather(*(work() for _ in range(n_at_once)))
        return tally

    async def open(self, rate: float, duration_s: float) -> Tally:
        """Send so many requests a second, whatever is answered; return when all are settled."""
        tally, begun, idle = Tally(), time.monotonic(), deque(self.all)
        under_way: set[asyncio.Task[None]] = set()

        async def work(sender: Sender) -> None:
            try:
                await sender.send(self.port, tally, begun)
            finally:
                idle.append(sender)

        while (passed := time.monotonic() - begun) < duration_s:
            due = int(passed * rate) - tally.due
            tally.due += due
            for _ in range(due):
                if idle:
                    task = asyncio.ensure_future(work(idle.popleft()))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                else:
                    tally.missed += 1
            await asyncio.sleep(_TICK_S)
        if under_way:
            await asyncio.wait(under_way)
        return tally

    async def close(self) -> None:
        """Close all connections."""
        for sender in self.all:
            sender.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a fast loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
