"""Cut a damaged log back to its last good record, and keep what was cut.

Whatever follows the damage cannot be used, as later records lean on earlier ones. Upstream deletes
it; here it is renamed, and Prometheus, which takes only names of digits, does not see it.

    00000004            rewritten: its good records, zeros to the end of the page
    00000004.corrupt-T  the segment as it was found
    00000005.corrupt-T  the segments after it

The later segments go first, the newest before the others, so that a crash in between leaves a log
without a gap and with the same damage.

Source: Prometheus `tsdb/wlog`, `Repair`; `docs/formats/wal.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from thanostack.lib.foundation.clock import SystemClock
from thanostack.lib.foundation.errors import WALCorrupt
from thanostack.lib.wal.reader import SegmentWalker
from thanostack.lib.wal.segments import PAGE_BYTES, SegmentRef, list_segments, sync_folder

_COPY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair kept and what it took away.

    Args:
        segment: the damaged segment's number.
        kept_bytes: how much of it is good.
        lost_bytes: how much is not read any more, later segments included.
        set_aside: the files that hold everything as it was found.
        reason: the damage, in words.
    """

    segment: int
    kept_bytes: int
    lost_bytes: int
    set_aside: tuple[Path, ...]
    reason: str


def repair(folder: Path, corruption: WALCorrupt, *, now_ms: int | None = None) -> RepairReport:
    """Make a log readable again, up to its first damaged record.

    Args:
        folder: the log.
        corruption: what reading or decoding it raised, or `RecordReader.torn`.
        now_ms: goes into the names of files set aside; the system's clock if None.

    Raises:
        WALCorrupt: the corruption itself, if it is in a checkpoint: the series that it names are
            gone, and samples would be lost silently.
    """
    segments = list_segments(folder)
    damaged = [s for s in segments if s.path.resolve() == Path(corruption.file).resolve()]
    if not damaged:
        raise corruption
    suffix = _unused_suffix(segments, SystemClock().now_ms() if now_ms is None else now_ms)
    segment = damaged[0]
    set_aside, lost = [], 0
    for later in reversed(segments):
        if later.number > segment.number:
            lost += later.path.stat().st_size
            set_aside.append(_rename(later.path, suffix))
    kept = _last_record_end(segment, corruption.offset)
    lost += segment.path.stat().st_size - kept
    set_aside.append(_rewrite(segment.path, kept, suffix))
    sync_folder(folder)
    return RepairReport(segment.number, kept, lost, tuple(set_aside), str(corruption))


def _last_record_end(segment: SegmentRef, offset: int) -> int:
    """Return where the last good record ends that begins before `offset`."""
    walker, end = SegmentWalker(segment.path), 0
    try:
        while (found := walker.next_records()) is not None:
            # Every record begins where the one before ends, or after zeros.
            boundaries = [*found.positions.tolist(), walker.position]
            end = max([end, *(b for b in boundaries if b <= offset)])
    finally:
        walker.close()
    return end


def _unused_suffix(segments: list[SegmentRef], now_ms: int) -> str:
    """Return a suffix that no file set aside has yet: repairs can follow within a millisecond."""
    while True:
        suffix = f".corrupt-{now_ms}"
        if not any(s.path.with_name(s.path.name + suffix).exists() for s in segments):
            return suffix
        now_ms += 1


def _rename(path: Path, suffix: str) -> Path:
    target = path.with_name(path.name + suffix)
    path.rename(target)
    return target


def _rewrite(path: Path, size: int, suffix: str) -> Path:
    """Put the first `size` bytes, padded to a page, in a segment's place; keep the old one."""
    fresh = path.with_name(path.name + ".repair")
    with path.open("rb") as source, fresh.open("wb") as target:
        left = size
        while left:
            part = source.read(min(left, _COPY_BYTES))
            left -= len(part)
            target.write(part)
        target.write(bytes(-size % PAGE_BYTES))
        target.flush()
        os.fsync(target.fileno())
    backup = path.with_name(path.name + suffix)
    # A link, not a rename: at no moment is the segment missing.
    os.link(path, backup)
    fresh.replace(path)
    return backup
