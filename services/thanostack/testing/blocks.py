"""Build series batches and blocks from plain values, and read them back as plain values.

A *series* here is (labels, chunks), a chunk a list of (timestamp in ms, value).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from thanostack.lib.chunkenc.xor import decode_chunks, encode_chunk
from thanostack.lib.foundation.ids import BlockId
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_order import sort_series
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.series import ENCODING_XOR, SeriesBatch
from thanostack.lib.tsdb.block_writer import BlockWriter
from thanostack.lib.tsdb.chunk_segments import SEGMENT_BYTES

Samples = list[tuple[int, float]]
Series = tuple[Mapping[str, str], Sequence[Samples]]

BLOCK_ID = BlockId("01ARZ3NDEKTSV4RRFFQ69G5FAV")


def series_batch(series: Sequence[Series]) -> SeriesBatch:
    """Return series in label order, chunks XOR-encoded."""
    bodies, rows, at = [], [], 0
    for _, chunks in series:
        for samples in chunks:
            times, values = zip(*samples, strict=True)
            body = encode_chunk(np.array(times, np.int64), np.array(values, np.float64))
            rows.append((times[0], times[-1], at, len(body), ENCODING_XOR))
            bodies.append(body)
            at += len(body)
    offsets = np.cumsum([0, *(len(chunks) for _, chunks in series)], dtype=np.int64)
    return sort_series(
        SeriesBatch(
            LabelRuns.of_mappings(labels for labels, _ in series),
            offsets,
            np.array(rows, CHUNK_DTYPE),
            np.frombuffer(b"".join(bodies), np.uint8),
        )
    )


def write_block(
    folder: Path, series: Sequence[Series], *, segment_bytes: int = SEGMENT_BYTES
) -> Path:
    """Write a block that covers its samples and return its folder."""
    times = [t for _, chunks in series for samples in chunks for t, _ in samples]
    writer = BlockWriter(
        folder,
        mint=min(times, default=0),
        maxt=max(times, default=-1) + 1,
        ulid=BLOCK_ID,
        segment_bytes=segment_bytes,
    )
    if series:
        writer.write(series_batch(series))
    writer.finish()
    return folder / BLOCK_ID


def plain_series(batches: Iterable[SeriesBatch]) -> list[tuple[dict[str, str], list[Samples]]]:
    """Return batches as series of decoded chunks."""
    series = []
    for batch in batches:
        decoded = decode_chunks(batch, 0, len(batch))
        chunks = [
            list(
                zip(
                    decoded.timestamps[a:b].tolist(),
                    decoded.values[a:b].tolist(),
                    strict=True,
                )
            )
            for a, b in zip(decoded.offsets[:-1], decoded.offsets[1:], strict=True)
        ]
        bounds = batch.chunk_offsets
        series += [
            (batch.labels.mapping(i), chunks[bounds[i] : bounds[i + 1]]) for i in range(len(batch))
        ]
    return series
