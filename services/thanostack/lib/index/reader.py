"""Read an index of version 1, 2 or 3 in place.

Opening checks the table of contents, the symbols and the postings offset table; every postings
list and every series entry is checked when it is used. Memory: four bytes a symbol and four a
label pair, the rest stays in the file.

Source: Prometheus `tsdb/index/index.go` (`Reader`); `docs/formats/index.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import IndexCorrupt
from thanostack.lib.index.postings import EMPTY, PostingsTable, read_list
from thanostack.lib.index.symbols import SymbolTable
from thanostack.lib.index.toc import SERIES_ALIGN, TOC_BYTES, read_toc
from thanostack.lib.kernels import index_read
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_order import compare_runs
from thanostack.lib.model.label_runs import Int64Array, LabelRuns, Uint8Array
from thanostack.lib.model.series import ChunkArray

_REASONS = {
    index_read.NO_ROOM: "a series claims more than 512 MiB of labels or 8,388,608 chunks",
    index_read.BAD_LENGTH: "a series passes the end of the series",
    index_read.BAD_CHECKSUM: "the checksum of a series differs",
    index_read.BAD_LABELS: "the labels of a series are damaged",
    index_read.BAD_CHUNKS: "the chunks of a series are damaged",
    index_read.BAD_ORDER: "series are out of label order",
}
BATCH_SERIES = 2000
_LABEL_BYTES = 1 << 20
_CHUNKS = 1 << 14
# Bound: a few hostile bytes could name a large symbol again and again.
_LABEL_BYTES_MAX = _LABEL_BYTES << 9


@dataclass(frozen=True, slots=True)
class IndexRows:
    """A batch of decoded series entries.

    Args:
        series: int64[S]; the postings numbers.
        labels: S label runs.
        chunk_offsets: int64[S + 1].
        chunks: CHUNK_DTYPE[C]; `start` is the chunk reference, length and encoding are 0.
    """

    series: Int64Array
    labels: LabelRuns
    chunk_offsets: Int64Array
    chunks: ChunkArray


class IndexReader:
    """One index, over bytes that stay where they are.

    Attributes:
        version: 1, 2 or 3.
        toc: where its sections begin.
    """

    def __init__(self, data: Uint8Array, file: str) -> None:
        """Open an index.

        Args:
            data: uint8[n]; the whole file, usually mapped.
            file: its path, for errors.

        Raises:
            IndexCorrupt: if header, table of contents, symbols or postings offsets are damaged.
        """
        self._data, self._file = data, file
        self.version, self.toc = read_toc(data, file)
        if not self.toc.symbols or not self.toc.postings_table:
            raise IndexCorrupt(file, len(data) - TOC_BYTES, "no symbols or no postings")
        self._symbols = SymbolTable(data, self.toc.symbols, file)
        self._table = PostingsTable(data, self.toc.postings_table, file)
        self._unit = 1 if self.version == 1 else SERIES_ALIGN

    @property
    def n_symbols(self) -> int:
        """Return the number of symbols."""
        return len(self._symbols)

    @property
    def symbol_table_bytes(self) -> int:
        """Return the memory that finding symbols takes; their text is mapped."""
        return self._symbols.offsets.nbytes

    def names(self) -> list[bytes]:
        """Return the label names, ascending."""
        return self._table.names()

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a label name, ascending."""
        return self._table.values(name)

    def postings(self, name: bytes, value: bytes) -> Int64Array:
        """Return the series with a label pair, ascending.

        Raises:
            IndexCorrupt: if the list is damaged.
        """
        offset = self._table.find(name, value)
        return EMPTY if offset is None else read_list(self._data, offset, self._file)

    def all_postings(self) -> Int64Array:
        """Return all series, ascending, which is label order.

        Raises:
            IndexCorrupt: if the list is damaged.
        """
        return self.postings(b"", b"")

    def series(
        self, postings: Int64Array, mint: int, maxt: int, batch_series: int = BATCH_SERIES
    ) -> Iterator[IndexRows]:
        """Yield the series among `postings` that have a chunk in [mint, maxt], ms.

        A batch ends at 2,000 series, about 1 MiB of labels or 16,384 chunks, whichever is first.

        Raises:
            IndexCorrupt: if an entry is damaged.
        """
        state = np.zeros(8, np.int64)
        state[: index_read.NEXT_ROW] = (
            self._symbols.start,
            self._symbols.stop,
            len(self._data) - TOC_BYTES,
            self.version,
            mint,
            maxt,
        )
        label_bytes, n_chunks = _LABEL_BYTES, _CHUNKS
        last_run: bytes | None = None
        while state[index_read.NEXT_ROW] < len(postings):
            status, rows = self._decode(postings, state, batch_series, label_bytes, n_chunks)
            if status == index_read.NO_ROOM and label_bytes < _LABEL_BYTES_MAX:
                label_bytes, n_chunks = 8 * label_bytes, 8 * n_chunks
                continue
            if status > 0 and last_run is not None:
                ascends = compare_runs(last_run, rows.labels.run(0)) < 0
                status = status if ascends else index_read.BAD_ORDER
            if status < 0:
                raise IndexCorrupt(
                    self._file, int(state[index_read.LAST_REF]), _REASONS[int(status)]
                )
            if status:
                last_run = rows.labels.run(status - 1)
                yield rows

    def _decode(
        self,
        postings: Int64Array,
        state: Int64Array,
        batch_series: int,
        label_bytes: int,
        n_chunks: int,
    ) -> tuple[int, IndexRows]:
        room = min(batch_series, len(postings) - int(state[index_read.NEXT_ROW]))
        out, chunks = np.empty(label_bytes, np.uint8), np.empty(n_chunks, CHUNK_DTYPE)
        offsets, chunk_offsets = np.empty(room + 1, np.int64), np.empty(room + 1, np.int64)
        kept = np.empty(room, np.int64)
        status = index_read.decode_series(
            self._data,
            postings * self._unit,
            self._symbols.offsets,
            state,
            out,
            offsets,
            chunk_offsets,
            chunks,
            kept,
        )
        n = max(status, 0)
        labels = LabelRuns(out[: offsets[n]].copy(), offsets[: n + 1].copy())
        bounds = chunk_offsets[: n + 1].copy()
        return status, IndexRows(postings[kept[:n]], labels, bounds, chunks[: bounds[n]].copy())
