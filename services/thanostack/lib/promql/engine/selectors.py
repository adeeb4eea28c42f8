"""The series of a selector, decoded in batches and, where memory allows, once a query.

    Queryable.select --> SeriesSource --> Selection.batch(first, stop, mint, maxt) --> SampleBatch

A query in one slice needs every batch of a selector once and keeps none. A query in several
slices keeps decoded batches for the next slice while the budget lasts; beyond it a batch is
decoded again, for the time of the slice only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from thanostack.lib.model.label_runs import BoolArray, Float64Array, Int64Array
from thanostack.lib.model.queryable import SelectRequest, SeriesSource
from thanostack.lib.model.series import STALE_NAN_BITS, SampleBatch
from thanostack.lib.promql.engine.result import QueryStats

BATCH_ROWS = 64
"""Measured best: a batch of samples and results stays in the second-level cache."""

_SAMPLE_BYTES = 16


@dataclass(slots=True)
class SampleCache:
    """Room for decoded batches that a later slice wants again."""

    bytes_left: int

    def admits(self, batch: SampleBatch) -> bool:
        """Return whether a batch may be kept, and take its room if so."""
        size = _SAMPLE_BYTES * len(batch.values)
        if size > self.bytes_left:
            return False
        self.bytes_left -= size
        return True


@dataclass(slots=True)
class Selection:
    """What one selector of the query found.

    Args:
        source: of the queryable.
        request: as it was asked.
        ids: int64[S]; label sets in the query's table.
        cache: shared by all selections; None keeps nothing.
        stats: of the query.
    """

    source: SeriesSource
    request: SelectRequest
    ids: Int64Array
    cache: SampleCache | None
    stats: QueryStats
    _kept: dict[int, SampleBatch] = field(default_factory=dict)

    def batch(self, first: int, stop: int, mint: int, maxt: int) -> SampleBatch:
        """Return the samples of rows [first, stop), at least those in [mint, maxt], ms."""
        kept = self._kept.get(first)
        if kept is not None and len(kept) == stop - first:
            return kept
        mint, maxt = max(mint, self.request.mint), min(maxt, self.request.maxt)
        if self.cache is not None:
            mint, maxt = self.request.mint, self.request.maxt
        if mint > maxt:
            return SampleBatch(
                np.zeros(stop - first + 1, np.int64), np.empty(0, np.int64), np.empty(0)
            )
        batch = self.source.samples(first, stop, mint, maxt)
        self.stats.samples_read += len(batch.values)
        if self.cache is not None and self.cache.admits(batch):
            self._kept[first] = batch
        return batch


def without_stale(batch: SampleBatch) -> SampleBatch:
    """Return the batch without stale markers."""
    stale = batch.values.view(np.uint64) == np.uint64(STALE_NAN_BITS)
    if not stale.any():
        return batch
    before = np.zeros(len(stale) + 1, np.int64)
    np.cumsum(~stale, out=before[1:])
    return SampleBatch(before[batch.offsets], batch.timestamps[~stale], batch.values[~stale])


def samples_of(
    values: Float64Array,
    present: BoolArray,
    times: Int64Array,
) -> SampleBatch:
    """Return the present values of a matrix as samples at the given times."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.count_nonzero(present, axis=1), out=offsets[1:])
    timestamps = np.broadcast_to(times, values.shape)[present]
    return SampleBatch(offsets, timestamps, values[present])
