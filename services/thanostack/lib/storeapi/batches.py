"""Answers of stores, brought together: stacked, stripped, filtered by shard, merged.

    store 0   frames -> batch ---------------.
    store 1   frames -> batch -> strip, sort -+-> merge -> one SeriesBatch, ascending, unique
    local     batches -> stack --------------'

Deliberately elsewhere: the merge itself (`model/label_order`), dedup of samples (`dedup`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from thanostack.lib.foundation.errors import EndpointUnavailable
from thanostack.lib.kernels import label_order as order_kernels
from thanostack.lib.kernels import storeapi_shards
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_order import merge_series, sort_series, take_runs, with_labels
from thanostack.lib.model.label_runs import Int64Array, LabelRuns
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.storeapi.requests import Shard


def empty_batch() -> SeriesBatch:
    """Return a batch of no series."""
    return SeriesBatch.without_chunks(LabelRuns.of([]))


def stack(batches: Iterable[SeriesBatch]) -> SeriesBatch:
    """Return batches one after another as one, chunk bytes packed.

    Cost: a copy of labels and chunk bytes, none for a single batch.
    """
    parts = [batch for batch in batches if len(batch)]
    if len(parts) <= 1:
        return parts[0] if parts else empty_batch()
    runs = [part.labels for part in parts]
    label_data = np.concatenate([r.data[r.offsets[0] : r.offsets[-1]] for r in runs])
    label_offsets = _joined_offsets([r.offsets for r in runs])
    chunk_offsets = _joined_offsets([part.chunk_offsets for part in parts])
    chunks = np.empty(int(chunk_offsets[-1]), CHUNK_DTYPE)
    data = np.empty(sum(int(part.chunks["length"].sum()) for part in parts), np.uint8)
    at = chunk = 0
    for part in parts:
        out = chunks[chunk : chunk + len(part.chunks)]
        at = order_kernels.pack_chunks(part.chunks, part.data, at, out, data)
        if at < 0:
            raise EndpointUnavailable("a chunk lies outside of its batch")
        chunk += len(part.chunks)
    return SeriesBatch(LabelRuns(label_data, label_offsets), chunk_offsets, chunks, data)


def _joined_offsets(parts: Sequence[Int64Array]) -> Int64Array:
    lengths = np.concatenate([np.diff(part) for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def relabel(batch: SeriesBatch, external: bytes, drop: Iterable[str]) -> SeriesBatch:
    """Return a batch with external labels set and replica labels gone, sorted and joined again.

    Args:
        batch: the series.
        external: a canonical run.
        drop: names to remove, also from `external`.
    """
    labels = with_labels(batch.labels, external, [name.encode() for name in drop])
    return sort_series(SeriesBatch(labels, batch.chunk_offsets, batch.chunks, batch.data))


def take_series(batch: SeriesBatch, rows: Int64Array) -> SeriesBatch:
    """Return the chosen rows; their chunk bytes stay where they are."""
    if len(rows) == len(batch):
        return batch
    starts = batch.chunk_offsets[rows]
    counts = batch.chunk_offsets[rows + 1] - starts
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    places = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
    return SeriesBatch(take_runs(batch.labels, rows), offsets, batch.chunks[places], batch.data)


def take_shard(batch: SeriesBatch, shard: Shard | None) -> SeriesBatch:
    """Return the series that belong to a shard.

    Source: Thanos `pkg/store/storepb/shard_info.go`.
    """
    if shard is None:
        return batch
    names = LabelRuns.of(sorted({name.encode() for name in shard.labels}))
    options = np.array([shard.by, shard.total, shard.index], np.int64)
    rows = np.empty(len(batch), np.int64)
    scratch = np.empty(int(np.diff(batch.labels.offsets).max(initial=0)) + 8, np.uint8)
    found = storeapi_shards.shard_rows(
        batch.labels.data, batch.labels.offsets, names.data, names.offsets, options, scratch, rows
    )
    if found < 0:
        raise EndpointUnavailable("malformed label run")
    return take_series(batch, rows[:found])


def merge_batches(batches: Sequence[SeriesBatch], limit: int = 0) -> SeriesBatch:
    """Return ascending batches as one: equal series joined, identical chunks once.

    Args:
        batches: each ascending; equal series may be neighbours inside one.
        limit: most series; 0 is no limit.

    Raises:
        InvalidLabels: for a batch that is not in order.
    """
    parts = [batch for batch in batches if len(batch)]
    if len(parts) > 1:
        merged = stack(merge_series([iter([part]) for part in parts]))
    else:
        merged = sort_series(parts[0]) if parts else empty_batch()
    if limit and len(merged) > limit:
        return take_series(merged, np.arange(limit))
    return merged
