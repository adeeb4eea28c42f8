"""Symbols: the strings of an index, interned while writing and addressed while reading.

Writing interns whole label pairs. `PairTable.intern` turns a batch of runs into pair ids, four
bytes a label; `PairTable.rank` orders the pairs for the postings and their strings for the symbol
table, once all are known.

Invariants: symbols are distinct and ascend bytewise; the first is "", as the empty postings key
is a symbol for Prometheus too.
Source: `docs/formats/index.md`, "Symbols".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import IndexCorrupt, InvalidLabels, LimitExceeded
from thanostack.lib.index.toc import checksum, read_section
from thanostack.lib.kernels import index_read, index_symbols
from thanostack.lib.model.label_order import sort_runs
from thanostack.lib.model.label_runs import Int64Array, LabelRuns, Uint8Array

Int32Array = npt.NDArray[np.int32]
Uint32Array = npt.NDArray[np.uint32]

_Item = TypeVar("_Item", bound=np.generic)

_SECTION_BYTES_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class RankedPairs:
    """All label pairs in (name, value) order, and their symbols.

    Args:
        order: int64[P]; pair ids.
        symbols: int32[2P]; name and value symbol of each pair id.
        arena: uint8[n]; where the strings lie.
        starts: int64[P + N] into arena; the values by rank, then the N distinct names.
        stops: int64[P + N] into arena.
        names: int64[P]; string number of the name of the pair of rank r.
        strings: int64[P + N]; string numbers in symbol order, repeats included.
        n_symbols: distinct strings, "" included.
    """

    order: Int64Array
    symbols: Int32Array
    arena: Uint8Array
    starts: Int64Array
    stops: Int64Array
    names: Int64Array
    strings: Int64Array
    n_symbols: int

    def encode(self) -> bytes:
        """Return the symbol section.

        Raises:
            LimitExceeded: above 4 GiB, which the format cannot say.
        """
        args = (self.arena, self.starts, self.stops, self.strings)
        size = index_symbols.encode_symbols(*args, np.empty(0, np.uint8))
        if size + 5 > _SECTION_BYTES_MAX:
            raise LimitExceeded("symbol table bytes", _SECTION_BYTES_MAX, size + 5)
        out = np.empty(size, np.uint8)
        index_symbols.encode_symbols(*args, out)
        body = struct.pack(">IB", self.n_symbols, 0) + out.tobytes()
        return struct.pack(">I", len(body)) + body + struct.pack(">I", checksum(body))


class PairTable:
    """The distinct label pairs of all series so far, each with an id in order of appearance."""

    def __init__(self) -> None:
        self._state = np.zeros(2, np.int64)
        self._hashes = np.empty(1 << 10, np.uint64)
        self._table = np.zeros(1 << 12, np.int32)
        self._arena = np.empty(1 << 16, np.uint8)
        self._offsets = np.zeros((1 << 10) + 1, np.int64)

    def __len__(self) -> int:
        return int(self._state[1])

    def intern(self, labels: LabelRuns) -> tuple[Int32Array, Int64Array]:
        """Return the pair ids of a batch and, for each row, where they begin.

        Raises:
            InvalidLabels: for a run that is not canonical, or rows that do not ascend strictly.
        """
        span = int(labels.offsets[-1] - labels.offsets[0]) if len(labels) else 0
        pair_ids = np.empty(span // 6 + 1, np.int32)
        row_offsets = np.zeros(len(labels) + 1, np.int64)
        self._state[0] = 0
        while True:
            status = index_symbols.intern_label_pairs(
                labels.data,
                labels.offsets,
                self._state,
                self._table,
                self._hashes,
                self._arena,
                self._offsets,
                pair_ids,
                row_offsets,
            )
            if status == 0:
                return pair_ids[: row_offsets[-1]].copy(), row_offsets
            if status < 0:
                reason = "malformed label run" if status == -1 else "series out of label order"
                raise InvalidLabels(f"{reason}: {labels.mapping(int(self._state[0]))}")
            self._grow(span)

    def _grow(self, incoming: int) -> None:
        pairs = len(self)
        used = int(self._offsets[pairs])
        if used + incoming > len(self._arena):
            self._arena = _resized(self._arena, 2 * (used + incoming))
        capacity = 2 * len(self._hashes)
        self._hashes = _resized(self._hashes, capacity)
        self._offsets = _resized(self._offsets, capacity + 1)
        self._table = np.zeros(4 * capacity, np.int32)
        assert index_symbols.fill_pair_table(self._hashes, pairs, self._table) == pairs

    def names(self) -> list[bytes]:
        """Return the distinct label names, ascending."""
        pairs = len(self)
        _, starts, stops, _ = self._strings()
        spans = zip(starts[pairs:].tolist(), stops[pairs:].tolist(), strict=True)
        return [self._arena[start:stop].tobytes() for start, stop in spans]

    def _strings(self) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
        """Return order, starts, stops and names as `RankedPairs` has them."""
        pairs = len(self)
        labels = LabelRuns(self._arena, self._offsets[: pairs + 1])
        order = sort_runs(labels)
        starts, stops = np.empty(2 * pairs, np.int64), np.empty(2 * pairs, np.int64)
        names = np.empty(pairs, np.int64)
        n_names = index_symbols.split_label_pairs(
            labels.data, labels.offsets, order, starts, stops, names
        )
        assert n_names >= 0, "interned pairs are pairs"
        n = pairs + n_names
        return order, starts[:n].copy(), stops[:n].copy(), names

    def rank(self) -> RankedPairs:
        """Return the pairs and their strings in order.

        Cost: O(P log P) compares of strings.
        """
        pairs = len(self)
        order, starts, stops, names = self._strings()
        n = len(starts)
        strings, ordinals = np.empty(n, np.int64), np.empty(n, np.int32)
        distinct = index_symbols.rank_strings(
            self._arena, starts, stops, np.empty(n, np.int64), strings, ordinals
        )
        symbols = np.empty(2 * pairs, np.int32)
        symbols[2 * order] = ordinals[names] + 1
        symbols[2 * order + 1] = ordinals[:pairs] + 1
        return RankedPairs(
            order, symbols, self._arena, starts, stops, names, strings, int(distinct) + 1
        )


def _resized(array: npt.NDArray[_Item], size: int) -> npt.NDArray[_Item]:
    out = np.empty(max(size, len(array)), array.dtype)
    out[: len(array)] = array
    return out


class SymbolTable:
    """The symbols of an index on disk, addressed without copying them.

    Attributes:
        offsets: uint32[n]; where each symbol's length begins, from `start` on.
        start: first byte after the count.
        stop: first byte after the last symbol.
    """

    def __init__(self, data: Uint8Array, offset: int, file: str) -> None:
        """Read a checked symbol section.

        Raises:
            IndexCorrupt: for a bad checksum, length or count.
        """
        count, self.start, self.stop = read_section(data, offset, file, "symbols")
        if count > self.stop - self.start:
            raise IndexCorrupt(file, offset, f"{count} symbols do not fit into their section")
        self.offsets: Uint32Array = np.empty(count, np.uint32)
        if index_read.scan_symbols(data, self.start, self.stop, self.offsets) < 0:
            raise IndexCorrupt(file, offset, f"{count} symbols expected, fewer found")

    def __len__(self) -> int:
        return len(self.offsets)
