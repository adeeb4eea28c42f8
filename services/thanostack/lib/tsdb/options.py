"""How a tenant's storage is kept, and the plain figures it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.units import DAY_MS, HOUR_MS

Report = Callable[[str, Mapping[str, Any]], None]
"""Takes an event that someone may want to log: a constant message, and facts."""

MILESTONES = frozenset(
    {
        "cut a block from the head",
        "deleted blocks beyond retention",
        "pruned an idle tenant",
        "tenant is no longer quarantined",
    }
)
"""Reported events that are expected in the course of things; all others want a look."""


def quiet(message: str, facts: Mapping[str, Any]) -> None:
    """Report to nobody."""
    del message, facts


@dataclass(frozen=True, slots=True)
class SeriesLimits:
    """What a new series must keep to; series that are in the head go on. 0 is no limit.

    Args:
        series: most series in the head.
        label_names: most labels of a series.
        label_name_bytes: of each name.
        label_value_bytes: of each value.
    """

    series: int = 0
    label_names: int = 0
    label_name_bytes: int = 0
    label_value_bytes: int = 0


NO_LIMITS = SeriesLimits()


@dataclass(frozen=True, slots=True)
class TSDBOptions:
    """Storage of one tenant; what bounds samples, series and retention may change while it is open.

    Args:
        retention_ms: blocks that end this long before the newest one are deleted; 0 keeps all.
        retention_bytes: oldest blocks are deleted beyond this size; 0 is no bound.
        min_block_ms: the span of a block cut from the head.
        max_block_ms: the longest span local compaction makes; equal to `min_block_ms` on receive.
        wal_compression: of log records.
        wal_fsync: when the log is synced, see `WALOptions`.
        segment_bytes: of the log.
        no_lockfile: do not lock the directory.
        too_far_in_future_ms: samples further ahead of the clock are refused; 0 takes all.
        series_max: bound of series in one tenant's head, for which address space is reserved.
        limits: what new series must keep to.
        tenants_max: bound of tenants; each takes two file handles and reserves address space, and
            a header is enough to make one.
    """

    retention_ms: int = 15 * DAY_MS
    retention_bytes: int = 0
    min_block_ms: int = 2 * HOUR_MS
    max_block_ms: int = 2 * HOUR_MS
    wal_compression: Literal["snappy", "zstd", "none"] = "snappy"
    wal_fsync: Literal["segment", "interval", "always"] = "segment"
    segment_bytes: int = 128 * 1024 * 1024
    no_lockfile: bool = False
    too_far_in_future_ms: int = DAY_MS
    series_max: int = 1 << 23
    limits: SeriesLimits = NO_LIMITS
    tenants_max: int = 2_000


@dataclass(slots=True)
class WriteResult:
    """What became of one request.

    Args:
        samples: float samples in it.
        stored: of these, logged and readable.
        duplicates: of these, stored before with the same bits; a success.
        series_created: new series.
        rejected: reason -> samples refused (for `invalid_labels` and `histogram`: entries).
        series_limit: the limit of series, where `rejected` has that reason.
        example: one refused series with its reason, "" if none.
        exemplars, histograms: entries seen; neither is stored yet.
        series: in the request.
    """

    samples: int = 0
    stored: int = 0
    duplicates: int = 0
    series_created: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    series_limit: int = 0
    example: str = ""
    exemplars: int = 0
    histograms: int = 0
    series: int = 0


@dataclass(slots=True)
class Distribution:
    """How values are spread: counts between bounds.

    Args:
        bounds: upper bounds, inclusive, ascending; a last bucket holds what is above.
            With none only the number of values and their sum are kept.
        counts: one more than bounds, not cumulative.
        total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, values: npt.ArrayLike) -> None:
        """Count values: [n] of any number type."""
        array = np.asarray(values, np.float64)
        found = np.bincount(np.searchsorted(self.bounds, array), minlength=len(self.counts))
        self.counts = [a + b for a, b in zip(self.counts, found.tolist(), strict=True)]
        self.total += float(array.sum())


def _growing(first: float, factor: float, n: int) -> Callable[[], Distribution]:
    return lambda: Distribution(tuple(first * factor**k for k in range(n)))


@dataclass(slots=True)
class TSDBStats:
    """Plain figures of one tenant, for `prometheus_tsdb_*` metrics; counters only rise."""

    head_series: int = 0
    head_series_created: int = 0
    head_series_removed: int = 0
    head_chunks: int = 0
    head_chunks_created: int = 0
    head_chunks_removed: int = 0
    chunks_mapped: int = 0
    chunk_file_corruptions: int = 0
    head_min_time: int = 0
    head_max_time: int = 0
    samples_appended: int = 0
    out_of_order_samples: int = 0
    out_of_bound_samples: int = 0
    too_far_in_future_samples: int = 0
    duplicate_conflicts: int = 0
    head_truncations: int = 0
    head_truncations_failed: int = 0
    head_gc_duration_s: Distribution = field(default_factory=lambda: Distribution(()))
    compactions_triggered: int = 0
    compactions: int = 0
    compactions_failed: int = 0
    populating_block: int = 0
    compaction_duration_s: Distribution = field(default_factory=_growing(1, 2, 14))
    compaction_chunk_bytes: Distribution = field(default_factory=_growing(32, 1.5, 12))
    compaction_chunk_samples: Distribution = field(default_factory=_growing(4, 1.5, 12))
    compaction_chunk_range_s: Distribution = field(default_factory=_growing(100, 4, 10))
    checkpoint_creations: int = 0
    checkpoint_creations_failed: int = 0
    checkpoint_deletions: int = 0
    checkpoint_deletions_failed: int = 0
    wal_truncations: int = 0
    wal_truncations_failed: int = 0
    wal_truncate_duration_s: Distribution = field(default_factory=lambda: Distribution(()))
    wal_corruptions: int = 0
    wal_fsyncs: int = 0
    wal_fsync_duration_s: float = 0.0
    wal_page_flushes: int = 0
    wal_completed_pages: int = 0
    wal_writes_failed: int = 0
    wal_segment_current: int = 0
    wal_storage_size_bytes: int = 0
    head_chunks_storage_size_bytes: int = 0
    blocks_loaded: int = 0
    blocks_unreadable: int = 0
    blocks_bytes: int = 0
    symbol_table_bytes: int = 0
    reloads: int = 0
    reloads_failed: int = 0
    lowest_timestamp: int = 0
    time_retentions: int = 0
    size_retentions: int = 0
    retention_limit_bytes: int = 0
    retention_limit_s: float = 0.0
    replay_duration_s: float = 0.0
    clean_start: int = -1
    replay_unknown_refs: int = 0
