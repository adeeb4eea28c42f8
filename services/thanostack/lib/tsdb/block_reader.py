"""Read a block: select series by matchers, decode their entries, gather their chunks.

    matchers -> postings -> index entries -> references -> chunk bytes -> SeriesBatch

Index and segments are mapped. Opening checks what everything else stands on (table of contents,
symbols, postings offsets, segment headers); lists, entries and chunks are checked when read, so a
damaged part costs what it holds and is named with file and offset.

Tombstones are applied here: a chunk wholly deleted is left out, one that is partly deleted is
re-encoded without the deleted samples.

Source: Prometheus `tsdb/block.go`, `tsdb/querier.go`; `docs/formats/block.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from thanostack.lib.chunkenc.xor import decode_chunks, encode_chunk
from thanostack.lib.index.reader import IndexReader, IndexRows
from thanostack.lib.index.symbols import PairTable
from thanostack.lib.model.label_order import get_label_values, take_runs
from thanostack.lib.model.label_runs import BoolArray, Int64Array, LabelRuns
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.block_meta import BlockMeta, read_meta
from thanostack.lib.tsdb.chunk_segments import ChunkSegments, map_file
from thanostack.lib.tsdb.postings_query import select_postings
from thanostack.lib.tsdb.tombstones import Intervals, Tombstones, read_tombstones

_ALL_TIME = (-(1 << 63), (1 << 63) - 1)


class BlockReader:
    """One block on disk, open for reading; safe to use from several threads.

    Attributes:
        meta: the block's descriptor.
    """

    def __init__(self, folder: Path) -> None:
        """Open a block.

        Args:
            folder: the block's own folder.

        Raises:
            BlockNotFound: if there is no such folder.
            BlockCorrupt: if meta, tombstones or a file's name is wrong.
            IndexCorrupt: if the index is damaged where everything stands on it.
            ChunkCorrupt: if a segment is none.
        """
        self.folder = folder
        self.meta: BlockMeta = read_meta(folder)
        index = map_file(folder / "index")
        self._index = IndexReader(index, str(folder / "index"))
        self._chunks = ChunkSegments(folder / "chunks")
        self._tombstones: Tombstones = read_tombstones(folder)
        others = (folder / "meta.json", folder / "tombstones")
        self.size_bytes = (
            len(index)
            + self._chunks.size_bytes
            + sum(path.stat().st_size for path in others if path.exists())
        )

    @property
    def index(self) -> IndexReader:
        """Return the block's index: names, values, postings and series entries."""
        return self._index

    def time_range(self) -> tuple[int, int]:
        """Return (mint, maxt) of the block, both inclusive, ms."""
        return self.meta.mint, self.meta.maxt - 1

    def series(self, query: SeriesQuery) -> Iterator[SeriesBatch]:
        """Yield matching series with chunks in the bounds, in label order, batch by batch.

        Raises:
            IndexCorrupt: if a postings list or series entry is damaged.
            ChunkCorrupt: if a chunk is damaged.
            ExecutionFailed: if part of a histogram chunk is deleted.
        """
        left = query.limit or (1 << 62)
        for rows in self._rows(query):
            labels = rows.labels
            if query.skip_chunks:
                batch = SeriesBatch.without_chunks(labels)
            else:
                chunks, data = self._chunks.read(rows.chunks)
                batch = SeriesBatch(labels, rows.chunk_offsets, chunks, data)
                if self._tombstones:
                    batch = self._without_deleted_samples(batch, rows.series)
            if len(batch) > left:
                batch = _first_rows(batch, left)
            left -= len(batch)
            if len(batch):
                yield batch
            if not left:
                return

    def label_names(self, query: SeriesQuery) -> list[str]:
        """Return the sorted label names of matching series.

        Raises:
            IndexCorrupt: if a postings list or series entry is damaged.
        """
        if not self._overlaps(query):
            return []
        if not query.matchers:
            return _texts(self._index.names(), query.limit)
        pairs = PairTable()
        for labels in self._labels(query):
            pairs.intern(labels)
        return _texts(pairs.names(), query.limit)

    def label_values(self, name: str, query: SeriesQuery) -> list[str]:
        """Return the sorted values of one label over matching series.

        Raises:
            IndexCorrupt: if a postings list or series entry is damaged.
        """
        if not self._overlaps(query):
            return []
        key = name.encode()
        if not query.matchers:
            return _texts(self._index.values(key), query.limit)
        values: set[bytes] = set()
        for labels in self._labels(query):
            values.update(get_label_values(labels, key))
        return _texts(sorted(values - {b""}), query.limit)

    def close(self) -> None:
        """Let the mappings go; reads that still run keep theirs."""
        self._chunks.close()

    def _overlaps(self, query: SeriesQuery) -> bool:
        return query.mint < self.meta.maxt and query.maxt >= self.meta.mint

    def _rows(self, query: SeriesQuery) -> Iterator[IndexRows]:
        if not self._overlaps(query):
            return
        postings = select_postings(self._index, query.matchers)
        for rows in self._index.series(postings, query.mint, query.maxt):
            yield self._without_deleted_chunks(rows) if self._tombstones else rows

    def _labels(self, query: SeriesQuery) -> Iterator[LabelRuns]:
        """Yield the labels of matching series; as upstream, wherever in the block they lie."""
        postings = select_postings(self._index, query.matchers)
        for rows in self._index.series(postings, *_ALL_TIME):
            yield rows.labels

    def _without_deleted_chunks(self, rows: IndexRows) -> IndexRows:
        """Leave out chunks inside one deleted interval, and series left with none."""
        keep = np.ones(len(rows.chunks), np.bool_)
        for row, intervals in self._deleted_rows(rows.series):
            for c in range(rows.chunk_offsets[row], rows.chunk_offsets[row + 1]):
                mint, maxt = int(rows.chunks[c]["mint"]), int(rows.chunks[c]["maxt"])
                keep[c] = not any(a <= mint and maxt <= b for a, b in intervals)
        if keep.all():
            return rows
        offsets, kept = _kept_rows(rows.chunk_offsets, keep)
        labels = take_runs(rows.labels, kept)
        return IndexRows(rows.series[kept], labels, offsets, rows.chunks[keep])

    def _deleted_rows(self, series: Int64Array) -> list[tuple[int, Intervals]]:
        found = ((row, self._tombstones.get(s)) for row, s in enumerate(series.tolist()))
        return [(row, intervals) for row, intervals in found if intervals]

    def _without_deleted_samples(self, batch: SeriesBatch, series: Int64Array) -> SeriesBatch:
        """Re-encode chunks that are partly deleted; leave out what that empties."""
        keep = np.ones(len(batch.chunks), np.bool_)
        chunks, added, end = batch.chunks, [batch.data], len(batch.data)
        for row, intervals in self._deleted_rows(series):
            for c in range(batch.chunk_offsets[row], batch.chunk_offsets[row + 1]):
                mint, maxt = int(chunks[c]["mint"]), int(chunks[c]["maxt"])
                if not any(a <= maxt and mint <= b for a, b in intervals):
                    continue
                body, chunk = _delete_from_chunk(batch, row, c, intervals)
                keep[c] = len(body) > 0
                chunks[c] = (*chunk, end, len(body), chunks[c]["encoding"])
                added.append(np.frombuffer(body, np.uint8))
                end += len(body)
        if len(added) == 1:
            return batch
        offsets, kept = _kept_rows(batch.chunk_offsets, keep)
        labels = take_runs(batch.labels, kept)
        return SeriesBatch(labels, offsets, chunks[keep], np.concatenate(added))


def _delete_from_chunk(
    batch: SeriesBatch, row: int, c: int, intervals: Intervals
) -> tuple[bytes, tuple[int, int]]:
    """Return the chunk without deleted samples, and its bounds; b"" when none is left."""
    one = SeriesBatch(
        take_runs(batch.labels, np.array([row], np.int64)),
        np.array([0, 1], np.int64),
        batch.chunks[c : c + 1],
        batch.data,
    )
    decoded = decode_chunks(one, 0, 1)
    times: Int64Array = decoded.timestamps
    left = np.ones(len(times), np.bool_)
    for mint, maxt in intervals:
        left &= (times < mint) | (times > maxt)
    if not left.any():
        return b"", (0, 0)
    times = times[left]
    return encode_chunk(times, decoded.values[left]), (int(times[0]), int(times[-1]))


def _kept_rows(chunk_offsets: Int64Array, keep: BoolArray) -> tuple[Int64Array, Int64Array]:
    """Return the chunk offsets of rows that keep a chunk, and those rows."""
    before = np.zeros(len(keep) + 1, np.int64)
    np.cumsum(keep, out=before[1:])
    bounds = before[chunk_offsets]
    rows = np.flatnonzero(np.diff(bounds))
    return np.append(bounds[rows], bounds[-1]), rows


def _first_rows(batch: SeriesBatch, n: int) -> SeriesBatch:
    labels = LabelRuns(batch.labels.data, batch.labels.offsets[: n + 1])
    offsets = batch.chunk_offsets[: n + 1]
    return SeriesBatch(labels, offsets, batch.chunks[: offsets[-1]], batch.data)


def _texts(found: Iterable[bytes], limit: int) -> list[str]:
    texts = [part.decode(errors="replace") for part in found]
    return texts[:limit] if limit else texts
