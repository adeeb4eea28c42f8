"""Receive's metrics, under upstream's names.

What routing counts is in `routing_metrics`. `prometheus_tsdb_*{tenant}` is read from storage when
someone scrapes, never on the write path.

Source: Thanos `pkg/receive/handler.go`, `multitsdb.go`; Prometheus `tsdb/head.go`, `tsdb/db.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.tsdb.options import Distribution, TSDBStats
from thanostack.receive.limit_metrics import LimitMetrics
from thanostack.receive.service import Outcome
from thanostack.runtime.metrics import OTHER_TENANTS, TENANTS_LABELLED_MAX, HTTPMetrics
from thanostack.runtime.store_server_metrics import StoreServerMetrics
from thanostack.runtime.tally import Tally, TallyHistogram, cumulative_buckets

# Upstream: pkg/receive/handler.go, up to the forward timeout of 5 s.
_DURATION_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.25, 0.5, 0.75,
    1, 2, 3, 4, 5,
)  # fmt: skip
_REQUEST_BUCKETS = (10, 50, 100, 500, 1000, 5000, 10000)


class ReceiveMetrics:
    """Everything the write paths count.

    Args:
        registry: where it is registered.
        inflight_bytes_max: the bound of bytes in flight; shown only.
    """

    def __init__(self, registry: CollectorRegistry, *, inflight_bytes_max: int) -> None:
        self.http = HTTPMetrics(registry, _DURATION_BUCKETS)
        self.store_server = StoreServerMetrics(registry)
        self._series = TallyHistogram(
            "thanos_receive_write_timeseries",
            "The number of timeseries received in the incoming write requests.",
            ["code", "tenant"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._samples = TallyHistogram(
            "thanos_receive_write_samples",
            "The number of samples received in the incoming write requests.",
            ["code", "tenant"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._refused = Counter(
            "thanostack_receive_refused_samples_total",
            "Samples that storage refused, by reason.",
            ["tenant", "reason"],
            registry=registry,
        )
        self.failed = Counter(
            "thanostack_receive_failed_writes_total",
            "Write requests that failed for a reason on this side, by kind of error.",
            ["error"],
            registry=registry,
        )
        self.pending = Gauge(
            "thanos_receive_pending_write_requests",
            "The number of pending write requests.",
            registry=registry,
        )
        self.forwarded_waiting = Gauge(
            "thanostack_receive_forwarded_writes_waiting",
            "Writes that other receivers have sent over gRPC and that wait for a thread.",
            registry=registry,
        )
        self.inflight_bytes = Gauge(
            "thanostack_receive_inflight_bytes",
            "Bytes of write requests held now.",
            registry=registry,
        )
        Gauge(
            "thanostack_receive_inflight_bytes_max",
            "Most bytes of write requests that are held at once.",
            registry=registry,
        ).set(inflight_bytes_max)
        self.limits = LimitMetrics(registry)
        self._bound: dict[tuple[int, str], tuple[Tally, Tally]] = {}
        self._tenants: set[str] = set()

    def observe(self, outcome: Outcome, code: int) -> None:
        """Count the series and samples of one request, by tenant."""
        for tenant, n_series, result in outcome.parts:
            series, samples = self._of_tenant(code, tenant)
            series.observe(n_series)
            if isinstance(result, Exception):
                continue
            samples.observe(result.samples)
            for reason, count in result.rejected.items():
                self._refused.labels(self._label(tenant), reason).inc(count)
            if "series_limit" in result.rejected:
                self.limits.limited(tenant)

    def _of_tenant(self, code: int, tenant: str) -> tuple[Tally, Tally]:
        key = (code, self._label(tenant))
        found = self._bound.get(key)
        if found is None:
            labels = (str(code), key[1])
            found = (self._series.labels(*labels), self._samples.labels(*labels))
            self._bound[key] = found
        return found

    def _label(self, tenant: str) -> str:
        # Bound: tenant names come from clients.
        if tenant not in self._tenants:
            if len(self._tenants) >= TENANTS_LABELLED_MAX:
                return OTHER_TENANTS
            self._tenants.add(tenant)
        return tenant


class Stat(NamedTuple):
    """How one figure of a TSDB is exposed.

    Args:
        metric: the metric's name; a counter's without `_total`.
        help: its help text.
        is_counter: or a gauge.
        type_label: value of upstream's label `type`, empty where it has none.
        count_field: for a summary, the figure that counts what this one sums up.
        spread: what a `Distribution` is exposed as.
    """

    metric: str
    help: str
    is_counter: bool = True
    type_label: str = ""
    count_field: str = ""
    spread: Literal["", "summary", "histogram"] = ""


_PREFIX: Final = "prometheus_tsdb_"
_OURS: Final = "thanostack_tsdb_"

STATS: Final[Mapping[str, Stat]] = {
    "head_series": Stat(f"{_PREFIX}head_series", "Series in the head.", is_counter=False),
    "head_series_created": Stat(f"{_PREFIX}head_series_created", "Series created in the head."),
    "head_series_removed": Stat(f"{_PREFIX}head_series_removed", "Series removed in the head."),
    "head_chunks": Stat(f"{_PREFIX}head_chunks", "Chunks in the head.", is_counter=False),
    "head_chunks_created": Stat(f"{_PREFIX}head_chunks_created", "Chunks begun in the head."),
    "head_chunks_removed": Stat(f"{_PREFIX}head_chunks_removed", "Chunks removed from the head."),
    "chunks_mapped": Stat(f"{_PREFIX}mmap_chunks", "Full chunks moved to chunks_head."),
    "chunk_file_corruptions": Stat(
        f"{_PREFIX}mmap_chunk_corruptions", "Corruptions found in chunks_head."
    ),
    "head_min_time": Stat(
        f"{_PREFIX}head_min_time", "Oldest time of the head, ms.", is_counter=False
    ),
    "head_max_time": Stat(
        f"{_PREFIX}head_max_time", "Newest time of the head, ms.", is_counter=False
    ),
    "samples_appended": Stat(
        f"{_PREFIX}head_samples_appended", "Samples appended.", type_label="float"
    ),
    "out_of_order_samples": Stat(
        f"{_PREFIX}out_of_order_samples", "Samples refused as out of order.", type_label="float"
    ),
    "out_of_bound_samples": Stat(
        f"{_PREFIX}out_of_bound_samples", "Samples refused as out of bounds.", type_label="float"
    ),
    "too_far_in_future_samples": Stat(
        f"{_OURS}too_far_in_future_samples", "Samples refused as too far in the future."
    ),
    "duplicate_conflicts": Stat(
        f"{_OURS}conflicting_samples", "Samples refused as another value is stored."
    ),
    "head_truncations": Stat(f"{_PREFIX}head_truncations", "Truncations of the head attempted."),
    "head_truncations_failed": Stat(
        f"{_PREFIX}head_truncations_failed", "Truncations of the head that failed."
    ),
    "head_gc_duration_s": Stat(
        f"{_PREFIX}head_gc_duration_seconds",
        "Runtime of garbage collection in the head.",
        spread="summary",
    ),
    "compactions_triggered": Stat(
        f"{_PREFIX}compactions_triggered", "Times it was looked for blocks to cut."
    ),
    "compactions": Stat(f"{_PREFIX}compactions", "Blocks cut from the head."),
    "compactions_failed": Stat(f"{_PREFIX}compactions_failed", "Cuts of blocks that failed."),
    "populating_block": Stat(
        f"{_PREFIX}compaction_populating_block", "1 while a block is written.", is_counter=False
    ),
    "compaction_duration_s": Stat(
        f"{_PREFIX}compaction_duration_seconds", "Duration of writing a block.", spread="histogram"
    ),
    "compaction_chunk_bytes": Stat(
        f"{_PREFIX}compaction_chunk_size_bytes", "Size of chunks in blocks.", spread="histogram"
    ),
    "compaction_chunk_samples": Stat(
        f"{_PREFIX}compaction_chunk_samples", "Samples of chunks in blocks.", spread="histogram"
    ),
    "compaction_chunk_range_s": Stat(
        f"{_PREFIX}compaction_chunk_range_seconds",
        "Time range of chunks in blocks.",
        spread="histogram",
    ),
    "checkpoint_creations": Stat(f"{_PREFIX}checkpoint_creations", "Checkpoints attempted."),
    "checkpoint_creations_failed": Stat(
        f"{_PREFIX}checkpoint_creations_failed", "Checkpoints that failed."
    ),
    "checkpoint_deletions": Stat(
        f"{_PREFIX}checkpoint_deletions", "Deletions of old checkpoints attempted."
    ),
    "checkpoint_deletions_failed": Stat(
        f"{_PREFIX}checkpoint_deletions_failed", "Deletions of old checkpoints that failed."
    ),
    "wal_truncations": Stat(f"{_PREFIX}wal_truncations", "Truncations of the log attempted."),
    "wal_truncations_failed": Stat(
        f"{_PREFIX}wal_truncations_failed", "Truncations of the log that failed."
    ),
    "wal_truncate_duration_s": Stat(
        f"{_PREFIX}wal_truncate_duration_seconds",
        "Duration of truncations of the log.",
        spread="summary",
    ),
    "wal_corruptions": Stat(f"{_PREFIX}wal_corruptions", "Corruptions found in the log."),
    "wal_fsyncs": Stat(f"{_OURS}wal_fsyncs", "Syncs of the log to disk."),
    "wal_fsync_duration_s": Stat(
        f"{_PREFIX}wal_fsync_duration_seconds",
        "Duration of syncs of the log.",
        count_field="wal_fsyncs",
    ),
    "wal_page_flushes": Stat(f"{_PREFIX}wal_page_flushes", "Page flushes of the log."),
    "wal_completed_pages": Stat(f"{_PREFIX}wal_completed_pages", "Completed pages of the log."),
    "wal_writes_failed": Stat(f"{_PREFIX}wal_writes_failed", "Writes to the log that failed."),
    "wal_segment_current": Stat(
        f"{_PREFIX}wal_segment_current", "Segment that is written.", is_counter=False
    ),
    "wal_storage_size_bytes": Stat(
        f"{_PREFIX}wal_storage_size_bytes", "Size of the log.", is_counter=False
    ),
    "head_chunks_storage_size_bytes": Stat(
        f"{_PREFIX}head_chunks_storage_size_bytes", "Size of chunks_head.", is_counter=False
    ),
    "blocks_loaded": Stat(f"{_PREFIX}blocks_loaded", "Blocks loaded.", is_counter=False),
    # Upstream has none: it does not open a directory with such a block.
    "blocks_unreadable": Stat(
        f"{_OURS}unreadable_blocks", "Blocks left out as they are damaged.", is_counter=False
    ),
    "blocks_bytes": Stat(f"{_PREFIX}storage_blocks_bytes", "Size of all blocks.", is_counter=False),
    "symbol_table_bytes": Stat(
        f"{_PREFIX}symbol_table_size_bytes",
        "Memory that the symbol tables of blocks take.",
        is_counter=False,
    ),
    "reloads": Stat(f"{_PREFIX}reloads", "Times that blocks were opened or deleted."),
    "reloads_failed": Stat(
        f"{_PREFIX}reloads_failures", "Times that blocks could not be opened or deleted."
    ),
    "lowest_timestamp": Stat(
        f"{_PREFIX}lowest_timestamp", "Oldest time that is stored, ms.", is_counter=False
    ),
    "time_retentions": Stat(
        f"{_PREFIX}time_retentions", "Times that blocks were deleted for their age."
    ),
    "size_retentions": Stat(
        f"{_PREFIX}size_retentions", "Times that blocks were deleted for the size of all."
    ),
    "retention_limit_bytes": Stat(
        f"{_PREFIX}retention_limit_bytes", "Most bytes that are kept; 0 = any.", is_counter=False
    ),
    "retention_limit_s": Stat(
        f"{_PREFIX}retention_limit_seconds",
        "How long blocks are kept; 0 = always.",
        is_counter=False,
    ),
    "replay_duration_s": Stat(
        f"{_PREFIX}data_replay_duration_seconds", "Duration of the replay.", is_counter=False
    ),
    "clean_start": Stat(
        f"{_PREFIX}clean_start",
        "-1: there is no lock file; 0: a previous process left its own; 1: it left none.",
        is_counter=False,
    ),
    "replay_unknown_refs": Stat(
        f"{_PREFIX}wal_replay_unknown_refs",
        "Samples in the log without their series.",
        type_label="samples",
    ),
}
"""Every figure of a TSDB and the metric it is; a test compares it with `TSDBStats`."""

_Family = GaugeMetricFamily | CounterMetricFamily | SummaryMetricFamily | HistogramMetricFamily


class TSDBCollector(Collector):
    """`prometheus_tsdb_*{tenant}`, read when someone scrapes.

    Args:
        stats: returns each open tenant's figures.
        quarantined: returns the tenants that are set aside.
    """

    def __init__(
        self,
        stats: Callable[[], Mapping[Tenant, TSDBStats]],
        quarantined: Callable[[], Mapping[Tenant, str]],
    ) -> None:
        self._stats, self._quarantined = stats, quarantined

    def describe(self) -> Iterable[Metric]:
        """Return nothing: which tenants there are is not known at registration."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield one family a metric, with every tenant."""
        tenants = self._stats()
        for name, stat in STATS.items():
            yield _family(name, stat, tenants)
        yield GaugeMetricFamily(
            "thanostack_receive_tenants", "Tenants whose storage is open.", value=len(tenants)
        )
        yield GaugeMetricFamily(
            "thanostack_receive_quarantined_tenants",
            "Tenants whose writes are refused: their storage is damaged, full, or locked.",
            value=len(self._quarantined()),
        )


def _family(name: str, stat: Stat, tenants: Mapping[Tenant, TSDBStats]) -> _Family:
    labels = ["type", "tenant"] if stat.type_label else ["tenant"]
    if stat.spread:
        return _spread_family(name, stat, tenants)
    if stat.count_field:
        summary = SummaryMetricFamily(stat.metric, stat.help, labels=labels)
        for tenant, figures in tenants.items():
            count = getattr(figures, stat.count_field)
            summary.add_metric([tenant], count, getattr(figures, name))
        return summary
    kind = CounterMetricFamily if stat.is_counter else GaugeMetricFamily
    family = kind(stat.metric, stat.help, labels=labels)
    for tenant, figures in tenants.items():
        values = [stat.type_label, tenant] if stat.type_label else [tenant]
        family.add_metric(values, float(getattr(figures, name)))
    return family


def _spread_family(name: str, stat: Stat, tenants: Mapping[Tenant, TSDBStats]) -> _Family:
    spreads: dict[str, Distribution] = {t: getattr(figures, name) for t, figures in tenants.items()}
    if stat.spread == "summary":
        summary = SummaryMetricFamily(stat.metric, stat.help, labels=["tenant"])
        for tenant, spread in spreads.items():
            summary.add_metric([tenant], sum(spread.counts), spread.total)
        return summary
    histogram = HistogramMetricFamily(stat.metric, stat.help, labels=["tenant"])
    for tenant, spread in spreads.items():
        buckets = cumulative_buckets(spread.bounds, spread.counts)
        histogram.add_metric([tenant], buckets, spread.total)
    return histogram
