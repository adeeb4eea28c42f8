"""What the querier counts of evaluations, under the names of Prometheus's engine and of Thanos.

Of the engine's slices only `inner_eval` is there, fetching included: preparing and sorting are no
steps of their own here, and waiting is what the gate's metric shows.

Source: Prometheus `promql/engine.go`; Thanos `pkg/store/telemetry.go`, `pkg/gate`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.promql.engine import QueryResult
from thanostack.runtime.tally import TallyHistogram

_ENGINE: Final = {"engine": "prometheus", "mode": "local"}
_SLICE_BUCKETS = (0.01, 0.1, 1, 10)


@dataclass(frozen=True, slots=True)
class TelemetryBuckets:
    """The buckets of `thanos_store_api_query_duration_seconds`.

    Args:
        seconds: of durations.
        samples: upper bounds that the label `samples_le` can name.
        series: those of `series_le`.
    """

    seconds: tuple[float, ...] = (0.1, 0.25, 0.75, 1.25, 1.75, 2.5, 3, 5, 10)
    samples: tuple[float, ...] = (100, 1000, 10_000, 100_000, 1_000_000)
    series: tuple[float, ...] = (10, 100, 1000, 10_000, 100_000)


@dataclass(slots=True)
class Fetched:
    """What one query fetched from endpoints, replicas counted each."""

    series: int = 0
    chunks: int = 0
    samples: int = 0

    def add(self, batch: SeriesBatch) -> None:
        """Count a batch."""
        starts = batch.chunks["start"]
        high, low = batch.data[starts].astype(np.int64), batch.data[starts + 1]
        self.series += len(batch)
        self.chunks += len(starts)
        self.samples += int((high * 256 + low).sum())


class EngineMetrics:
    """`prometheus_engine_*`, and Thanos's metrics of what a query selects.

    Args:
        registry: where they are registered.
        buckets: of the telemetry of requests.
    """

    def __init__(self, registry: CollectorRegistry, buckets: TelemetryBuckets) -> None:
        self._buckets = buckets
        self._queries = Gauge(
            "prometheus_engine_queries",
            "The current number of queries being executed or waiting.",
            list(_ENGINE),
            registry=registry,
        ).labels(**_ENGINE)
        self.queries_max = Gauge(
            "prometheus_engine_queries_concurrent_max",
            "The max number of concurrent queries.",
            list(_ENGINE),
            registry=registry,
        ).labels(**_ENGINE)
        self._samples = Counter(
            "prometheus_engine_query_samples_total",
            "The total number of samples loaded by all queries.",
            list(_ENGINE),
            registry=registry,
        ).labels(**_ENGINE)
        self._seconds = Summary(
            "prometheus_engine_query_duration_seconds",
            "Query timings",
            [*_ENGINE, "slice"],
            registry=registry,
        ).labels(**_ENGINE, slice="inner_eval")
        self._seconds_histogram = Histogram(
            "prometheus_engine_query_duration_histogram_seconds",
            "The duration of various parts of PromQL query execution.",
            [*_ENGINE, "slice"],
            buckets=_SLICE_BUCKETS,
            registry=registry,
        ).labels(**_ENGINE, slice="inner_eval")
        self._store_seconds = TallyHistogram(
            "thanos_store_api_query_duration_seconds",
            "Duration of the Thanos Store API select phase for a query.",
            ["series_le", "samples_le", "tenant"],
            buckets=sorted(set(buckets.seconds)),
            registry=registry,
        )
        self._register_selects(registry)

    def _register_selects(self, registry: CollectorRegistry) -> None:
        self._selects = Gauge(
            "thanos_query_concurrent_selects_gate_selects_in_flight",
            "Number of selects that are currently in flight.",
            registry=registry,
        )
        self._selects_total = Counter(
            "thanos_query_concurrent_selects_gate_selects_total",
            "Total number of selects.",
            registry=registry,
        )
        # Upstream: 0 is a gate that lets all through.
        Gauge(
            "thanos_query_concurrent_selects_gate_selects_max",
            "Maximum number of concurrent selects.",
            registry=registry,
        ).set(0)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count and time one evaluation, however it ends."""
        started = time.monotonic()
        try:
            with self._queries.track_inprogress():
                yield
        finally:
            duration_s = time.monotonic() - started
            self._seconds.observe(duration_s)
            self._seconds_histogram.observe(duration_s)

    @contextmanager
    def selecting(self, n_selects: int) -> Iterator[None]:
        """Count selects while they are fetched and merged."""
        self._selects_total.inc(n_selects)
        self._selects.inc(n_selects)
        try:
            yield
        finally:
            self._selects.dec(n_selects)

    def evaluated(
        self, result: QueryResult, fetched: Fetched, duration_s: float, tenant: str
    ) -> None:
        """Count what a query that succeeded has read.

        Args:
            result: the answer, with its cost.
            fetched: from endpoints; a query that fetched no sample is not timed, as upstream.
            duration_s: of the evaluation.
            tenant: as labels may show it.
        """
        self._samples.inc(result.stats.samples_read)
        if fetched.samples:
            series_le = bound_of(fetched.series, self._buckets.series)
            samples_le = bound_of(fetched.samples, self._buckets.samples)
            self._store_seconds.labels(series_le, samples_le, tenant).observe(duration_s)


def bound_of(value: float, bounds: Sequence[float]) -> str:
    """Return the smallest bound that holds a value, as upstream's labels spell it.

    Upstream: the largest bound itself already counts as above all.

    Example:
        >>> bound_of(10, (10, 100)), bound_of(11, (10, 100)), bound_of(100, (10, 100))
        ('10', '100', '+Inf')
    """
    if not bounds or value >= bounds[-1]:
        return "+Inf"
    return str(np.format_float_positional(bounds[bisect_left(bounds, value)], trim="-"))
