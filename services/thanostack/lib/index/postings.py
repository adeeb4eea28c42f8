"""Postings: the table that finds a list by label pair, and the algebra of sorted lists.

The table is scanned once into the offsets of its entries, grouped by label name; a list is found
by binary search among one name's entries, in the file's own bytes.

Invariants: lists are int64, strictly ascending.
Source: `docs/formats/index.md`, "Postings".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from thanostack.lib.foundation.errors import IndexCorrupt
from thanostack.lib.index.symbols import Uint32Array
from thanostack.lib.index.toc import read_section
from thanostack.lib.kernels import index_read
from thanostack.lib.model.label_runs import Int64Array, Uint8Array

EMPTY: Int64Array = np.empty(0, np.int64)


class PostingsTable:
    """The postings offset table of an index on disk."""

    def __init__(self, data: Uint8Array, offset: int, file: str) -> None:
        """Read a checked table.

        Raises:
            IndexCorrupt: for a bad checksum, length or entry.
        """
        self._data, self._file, self._offset = data, file, offset
        count, self._start, self._stop = read_section(data, offset, file, "postings offsets")
        if count > self._stop - self._start:
            raise self._corrupt(f"{count} entries do not fit")
        self._entries: Uint32Array = np.empty(count, np.uint32)
        groups = np.empty(count + 1, np.uint32)
        names = index_read.scan_postings_table(data, self._start, self._stop, self._entries, groups)
        if names == -1:
            raise self._corrupt("an entry passes the end")
        if names == -2:
            names = self._sort(groups)
        firsts = groups[: names + 1].tolist()
        spans = self._spans(self._entries[groups[:names]])
        self._names = {
            self._data[span[0] : span[1]].tobytes(): (first, stop)
            for span, first, stop in zip(spans, firsts, firsts[1:], strict=False)
        }

    def _corrupt(self, message: str) -> IndexCorrupt:
        return IndexCorrupt(self._file, self._offset, f"postings offsets: {message}")

    def _spans(self, entries: Uint32Array) -> list[list[int]]:
        spans = np.empty(5 * len(entries), np.int64)
        status = index_read.list_table_values(self._data, self._start, self._stop, entries, spans)
        if status < 0:
            raise self._corrupt("a list lies beyond the end of the file")
        rows: list[list[int]] = spans.reshape(-1, 5).tolist()
        return rows

    def _sort(self, groups: Uint32Array) -> int:
        """Put the entries of a version 1 table in order; return the number of names."""
        spans = self._spans(self._entries)
        keys = [(self._data[a:b].tobytes(), self._data[c:d].tobytes()) for a, b, c, d, _ in spans]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self._entries = self._entries[order]
        ordered = [keys[k] for k in order]
        if any(left == right for left, right in pairwise(ordered)):
            raise self._corrupt("two lists for one label pair")
        firsts = [k for k, key in enumerate(ordered) if k == 0 or key[0] != ordered[k - 1][0]]
        groups[: len(firsts) + 1] = [*firsts, len(ordered)]
        return len(firsts)

    def names(self) -> list[bytes]:
        """Return the label names, ascending."""
        return [name for name in self._names if name]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a name, ascending."""
        first, stop = self._names.get(name, (0, 0))
        spans = self._spans(self._entries[first:stop])
        if not spans:
            return []
        # One copy to a bytes object, then plain slices: three times faster than array slices.
        low, high = min(span[2] for span in spans), max(span[3] for span in spans)
        data = self._data[low:high].tobytes()
        return [data[span[2] - low : span[3] - low] for span in spans]

    def find(self, name: bytes, value: bytes) -> int | None:
        """Return the offset of a list, None if no series has the pair.

        Raises:
            IndexCorrupt: if the offset lies beyond the file.
        """
        first, stop = self._names.get(name, (0, 0))
        offset = index_read.find_postings(
            self._data,
            self._start,
            self._stop,
            self._entries[first:stop],
            np.frombuffer(value, np.uint8),
        )
        if offset == -2:
            raise self._corrupt("a list lies beyond the end of the file")
        return None if offset < 0 else int(offset)


def read_list(data: Uint8Array, offset: int, file: str) -> Int64Array:
    """Return one checked postings list, as stored.

    Raises:
        IndexCorrupt: for a bad checksum or length, or ids that do not ascend.
    """
    count, start, stop = read_section(data, offset, file, "postings")
    if stop - start != 4 * count:
        raise IndexCorrupt(file, offset, f"{count} postings in {stop - start} bytes")
    ids = data[start:stop].view(">u4").astype(np.int64)
    if len(ids) > 1 and not bool((ids[1:] > ids[:-1]).all()):
        raise IndexCorrupt(file, offset, "postings do not ascend")
    return ids


def intersect(a: Int64Array, b: Int64Array) -> Int64Array:
    """Return the numbers in both ascending lists."""
    out = np.empty(min(len(a), len(b)), np.int64)
    return out[: index_read.intersect_sorted(a, b, out)]


def subtract(a: Int64Array, b: Int64Array) -> Int64Array:
    """Return the numbers of ascending `a` that are not in ascending `b`."""
    out = np.empty(len(a), np.int64)
    return out[: index_read.subtract_sorted(a, b, out)]


def unite(lists: Sequence[Int64Array]) -> Int64Array:
    """Return the numbers in any of the lists, ascending."""
    filled = [part for part in lists if len(part)]
    if not filled:
        return EMPTY
    return filled[0] if len(filled) == 1 else np.unique(np.concatenate(filled))
