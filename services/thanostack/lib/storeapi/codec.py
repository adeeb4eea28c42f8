"""Frames of the `Series` stream: columns to bytes, bytes to columns.

A frame holds up to `batch_size` series and ends at one MiB; a series that is larger spans frames
and repeats its labels. Frames of either kind (`series`, `batch`) may alternate on the way in.

The loops are in `kernels/storeapi_codec.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import EndpointUnavailable, ExecutionFailed
from thanostack.lib.kernels import storeapi_codec as kernels
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import Int64Array, LabelRuns
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.pb import store_pb2
from thanostack.lib.storeapi.requests import COUNT, MAX, MIN, SUM

FRAME_BYTES = 1 << 20
# A counter's chunks also carry resets between chunks, which plain samples cannot: not among them.
_AGGREGATE_FIELDS = {COUNT: 4, SUM: 5, MIN: 6, MAX: 7}
_NO_FIELD = 15
"""A field number that no AggrChunk has: raw data or nothing."""


def encode_frames(
    batch: SeriesBatch, batch_size: int, rows: Int64Array | None = None
) -> Iterator[bytes]:
    """Yield a batch as SeriesResponse frames, in order.

    Args:
        batch: the series; chunk bytes are hashed on the way.
        batch_size: series a frame; 0 or 1 gives single `series` frames.
        rows: int64[R], the rows to send; all by default.
    """
    rows = np.arange(len(batch)) if rows is None else rows
    limits = np.array([batch_size, FRAME_BYTES], np.int64)
    largest = int(batch.chunks["length"].max(initial=0))
    widest = int(np.diff(batch.labels.offsets).max(initial=0))
    out = np.empty(max(FRAME_BYTES, largest + widest) + 256, np.uint8)
    position = np.array([0, -1], np.int64)
    labels = batch.labels
    columns = (labels.data, labels.offsets, batch.chunk_offsets, batch.chunks, batch.data)
    while True:
        size = kernels.encode_series_frame(*columns, rows, limits, out, position)
        if size == 0:
            return
        yield out[:size].tobytes()


def encode_warning(text: str) -> bytes:
    """Return a warning frame."""
    return store_pb2.SeriesResponse(warning=text).SerializeToString()


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """What a stream said.

    Args:
        batch: series as sent: in the sender's order, a series possibly as several neighbours.
        warnings: texts.
    """

    batch: SeriesBatch
    warnings: tuple[str, ...]


def decode_frames(
    frames: Sequence[bytes], aggregates: Sequence[int] = (), *, source: str = "store"
) -> DecodedFrames:
    """Return the series and warnings of a whole stream.

    A downsampled chunk is read as the one aggregate that was asked for.

    Args:
        frames: SeriesResponse messages.
        aggregates: as asked; a pair (count, sum) can only be answered from raw chunks.
        source: names the peer in errors.

    Raises:
        EndpointUnavailable: for bytes that are not frames, or labels out of order.
        ExecutionFailed: for downsampled chunks that lack what was asked for.
    """
    data = np.frombuffer(b"".join(frames), np.uint8)
    bounds = np.zeros(len(frames) + 1, np.int64)
    np.cumsum([len(frame) for frame in frames], out=bounds[1:])
    counts = np.zeros(4, np.int64)
    _check(kernels.count_series_frames(data, bounds, counts), source)
    n_series, n_chunks, label_bytes, n_warnings = counts.tolist()
    # Bound: the decoder asks for room of the longest varints behind each label it writes.
    label_data = np.empty(label_bytes + 32, np.uint8)
    label_offsets, chunk_offsets = np.empty((2, n_series + 1), np.int64)
    chunks = np.empty(n_chunks, CHUNK_DTYPE)
    places = np.empty(2 * n_warnings, np.int64)
    wanted = _AGGREGATE_FIELDS.get(aggregates[0], _NO_FIELD) if len(aggregates) == 1 else _NO_FIELD
    found = kernels.decode_series_frames(
        data, bounds, wanted, label_data, label_offsets, chunk_offsets, chunks, places
    )
    _check(found, source)
    labels = LabelRuns(label_data[: label_offsets[-1]], label_offsets)
    texts = tuple(
        data[start : start + length].tobytes().decode(errors="replace")
        for start, length in places.reshape(-1, 2).tolist()
    )
    return DecodedFrames(SeriesBatch(labels, chunk_offsets, chunks, data), texts)


def _check(status: int, source: str) -> None:
    if status == kernels.NO_AGGREGATE:
        raise ExecutionFailed(
            f"{source} sent downsampled data that cannot be read here yet; ask for raw data "
            "with max_source_resolution=0s"
        )
    if status == kernels.BAD_LABELS:
        raise EndpointUnavailable(f"{source} sent a series whose labels are not sorted")
    if status < 0:
        raise EndpointUnavailable(f"{source} sent a malformed series frame")
