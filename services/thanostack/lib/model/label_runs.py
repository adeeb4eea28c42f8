r"""Label sets as canonical bytes.

A *label run* is the label part of a protobuf `TimeSeries` (remote write) and of a `Series`
(StoreAPI); the two are the same bytes:

    0x0A len ( 0x0A n name  0x12 n value )   repeated, all lengths minimal uvarints

A run is *canonical* when names are strictly ascending bytewise, none is empty, no value is empty
and all are UTF-8. Two label sets are equal exactly when their canonical runs are equal bytes, so a
run is hashed, compared, stored and sent as it is. Bytewise order of runs is *not* label order
(lengths come first): sorting goes through the `compare_runs` kernel.

Deliberately elsewhere: interning to ids (`promql`), symbol tables of blocks (`index`).
Source: Prometheus `prompb/types.proto`, Thanos `labelpb/types.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import InvalidLabels

Uint8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Labels = tuple[tuple[bytes, bytes], ...]
"""One label set, decoded: (name, value) pairs in ascending order of name."""


def uvarint(value: int) -> bytes:
    """Return a number, zero or more, as LEB128."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_uvarint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[i]
        i += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, i
        shift += 7


def encode_run(labels: Mapping[str, str] | Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the canonical run of a label set; empty values are dropped, names sorted.

    Raises:
        InvalidLabels: for an empty or repeated name.
    """
    if isinstance(labels, Mapping):
        labels = [(name.encode(), value.encode()) for name, value in labels.items()]
    pairs = sorted((name, value) for name, value in labels if value)
    out = bytearray()
    previous = b""
    for name, value in pairs:
        if name <= previous:
            raise InvalidLabels(
                f"label name {name.decode(errors='replace')!r} is empty or repeated"
            )
        previous = name
        body = b"\x0a" + uvarint(len(name)) + name + b"\x12" + uvarint(len(value)) + value
        out += b"\x0a" + uvarint(len(body)) + body
    return bytes(out)


def decode_run(run: bytes) -> Labels:
    """Return the pairs of a canonical run."""
    labels, i = [], 0
    while i < len(run):
        _, i = _read_uvarint(run, i + 1)
        size, i = _read_uvarint(run, i + 1)
        name = run[i : i + size]
        size, i = _read_uvarint(run, i + size + 1)
        labels.append((name, run[i : i + size]))
        i += size
    return tuple(labels)


@dataclass(frozen=True, slots=True)
class LabelRuns:
    """Label sets of S series as canonical runs in one buffer.

    Args:
        data: uint8[n]; the runs, one after another, possibly with gaps before or after.
        offsets: int64[S + 1]; run i is data[offsets[i]:offsets[i + 1]].

    Invariants: each run is canonical.
    """

    data: Uint8Array
    offsets: Int64Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def run(self, i: int) -> bytes:
        """Return the canonical bytes of series i."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def labels(self, i: int) -> Labels:
        """Return the decoded pairs of series i."""
        return decode_run(self.run(i))

    def mapping(self, i: int) -> dict[str, str]:
        """Return series i as a dictionary of text; bytes that are not UTF-8 are replaced."""
        return {n.decode(errors="replace"): v.decode(errors="replace") for n, v in self.labels(i)}

    @staticmethod
    def of(runs: Iterable[bytes]) -> LabelRuns:
        """Return a batch of runs that are canonical already."""
        parts = list(runs)
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return LabelRuns(np.frombuffer(b"".join(parts), np.uint8), offsets)

    @staticmethod
    def of_mappings(label_sets: Iterable[Mapping[str, str]]) -> LabelRuns:
        """Return a batch from dictionaries, in the order given."""
        return LabelRuns.of(encode_run(labels) for labels in label_sets)
