"""Samples of merged series: overlapping chunks resolved, replicas folded into one.

    none      overlapping chunks merged by timestamp, the first chunk winning
    penalty   Thanos's default: stay with one replica, switch when it has a gap
    chain     all samples of all replicas, one a timestamp

*Penalty* and *chain* give what a live Thanos gives, bit for bit, where a series has replicas. Two
deliberate differences, both towards Prometheus: a series without overlap is left as it is, while
upstream rewrites counters under `rate` as running totals even then; and `resets` sees the resets.

The fold depends on where it begins, so it always runs over the whole query's time and is cut to
the time asked for afterwards.

Source: Thanos `pkg/query/iter.go`, `pkg/dedup/iter.go`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from thanostack.lib.chunkenc.xor import decode_series
from thanostack.lib.kernels import storeapi_dedup as kernels
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import Int64Array
from thanostack.lib.model.series import SampleBatch, SeriesBatch

_STATE_SLOTS = 16
_COUNTER_FUNCTIONS = frozenset({"increase", "rate", "irate"})
_ALL_TIME = (-(1 << 63), (1 << 63) - 1)


class DedupMode(enum.Enum):
    """How replicas of one series become one."""

    NONE = "none"
    PENALTY = "penalty"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class Dedup:
    """How samples of one selection are read.

    Args:
        mode: what happens to overlapping chunks.
        mint: of the whole query, ms, inclusive; nothing earlier takes part in a fold.
        maxt: of the whole query, ms, inclusive.
        function: around the selector; `rate` and its like keep counters from falling.
    """

    mode: DedupMode
    mint: int
    maxt: int
    function: str = ""

    @property
    def is_counter(self) -> bool:
        """Return whether a fold corrects counters."""
        return self.mode is DedupMode.PENALTY and self.function in _COUNTER_FUNCTIONS


def read_samples(
    batch: SeriesBatch, first: int, stop: int, mint: int, maxt: int, dedup: Dedup
) -> SampleBatch:
    """Return the samples of rows [first, stop) inside [mint, maxt], ms, one a timestamp.

    Raises:
        ChunkCorrupt: if a chunk's bytes are not a chunk.
        ExecutionFailed: for a native histogram chunk.

    Cost: decoding, and two passes more where chunks overlap.
    """
    lanes, series_lanes = _split(batch, first, stop)
    rows = stop - first
    mint, maxt = max(mint, dedup.mint), min(maxt, dedup.maxt)
    if len(lanes.chunk_offsets) - 1 == rows:
        decoded = decode_series(lanes, 0, rows, mint, maxt)
        if _rises(decoded):
            return decoded
        return _trim(decoded, series_lanes, mint, maxt, counter=False)
    bounds = _ALL_TIME if dedup.is_counter else (dedup.mint, dedup.maxt)
    decoded = decode_series(lanes, 0, len(lanes.chunk_offsets) - 1, *bounds)
    trimmed = _trim(decoded, series_lanes, dedup.mint, dedup.maxt, counter=dedup.is_counter)
    folded = _fold(trimmed, series_lanes, dedup)
    if mint <= dedup.mint and dedup.maxt <= maxt:
        return folded
    return _trim(folded, np.arange(rows + 1), mint, maxt, counter=False)


def _split(batch: SeriesBatch, first: int, stop: int) -> tuple[SeriesBatch, Int64Array]:
    """Return a batch with one row a lane, and the lanes of each series."""
    rows = stop - first
    offsets = batch.chunk_offsets[first : stop + 1]
    chunks = batch.chunks[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    most = int(np.diff(offsets).max(initial=0))
    series_lanes = np.empty(rows + 1, np.int64)
    lane_offsets = np.empty(len(chunks) + rows + 1, np.int64)
    ordered = np.empty(len(chunks), CHUNK_DTYPE)
    scratch = np.empty(3 * most, np.int64)
    count = kernels.split_lanes(
        offsets, chunks, batch.data, scratch, series_lanes, lane_offsets, ordered
    )
    lanes = SeriesBatch(batch.labels, lane_offsets[: count + 1], ordered, batch.data)
    return lanes, series_lanes


def _rises(samples: SampleBatch) -> bool:
    """Return whether timestamps rise within every row, as chunk headers promised."""
    falls = np.flatnonzero(np.diff(samples.timestamps) <= 0) + 1
    return not len(falls) or bool(np.isin(falls, samples.offsets).all())


def _trim(
    samples: SampleBatch, series_lanes: Int64Array, mint: int, maxt: int, *, counter: bool
) -> SampleBatch:
    out = _like(samples, len(samples.offsets))
    options = np.array([mint, maxt, counter], np.int64)
    count = kernels.trim_lanes(
        series_lanes,
        samples.offsets,
        samples.timestamps,
        samples.values,
        options,
        out.offsets,
        out.timestamps,
        out.values,
    )
    return SampleBatch(out.offsets, out.timestamps[:count], out.values[:count])


def _fold(samples: SampleBatch, series_lanes: Int64Array, dedup: Dedup) -> SampleBatch:
    out = _like(samples, len(series_lanes))
    most = int(np.diff(series_lanes).max(initial=1))
    if dedup.mode is DedupMode.PENALTY:
        fold, option = kernels.fold_penalty, int(dedup.is_counter)
    else:
        chained = dedup.mode is DedupMode.CHAIN
        fold, option = kernels.fold_chain, kernels.CHAIN if chained else kernels.FIRST_WINS
    count = fold(
        series_lanes,
        samples.offsets,
        samples.timestamps,
        samples.values,
        option,
        np.empty(_STATE_SLOTS * most, np.int64),
        out.offsets,
        out.timestamps,
        out.values,
    )
    return SampleBatch(out.offsets, out.timestamps[:count], out.values[:count])


def _like(samples: SampleBatch, n_offsets: int) -> SampleBatch:
    n = len(samples.timestamps)
    return SampleBatch(
        np.empty(n_offsets, np.int64), np.empty(n, np.int64), np.empty(n, np.float64)
    )
