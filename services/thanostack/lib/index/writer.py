"""Write a block's index, version 2, from series ascending in label order.

    add()      interns labels (4 bytes a label stay), keeps the encoded chunk parts
    encode()   symbols | series | postings | postings offset table | table of contents

Symbols come first in the file but are complete only after the last series, so series entries are
encoded when all is known. Bytes are those of Prometheus for the same series: the section of label
indices, which its writer no longer makes, is empty here too.

Bound: 8 bytes a label (pair id, posting), about 10 bytes a chunk, and the distinct pairs.
Source: Prometheus `tsdb/index/index.go` (`Writer`); `docs/formats/index.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import LimitExceeded
from thanostack.lib.index.symbols import Int32Array, PairTable, RankedPairs, Uint32Array
from thanostack.lib.index.toc import (
    HEADER_BYTES,
    MAGIC,
    SERIES_ALIGN,
    WRITE_VERSION,
    TableOfContents,
    checksum,
)
from thanostack.lib.kernels import index_write
from thanostack.lib.model.label_runs import Int64Array, LabelRuns, Uint8Array

_INDEX_BYTES_MAX = 64 << 30


@dataclass(frozen=True, slots=True)
class _Rows:
    """One batch of series, waiting for the symbols."""

    pair_ids: Int32Array
    row_offsets: Int64Array
    chunk_meta: Uint8Array
    meta_offsets: Int64Array


class IndexWriter:
    """Collects series and yields the bytes of the index."""

    def __init__(self) -> None:
        self._pairs = PairTable()
        self._rows: list[_Rows] = []
        self._counts = np.zeros(0, np.int64)
        self._position = 0
        self.n_series = 0

    def add(self, labels: LabelRuns, chunk_meta: Uint8Array, meta_offsets: Int64Array) -> None:
        """Take a batch of series.

        Args:
            labels: ascending strictly; so do batches, which the caller checks.
            chunk_meta: uint8[n]; the encoded chunk part of each series entry.
            meta_offsets: int64[S + 1] into chunk_meta.

        Raises:
            InvalidLabels: for a run that is not canonical, or rows that do not ascend.
        """
        pair_ids, row_offsets = self._pairs.intern(labels)
        counts = np.bincount(pair_ids, minlength=len(self._pairs))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._rows.append(_Rows(pair_ids, row_offsets, chunk_meta, meta_offsets))
        self.n_series += len(labels)

    def encode(self) -> Iterator[memoryview]:
        """Yield the whole index in order; the writer is used up.

        Raises:
            LimitExceeded: above the format's 64 GiB, or 4 GiB for one of the tables.
        """
        ranked = self._pairs.rank()
        yield self._moved(MAGIC + bytes([WRITE_VERSION]))
        symbols_at = HEADER_BYTES
        yield self._moved(ranked.encode())
        series_at = self._position
        series_ids = []
        for rows in self._rows:
            out, ids = self._encode_series(rows, ranked.symbols)
            series_ids.append(ids)
            yield self._moved(out)
        postings_at = self._position
        padding = -postings_at % 4
        yield self._moved(bytes(padding))
        offsets, lists = self._encode_postings(ranked, series_ids)
        list_offsets = offsets[:-1] + self._position
        yield self._moved(lists)
        table_at = self._position
        yield self._moved(_encode_table(ranked, list_offsets))
        toc = TableOfContents(symbols_at, series_at, postings_at, table_at, postings_at, table_at)
        yield self._moved(toc.encode())

    def _moved(self, part: bytes | Uint8Array) -> memoryview:
        self._position += len(part)
        if self._position > _INDEX_BYTES_MAX:
            raise LimitExceeded("index bytes", _INDEX_BYTES_MAX, self._position)
        return memoryview(part) if isinstance(part, bytes) else part.data

    def _encode_series(self, rows: _Rows, symbols: Int32Array) -> tuple[Uint8Array, Uint32Array]:
        n = len(rows.row_offsets) - 1
        # Bound: see encode_series; alignment, length, count and CRC within 35 bytes.
        room = 35 * n + 10 * len(rows.pair_ids) + len(rows.chunk_meta)
        out, ids = np.empty(room, np.uint8), np.empty(n, np.int64)
        size = index_write.encode_series(
            rows.pair_ids,
            rows.row_offsets,
            symbols,
            rows.chunk_meta,
            rows.meta_offsets,
            self._position,
            out,
            ids,
        )
        assert size >= 0, "the bound on series entries holds"
        return out[:size], ids.astype(np.uint32)

    def _encode_postings(
        self, ranked: RankedPairs, series_ids: list[Uint32Array]
    ) -> tuple[Int64Array, Uint8Array]:
        """Return (int64[P + 2] offsets of lists, the one of all first; their bytes)."""
        pairs = len(ranked.order)
        offsets = np.zeros(pairs + 2, np.int64)
        offsets[1] = 12 + 4 * self.n_series
        np.cumsum(12 + 4 * self._counts[ranked.order], out=offsets[2:])
        offsets[2:] += offsets[1]
        out = np.empty(offsets[-1], np.uint8)
        cursors = np.empty(pairs + 1, np.int64)
        cursors[ranked.order] = offsets[1:-1] + 8
        cursors[-1] = 8
        for rows, ids in zip(self._rows, series_ids, strict=True):
            written = index_write.scatter_postings(
                rows.pair_ids, rows.row_offsets, ids, cursors, out
            )
            assert written == len(rows.pair_ids) + len(ids), "postings fit their counts"
        self._rows.clear()
        assert index_write.seal_postings(offsets, out) == pairs + 1, "lists lie in their section"
        return offsets, out


def _encode_table(ranked: RankedPairs, list_offsets: Int64Array) -> bytes:
    args = (ranked.arena, ranked.starts, ranked.stops, ranked.names, list_offsets[1:])
    size = index_write.encode_postings_table(*args, np.empty(0, np.uint8))
    out = np.empty(size, np.uint8)
    index_write.encode_postings_table(*args, out)
    every = b"\x02\x00\x00" + _uvarint(int(list_offsets[0]))
    body = struct.pack(">I", len(ranked.order) + 1) + every + out.tobytes()
    if len(body) > 2**32 - 1:
        raise LimitExceeded("postings offset table bytes", 2**32 - 1, len(body))
    return struct.pack(">I", len(body)) + body + struct.pack(">I", checksum(body))


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


assert SERIES_ALIGN == 16, "encode_series aligns to 16"
