"""What a StoreAPI server counts of its Series calls, under upstream's names.

Source: Thanos `pkg/store/telemetry.go`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Gauge, Histogram

_SERIES_BUCKETS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
_CHUNK_BUCKETS = (1, 100, 1000, 10_000, 100_000, 10_000_000, 100_000_000, 1_000_000_000)


class StoreServerMetrics:
    """`thanos_store_server_*` of one process.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._series = Histogram(
            "thanos_store_server_series_requested",
            "Number of requested series for Series calls",
            buckets=_SERIES_BUCKETS,
            registry=registry,
        )
        self._chunks = Histogram(
            "thanos_store_server_chunks_requested",
            "Number of requested chunks for Series calls",
            buckets=_CHUNK_BUCKETS,
            registry=registry,
        )
        self._pending = Gauge(
            "thanos_store_server_pending_series_requests",
            "Number of pending series requests",
            registry=registry,
        )

    def pending(self) -> AbstractContextManager[None]:
        """Return the context in which one Series call is answered."""
        return self._pending.track_inprogress()

    def sent(self, n_series: int, n_chunks: int) -> None:
        """Count one whole answer; a call that fails counts no series, as upstream."""
        self._series.observe(n_series)
        self._chunks.observe(n_chunks)
