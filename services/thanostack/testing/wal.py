"""Builders and faults for logs: sample records, whole logs, a segment file that fails.

`FailingSegment` is what a full or dying disk looks like to a writer: it takes bytes up to a budget,
then refuses, after having written a part. Truncate and sync can be made to fail as well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.wal.reader import read_records
from thanostack.lib.wal.records import (
    SampleColumns,
    Uint64Array,
    encode_samples_record,
    encode_series_record,
)
from thanostack.lib.wal.segments import SegmentFile


@dataclass
class DiskFaults:
    """What a disk refuses; shared by all segments that are opened through it.

    Args:
        bytes_left: how many more bytes are taken; a write beyond is cut short, then fails.
        short_writes: whether each write takes half of what it is given.
        truncate_fails: whether cutting a file back fails.
        sync_fails: whether making it durable fails.
        open_fails: whether no file can be created.
    """

    bytes_left: int = 1 << 62
    short_writes: bool = False
    truncate_fails: bool = False
    sync_fails: bool = False
    open_fails: bool = False

    def opener(self) -> Callable[[Path], SegmentFile]:
        """Return what a `WALWriter` opens its segments with."""
        return lambda path: FailingSegment(path, self)


class FailingSegment(SegmentFile):
    """A segment file on a disk with faults."""

    def __init__(self, path: Path, faults: DiskFaults) -> None:
        if faults.open_fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().__init__(path)
        self._faults = faults

    def write(self, data: memoryview) -> None:
        """Append as much as the budget allows."""
        allowed = min(len(data), self._faults.bytes_left)
        self._faults.bytes_left -= allowed
        step = max(1, allowed // 2) if self._faults.short_writes else max(1, allowed)
        for start in range(0, allowed, step):
            super().write(data[start : min(start + step, allowed)])
        if allowed < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def truncate(self, size: int) -> None:
        """Cut the file back, or fail."""
        if self._faults.truncate_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().truncate(size)

    def sync(self) -> None:
        """Make the file durable, or fail."""
        if self._faults.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync()


def series_record(first_ref: int, count: int) -> bytes:
    """Return a record of `count` series with references from `first_ref` on."""
    runs = LabelRuns.of_mappings(
        {"__name__": "requests_total", "pod": f"pod-{ref}"}
        for ref in range(first_ref, first_ref + count)
    )
    return encode_series_record(_refs(first_ref, count), runs)


def samples_record(first_ref: int, count: int, time: int) -> bytes:
    """Return a record with one sample each of `count` series, value = reference."""
    refs = _refs(first_ref, count)
    times = np.full(count, time, np.int64)
    return encode_samples_record(SampleColumns(refs, times, refs.astype(np.float64)))


def records_of(folder: Path, first: int | None = None, last: int | None = None) -> list[bytes]:
    """Return the bytes of all records of a log."""
    reader = read_records(folder, first, last)
    return [batch.record(i).tobytes() for batch in reader for i in range(len(batch))]


def _refs(first: int, count: int) -> Uint64Array:
    return np.arange(first, first + count, dtype=np.uint64)
