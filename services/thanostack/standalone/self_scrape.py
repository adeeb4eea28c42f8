"""The process's own metrics as series, as if a Prometheus scraped them.

    registry ──collect──> samples ──> WriteRequest ──> router or storage, as any other write

What HTTP requests pass before, the limits file's bounds of requests and relabeling, is not in
between: rules for senders would take from whoever looks after this process the figures that say so.
Storage's own bounds, such as that of active series, hold.

Each scrape also writes what Prometheus adds: `up`, `scrape_duration_seconds`,
`scrape_samples_scraped`. A series that the previous scrape had and this one has not gets a stale
marker, so that it ends now and not five minutes later.

Source: Prometheus `scrape/scrape.go`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import Clock
from thanostack.lib.foundation.errors import ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.pb import prometheus_remote_pb2
from thanostack.receive.http_api import WriteTarget
from thanostack.runtime.logs import Logger

INTERVAL_S: Final = 15.0
JOB: Final = "thanos-standalone"
TENANT: Final = Tenant(JOB)
"""Nobody else's: a head takes nothing much older than its newest sample, so a scrape at the start
would shut out what senders have kept for this process while it was away."""
STALE: Final[float] = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The NaN whose bits mean that a series has ended; other NaNs are values."""

SeriesLabels = tuple[tuple[str, str], ...]
Samples = dict[SeriesLabels, float]


class SelfScrape:
    """Scrapes one registry.

    Args:
        registry: of this process.
        instance: the label that names it, host:port.
        clock: gives each scrape its time.
    """

    def __init__(self, registry: CollectorRegistry, instance: str, clock: Clock) -> None:
        self._registry, self._clock = registry, clock
        self._target = {"job": JOB, "instance": instance}
        self._last: frozenset[SeriesLabels] = frozenset()

    def scrape(self) -> bytes:
        """Return one scrape as a remote-write 1.0 message; not for the event loop."""
        time_ms, started = self._clock.now_ms(), self._clock.monotonic_s()
        scraped = self._collect()
        samples = dict(scraped or ())
        report = {
            "up": float(scraped is not None),
            "scrape_duration_seconds": self._clock.monotonic_s() - started,
            "scrape_samples_scraped": float(len(samples)),
        }
        ended = self._last - samples.keys()
        self._last = frozenset(samples)
        samples |= {self._labels(name, {}): value for name, value in report.items()}
        return encode([*samples.items(), *((labels, STALE) for labels in ended)], time_ms)

    def _collect(self) -> Samples | None:
        """Return the samples of all collectors, None if one of them breaks."""
        try:
            return {
                self._labels(sample.name, sample.labels): float(sample.value)
                for family in self._registry.collect()
                for sample in family.samples
            }
        except Exception:  # whatever it is, the target is down, as for an outside scraper
            return None

    def _labels(self, name: str, labels: dict[str, str]) -> SeriesLabels:
        # Upstream: a scraped label of the target's name is kept under another.
        own = {f"exported_{n}" if n in self._target else n: v for n, v in labels.items() if v}
        return tuple(sorted({"__name__": name, **own, **self._target}.items()))


def encode(samples: Iterable[tuple[SeriesLabels, float]], time_ms: int) -> bytes:
    """Return samples of one time as a remote-write 1.0 message."""
    request = prometheus_remote_pb2.WriteRequest()
    for labels, value in samples:
        series = request.timeseries.add()
        for name, text in labels:
            series.labels.add(name=name, value=text)
        series.samples.add(timestamp=time_ms, value=value)
    return request.SerializeToString()


async def scrape_forever(
    target: SelfScrape,
    sink: WriteTarget,
    tenant: Tenant,
    log: Logger,
    *,
    pause: Callable[[], float] = lambda: INTERVAL_S,
) -> None:
    """Scrape at once and then every 15 s; what goes wrong is logged and tried again next time."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        body = await asyncio.to_thread(target.scrape)
        try:
            error = (await sink.write(tenant, np.frombuffer(body, np.uint8), 1)).error()
        except ThanostackError as failure:
            error = failure
        if error is not None:
            log.warning("own metrics were not stored", err=error)
        due = max(due + pause(), loop.time())
        await asyncio.sleep(due - loop.time())
