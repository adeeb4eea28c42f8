"""The head: the newest samples of one tenant, as tables of reserved memory.

    WriteColumns --resolve--> rows --stage--> WAL record … apply --> open chunks ──> closed chunks
                     └─misses──> canonical runs ──> new rows

Every method runs inside a job of the tenant's `JobQueue`; nothing else touches the tables. What a
reader gets is a copy. The kernels are in `kernels/head_*.py`, the layout in `head_types.py`.

Invariants: a row created but not yet logged is in `unlogged`; nothing is applied that the log does
not have; `stage` finds room for all that `apply` will need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import LimitExceeded, Unavailable
from thanostack.lib.kernels import head_append, head_pairs, head_read, head_series, label_canonical
from thanostack.lib.kernels.head_types import (
    ALIVE,
    CHUNKS,
    CHUNKS_MADE,
    CHUNKS_REMOVED,
    CLOSED_DTYPE,
    CLOSED_TOP,
    KEYS_TOP,
    MAX_T,
    META_SIZE,
    MIN_T,
    NEWEST_NAME,
    NEXT_REF,
    PAIR_BYTES_TOP,
    PAIR_DTYPE,
    PAIRS,
    POSTINGS_TOP,
    ROW_DTYPE,
    ROWS,
    SLAB_BYTES,
    SLABS_TOP,
    HeadTables,
)
from thanostack.lib.kernels.head_types import FREE_POSTINGS as _FREE_POSTINGS
from thanostack.lib.model.label_runs import Int64Array, LabelRuns, Uint8Array, uvarint
from thanostack.lib.model.series import CHUNK_DTYPE, ChunkArray
from thanostack.lib.tsdb import series_limits, untimely
from thanostack.lib.tsdb.options import NO_LIMITS, SeriesLimits
from thanostack.lib.tsdb.reserved_memory import prefer_huge_pages, release, reserve
from thanostack.lib.tsdb.write_columns import WriteColumns

Int32Array = npt.NDArray[np.int32]
UInt64Array = npt.NDArray[np.uint64]

LABELS_MAX = 256
_FRAME_BYTES = 1200
_FRAMES_KEPT = 1 << 20
_HUGE_PAGES_FROM = {  # rows; two to six MiB by then, so that half a page left over is little
    "keys": 1 << 14,
    "slabs": 1 << 14,
    "rows": 1 << 15,
    "postings": 1 << 15,
    "pairs": 1 << 15,
    "pair_bytes": 1 << 15,
}
_LARGE_TABLE = 1 << 18  # slots; 2 MiB
_CANONICAL_KEPT = 4 << 20  # beyond that, one large request would hold memory for good
_SLABS_OF_ALL_CLASSES = int(SLAB_BYTES.sum())
_REQUEST_SERIES = 1 << 16  # room for the slabs that one request might need beside all others


class ChunkFiles(Protocol):
    """Where closed chunks go; `ChunksHeadWriter` is one."""

    def append(self, frames: Uint8Array, lengths: Int64Array) -> Int64Array:
        """Write complete frames and return their references."""
        ...


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """Sizes of a head.

    Args:
        chunk_range_ms: no chunk crosses a multiple of it; the block range.
        series_max: how many series at once; bounds the reserved address space, not memory.
    """

    chunk_range_ms: int = 2 * 60 * 60 * 1000
    series_max: int = 1 << 23


@dataclass(frozen=True, slots=True)
class HeadChunks:
    """The chunks of some rows at one instant.

    Args:
        offsets: int64[S + 1].
        chunks: CHUNK_DTYPE[C]; `start` indexes `data`, or is -1 where `refs` has the chunk.
        refs: int64[C]; chunks_head references, -1 where `data` has the chunk.
        data: uint8[n].
        current: bool[S]; False where the row has become another series since it was selected.
    """

    offsets: Int64Array
    chunks: ChunkArray
    refs: Int64Array
    data: Uint8Array
    current: npt.NDArray[np.bool_]


def _index_tables(series_max: int, meta: Int64Array) -> dict[str, npt.NDArray[np.generic]]:
    meta[NEWEST_NAME] = -1
    return {
        "meta": meta,
        "keys": reserve(np.uint8, series_max * 512),
        "table": np.zeros(1024, np.uint64),
        "pairs": reserve(PAIR_DTYPE, series_max * 2),
        "pair_table": np.zeros(2048, np.uint64),
        "pair_bytes": reserve(np.uint8, series_max * 256),
        "postings": reserve(np.int32, min(series_max * 64, (1 << 31) - 1)),
    }


class Head:
    """Series table, open chunks and closed chunks of one tenant.

    Args:
        options: sizes.
        files: takes closed chunks.

    Attributes:
        unlogged: rows whose series record is not in the log yet.
        chunks_placed: closed chunks written to their files so far.
        generation: of the index; rows and pair records of another generation mean other series.
    """

    def __init__(self, options: HeadOptions, files: ChunkFiles) -> None:
        self.options = options
        self._files = files
        n = options.series_max
        meta = np.zeros(META_SIZE, np.int64)
        meta[NEXT_REF], meta[MIN_T], meta[MAX_T] = 1, (1 << 63) - 1, -(1 << 63)
        self.tables = HeadTables(
            rows=reserve(ROW_DTYPE, n),
            refs=reserve(np.int64, n),
            tails=reserve(np.int32, n),
            slabs=reserve(np.uint8, (n + _REQUEST_SERIES) * _SLABS_OF_ALL_CLASSES),
            chunks=reserve(CLOSED_DTYPE, n * 8),
            closed=reserve(np.uint8, 1 << 30),
            **_index_tables(n, meta),
        )
        self.unlogged: list[Int64Array] = []
        self.generation = 0
        self._placed = 0
        self.chunks_placed = 0
        self._rows_paged = 0
        self._fields = np.zeros(4 * LABELS_MAX, np.int64)
        self._canonical = np.zeros(1 << 16, np.uint8)

    # --- what it holds ---------------------------------------------------------------------

    @property
    def series(self) -> int:
        """Return the number of series."""
        return int(self.tables.meta[ALIVE])

    @property
    def rows(self) -> int:
        """Return the number of rows, those free included."""
        return int(self.tables.meta[ROWS])

    @property
    def mint(self) -> int:
        """Return the earliest time of the head, ms; 2^63 - 1 when empty."""
        return int(self.tables.meta[MIN_T])

    @property
    def maxt(self) -> int:
        """Return the newest timestamp, ms inclusive; -2^63 when empty."""
        return int(self.tables.meta[MAX_T])

    @property
    def chunks(self) -> int:
        """Return the number of closed chunks."""
        return int(self.tables.meta[CHUNKS])

    @property
    def chunks_made(self) -> int:
        """Return the number of chunks begun or attached so far."""
        return int(self.tables.meta[CHUNKS_MADE])

    @property
    def chunks_removed(self) -> int:
        """Return the number of chunks forgotten so far; all others are in the head."""
        return int(self.tables.meta[CHUNKS_REMOVED])

    @property
    def pending_bytes(self) -> int:
        """Return the bytes of closed chunks that are not in a file yet."""
        return int(self.tables.meta[CLOSED_TOP])

    @property
    def next_ref(self) -> int:
        """Return the reference that the next new series gets."""
        return int(self.tables.meta[NEXT_REF])

    # --- write path ------------------------------------------------------------------------

    def resolve(
        self,
        columns: WriteColumns,
        limits: SeriesLimits = NO_LIMITS,
        times: tuple[int, int] | None = None,
    ) -> tuple[int, Int64Array]:
        """Find or create the row of every series of a request.

        Args:
            columns: of the request.
            limits: what new series must keep to.
            times: earliest and latest of samples that will be accepted, ms inclusive; new series
                without any are not made. None makes all.

        Returns:
            The number of series created, and int64[S] statuses: 0, or why the labels are refused
            (`label_canonical`, `series_limits`); empty when every series was known.
        """
        n = columns.count
        rows = columns.rows[:n]
        bounds = columns.bounds[: 2 * n]
        if head_series.head_resolve(self.tables, columns.data, bounds, n, rows) == 0:
            return 0, np.zeros(0, np.int64)
        if len(self._canonical) < len(columns.data) + 16:
            self._canonical = np.zeros(2 * len(columns.data) + 16, np.uint8)
        canonical, statuses = np.empty(2 * n, np.int64), np.empty(n, np.int64)
        label_canonical.label_canonicalise(
            columns.data, bounds, rows, self._fields, self._canonical, canonical, statuses
        )
        created = np.zeros(n + 1, np.int64)
        try:
            if times is not None:
                untimely.leave_out(self.tables, columns, self._canonical, canonical, times)
            if limits != NO_LIMITS:
                series_limits.refuse(self.tables, limits, self._canonical, canonical, statuses)
            self._create(self._canonical, canonical, np.zeros(n, np.uint64), rows, created)
        finally:
            # Also when the limit was reached half-way: series made until then are not in the log.
            if created[0]:
                self.unlogged.append(rows[created[1 : 1 + created[0]]])
            if len(self._canonical) > _CANONICAL_KEPT:
                self._canonical = np.zeros(_CANONICAL_KEPT, np.uint8)
        return int(created[0]), statuses

    def create(self, labels: LabelRuns, refs: UInt64Array) -> Int64Array:
        """Find or create the rows of canonical runs with given references; for replay.

        Returns:
            int64[S] rows.
        """
        bounds = np.empty(2 * len(labels), np.int64)
        bounds[0::2], bounds[1::2] = labels.offsets[:-1], labels.offsets[1:]
        rows = np.full(len(labels), -1, np.int64)
        created = np.zeros(len(labels) + 1, np.int64)
        self._create(labels.data, bounds, refs, rows, created)
        return rows

    def _create(
        self, data: Uint8Array, bounds: Int64Array, refs: UInt64Array, rows: Int64Array,
        created: Int64Array,
    ) -> None:  # fmt: skip
        first, n = 0, len(rows)
        while first < n:
            first = head_series.head_create(
                self.tables, data, bounds, first, n, refs, rows, created
            )
            if first < 0:
                limit = self.options.series_max
                raise LimitExceeded("series in the head of one tenant", limit, self.series + 1)
            if first < n:
                self.tables = _grow_tables(self.tables)
            self._enlarge_pages()

    def _enlarge_pages(self) -> None:
        rows = self.rows
        for name, enough in _HUGE_PAGES_FROM.items():
            if self._rows_paged < enough <= rows:
                prefer_huge_pages(getattr(self.tables, name))
        self._rows_paged = max(self._rows_paged, rows)

    def stage(self, columns: WriteColumns, mint: int, maxt: int) -> tuple[Int64Array, int]:
        """Validate the samples of a request and write its WAL record.

        Args:
            columns: resolved; accepted samples move to the front.
            mint: the earliest time accepted, ms inclusive.
            maxt: the latest, inclusive.

        Returns:
            int64[8] outcome counts (`head_append`), and the length of the record.

        Raises:
            Unavailable: when memory or disk space for what the samples need is not there.
        """
        self._check_room(columns)
        n = columns.count
        outcome = np.zeros(8, np.int64)
        outcome[head_append.FIRST_REJECTED] = -1
        length = head_append.head_stage(
            self.tables, columns.rows, columns.offsets[: n + 1], columns.timestamps, columns.values,
            np.array([mint, maxt], np.int64), columns.staged, outcome, columns.record,
        )  # fmt: skip
        return outcome, int(length)

    def _check_room(self, columns: WriteColumns) -> None:
        """Make sure that `apply` cannot fail half-way: samples are logged by then."""
        tables, meta = self.tables, self.tables.meta
        # Bound: each series closes its open chunk at most once at full size; later ones are small.
        frames = columns.count * _FRAME_BYTES + columns.samples * 96
        if meta[CLOSED_TOP] + frames + _FRAME_BYTES > len(tables.closed):
            self.flush_closed()
        if meta[CLOSED_TOP] + frames + _FRAME_BYTES > len(tables.closed):
            raise LimitExceeded("series_limit", len(tables.closed) // 1300, columns.count)
        slabs = columns.count * _SLABS_OF_ALL_CLASSES
        if meta[SLABS_TOP] + slabs > len(tables.slabs):
            raise Unavailable("the head has no room for more open chunks")
        if meta[CHUNKS] + columns.samples > len(tables.chunks):
            raise Unavailable("the head has no room for more chunks before it is cut into a block")

    def apply(self, columns: WriteColumns, count: int) -> None:
        """Append the first `count` staged samples to their chunks; they are in the log."""
        first = 0
        while first < count:
            first = head_append.head_apply(
                self.tables, columns.staged, columns.timestamps, columns.values, first, count,
                self.options.chunk_range_ms,
            )  # fmt: skip
            assert first >= 0, "stage promised room"
            if first < count:
                self.flush_closed()

    def flush_closed(self) -> int:
        """Write pending closed chunks to their file and return how many.

        Raises:
            StorageUnwritable: when the file refuses; the frames stay readable and pending.
        """
        tables = self.tables
        pending = int(tables.meta[CHUNKS]) - self._placed
        top = int(tables.meta[CLOSED_TOP])
        if pending == 0:
            return 0
        lengths = np.empty(pending, np.int64)
        head_read.head_frame_lengths(tables, self._placed, lengths)
        refs = self._files.append(tables.closed[:top], lengths)
        head_read.head_place_closed(tables, refs, self._placed)
        self._placed += pending
        self.chunks_placed += pending
        if top > _FRAMES_KEPT:
            release(tables.closed, _FRAMES_KEPT, top)
        return pending

    # --- reading ---------------------------------------------------------------------------

    def rows_alive(self) -> Int32Array:
        """Return the rows in use, ascending."""
        out = np.empty(int(self.tables.meta[ROWS]), np.int32)
        return out[: head_series.head_alive_rows(self.tables, out)]

    def postings(self, pair: bytes) -> Int32Array:
        """Return the rows that carry a pair, ascending.

        Args:
            pair: `0A n name 12 v value`.
        """
        index = head_pairs.head_find_pair(self.tables, np.frombuffer(pair, np.uint8))
        if index < 0:
            return np.zeros(0, np.int32)
        record = self.tables.pairs[index]
        start = int(record["postings"])
        # Recycled rows come out of order; a sorted copy costs little when it is sorted already.
        return np.sort(self.tables.postings[start : start + int(record["count"])], kind="stable")

    def names(self) -> list[bytes]:
        """Return all label names, unsorted."""
        names, index = [], head_pairs.head_next_pair(self.tables, 0, 0)
        while index >= 0:
            names.append(_field(self._pair_bytes(index)))
            index = head_pairs.head_next_pair(self.tables, 1, index)
        return names

    def pairs_of(self, name: bytes) -> Int64Array:
        """Return the records of the pairs of one label name, newest first."""
        wanted = b"\x0a" + uvarint(len(name)) + name
        index = head_pairs.head_find_pair(self.tables, np.frombuffer(wanted, np.uint8))
        if index < 0:
            return np.zeros(0, np.int64)
        out = np.empty(1024, np.int64)
        while (n := head_pairs.head_name_pairs(self.tables, index, out)) > len(out):
            out = np.empty(n, np.int64)
        return out[:n]

    def pair_values(self, records: Int64Array) -> tuple[Uint8Array, Int64Array]:
        """Return the values of pairs, copied to one buffer, and int64[n + 1] offsets into it."""
        offsets = np.empty(len(records) + 1, np.int64)
        out = np.empty(64 * len(records), np.uint8)
        while (need := head_pairs.head_pair_values(self.tables, records, offsets, out)) > len(out):
            out = np.empty(need, np.uint8)
        return out, offsets

    def _pair_bytes(self, index: int) -> bytes:
        record = self.tables.pairs[index]
        start = int(record["start"])
        data: Uint8Array = self.tables.pair_bytes
        return data[start : start + int(record["length"])].tobytes()

    def labels(self, rows: Int32Array) -> LabelRuns:
        """Return copies of the label runs of rows."""
        offsets = np.empty(len(rows) + 1, np.int64)
        out = np.empty(len(rows) * 320, np.uint8)
        while (need := head_read.head_labels(self.tables, rows, offsets, out)) > len(out):
            out = np.empty(need, np.uint8)
        return LabelRuns(out[:need], offsets)

    def refs(self, rows: Int32Array | Int64Array) -> UInt64Array:
        """Return the series references of rows."""
        refs: Int64Array = self.tables.refs
        return refs[rows].astype(np.uint64)

    def snapshot(self, rows: Int32Array, refs: UInt64Array, mint: int, maxt: int) -> HeadChunks:
        """Return the chunks of rows that overlap [mint, maxt], ms inclusive.

        Args:
            rows: at most about 2,000: a job is a slice.
            refs: what `refs(rows)` said when the rows were selected.
            mint: ms, inclusive.
            maxt: ms, inclusive.
        """
        offsets = np.empty(len(rows) + 1, np.int64)
        capacity, size = 16 * len(rows) + 16, 600 * len(rows) + 4096
        while True:
            chunks, places = np.empty(capacity, CHUNK_DTYPE), np.empty(capacity, np.int64)
            data = np.empty(size, np.uint8)
            used = head_read.head_snapshot(
                self.tables, rows, mint, maxt, offsets, chunks, places, data
            )
            if used >= 0:
                break
            capacity, size = 4 * capacity, 4 * size
        n = int(offsets[-1])
        current = self.tables.refs[rows] == refs.astype(np.int64)
        return HeadChunks(offsets, chunks[:n], places[:n], data[:used], current)

    # --- letting go ------------------------------------------------------------------------

    def drop_before(self, mint: int) -> int:
        """Forget chunks that end before mint, ms; return the number of series left without any."""
        assert self._placed == self.tables.meta[CHUNKS], "flush closed chunks first"
        empty = int(head_read.head_drop_before(self.tables, mint))
        self._placed = int(self.tables.meta[CHUNKS])
        return empty

    def attach_chunks(
        self, rows: Int64Array, mints: Int64Array, maxts: Int64Array, refs: Int64Array,
        lengths: Int64Array,
    ) -> int:  # fmt: skip
        """Link chunks that `chunks_head` has to their rows; return how many were taken.

        Raises:
            StorageUnwritable: when chunks closed before cannot be written first.
        """
        self.flush_closed()
        count = head_read.head_attach_chunks(self.tables, rows, mints, maxts, refs, lengths)
        self._placed = int(self.tables.meta[CHUNKS])
        if count:
            meta = self.tables.meta
            meta[MIN_T] = min(int(meta[MIN_T]), int(mints.min()))
            meta[MAX_T] = max(int(meta[MAX_T]), int(maxts.max()))
        return int(count)


class IndexRebuild:
    """Builds the series index anew without the series that have no chunk left, slice by slice.

    Appends go on between slices: rows keep their places, and rows that come or revive meanwhile are
    picked up by `finish`, which is one short job.
    """

    SLICE = 4000

    def __init__(self, head: Head) -> None:
        self._head = head
        meta = np.zeros(META_SIZE, np.int64)
        self._fresh = head.tables._replace(**_index_tables(head.options.series_max, meta))
        # Bound: rows may quadruple while the rebuild goes on; `finish` refuses beyond that.
        size = _power_of_two(8 * (int(head.tables.meta[ROWS]) + 1024))
        self._fresh = self._fresh._replace(table=_hash_table(size))
        for name in ("keys", "postings", "pairs", "pair_bytes"):
            if _HUGE_PAGES_FROM[name] <= head.tables.meta[ROWS]:
                prefer_huge_pages(getattr(self._fresh, name))
        self._keys = reserve(np.int64, head.options.series_max)
        self._keys_seen = 0
        self._next = 0

    def step(self) -> bool:
        """Copy one slice of rows; return whether rows are left."""
        rows = int(self._head.tables.meta[ROWS])
        if not self._fits(rows):
            return False
        self._copy(self._next, min(self._next + self.SLICE, rows))
        self._next = min(self._next + self.SLICE, rows)
        return self._next < rows

    def finish(self) -> UInt64Array:
        """Catch up, put the fresh index in place, and return the references of the series freed.

        Nothing is freed when the series have multiplied meanwhile; the next rebuild will.
        """
        head = self._head
        rows = int(head.tables.meta[ROWS])
        if not self._fits(rows):
            return np.zeros(0, np.uint64)
        self._copy(0, rows)
        meta = head.tables.meta
        for place in (KEYS_TOP, PAIRS, PAIR_BYTES_TOP, POSTINGS_TOP, NEWEST_NAME, ALIVE):
            meta[place] = self._fresh.meta[place]
        meta[_FREE_POSTINGS : _FREE_POSTINGS + 32] = self._fresh.meta[
            _FREE_POSTINGS : _FREE_POSTINGS + 32
        ]
        head.tables = self._fresh._replace(meta=meta)
        head.generation += 1
        dropped = np.empty(rows, np.int64)
        n = head_series.head_swap_index(head.tables, self._keys, dropped)
        # A series whose log write failed and that never got a sample is gone with its row.
        head.unlogged = [part[head.tables.rows["key_bytes"][part] >= 0] for part in head.unlogged]
        return dropped[:n].astype(np.uint64)

    def _fits(self, rows: int) -> bool:
        return 2 * (rows + 1) <= len(self._fresh.table)

    def _copy(self, first: int, stop: int) -> None:
        self._keys[self._keys_seen : stop] = -1
        self._keys_seen = max(self._keys_seen, stop)
        while first < stop:
            first = head_series.head_reindex(
                self._head.tables, self._fresh, first, stop, self._keys
            )
            assert first >= 0, "a fresh index needs no more room than the old one"
            if first < stop:
                self._fresh = _grow_pair_table(self._fresh)


def _grow_tables(tables: HeadTables) -> HeadTables:
    """Return tables with more room in the hash table that is full, the rows' or else the pairs'."""
    rows = int(tables.meta[ROWS])
    if 2 * (rows + 1) <= len(tables.table):
        return _grow_pair_table(tables)
    table = _hash_table(_power_of_two(4 * (rows + 1)))
    head_series.head_rehash_rows(tables, table)
    return tables._replace(table=table)


def _grow_pair_table(tables: HeadTables) -> HeadTables:
    # At least twice as large: a logged series may have any number of labels.
    size = max(4 * (int(tables.meta[PAIRS]) + 2 * LABELS_MAX), 2 * len(tables.pair_table))
    table = _hash_table(_power_of_two(size))
    head_pairs.head_rehash_pairs(tables, table)
    return tables._replace(pair_table=table)


def _hash_table(slots: int) -> UInt64Array:
    if slots < _LARGE_TABLE:
        return np.zeros(slots, np.uint64)
    table = reserve(np.uint64, slots)
    prefer_huge_pages(table)
    return table


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _field(data: bytes) -> bytes:
    """Return the payload of the length-prefixed field at the start of some bytes."""
    size, shift, i = 0, 0, 1
    while True:
        size |= (data[i] & 127) << shift
        i += 1
        if data[i - 1] < 128:
            return data[i : i + size]
        shift += 7


def pair_bytes(name: bytes, value: bytes) -> bytes:
    """Return a label pair as `Head.postings` wants it."""
    return b"\x0a" + uvarint(len(name)) + name + b"\x12" + uvarint(len(value)) + value
