"""Where inside its work a storage is: published to the process that will kill it.

In the child, the methods that make up a phase are wrapped. A phase that is entered inside another
takes its place until it is left, so what is published are the innermost phases of all threads.

    wrapper ── entered ── Python's calls are counted ── at the chosen one: signal, stand still
                              (sys.setprofile)                         └── or signal and run on

Standing still between two calls makes every gap between two system calls a place to die in; the
torn phases die after a part of a file write, as a write that is interrupted leaves it.
"""

from __future__ import annotations

import functools
import mmap
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from thanostack.lib.tsdb import chunks_head, maintenance
from thanostack.lib.tsdb import tsdb as tsdb_module
from thanostack.lib.tsdb.block_list import BlockList
from thanostack.lib.tsdb.block_writer import BlockWriter
from thanostack.lib.tsdb.chunks_head import ChunksHeadWriter
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.lib.tsdb.replay import Replay
from thanostack.lib.tsdb.tsdb import TSDB
from thanostack.lib.wal import checkpoint
from thanostack.lib.wal.segments import SegmentFile
from thanostack.lib.wal.writer import WALWriter
from thanostack.testing.crash_samples import REQUEST_DTYPE

PHASES: Final[dict[str, tuple[tuple[Any, str], ...]]] = {
    "replay": ((TSDB, "_open"),),
    "append": ((TSDB, "_write"),),
    "torn log write": (),
    "segment roll": ((WALWriter, "cut_segment"),),
    "segment end": ((WALWriter, "_finish"),),
    "head chunks write": ((ChunksHeadWriter, "append"),),
    "head chunks roll": ((ChunksHeadWriter, "_open_next"), (ChunksHeadWriter, "_finish")),
    "torn head chunks write": (),
    "block write": ((Maintenance, "_write_block"),),
    "block publish": ((BlockWriter, "finish"), (BlockList, "add")),
    "head truncation": ((Maintenance, "_truncate_head"),),
    "index rebuild": ((Maintenance, "_forget_series"),),
    "head chunks truncation": ((ChunksHeadWriter, "truncate"),),
    "checkpoint": ((maintenance, "write_checkpoint"),),
    "checkpoint publish": ((checkpoint, "_publish"),),
    "log truncation": ((WALWriter, "truncate"),),
    "checkpoint deletion": ((maintenance, "delete_checkpoints"),),
    "close": ((TSDB, "_shut"),),
}
NAMES: Final = tuple(PHASES)
TORN: Final = ("torn log write", "torn head chunks write")
WRITERS, REQUESTS_MAX, _SEEN_MAX = 3, 4096, 1 << 14

_PAGE = np.dtype(
    [
        ("sent", np.int64, WRITERS),
        ("inside", np.int64, len(NAMES)),
        ("calls", np.int64, len(NAMES)),
        ("verified", np.int64),
        ("readable", np.int64),
        ("required", np.int64),
        ("lost", np.int64),
        ("invented", np.int64),
        ("wrong", np.int64),
        ("blocks", np.int64),
        ("reports", np.int64),
        ("live_reads", np.int64),
        ("live_lost", np.int64),
        ("n_seen", np.int64),
        ("seen", np.uint64, _SEEN_MAX),
        ("requests", REQUEST_DTYPE, (WRITERS, REQUESTS_MAX)),
    ]
)


class SharedPage:
    """Memory that a child writes and its parent reads, also after the child was killed.

    Attributes:
        record: one `_PAGE`; fields are arrays into the memory.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PAGE.itemsize)
        self.record: Any = np.frombuffer(self._memory, _PAGE)[0]

    def clear(self) -> None:
        """Forget everything but how many calls phases take."""
        calls = self.record["calls"].copy()
        self._memory.seek(0)
        self._memory.write(bytes(_PAGE.itemsize))
        self.record["calls"][:] = calls


@dataclass(frozen=True)
class Target:
    """Where a child is to be killed.

    Args:
        phase: its name, "" for anywhere.
        skip: how often the phase is passed through before.
        part: 0 to 1; how far into the phase, in calls, or into the bytes of a torn write.
        stands_still: whether the thread waits there for its end, or runs on.
    """

    phase: str = ""
    skip: int = 0
    part: float = 0.0
    stands_still: bool = True


class Phases:
    """Publishes the phases of this process, and stops at the target. Installed for good.

    Args:
        page: for what is published.
        target: where to stop.
        signal_fd: gets one byte at the target.
    """

    def __init__(self, page: SharedPage, target: Target, signal_fd: int) -> None:
        self._page, self._target, self._signal_fd = page, target, signal_fd
        self._passes = 0
        self._stopped = False
        self._local = threading.local()

    def install(self) -> None:
        """Wrap what belongs to a phase."""
        for phase, places in PHASES.items():
            for owner, name in places:
                self._wrap(owner, name, phase)
        self._tear_writes()

    def _wrap(self, owner: Any, name: str, phase: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            outer = self._enter(phase)
            armed = phase == self._target.phase and self._arm(phase)
            try:
                return original(*args, **kwargs)
            finally:
                if armed:
                    sys.setprofile(None)
                    self._page.record["calls"][NAMES.index(phase)] = self._local.calls
                self._leave(phase, outer)

        replace_in(owner, name, wrapped)

    def _enter(self, phase: str) -> str:
        outer: str = getattr(self._local, "phase", "")
        self._switch(outer, phase)
        return outer

    def _leave(self, phase: str, outer: str) -> None:
        self._switch(phase, outer)

    def _switch(self, before: str, after: str) -> None:
        inside = self._page.record["inside"]
        if before:
            inside[NAMES.index(before)] -= 1
        if after:
            inside[NAMES.index(after)] += 1
        self._local.phase = after

    def _arm(self, phase: str) -> bool:
        self._passes += 1
        if self._passes <= self._target.skip or self._stopped:
            return False
        self._local.calls = 0
        stop = int(self._target.part * self._page.record["calls"][NAMES.index(phase)])

        def profile(_frame: Any, event: str, _argument: Any) -> None:
            # Jobs of other threads that this one works off meanwhile are phases of their own.
            if event not in {"call", "c_call"} or self._local.phase != phase:
                return
            self._local.calls += 1
            if self._local.calls > stop:
                self._stop()

        sys.setprofile(profile)
        return True

    def _stop(self) -> None:
        """Tell the parent, once, and stand still if that is wanted."""
        if self._stopped:
            return
        self._stopped = True
        os.write(self._signal_fd, b"x")
        if self._target.stands_still:
            time.sleep(60)

    def _tear_writes(self) -> None:
        write_segment, write_chunks = SegmentFile.write, chunks_head._write_all

        def torn_segment(segment: SegmentFile, data: memoryview) -> None:
            with_part = self._torn("torn log write", lambda part: write_segment(segment, part))
            with_part(data)

        def torn_chunks(fd: int, data: memoryview) -> None:
            with_part = self._torn("torn head chunks write", lambda part: write_chunks(fd, part))
            with_part(data)

        replace_in(SegmentFile, "write", torn_segment)
        replace_in(chunks_head, "_write_all", torn_chunks)

    def _torn(self, phase: str, write: Any) -> Any:
        def write_part(data: memoryview) -> None:
            if phase != self._target.phase or self._stopped:
                write(data)
                return
            self._passes += 1
            if self._passes <= self._target.skip or len(data) < 2:
                write(data)
                return
            outer = self._enter(phase)
            write(data[: int(self._target.part * len(data))])
            self._stop()
            # Only reached when nobody killed us: then the write is as it should be.
            write(data[int(self._target.part * len(data)) :])
            self._leave(phase, outer)

        return write_part


def replace_in(owner: Any, name: str, value: Any) -> None:
    """Put something in the place of a method or a module's function, for good."""
    setattr(owner, name, value)


def shrink(*, chunk_file_bytes: int = 16 * 1024, flush_bytes: int = 8 * 1024) -> None:
    """Make head chunk files and flushes small in this process, so that each comes often."""
    replay_init = Replay.__init__

    def small_replay(replay: Any, *args: Any) -> None:
        replay_init(replay, *args)
        replay._flush_at = flush_bytes

    replace_in(Replay, "__init__", small_replay)
    replace_in(tsdb_module, "_PENDING_FLUSH", flush_bytes)
    small_files = functools.partial(ChunksHeadWriter, file_bytes=chunk_file_bytes)
    replace_in(tsdb_module, "ChunksHeadWriter", small_files)
