"""XOR chunks: columns to chunk bytes and back.

The kernels are in `kernels/xor_chunk.py`; this module validates, allocates and interprets.
Histogram encodings (2, 3) are recognised and refused with a clear error until their columns exist.

Source: docs/formats/chunks.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import ChunkCorrupt, ExecutionFailed, InvalidInput
from thanostack.lib.kernels import xor_chunk
from thanostack.lib.kernels.head_types import ROW_DTYPE
from thanostack.lib.model.label_runs import Float64Array, Int64Array
from thanostack.lib.model.series import ENCODING_XOR, SampleBatch, SeriesBatch

SAMPLES_MAX = 255
_MIN, _MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class DecodedChunks:
    """The samples of C chunks.

    Args:
        offsets: int64[C + 1]; samples of chunk c are [offsets[c], offsets[c + 1]).
        timestamps: int64[N], ms.
        values: float64[N].
    """

    offsets: Int64Array
    timestamps: Int64Array
    values: Float64Array


def encode_chunk(timestamps: Int64Array, values: Float64Array) -> bytes:
    """Return one XOR chunk.

    Raises:
        InvalidInput: for no samples, more than 255, or timestamps that do not rise.
    """
    if not 1 <= len(timestamps) <= SAMPLES_MAX or np.any(np.diff(timestamps) <= 0):
        raise InvalidInput(f"a chunk takes 1 to {SAMPLES_MAX} samples with rising timestamps")
    out = np.empty(20 * len(timestamps) + 64, np.uint8)
    length = xor_chunk.xor_encode(timestamps, values, np.zeros(1, ROW_DTYPE), out)
    return out[:length].tobytes()


def decode_chunks(
    batch: SeriesBatch, first: int, stop: int, mint: int = _MIN, maxt: int = _MAX
) -> DecodedChunks:
    """Decode the chunks of rows [first, stop), keeping samples inside [mint, maxt], ms.

    Chunk c of the result is chunk `batch.chunk_offsets[first] + c` of the batch.

    Raises:
        ChunkCorrupt: if a chunk's bytes are not a chunk.
        ExecutionFailed: for a native histogram chunk.
    """
    chunks = batch.chunks[batch.chunk_offsets[first] : batch.chunk_offsets[stop]]
    counts = np.empty(len(chunks), np.int64)
    total = xor_chunk.xor_sample_counts(batch.data, chunks, counts)
    if total < 0:
        raise _chunk_error(batch, first, -1 - total)
    offsets = np.empty(len(chunks) + 1, np.int64)
    timestamps, values = np.empty(total, np.int64), np.empty(total, np.float64)
    kept = xor_chunk.xor_decode(batch.data, chunks, mint, maxt, offsets, timestamps, values)
    if kept < 0:
        raise _chunk_error(batch, first, -1 - kept)
    return DecodedChunks(offsets, timestamps[:kept], values[:kept])


def decode_series(
    batch: SeriesBatch, first: int, stop: int, mint: int = _MIN, maxt: int = _MAX
) -> SampleBatch:
    """Decode rows [first, stop) whose chunks do not overlap inside a series.

    Raises:
        ChunkCorrupt: if a chunk's bytes are not a chunk.
        ExecutionFailed: for a native histogram chunk.
    """
    decoded = decode_chunks(batch, first, stop, mint, maxt)
    bounds = batch.chunk_offsets[first : stop + 1] - batch.chunk_offsets[first]
    return SampleBatch(decoded.offsets[bounds], decoded.timestamps, decoded.values)


def _chunk_error(batch: SeriesBatch, first: int, c: int) -> ChunkCorrupt | ExecutionFailed:
    """Return what is wrong with the chunk c of those from row `first` on, and whose it is."""
    at = int(batch.chunk_offsets[first]) + c
    row = int(np.searchsorted(batch.chunk_offsets, at, side="right")) - 1
    pairs = ", ".join(f'{name}="{value}"' for name, value in batch.labels.mapping(row).items())
    chunk = batch.chunks[at]
    if chunk["encoding"] != ENCODING_XOR:
        return ExecutionFailed(
            f"chunk encoding {chunk['encoding']} (native histograms) is not supported yet: "
            f"leave {{{pairs}}} out of the query"
        )
    where = f"a chunk of {{{pairs}}}"
    return ChunkCorrupt(where, int(chunk["start"]), "the bytes are not an XOR chunk")
