"""Stream a log back as batches of decompressed records.

    segment ─1 MiB of whole pages─▶ wal_unframe ─▶ payloads ─wal_decompress─▶ RecordBatch

A batch is one buffer and offsets, so that decoding kernels walk many records a call. A record
that reaches beyond the pages read is read again with the next ones, its first page first.

    good records … bad fragment, more data follows      WALCorrupt, after all good records
    good records … fragment or record cut by the end    the same, but in the last segment:
      of the last segment                                 `torn` is set and iteration just ends

A segment need not end on a page boundary (a process was killed): upstream reads the missing bytes
as zeros, and so do we, since a record whose lost bytes were zeros is whole to it.

Bounds: lengths come from disk. A snappy record that claims more than 64 bytes out of 3 is a lie
that the format cannot express; a zstd record may not exceed `RECORD_BYTES_MAX`.

Source: Prometheus `tsdb/wlog`; `docs/formats/wal.md`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cramjam
import numpy as np

from thanostack.lib.foundation.errors import WALCorrupt
from thanostack.lib.kernels import wal_frames, wal_snappy
from thanostack.lib.kernels.wal_frames import wal_unframe
from thanostack.lib.kernels.wal_snappy import wal_decompress
from thanostack.lib.model.label_runs import Int64Array, Uint8Array
from thanostack.lib.wal.segments import PAGE_BYTES, SegmentRef, list_segments

READ_BYTES = 32 * PAGE_BYTES
BATCH_BYTES = 2 * 1024 * 1024
RECORD_BYTES_MAX = 1 << 30
_RECORDS_MAX = 16384
_MESSAGES = {
    wal_frames.UNFRAME_BAD_TYPE: "unexpected record type",
    wal_frames.UNFRAME_BAD_LENGTH: "a fragment that leaves its page",
    wal_frames.UNFRAME_BAD_CRC: "unexpected checksum",
    wal_frames.UNFRAME_BAD_ORDER: "a fragment that does not follow the one before it",
    wal_frames.UNFRAME_BAD_PADDING: "unexpected non-zero byte in padded page",
    wal_frames.UNFRAME_MORE: "last record is torn",
}


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Whole records of one segment, decompressed.

    Args:
        data: uint8[n]; the records, one after another; valid until the next batch is asked for.
        bounds: int64[records + 1]; record i is data[bounds[i]:bounds[i + 1]].
        segment: its number.
        positions: int64[records]; where each record begins in the segment file.
        path: the segment file.
    """

    data: Uint8Array
    bounds: Int64Array
    segment: int
    positions: Int64Array
    path: Path

    def __len__(self) -> int:
        return len(self.positions)

    def record(self, i: int) -> Uint8Array:
        """Return the bytes of record i, a view."""
        return self.data[self.bounds[i] : self.bounds[i + 1]]

    def corrupt(self, i: int, message: str) -> WALCorrupt:
        """Return the error that record i does not decode."""
        return WALCorrupt(str(self.path), int(self.positions[i]), message)


class RecordReader:
    """Iterate over the batches of a range of segments.

    Args:
        folder: a log or a checkpoint.
        first: the segment to start with; the oldest if None.
        last: the segment to end with, inclusive; the newest if None.

    Attributes:
        torn: set after the last batch if the last segment of the range ended inside a record;
            nobody was told that this record had been written. Cut it off (`repair`, or opening a
            `WALWriter`) before segments follow.

    Raises:
        WALCorrupt: after all good records before it were yielded.
    """

    def __init__(self, folder: Path, first: int | None = None, last: int | None = None) -> None:
        self.torn: WALCorrupt | None = None
        self._inflater = _Inflater()
        self._segments = [
            segment
            for segment in list_segments(folder)
            if (first is None or segment.number >= first)
            and (last is None or segment.number <= last)
        ]

    @property
    def first(self) -> int | None:
        """The number of the first segment to read, None if there is none."""
        return self._segments[0].number if self._segments else None

    def __iter__(self) -> Iterator[RecordBatch]:
        for segment in self._segments:
            yield from self._batches(segment, newest=segment is self._segments[-1])

    def _batches(self, segment: SegmentRef, *, newest: bool) -> Iterator[RecordBatch]:
        walker = SegmentWalker(segment.path)
        try:
            while (found := walker.next_records()) is not None:
                yield from self._inflater.batches(segment, found)
        finally:
            walker.close()
        error = walker.error
        if error is None:
            return
        if not (newest and walker.is_torn):
            raise error
        self.torn = error


@dataclass(frozen=True, slots=True)
class FramedRecords:
    """Records as they lie in a segment, glued but still compressed."""

    data: Uint8Array
    bounds: Int64Array
    positions: Int64Array
    compressions: Int64Array


class SegmentWalker:
    """Unframe one segment file, a stretch at a time.

    Attributes:
        error: why the walk ended early, if it did.
        is_torn: whether that is because the file ends inside a record.
        position: the offset after the last good record.
    """

    def __init__(self, path: Path) -> None:
        self.error: WALCorrupt | None = None
        self.is_torn = False
        self.position = 0
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size
        self._span = READ_BYTES
        self._pages = np.empty(0, np.uint8)
        self._out = np.empty(0, np.uint8)
        self._bounds = np.empty(_RECORDS_MAX + 1, np.int64)
        self._marks = np.empty(2 * _RECORDS_MAX, np.int64)
        self._state = np.zeros(3, np.int64)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def next_records(self) -> FramedRecords | None:
        """Return the next good records, None at the end or at an error."""
        while self.error is None and self.position < self._size:
            base = self.position // PAGE_BYTES * PAGE_BYTES
            pages, is_last = self._read(base)
            count = wal_unframe(
                pages, self.position - base, self._out, self._bounds, self._marks, self._state
            )
            status, consumed = int(self._state[0]), int(self._state[1])
            self.position = base + consumed
            filled = count == _RECORDS_MAX
            if status < 0 or (status == wal_frames.UNFRAME_MORE and is_last and not filled):
                self._stop(status, base + int(self._state[2]))
            elif count == 0 and status == wal_frames.UNFRAME_MORE:
                self._span *= 2
            if count > 0:
                marks = self._marks[: 2 * count].reshape(count, 2)
                return FramedRecords(
                    self._out, self._bounds[: count + 1], base + marks[:, 0], marks[:, 1].copy()
                )
        return None

    def _read(self, base: int) -> tuple[Uint8Array, bool]:
        """Return whole pages from `base` on, zeros after the file's end, and whether that is in."""
        size = min(self._span, self._size - base)
        padded = size + -size % PAGE_BYTES
        if len(self._pages) < padded:
            self._pages, self._out = np.empty(padded, np.uint8), np.empty(padded, np.uint8)
        view, done = self._pages.data, 0
        while done < size:
            n = os.preadv(self._fd, [view[done:size]], base + done)
            if n == 0:
                raise WALCorrupt(str(self._path), base + done, "the file became shorter")
            done += n
        self._pages[size:padded] = 0
        return self._pages[:padded], base + size == self._size

    def _stop(self, status: int, fragment: int) -> None:
        self.error = WALCorrupt(str(self._path), self.position, _MESSAGES[status])
        self.is_torn = status == wal_frames.UNFRAME_MORE or self._reaches_end(fragment)

    def _reaches_end(self, fragment: int) -> bool:
        """Return whether a fragment claims bytes of its page beyond the file's end."""
        head = os.pread(self._fd, 7, fragment)
        claimed = fragment + 7 + int.from_bytes(head[1:3], "big")
        page_end = self._size + -self._size % PAGE_BYTES
        return len(head) < 7 or self._size < claimed <= page_end


def read_records(folder: Path, first: int | None = None, last: int | None = None) -> RecordReader:
    """Return an iterable over the records of a log or checkpoint; see `RecordReader`."""
    return RecordReader(folder, first, last)


def drop_torn_tail(path: Path) -> int:
    """Cut a segment's unfinished last record off and return how many bytes went.

    Raises:
        WALCorrupt: if the segment is damaged before its end.

    Cost: reads the segment and checks its CRCs, 0.1 s at 128 MiB.
    """
    walker = SegmentWalker(path)
    try:
        while walker.next_records() is not None:
            pass
    finally:
        walker.close()
    if walker.error is None:
        return 0
    if not walker.is_torn:
        raise walker.error
    dropped = path.stat().st_size - walker.position
    os.truncate(path, walker.position)
    return dropped


class _Inflater:
    """Decompress framed records into one reused buffer, `BATCH_BYTES` at a time."""

    def __init__(self) -> None:
        self._out = np.empty(0, np.uint8)
        self._state = np.zeros(2, np.int64)

    def batches(self, segment: SegmentRef, found: FramedRecords) -> Iterator[RecordBatch]:
        """Yield the records decompressed; those before a bad one first."""
        total = len(found.positions)
        if not found.compressions.any():
            yield _batch(segment, found, 0, total, found.data, found.bounds)
            return
        bounds = np.zeros(total + 1, np.int64)
        if not len(self._out):
            self._out = np.empty(BATCH_BYTES, np.uint8)
        first = done = 0
        while done < total:
            try:
                done = self._advance(found, done, bounds)
            except _Undecodable as problem:
                if problem.index > first:
                    yield _batch(segment, found, first, problem.index, self._out, bounds)
                position = int(found.positions[problem.index])
                raise WALCorrupt(str(segment.path), position, problem.reason) from problem
            full = self._state[0] == wal_snappy.DECOMPRESS_FULL or bounds[done] >= BATCH_BYTES
            if done > first and (done == total or full):
                yield _batch(segment, found, first, done, self._out, bounds)
                first, bounds[done] = done, 0

    def _advance(self, found: FramedRecords, done: int, bounds: Int64Array) -> int:
        """Decompress from record `done` on and return the first that has to wait."""
        done = wal_decompress(
            found.data, found.bounds, found.compressions, done, self._out, bounds, self._state
        )
        status = int(self._state[0])
        if status == wal_snappy.DECOMPRESS_BAD:
            raise _Undecodable(done, "a snappy record that does not decode")
        if status == wal_snappy.DECOMPRESS_FOREIGN:
            plain = _unzstd(done, found.data[found.bounds[done] : found.bounds[done + 1]])
            self._reserve(int(bounds[done]), len(plain))
            bounds[done + 1] = bounds[done] + len(plain)
            self._out[bounds[done] : bounds[done + 1]] = plain
            return done + 1
        if status == wal_snappy.DECOMPRESS_FULL and bounds[done] == 0:
            self._reserve(0, int(self._state[1]))
        return done

    def _reserve(self, used: int, need: int) -> None:
        if used + need > len(self._out):
            larger = np.empty(used + need, np.uint8)
            larger[:used] = self._out[:used]
            self._out = larger


class _Undecodable(Exception):
    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index, self.reason = index, reason


def _unzstd(index: int, packed: Uint8Array) -> Uint8Array:
    """Return a zstd record decompressed; its size is not known before."""
    room = max(8 * len(packed), PAGE_BYTES)
    while True:
        plain = np.empty(room, np.uint8)
        try:
            size = cramjam.zstd.decompress_into(packed.data, plain.data) if len(packed) else 0
            return plain[:size]
        except cramjam.DecompressionError as error:
            # The library tells a buffer too small from bad data by this text alone.
            if "write whole buffer" not in str(error) or room >= RECORD_BYTES_MAX:
                raise _Undecodable(index, f"a zstd record that does not decode: {error}") from error
        room *= 4


def _batch(
    segment: SegmentRef,
    found: FramedRecords,
    first: int,
    stop: int,
    data: Uint8Array,
    bounds: Int64Array,
) -> RecordBatch:
    """Return records `[first, stop)`, whose bytes begin at offset 0 of `data`."""
    # The last bound is the first of the next batch, which begins at 0 again.
    own = bounds[first : stop + 1].copy()
    return RecordBatch(data, own, segment.number, found.positions[first:stop], segment.path)
