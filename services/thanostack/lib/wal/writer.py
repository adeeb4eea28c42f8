"""Append records to a log: one call, one file write, all of it or nothing.

    records ─compress─▶ payload ─wal_frame─▶ fragments in one buffer ─write─▶ segment

A call never spans two segments: when its frames do not fit, a new segment is started first. So
undoing a failed call is one truncate to `_good`, the offset after the last acknowledged call.
A fragment half written in the middle of a segment would make every reader stop there, and a
reference handed out for a call that failed would be handed out again; therefore a truncate that
fails too leaves the writer *failed*: read-only until the log is opened anew.

    serving ──write or fsync fails, truncate works──▶ serving, StorageUnwritable to the caller
            └─────────────────────truncate fails───▶ failed, StorageUnwritable to everyone

After a failed fsync nothing is known about the file's pages, so the log goes on in a new segment.

A finished segment is padded, synced and closed by a thread of its own, at most one at a time.
One writer per folder and one thread that calls `log`; counters may be read from anywhere.

Source: Prometheus `tsdb/wlog`; `docs/formats/wal.md`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cramjam
import numpy as np

from thanostack.lib.foundation.errors import StorageUnwritable
from thanostack.lib.kernels.wal_frames import wal_frame
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.wal.reader import drop_torn_tail
from thanostack.lib.wal.segments import (
    PAGE_BYTES,
    SEGMENT_BYTES,
    SegmentFile,
    list_segments,
    segment_path,
    sync_folder,
)

SNAPPY_FLAG, ZSTD_FLAG = 0x08, 0x10
_FRAGMENT_BYTES = PAGE_BYTES - 7
_KEPT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class WALOptions:
    """How a log is written.

    Args:
        segment_bytes: where a segment is cut; a multiple of 32 KiB.
        compression: of whole records; one that would not get smaller stays as it is.
        fsync: `segment` when one is finished, as upstream: what is acknowledged survives the
            process, not the machine; `interval` also every so often; `always` before each
            acknowledgement.
        fsync_interval_ms: for `interval`.
    """

    segment_bytes: int = SEGMENT_BYTES
    compression: Literal["snappy", "zstd", "none"] = "snappy"
    fsync: Literal["segment", "interval", "always"] = "segment"
    fsync_interval_ms: int = 1000

    def __post_init__(self) -> None:
        assert self.segment_bytes > 0, "a segment has at least one page"
        assert self.segment_bytes % PAGE_BYTES == 0, "a segment is whole pages"


@dataclass(slots=True)
class WALCounters:
    """What happened so far, for metrics; only ever rising."""

    page_flushes: int = 0
    pages_completed: int = 0
    records: int = 0
    record_bytes: int = 0
    bytes_saved: int = 0
    bytes_written: int = 0
    writes_failed: int = 0
    fsyncs: int = 0
    fsyncs_failed: int = 0
    fsync_ns: int = 0
    truncations: int = 0
    truncations_failed: int = 0


class WALWriter:
    """The appending end of one log folder.

    Args:
        folder: created if missing. Writing starts in a new segment after the last.
        options: see `WALOptions`.
        ends_whole: whether the log was just read and ends with a whole record; else its last
            segment is read here, and a torn record at its end cut off.
        open_segment: how a segment file is made; for fault tests.

    Raises:
        StorageUnwritable: if no segment can be created.
        WALCorrupt: if the last segment is damaged before its end: repair it first.
    """

    def __init__(
        self,
        folder: Path,
        options: WALOptions | None = None,
        *,
        ends_whole: bool = False,
        open_segment: Callable[[Path], SegmentFile] = SegmentFile,
    ) -> None:
        self.folder = folder
        self.options = options or WALOptions()
        self.counters = WALCounters()
        self.failed: str | None = None
        self._open_segment = open_segment
        self._finisher: threading.Thread | None = None
        self._frames = np.empty(PAGE_BYTES, np.uint8)
        self._scratch = np.empty(PAGE_BYTES, np.uint8)
        self._saved = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnwritable(f"{folder}: {error.strerror}") from error
        existing = list_segments(folder)
        # A torn record is harmless only at the end of the log; once segments follow, every reader
        # stops at it. Nobody was told that it had been written.
        is_suspect = bool(existing) and not ends_whole
        self.torn_bytes_dropped = drop_torn_tail(existing[-1].path) if is_suspect else 0
        self.current_segment = existing[-1].number + 1 if existing else 0
        self._segment = self._create(self.current_segment)
        self._good = 0
        self._closed = threading.Event()
        self._syncer: threading.Thread | None = None
        self._sync_guard = threading.Lock()
        self._sync_failed = False
        self._synced_bytes = 0
        if self.options.fsync == "interval":
            self._syncer = threading.Thread(target=self._sync_often, name="wal-sync", daemon=True)
            self._syncer.start()

    def log(self, records: Sequence[Uint8Array | bytes]) -> None:
        """Append records; when it returns all of them are in the file, else none.

        Raises:
            StorageUnwritable: if the disk refuses; the log is as before the call. When `failed`
                is set, it is so until the log is opened anew.

        Cost: one file write; per record a compression and two passes over what is left.
        """
        self._check_writable()
        if not records:
            return
        if self._sync_failed:
            # After a failed fsync the file's pages are in doubt: never write there again.
            self.cut_segment()
        end = self._frame(records, self._good)
        if self._good > 0 and self._good + end > self.options.segment_bytes:
            self.cut_segment()
            end = self._frame(records, 0)
        try:
            self._segment.write(self._frames.data[:end])
        except OSError as error:
            self.counters.writes_failed += 1
            self._undo(error)
            raise self._unwritable(error) from error
        if self.options.fsync == "always":
            self._sync_or_undo()
        self._count(records, end)
        self._good += end
        if len(self._frames) > _KEPT_BYTES:
            self._frames = self._scratch = np.empty(PAGE_BYTES, np.uint8)

    def cut_segment(self) -> int:
        """Start a new segment and return its number; the finished one is synced behind the scenes.

        Raises:
            StorageUnwritable: if it cannot be created; the log goes on in the old one.
        """
        self._check_writable()
        fresh = self._create(self.current_segment + 1)
        finished, finished_bytes = self._segment, self._good
        with self._sync_guard:
            self._segment, self._good, self._synced_bytes = fresh, 0, 0
            self.current_segment += 1
            self._sync_failed = False
        self._finish_behind(finished, finished_bytes)
        return self.current_segment

    def first_and_last(self) -> tuple[int, int]:
        """Return the numbers of the oldest segment and of the one being written."""
        segments = list_segments(self.folder)
        return segments[0].number, segments[-1].number

    def position(self) -> tuple[int, int]:
        """Return the current segment and the offset after its last record."""
        return self.current_segment, self._good

    def truncate(self, before_segment: int) -> None:
        """Delete the segments below a number, the oldest first; never the current one.

        Raises:
            StorageUnwritable: if one cannot be deleted; what is left has no gap.
        """
        self.counters.truncations += 1
        for segment in list_segments(self.folder):
            if segment.number >= min(before_segment, self.current_segment):
                break
            try:
                segment.path.unlink()
            except OSError as error:
                self.counters.truncations_failed += 1
                raise self._unwritable(error) from error

    def sync(self) -> None:
        """Make all that was logged durable.

        Raises:
            StorageUnwritable: if the disk refuses; the next call goes to a new segment.
        """
        self._wait_for_finisher()
        try:
            self._timed_sync(self._segment)
        except OSError as error:
            self._sync_failed = True
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Pad, sync and close the current segment; a second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._syncer is not None:
            self._syncer.join()
        self._wait_for_finisher()
        self._finish(self._segment, self._good)

    @property
    def size_bytes(self) -> int:
        """The bytes of the folder, checkpoints included; it walks the folder."""
        total = 0
        # Files and checkpoints come and go meanwhile; unlike `rglob`, `walk` passes over them.
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118
        return total

    def _frame(self, records: Sequence[Uint8Array | bytes], position: int) -> int:
        """Frame all records as if the segment were at `position`; return the bytes."""
        end = self._saved = 0
        for record in records:
            plain = np.frombuffer(record, np.uint8) if isinstance(record, bytes) else record
            payload, flag = self._compress(plain)
            need = end + len(payload) + 7 * (len(payload) // _FRAGMENT_BYTES + 3)
            if need > len(self._frames):
                self._frames = _grown(self._frames, end, need)
            end = wal_frame(payload, flag, position + end, end, self._frames)
            assert end > 0, "the frame buffer holds any record's fragments"
        return end

    def _compress(self, record: Uint8Array) -> tuple[Uint8Array, int]:
        kind = self.options.compression
        if kind == "none" or not len(record):
            return record, 0
        if kind == "zstd":
            packed = np.frombuffer(
                memoryview(cramjam.zstd.compress(record.data, level=3)), np.uint8
            )
            flag = ZSTD_FLAG
        else:
            # Source: snappy's bound for what does not compress.
            need = 32 + len(record) + len(record) // 6
            if need > len(self._scratch):
                self._scratch = _grown(self._scratch, 0, need)
            size = cramjam.snappy.compress_raw_into(record.data, self._scratch.data)
            packed, flag = self._scratch[:size], SNAPPY_FLAG
        if len(packed) >= len(record):
            return record, 0
        self._saved += len(record) - len(packed)
        return packed, flag

    def _create(self, number: int) -> SegmentFile:
        path = segment_path(self.folder, number)
        try:
            segment = self._open_segment(path)
        except OSError as error:
            raise self._unwritable(error) from error
        if self.options.fsync == "segment":
            return segment
        try:
            sync_folder(self.folder)
        except OSError as error:
            # A file that stays would be in the way of the next attempt.
            segment.close()
            path.unlink(missing_ok=True)
            raise self._unwritable(error) from error
        return segment

    def _count(self, records: Sequence[Uint8Array | bytes], end: int) -> None:
        counters = self.counters
        counters.records += len(records)
        counters.record_bytes += sum(len(record) for record in records)
        counters.bytes_saved += self._saved
        counters.bytes_written += end
        counters.page_flushes += 1 + (self._good + end - 1) // PAGE_BYTES - self._good // PAGE_BYTES
        counters.pages_completed += (self._good + end) // PAGE_BYTES - self._good // PAGE_BYTES

    def _undo(self, error: OSError) -> None:
        try:
            self._segment.truncate(self._good)
        except OSError as second:
            self.failed = (
                f"{self._segment.path}: a write ended in {error.strerror or error}, and cutting it "
                f"back to {self._good} bytes in {second.strerror or second}"
            )

    def _sync_or_undo(self) -> None:
        try:
            self._timed_sync(self._segment)
        except OSError as error:
            self._undo(error)
            self._sync_failed = True
            raise self._unwritable(error) from error

    def _check_writable(self) -> None:
        assert not self._closed.is_set(), "the log is closed"
        if self.failed is not None:
            raise StorageUnwritable(f"the write-ahead log is read-only: {self.failed}")

    def _unwritable(self, error: OSError) -> StorageUnwritable:
        return StorageUnwritable(f"write-ahead log {self.folder}: {error.strerror or error}")

    def _timed_sync(self, segment: SegmentFile) -> None:
        start = time.perf_counter_ns()
        try:
            segment.sync()
        except OSError:
            self.counters.fsyncs_failed += 1
            raise
        finally:
            self.counters.fsyncs += 1
            self.counters.fsync_ns += time.perf_counter_ns() - start

    def _sync_often(self) -> None:
        while not self._closed.wait(self.options.fsync_interval_ms / 1000):
            with self._sync_guard:
                segment, size = self._segment, self._good
                if size == self._synced_bytes or self._sync_failed:
                    continue
                # A cut closes the file in another thread; this descriptor stays ours.
                spare = os.dup(segment.fd)
            try:
                start = time.perf_counter_ns()
                os.fsync(spare)
                self.counters.fsync_ns += time.perf_counter_ns() - start
                self._note_sync(segment, size, worked=True)
            except OSError:
                self._note_sync(segment, size, worked=False)
            finally:
                os.close(spare)

    def _note_sync(self, segment: SegmentFile, size: int, *, worked: bool) -> None:
        self.counters.fsyncs += 1
        self.counters.fsyncs_failed += not worked
        with self._sync_guard:
            if segment is self._segment:
                self._sync_failed |= not worked
                self._synced_bytes = size if worked else self._synced_bytes

    def _finish_behind(self, segment: SegmentFile, size: int) -> None:
        # Bound: one finished segment waits at a time; a slow disk slows the next cut.
        self._wait_for_finisher()
        self._finisher = threading.Thread(
            target=self._finish, args=(segment, size), name="wal-finish", daemon=True
        )
        self._finisher.start()

    def _wait_for_finisher(self) -> None:
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None

    def _finish(self, segment: SegmentFile, size: int) -> None:
        # Zeros to the end of the page, as upstream; readers also take a shorter last page, so a
        # full disk does no harm here. A failed writer's torn end is left for the next opening.
        with contextlib.suppress(OSError):
            if segment.size == size:
                segment.write(memoryview(bytes(-size % PAGE_BYTES)))
        with contextlib.suppress(OSError):
            self._timed_sync(segment)
        segment.close()


def _grown(buffer: Uint8Array, used: int, need: int) -> Uint8Array:
    larger = np.empty(max(need, 2 * len(buffer)), np.uint8)
    larger[:used] = buffer[:used]
    return larger
