"""A feeder for looking around: two Prometheus replicas with gaps at different times.

    python -m thanostack.standalone.demo [url of the write port]

Both replicas see the same targets, a few seconds apart, as a highly available pair does. Replica a
is away from minute 5 to 16 of every half hour, replica b from minute 18 to 29, so that at
least one is always there. The last hour is written first, then it goes on live.

Values depend on the time alone: a second run continues where another one ended, and what is
already stored is refused (409) and skipped.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cramjam
import httpx

from thanostack.lib.foundation.units import DAY_MS, MINUTE_MS, SECOND_MS
from thanostack.lib.pb import prometheus_remote_pb2

INTERVAL_MS: Final = 15 * SECOND_MS
# The head takes samples up to an hour older than its newest one, and it has newer ones already.
BACKFILL_MS: Final = 58 * MINUTE_MS
_BATCH: Final = 20
_RETRY_S: Final = 2.0
_TRIES_UNSAID: Final = 15
"""Of so many tries that fail alike, one is told: every half minute."""
_CYCLE_MIN: Final = 30
_REQUESTS: Final = (("/api", "200", 12.0), ("/api", "500", 0.4), ("/home", "200", 30.0))
_ROOMS: Final = (("kitchen", 21.0), ("attic", 27.0))
_HEADERS: Final = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the pair.

    Args:
        name: value of the replica label.
        offset_ms: how much later than the other it scrapes.
        away: minutes of each half hour, first inclusive, last exclusive, when it is not there.
    """

    name: str
    offset_ms: int
    away: tuple[int, int]

    def is_away(self, time_ms: int) -> bool:
        """Return whether it scrapes nothing at a time."""
        minute = time_ms // MINUTE_MS % _CYCLE_MIN
        return self.away[0] <= minute < self.away[1]


REPLICAS: Final = (Replica("a", 0, (5, 16)), Replica("b", 4 * SECOND_MS, (18, 29)))


def _wave(time_ms: int, period_min: float, phase: float = 0.0) -> float:
    return math.sin(2 * math.pi * time_ms / (period_min * MINUTE_MS) + phase)


def _requests_total(time_ms: int, rate: float) -> float:
    """Return a counter since midnight whose rate swings by half around `rate`."""
    seconds = time_ms % DAY_MS / 1000
    angle = 2 * math.pi / (20 * 60)
    return math.floor(rate * (seconds + (1 - math.cos(angle * seconds)) / (2 * angle)))


def values_at(time_ms: int) -> Iterator[tuple[Labels, float]]:
    """Yield each series and its value at a time."""
    yield {"__name__": "up"}, 1.0
    for handler, code, rate in _REQUESTS:
        labels = {"__name__": "demo_requests_total", "handler": handler, "code": code}
        yield labels, _requests_total(time_ms, rate)
    for phase, (room, mean) in enumerate(_ROOMS):
        value = mean + 3 * _wave(time_ms, 40, phase) + 0.4 * _wave(time_ms, 3, phase)
        yield {"__name__": "demo_temperature", "room": room}, round(value, 2)


def write_request(replica: Replica, times: list[int]) -> bytes:
    """Return what a replica scraped at some times, snappy-compressed; empty if it was away."""
    request = prometheus_remote_pb2.WriteRequest()
    target = {"job": "demo", "instance": "demo:8080", "prometheus_replica": replica.name}
    columns: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
    for time_ms in times:
        if replica.is_away(time_ms):
            continue
        for labels, value in values_at(time_ms):
            key = tuple(sorted((labels | target).items()))
            columns.setdefault(key, []).append((time_ms + replica.offset_ms, value))
    for key, samples in columns.items():
        series = request.timeseries.add()
        for name, text in key:
            series.labels.add(name=name, value=text)
        for time_ms, value in samples:
            series.samples.add(timestamp=time_ms, value=value)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString())) if columns else b""


def backfill_batches(now_ms: int) -> Iterator[list[int]]:
    """Yield the scrape times of the past hour, ascending, in batches."""
    first = (now_ms - BACKFILL_MS) // INTERVAL_MS * INTERVAL_MS + INTERVAL_MS
    times = list(range(first, now_ms - max(r.offset_ms for r in REPLICAS), INTERVAL_MS))
    for start in range(0, len(times), _BATCH):
        yield times[start : start + _BATCH]


async def feed(url: str) -> None:
    """Write the past hour, then go on live for ever; say so when the receiver takes nothing.

    Raises:
        httpx.HTTPStatusError: when the receiver says that what it was sent is wrong.
    """
    async with httpx.AsyncClient(headers=_HEADERS, timeout=30, trust_env=False) as client:
        newest = 0
        for times in backfill_batches(time.time_ns() // 1_000_000):
            await _send(client, url, times)
            newest = times[-1]
        while True:
            newest += INTERVAL_MS
            ready_ms = newest + max(replica.offset_ms for replica in REPLICAS)
            await asyncio.sleep(max(0.0, ready_ms / 1000 - time.time()))
            await _send(client, url, [newest])


async def _send(client: httpx.AsyncClient, url: str, times: list[int]) -> None:
    for replica in REPLICAS:
        body = write_request(replica, times)
        if body:
            await _send_until_taken(client, url, body)


async def _send_until_taken(client: httpx.AsyncClient, url: str, body: bytes) -> None:
    tries = 0
    while reason := await _why_not_taken(client, url, body):
        if tries % _TRIES_UNSAID == 0:
            _say(f"{url}: {reason}; trying again every {_RETRY_S:.0f} s")
        tries += 1
        await asyncio.sleep(_RETRY_S)
    if tries:
        _say(f"{url}: takes writes again")


async def _why_not_taken(client: httpx.AsyncClient, url: str, body: bytes) -> str:
    """Return why a request needs a second try, "" if it needs none."""
    try:
        response = await client.post(url, content=body)
    except httpx.TransportError as error:
        return f"unreachable: {str(error) or type(error).__name__}"
    if response.status_code == httpx.codes.CONFLICT:
        return ""
    if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return f"answers {response.status_code}: {response.text.strip()[:200]}"
    response.raise_for_status()
    return ""


def _say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Feed the write port named on the command line until interrupted."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:19291/api/v1/receive"
    print(f"feeding {url}; end with Ctrl-C", flush=True)
    try:
        asyncio.run(feed(url))
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main()
