"""Read a head from any thread: postings, labels and chunks by jobs of a slice each.

A head cut removes chunks that a block then has. A reader that started before the block could be
seen must still find them: it registers under an epoch, the cut waits for the readers of older
epochs, and one that holds on too long is told so instead of being given a hole.

    reader: register (epoch 7) ── slice ── slice ── leave
    cut:    publish block, epoch 8 ── wait for epochs < 8 ── drop chunks
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from thanostack.lib.foundation.errors import Unavailable
from thanostack.lib.model.label_order import get_label_values, sort_runs, take_runs
from thanostack.lib.model.label_runs import Int64Array, LabelRuns, Uint8Array
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.chunks_head import ChunkFiles
from thanostack.lib.tsdb.head import HeadChunks, Int32Array, UInt64Array, pair_bytes
from thanostack.lib.tsdb.postings_query import select_postings

if TYPE_CHECKING:
    from thanostack.lib.tsdb.tsdb import TSDB

T = TypeVar("T")

_SLICE = 2_000
_GROUP = 16_000
_LABELS_SLICE = 10_000
_VALUES_SLICE = 20_000


@dataclass(eq=False, slots=True)
class Reader:
    """One running read; `refusal` says why it cannot go on, "" while it can."""

    epoch: int
    refusal: str = ""

    def check(self) -> None:
        """Raise when the head was cut or closed without this reader.

        Raises:
            Unavailable: then; after a cut, the same question asked again is answered.
        """
        if self.refusal:
            raise Unavailable(self.refusal, 1)


class ReaderRegistry:
    """Knows the running reads and since when."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self._changed = threading.Condition()
        self._epoch = 0
        self._refusal = ""

    @contextmanager
    def register(self) -> Iterator[Reader]:
        """Count as a reader of the current epoch for the time of the block."""
        with self._changed:
            reader = Reader(self._epoch, self._refusal)
            self._readers.add(reader)
        try:
            yield reader
        finally:
            with self._changed:
                self._readers.discard(reader)
                self._changed.notify_all()

    def retire(self, timeout_s: float) -> None:
        """Start a new epoch; wait until all readers of older ones have left or are overtaken."""
        with self._changed:
            self._epoch += 1
            epoch = self._epoch
            old = {reader for reader in self._readers if reader.epoch < epoch}
            self._changed.wait_for(lambda: not (old & self._readers), timeout_s)
            for reader in old & self._readers:
                reader.refusal = "the head was cut into a block during this read; ask again"

    def close(self) -> None:
        """Refuse all reads, running and to come: head chunk files are about to be closed."""
        with self._changed:
            self._refusal = "the storage is closed"
            for reader in self._readers:
                reader.refusal = self._refusal


class HeadReader:
    """One read of a tenant's head.

    Args:
        tsdb: the tenant.
        reader: its registration.
    """

    def __init__(self, tsdb: TSDB, reader: Reader) -> None:
        self._tsdb, self._reader = tsdb, reader
        self._jobs = tsdb.jobs

    # --- PostingsSource ----------------------------------------------------------------------

    def all_postings(self) -> Int32Array:
        """Return all rows, ascending."""
        return self._jobs.run(self._tsdb.head.rows_alive)

    def postings(self, name: bytes, value: bytes) -> Int32Array:
        """Return the rows with a label pair, ascending."""
        pair = pair_bytes(name, value)
        return self._jobs.run(lambda: self._tsdb.head.postings(pair))

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a label, sorted."""
        return sorted(self._steadily(lambda: self._values_of(name)))

    def _values_of(self, name: bytes) -> list[bytes]:
        records = self._jobs.run(lambda: self._tsdb.head.pairs_of(name))
        values: list[bytes] = []
        for first in range(0, len(records), _VALUES_SLICE):
            values += self._values(records[first : first + _VALUES_SLICE])
        return values

    def _steadily(self, read: Callable[[], T]) -> T:
        """Return what a read of several jobs found in one generation of the index.

        Between two jobs a rebuilt index may take the place of the old one: then a row may be
        another series, and a pair record another pair.
        """
        while True:
            generation = self._tsdb.head.generation
            found = read()
            if self._tsdb.head.generation == generation:
                return found

    def _values(self, records: Int64Array) -> list[bytes]:
        data, offsets = self._jobs.run(lambda: self._tsdb.head.pair_values(records))
        text, bounds = data.tobytes(), offsets.tolist()
        return [text[a:b] for a, b in itertools.pairwise(bounds)]

    # --- SeriesStore -------------------------------------------------------------------------

    def series(self, query: SeriesQuery) -> Iterator[SeriesBatch]:
        """Yield matching series that have chunks in [mint, maxt], ascending, 16,000 at a time.

        Chunks lie in files in the order of closing, not of labels: many series at once make their
        reads long instead of one small read a chunk. A job still is a slice of 2,000.
        """
        for labels, rows, refs in self._selected(query):
            parts = []
            for first in range(0, len(rows), _SLICE):
                part = slice(first, first + _SLICE)
                taken, files = self._jobs.run(
                    partial(self._snapshot, rows[part], refs[part], query)
                )
                parts.append(taken)
            self._reader.check()
            batch = _batch(labels, _join(parts), files, skip_chunks=query.skip_chunks)
            if len(batch):
                yield batch

    def label_names(self, query: SeriesQuery) -> list[str]:
        """Return the label names of matching series, unsorted."""
        if not self._in_range(query):
            return []
        if not query.matchers:
            names = self._jobs.run(self._tsdb.head.names)
            return [name.decode(errors="replace") for name in names]
        found: set[bytes] = set()
        for batch in self.series(_labels_only(query)):
            for i in range(len(batch)):
                found.update(name for name, _ in batch.labels.labels(i))
        return [name.decode(errors="replace") for name in found]

    def label_values(self, name: str, query: SeriesQuery) -> list[str]:
        """Return the values of one label over matching series, unsorted."""
        if not self._in_range(query):
            return []
        if not query.matchers:
            return [value.decode(errors="replace") for value in self.values(name.encode())]
        found: set[bytes] = set()
        for batch in self.series(_labels_only(query)):
            found.update(get_label_values(batch.labels, name.encode()))
        return [value.decode(errors="replace") for value in found if value]

    def _in_range(self, query: SeriesQuery) -> bool:
        return self._tsdb.head.mint <= query.maxt and self._tsdb.head.maxt >= query.mint

    def _selected(self, query: SeriesQuery) -> Iterator[tuple[LabelRuns, Int32Array, UInt64Array]]:
        """Yield (labels, rows, refs) of matching series in label order, a group at a time."""
        if not self._in_range(query):
            return
        rows, runs, refs = self._steadily(lambda: self._select(query))
        order = sort_runs(runs)
        for first in range(0, len(rows), _GROUP):
            part = order[first : first + _GROUP]
            yield take_runs(runs, part), np.ascontiguousarray(rows[part]), refs[part]

    def _select(self, query: SeriesQuery) -> tuple[Int32Array, LabelRuns, UInt64Array]:
        found = select_postings(self, query.matchers)
        rows = np.ascontiguousarray(found, np.int32)
        return rows, *self._labels(rows)

    def _labels(self, rows: Int32Array) -> tuple[LabelRuns, UInt64Array]:
        parts, refs = [], [np.zeros(0, np.uint64)]
        for first in range(0, len(rows), _LABELS_SLICE):
            part = np.ascontiguousarray(rows[first : first + _LABELS_SLICE])
            runs, ref = self._jobs.run(partial(self._identify, part))
            parts.append(runs)
            refs.append(ref)
        return _concatenate(parts), np.concatenate(refs)

    def _snapshot(
        self, rows: Int32Array, refs: UInt64Array, query: SeriesQuery
    ) -> tuple[HeadChunks, ChunkFiles]:
        chunks = self._tsdb.head.snapshot(rows, refs, query.mint, query.maxt)
        return chunks, self._tsdb.chunk_files.pin()

    def _identify(self, rows: Int32Array) -> tuple[LabelRuns, UInt64Array]:
        return self._tsdb.head.labels(rows), self._tsdb.head.refs(rows)


def _labels_only(query: SeriesQuery) -> SeriesQuery:
    return SeriesQuery(query.matchers, query.mint, query.maxt, skip_chunks=True)


def _concatenate(parts: Sequence[LabelRuns]) -> LabelRuns:
    if len(parts) == 1:
        return parts[0]
    lengths = [np.diff(part.offsets) for part in parts]
    offsets = np.zeros(sum(map(len, lengths)) + 1, np.int64)
    if parts:
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
    data = np.concatenate([part.data for part in parts]) if parts else np.zeros(0, np.uint8)
    return LabelRuns(data, offsets)


def fill_chunks(taken: HeadChunks, files: ChunkFiles) -> Uint8Array:
    """Return the bytes of all chunks of a snapshot, those in files read; their starts are set."""
    filed = taken.refs >= 0
    if not filed.any():
        return taken.data
    lengths = taken.chunks["length"][filed].astype(np.int64)
    gathered, starts = files.read_many(taken.refs[filed], lengths)
    taken.chunks["start"][filed] = starts + len(taken.data)
    return np.concatenate([taken.data, gathered])


def _join(parts: Sequence[HeadChunks]) -> HeadChunks:
    """Return the snapshots of consecutive slices as one."""
    if len(parts) == 1:
        return parts[0]
    bases = np.cumsum([0, *(len(part.data) for part in parts[:-1])])
    for part, base in zip(parts, bases.tolist(), strict=True):
        part.chunks["start"][part.refs < 0] += base
    offsets = np.zeros(sum(len(part.current) for part in parts) + 1, np.int64)
    np.cumsum(np.concatenate([np.diff(part.offsets) for part in parts]), out=offsets[1:])
    return HeadChunks(
        offsets,
        np.concatenate([part.chunks for part in parts]),
        np.concatenate([part.refs for part in parts]),
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.current for part in parts]),
    )


def _batch(
    labels: LabelRuns, taken: HeadChunks, files: ChunkFiles, *, skip_chunks: bool
) -> SeriesBatch:
    """Join labels with their chunks; rows without any are left out."""
    counts = np.diff(taken.offsets)
    kept = np.flatnonzero((counts > 0) & taken.current)
    if skip_chunks:
        return SeriesBatch.without_chunks(take_runs(labels, kept))
    data, chunks = fill_chunks(taken, files), taken.chunks
    if len(kept) < len(labels):
        of_kept = np.repeat((counts > 0) & taken.current, counts)
        labels, chunks, counts = take_runs(labels, kept), chunks[of_kept], counts[kept]
    offsets = np.zeros(len(labels) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return SeriesBatch(labels, offsets, chunks, data)
