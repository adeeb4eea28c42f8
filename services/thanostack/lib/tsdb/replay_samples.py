"""The samples of a log on their way to the head: gathered over batches, then appended row by row.

    batch ──decode, references to rows──> gathered ──ordered by row──> open chunks

A head is larger than the caches and a log goes through all of it once a round. Appending in the
log's order fetches each row and both ends of its chunk for every sample; appending what several
rounds have for a row together does so once.

Bound: `_ROUNDS` samples a series, or else one record's, 24 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thanostack.lib.foundation.errors import LimitExceeded
from thanostack.lib.kernels import head_replay
from thanostack.lib.kernels.head_series import NEVER
from thanostack.lib.kernels.wal_records import DECODE_BAD, DECODE_DONE, DECODE_FULL
from thanostack.lib.model.label_runs import Int64Array
from thanostack.lib.tsdb.head import Head, UInt64Array
from thanostack.lib.tsdb.reserved_memory import prefer_huge_pages, reserve
from thanostack.lib.wal.reader import RecordBatch

CLOSED_BYTES_KEPT = 1 << 20
_ROUNDS = 4


class ReplayRefs:
    """The rows of the log's series references, and what closed chunks have of them.

    A reference may be a second one of its row.
    """

    def __init__(self) -> None:
        self.table = reserve(head_replay.REF_DTYPE, 1 << 12)
        self._known = 0

    def add(self, refs: UInt64Array, rows: Int64Array, lasts: Int64Array) -> int:
        """Enter references and return how many were not there before.

        Args:
            refs: uint64[S].
            rows: int64[S].
            lasts: int64[S], ms; the row's last timestamp so far.
        """
        self._reserve(len(rows))
        new = int(head_replay.replay_map_refs(self.table, refs, rows, lasts, len(refs)))
        self._known += new
        return new

    def _reserve(self, coming: int) -> None:
        needed = 2 * (self._known + coming)
        if needed <= len(self.table):
            return
        used = self.table[self.table["ref"] != 0]
        # Not of the allocator, which would keep so large an area for good.
        self.table = reserve(head_replay.REF_DTYPE, 1 << needed.bit_length())
        refs, rows, lasts = (np.ascontiguousarray(used[name]) for name in ("ref", "row", "last_t"))
        head_replay.replay_map_refs(self.table, refs, rows.astype(np.int64), lasts, len(used))


class ReplaySamples:
    """Gathers samples and appends them.

    Args:
        head: gets them.
        refs: of the log.
        mint: ms; samples before it are left out.
        flush: called when closed chunks wait; returns how many bytes of them may wait then.

    Attributes:
        outcome: int64[8]; what became of the samples, as `head_append` counts it.
    """

    def __init__(self, head: Head, refs: ReplayRefs, mint: int, flush: Callable[[], int]) -> None:
        self.outcome = np.zeros(8, np.int64)
        self._head, self._refs, self._flush = head, refs, flush
        self._mint = max(mint, NEVER + 1)
        self._pending_max = CLOSED_BYTES_KEPT
        self._ends = np.empty(0, np.int32)
        self._count = 0
        self._allocate(0)

    def _allocate(self, size: int) -> None:
        # One area: with huge pages each one of its own would leave half a page over.
        area = reserve(np.int64, 3 * size)
        prefer_huge_pages(area)
        self._timestamps, values, indices = area.reshape(3, size)
        self._values = values.view(np.uint64)
        self._rows, self._order = indices.view(np.int32).reshape(2, size)

    def take(self, batch: RecordBatch) -> None:
        """Gather the samples of a batch.

        Raises:
            WALCorrupt: at a record that does not decode; those before it are taken.
            LimitExceeded, StorageUnwritable: as `append`.
        """
        state = np.array([DECODE_FULL, 0], np.int64)
        while state[0] != DECODE_DONE:
            begin = np.array([state[1], self._count, self._mint], np.int64)
            self._count = head_replay.replay_gather(
                self._refs.table, batch.data, batch.bounds, begin,
                self._timestamps, self._values, self._rows, self.outcome, state,
            )  # fmt: skip
            if state[0] == DECODE_BAD:
                raise batch.corrupt(int(state[1]), "a samples record that does not decode")
            if state[0] == DECODE_FULL:
                self._make_room(len(batch.record(int(state[1]))))

    def _make_room(self, record_bytes: int) -> None:
        self.append()
        wanted = max(record_bytes // head_replay.SAMPLE_BYTES_MIN, _ROUNDS * self._head.series)
        if wanted > len(self._rows):
            self._allocate(wanted)

    def append(self) -> None:
        """Append what is gathered.

        Raises:
            LimitExceeded: when the head has no room for more chunks.
            StorageUnwritable: when it has none for closed ones that the disk refuses.
        """
        count, head = self._count, self._head
        if len(self._ends) <= head.rows:
            self._ends = np.empty(head.rows + 1, np.int32)
        head_replay.replay_order(self._rows, count, self._ends[: head.rows + 1], self._order)
        bounds = np.array([0, count, 0, head.options.chunk_range_ms], np.int64)
        while bounds[0] < count:
            bounds[2] = self._pending_max
            bounds[0] = head_replay.replay_apply(
                head.tables, self._rows, self._timestamps, self._values, self._order, bounds,
                self.outcome,
            )  # fmt: skip
            if bounds[0] < 0:
                raise self._limit("open chunks")
            if bounds[0] == count:
                break
            if head.pending_bytes > self._pending_max:
                self._pending_max = self._flush()
            elif head.flush_closed() == 0:
                raise self._limit("closed chunks")
        self._count = 0

    def _limit(self, what: str) -> LimitExceeded:
        limit = self._head.options.series_max
        return LimitExceeded(f"{what} in the head of one tenant", limit, self._head.series)
