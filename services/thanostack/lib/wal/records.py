"""Records to columns and back: what a log's entries say.

    type  name              here
    1     series            decode_series → SeriesColumns, encode_series_record
    2 11  samples           decode_samples → SampleColumns, encode_samples_record
    3     tombstones        decode_tombstones, encode_tombstones_record
    5     mmap markers      decode_mmap_markers, encode_mmap_markers_record (WBL only)
    4 6 7..10 12 13         exemplars, metadata, histograms: named, counted, never misread

The decoders take a whole `RecordBatch` and look only at their own types; unknown types are
skipped, as upstream does. In a log a series record stands before the first sample of its
reference, so decoding all series of a batch and then all its samples keeps the order that counts.

A label set comes out canonical: sorted, without empty values. UTF-8 is taken on trust, as it was
checked before it was logged.

Source: Prometheus `tsdb/record`; `docs/formats/wal-records.md`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from thanostack.lib.kernels.wal_records import (
    DECODE_BAD,
    DECODE_DONE,
    wal_decode_samples,
    wal_decode_series,
    wal_encode_samples,
    wal_encode_series,
)
from thanostack.lib.model.label_runs import (
    BoolArray,
    Float64Array,
    Int64Array,
    LabelRuns,
    Uint8Array,
)
from thanostack.lib.wal.reader import RecordBatch

Uint64Array = npt.NDArray[np.uint64]


class RecordType(IntEnum):
    """The first byte of a record."""

    SERIES = 1
    SAMPLES = 2
    TOMBSTONES = 3
    EXEMPLARS = 4
    MMAP_MARKERS = 5
    METADATA = 6
    HISTOGRAMS = 7
    FLOAT_HISTOGRAMS = 8
    CUSTOM_BUCKET_HISTOGRAMS = 9
    CUSTOM_BUCKET_FLOAT_HISTOGRAMS = 10
    SAMPLES_V2 = 11
    HISTOGRAMS_V2 = 12
    FLOAT_HISTOGRAMS_V2 = 13


UNKNOWN_TYPE = 255
"""What an empty record counts as."""


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """Float samples in the order they were logged.

    Args:
        refs: uint64[n]; series references.
        timestamps: int64[n], ms.
        values: float64[n].
    """

    refs: Uint64Array
    timestamps: Int64Array
    values: Float64Array

    def __len__(self) -> int:
        return len(self.refs)


@dataclass(frozen=True, slots=True)
class SeriesColumns:
    """Series in the order they were logged.

    Args:
        refs: uint64[S]; series references.
        runs: their labels.
    """

    refs: Uint64Array
    runs: LabelRuns

    def __len__(self) -> int:
        return len(self.refs)


@dataclass(frozen=True, slots=True)
class TombstoneColumns:
    """Deleted ranges.

    Args:
        refs: uint64[n]; series references.
        mint: int64[n], ms, inclusive.
        maxt: int64[n], ms, inclusive.
    """

    refs: Uint64Array
    mint: Int64Array
    maxt: Int64Array

    def __len__(self) -> int:
        return len(self.refs)


class DecodeScratch:
    """Column buffers that decoding reuses; fresh pages for each batch cost more than decoding it.

    What was decoded into it is valid until the next decoding into it.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.generic]] = {}

    def take(self, name: str, dtype: type[np.generic], size: int) -> npt.NDArray[Any]:
        """Return `size` items of the named buffer, which grows as needed."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = np.empty(size + size // 4, dtype)
            self._buffers[name] = buffer
        return buffer[:size]


def record_types(batch: RecordBatch) -> Uint8Array:
    """Return uint8[records], the type of each record; `UNKNOWN_TYPE` for an empty one."""
    starts, stops = batch.bounds[:-1], batch.bounds[1:]
    # An empty record may begin where the data ends.
    first_bytes = batch.data[np.minimum(starts, len(batch.data) - 1)]
    return np.where(starts < stops, first_bytes, np.uint8(UNKNOWN_TYPE))


def count_types(batch: RecordBatch) -> Int64Array:
    """Return int64[256], how many records there are of each type."""
    return np.bincount(record_types(batch), minlength=256)


def decode_samples(batch: RecordBatch, scratch: DecodeScratch | None = None) -> SampleColumns:
    """Return the float samples of a batch, from records of both layouts.

    Args:
        batch: records of any types.
        scratch: buffers to decode into; fresh ones if None.

    Raises:
        WALCorrupt: at a record that does not decode. Nothing of the batch is returned.
    """
    # A sample takes at least 10 bytes of its record.
    room = len(batch) + _bytes_of(batch, RecordType.SAMPLES, RecordType.SAMPLES_V2) // 10
    scratch, state = scratch or DecodeScratch(), np.zeros(2, np.int64)
    refs = scratch.take("refs", np.uint64, room)
    timestamps = scratch.take("timestamps", np.int64, room)
    values = scratch.take("values", np.float64, room)
    count = wal_decode_samples(batch.data, batch.bounds, 0, refs, timestamps, values, state)
    _check(batch, state, "samples")
    return SampleColumns(refs[:count], timestamps[:count], values[:count])


def decode_series(batch: RecordBatch, scratch: DecodeScratch | None = None) -> SeriesColumns:
    """Return the series of a batch with their labels in canonical form.

    Args:
        batch: records of any types.
        scratch: buffers to decode into; fresh ones if None.

    Raises:
        WALCorrupt: at a record that does not decode, or names a label twice.
    """
    size = _bytes_of(batch, RecordType.SERIES)
    # A series takes at least 9 bytes. A label grows by at most 4 bytes, from at least 4.
    room = len(batch) + size // 9
    scratch, state = scratch or DecodeScratch(), np.zeros(2, np.int64)
    refs = scratch.take("series_refs", np.uint64, room)
    offsets = scratch.take("offsets", np.int64, room + 1)
    runs = scratch.take("runs", np.uint8, 2 * size)
    count = wal_decode_series(batch.data, batch.bounds, 0, refs, runs, offsets, state)
    _check(batch, state, "series")
    return SeriesColumns(refs[:count], LabelRuns(runs, offsets[: count + 1]))


def decode_tombstones(batch: RecordBatch) -> TombstoneColumns:
    """Return the deleted ranges of a batch.

    Raises:
        WALCorrupt: at a record that does not decode.
    """
    stones: list[tuple[int, int, int]] = []
    for i in np.flatnonzero(record_types(batch) == RecordType.TOMBSTONES):
        try:
            stones += _read_tombstones(batch.record(int(i)).tobytes())
        except (IndexError, struct.error, OverflowError) as error:
            raise batch.corrupt(int(i), "a tombstones record that does not decode") from error
    return TombstoneColumns(
        np.array([ref for ref, _, _ in stones], np.uint64),
        np.array([mint for _, mint, _ in stones], np.int64),
        np.array([maxt for _, _, maxt in stones], np.int64),
    )


def decode_mmap_markers(batch: RecordBatch) -> tuple[Uint64Array, Uint64Array]:
    """Return (series refs, chunk refs) of the WBL's mmap markers of a batch.

    Raises:
        WALCorrupt: at a record that is not whole pairs.
    """
    parts = [np.empty((0, 2), np.uint64)]
    for i in np.flatnonzero(record_types(batch) == RecordType.MMAP_MARKERS):
        body = batch.record(int(i))[1:].tobytes()
        if len(body) % 16:
            raise batch.corrupt(int(i), "an mmap markers record that does not decode")
        parts.append(np.frombuffer(body, ">u8").astype(np.uint64).reshape(-1, 2))
    pairs = np.concatenate(parts)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def encode_series_record(
    refs: Uint64Array, runs: LabelRuns, keep: BoolArray | None = None
) -> bytes:
    """Return one series record.

    Args:
        refs: uint64[S].
        runs: S canonical label sets.
        keep: bool[S]; all if None.
    """
    assert len(refs) == len(runs), "one label set for each reference"
    mask = np.ones(len(refs), np.bool_) if keep is None else keep
    span = int(runs.offsets[-1] - runs.offsets[0])
    out = np.empty(1 + 18 * len(refs) + span, np.uint8)
    size = wal_encode_series(refs, runs.data, runs.offsets, mask, out)
    assert size > 0, "label runs are canonical"
    return out[:size].tobytes()


def encode_samples_record(samples: SampleColumns, keep: BoolArray | None = None) -> bytes:
    """Return one samples record; empty if nothing is kept.

    Args:
        samples: n samples.
        keep: bool[n]; all if None.
    """
    mask = np.ones(len(samples), np.bool_) if keep is None else keep
    assert len(mask) == len(samples), "one decision for each sample"
    out = np.empty(45 + 28 * int(np.count_nonzero(mask)), np.uint8)
    size = wal_encode_samples(samples.refs, samples.timestamps, samples.values, mask, out)
    assert size >= 0, "the buffer holds the longest encoding"
    return out[:size].tobytes()


def encode_tombstones_record(stones: TombstoneColumns) -> bytes:
    """Return one tombstones record."""
    out = bytearray((RecordType.TOMBSTONES,))
    for ref, mint, maxt in zip(
        stones.refs.tolist(), stones.mint.tolist(), stones.maxt.tolist(), strict=True
    ):
        out += struct.pack(">Q", ref)
        _append_varint(out, mint)
        _append_varint(out, maxt)
    return bytes(out)


def encode_mmap_markers_record(series_refs: Uint64Array, chunk_refs: Uint64Array) -> bytes:
    """Return one mmap markers record, for the WBL."""
    pairs = np.stack([series_refs, chunk_refs], axis=1).astype(">u8")
    return bytes((RecordType.MMAP_MARKERS,)) + pairs.tobytes()


def _bytes_of(batch: RecordBatch, *kinds: RecordType) -> int:
    sizes = np.bincount(record_types(batch), np.diff(batch.bounds), minlength=256)
    return int(sizes[list(kinds)].sum())


def _check(batch: RecordBatch, state: Int64Array, name: str) -> None:
    status, record = int(state[0]), int(state[1])
    if status == DECODE_BAD:
        raise batch.corrupt(record, f"a {name} record that does not decode")
    assert status == DECODE_DONE, "the columns hold the shortest entries"


def _read_tombstones(record: bytes) -> list[tuple[int, int, int]]:
    stones, i = [], 1
    while i < len(record):
        (ref,) = struct.unpack_from(">Q", record, i)
        mint, i = _read_varint(record, i + 8)
        maxt, i = _read_varint(record, i)
        stones.append((ref, mint, maxt))
    return stones


def _read_varint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[i]
        i += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if value >= 1 << 64 or shift > 70:
        raise OverflowError("a varint of more than 64 bits")
    return (value >> 1) ^ -(value & 1), i


def _append_varint(out: bytearray, number: int) -> None:
    value = (number << 1) ^ (number >> 63)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
