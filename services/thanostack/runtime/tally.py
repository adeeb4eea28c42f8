"""Histograms for hot paths: four times cheaper to observe than the client library's.

The library takes a lock and adds to several values, each an object; three such histograms a request
were a quarter of the write path. A tally is a list of counts and a sum. Exposition is the same.

Source: Prometheus text format, histograms; `prometheus_client` custom collectors.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """The observations of one label set; safe from any thread."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count one value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def snapshot(self) -> tuple[list[int], float]:
        """Return the counts of each bucket, not cumulative, and the sum."""
        with self._lock:
            return list(self._counts), self._sum


class TallyHistogram(Collector):
    """A histogram metric whose children are tallies.

    Args:
        name: of the metric.
        documentation: its help text.
        labels: their names.
        buckets: upper bounds, ascending, without infinity.
        registry: where it is registered.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = tuple(float(bound) for bound in buckets)
        self._children: dict[tuple[str, ...], Tally] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """Return the tally of one label set; keep it, looking it up is the slow part."""
        with self._lock:
            return self._children.setdefault(values, Tally(self._bounds))

    def remove(self, *values: str) -> None:
        """Show one label set no more; nothing if it is not there."""
        with self._lock:
            self._children.pop(values, None)

    def describe(self) -> Iterable[Metric]:
        """Return the metric without samples, so that its name is taken."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        with self._lock:
            children = list(self._children.items())
        for values, tally in children:
            counts, total = tally.snapshot()
            family.add_metric(values, cumulative_buckets(self._bounds, counts), total)
        yield family


def cumulative_buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return (bound, values up to it) as a histogram family wants them.

    Args:
        bounds: ascending, without infinity.
        counts: of each bucket, not cumulative; one more than bounds.
    """
    names = [floatToGoString(bound) for bound in (*bounds, float("inf"))]  # type: ignore[no-untyped-call]
    return list(zip(names, map(float, accumulate(counts)), strict=True))
