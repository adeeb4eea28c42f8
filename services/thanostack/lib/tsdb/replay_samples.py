"""The samples of a log on their way to the head: gathered over batches, then appended row by row.

    batch ──decode──> columns ──references to rows──> gathered ──ordered by row──> open chunks

A head is larger than the caches and a log goes through all of it once a round. Appending in the
log's order fetches each row and both ends of its chunk for every sample; appending what several
rounds have for a row together does so once.

Bound: `_ROUNDS` samples a series and one batch, 24 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thanostack.lib.foundation.errors import LimitExceeded
from thanostack.lib.kernels import head_replay
from thanostack.lib.model.label_runs import Int64Array
from thanostack.lib.tsdb.head import Head, UInt64Array
from thanostack.lib.tsdb.reserved_memory import prefer_huge_pages, reserve
from thanostack.lib.wal.reader import RecordBatch
from thanostack.lib.wal.records import DecodeScratch, decode_samples_into, samples_room

CLOSED_BYTES_KEPT = 1 << 20
_ROUNDS = 3


class ReplayRefs:
    """The rows of the log's series references, and what closed chunks have of them.

    A reference may be a second one of its row.
    """

    def __init__(self) -> None:
        self.keys = np.zeros(1 << 12, np.uint64)
        self.rows, self.lasts = np.zeros(1 << 12, np.int32), np.zeros(1 << 12, np.int64)
        self._known = 0

    def add(self, refs: UInt64Array, rows: Int64Array, lasts: Int64Array) -> int:
        """Enter references and return how many were not there before.

        Args:
            refs: uint64[S].
            rows: int64[S].
            lasts: int64[S], ms; the row's last timestamp so far.
        """
        self._reserve(len(rows))
        new = self._map(refs, rows, lasts)
        self._known += new
        return new

    def _reserve(self, coming: int) -> None:
        needed = 2 * (self._known + coming)
        if needed <= len(self.keys):
            return
        keys, rows, lasts = self.keys, self.rows, self.lasts
        size = 1 << needed.bit_length()
        self.keys, self.rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
        self.lasts = np.zeros(size, np.int64)
        used = keys != 0
        self._map(keys[used], rows[used].astype(np.int64), lasts[used])

    def _map(self, refs: UInt64Array, rows: Int64Array, lasts: Int64Array) -> int:
        new = head_replay.replay_map_refs(
            self.keys, self.rows, self.lasts, refs, rows, lasts, len(refs)
        )
        return int(new)


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
        self._head, self._refs, self._mint, self._flush = head, refs, mint, flush
        self._pending_max = CLOSED_BYTES_KEPT
        self._scratch = DecodeScratch()
        self._count = self._decoded = 0
        self._allocate(0)

    def _allocate(self, size: int) -> None:
        # One area: with huge pages each one of its own would leave half a page over.
        area = reserve(np.int64, 3 * size)
        prefer_huge_pages(area)
        self._timestamps, values, indices = area.reshape(3, size)
        self._values = values.view(np.float64)
        self._rows, self._order = indices.view(np.int32).reshape(2, size)

    def decode(self, batch: RecordBatch) -> None:
        """Decode the samples of a batch; `keep` takes them, and without it they are forgotten.

        Raises:
            WALCorrupt: at a record that does not decode.
        """
        self._decoded, room = 0, samples_room(batch)
        if self._count + room > len(self._rows):
            self.append()
            wanted = room + _ROUNDS * self._head.series
            if wanted > len(self._rows):
                self._allocate(wanted)
        first = self._count
        self._decoded = decode_samples_into(
            batch,
            self._scratch.take("refs", np.uint64, room),
            self._timestamps[first:],
            self._values[first:],
        )

    def keep(self) -> None:
        """Find the rows of the samples decoded last."""
        if not self._decoded:
            return
        refs = self._scratch.take("refs", np.uint64, self._decoded)
        columns = (self._timestamps, self._values.view(np.uint64), self._rows)
        self._count += head_replay.replay_find_rows(
            self._refs.keys, self._refs.rows, self._refs.lasts, refs, self._mint,
            *(column[self._count :] for column in columns), self.outcome,
        )  # fmt: skip
        self._decoded = 0

    def append(self) -> None:
        """Append what is gathered.

        Raises:
            LimitExceeded: when the head has no room for more chunks.
            StorageUnwritable: when it has none for closed ones that the disk refuses.
        """
        count, decoded = self._count, self._decoded
        self._append(count)
        self._count = 0
        if decoded:
            # Decoded, but not kept yet: they come to the front.
            for column in (self._timestamps, self._values):
                column[:decoded] = column[count : count + decoded].copy()

    def _append(self, count: int) -> None:
        head = self._head
        ends = self._scratch.take("ends", np.int32, head.rows + 1)
        head_replay.replay_order(self._rows, count, ends, self._order)
        bounds = np.array([0, count, 0, head.options.chunk_range_ms], np.int64)
        while bounds[0] < count:
            bounds[2] = self._pending_max
            bounds[0] = head_replay.replay_apply(
                head.tables, self._rows, self._timestamps, self._values.view(np.uint64),
                self._order, bounds, self.outcome,
            )  # fmt: skip
            if bounds[0] < 0:
                raise self._limit("open chunks")
            if bounds[0] == count:
                return
            if head.pending_bytes > self._pending_max:
                self._pending_max = self._flush()
            elif head.flush_closed() == 0:
                raise self._limit("closed chunks")

    def _limit(self, what: str) -> LimitExceeded:
        limit = self._head.options.series_max
        return LimitExceeded(f"{what} in the head of one tenant", limit, self._head.series)
