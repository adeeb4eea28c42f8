"""Segment files: their names, the list of a folder, and the one that is being written.

    wal/00000000  00000001 …      segments, numbered without a gap
    wal/checkpoint.00000001/      a folder that is a log itself (checkpoint.py)
    wal/00000002.corrupt-<ms>     what repair set aside; Prometheus does not look at such names

Any name of digits counts as a segment, as upstream reads them. `SegmentFile` is the only place
that touches the file being written; tests put a failing one in its place.

Source: Prometheus `tsdb/wlog`; `docs/formats/wal.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from thanostack.lib.foundation.errors import WALCorrupt

PAGE_BYTES = 32768
SEGMENT_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """One segment file: its number and path."""

    number: int
    path: Path


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment.

    Example:
        >>> segment_path(Path("wal"), 7).name
        '00000007'
    """
    return folder / f"{number:08d}"


def list_segments(folder: Path) -> list[SegmentRef]:
    """Return the segments of a folder in order; none when the folder is missing.

    Raises:
        WALCorrupt: if a number is missing in between.
    """
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    refs = sorted((SegmentRef(int(path.name), path) for path in paths), key=lambda r: r.number)
    for before, after in pairwise(refs):
        if after.number != before.number + 1:
            found = f"segment {after.number} follows {before.number}: one is missing or doubled"
            raise WALCorrupt(str(after.path), 0, found)
    return refs


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class SegmentFile:
    """A segment open for appending.

    Invariants: `size` is the file's length, after a failed call too.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.path = path
        self.fd = os.open(path, flags, 0o666)
        self.size = 0

    def write(self, data: memoryview) -> None:
        """Append all bytes; on an error the file may have grown by a part of them."""
        done = 0
        while done < len(data):
            n = os.write(self.fd, data[done:])
            if n == 0:
                raise OSError(f"{self.path}: the file system took none of {len(data) - done} bytes")
            done += n
            self.size += n

    def truncate(self, size: int) -> None:
        """Cut the file back."""
        os.ftruncate(self.fd, size)
        self.size = size

    def sync(self) -> None:
        """Make what was written durable."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
