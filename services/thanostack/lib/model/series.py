"""Batches of series: labels with encoded chunks, and decoded samples.

    SeriesBatch   labels | chunk_offsets -> chunks (mint, maxt, start, length, encoding) -> data
    SampleBatch   offsets -> timestamps, values

Both are in CSR form: the items of series i are `[offsets[i], offsets[i + 1])`. Series ascend by
label order (name, then value, pair by pair; the shorter prefix first). Bounds of chunks and
samples are inclusive.

Histogram samples have their place beside the float columns: chunks carry their encoding from the
start; decoded histograms will be one more column of `SampleBatch` with offsets of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from thanostack.lib.kernels import _types
from thanostack.lib.model.label_runs import Float64Array, Int64Array, LabelRuns, Uint8Array

CHUNK_DTYPE: Final = _types.CHUNK_DTYPE
ChunkArray = npt.NDArray[np.void]

ENCODING_XOR = 1
ENCODING_HISTOGRAM = 2
ENCODING_FLOAT_HISTOGRAM = 3

STALE_NAN_BITS = 0x7FF0000000000002
NORMAL_NAN_BITS = 0x7FF8000000000001


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """S series with their encoded chunks.

    Args:
        labels: S label runs.
        chunk_offsets: int64[S + 1]; rising, from 0.
        chunks: CHUNK_DTYPE[C]; of one series ascending by mint.
        data: uint8[n]; the chunk bytes as on disk, u16 sample count first.

    Invariants: len(labels) + 1 == len(chunk_offsets); chunk_offsets[-1] == len(chunks).
    """

    labels: LabelRuns
    chunk_offsets: Int64Array
    chunks: ChunkArray
    data: Uint8Array

    def __len__(self) -> int:
        return len(self.labels)

    def chunk_bytes(self, c: int) -> bytes:
        """Return the encoded bytes of chunk c of the whole batch."""
        chunk = self.chunks[c]
        start = int(chunk["start"])
        return self.data[start : start + int(chunk["length"])].tobytes()

    @staticmethod
    def without_chunks(labels: LabelRuns) -> SeriesBatch:
        """Return series that carry labels only."""
        offsets = np.zeros(len(labels) + 1, np.int64)
        return SeriesBatch(labels, offsets, np.zeros(0, CHUNK_DTYPE), np.zeros(0, np.uint8))


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """The decoded float samples of S series.

    Args:
        offsets: int64[S + 1]; rising, from 0.
        timestamps: int64[N], ms; strictly rising within a series.
        values: float64[N]; stale markers keep their bits.
    """

    offsets: Int64Array
    timestamps: Int64Array
    values: Float64Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def series(self, i: int) -> tuple[Int64Array, Float64Array]:
        """Return timestamps and values of series i, as views."""
        start, stop = self.offsets[i], self.offsets[i + 1]
        return self.timestamps[start:stop], self.values[start:stop]
