"""Plain references of the kernels in `lib/kernels/label_order.py`, over Python values.

Runs are `bytes`, rows are lists. A malformed run raises ValueError where the kernel returns -1.
"""

from __future__ import annotations

from collections.abc import Sequence

Pairs = list[tuple[bytes, bytes]]
Chunk = tuple[int, int, int, bytes]
"""(mint, maxt, encoding, bytes)."""


def _uvarint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if i >= len(data) or shift > 63:
            raise ValueError("not a uvarint")
        value |= (data[i] & 127) << shift
        i += 1
        if data[i - 1] < 128:
            return value, i
        shift += 7


def _field(data: bytes, i: int, tag: int) -> tuple[bytes, int]:
    if i >= len(data) or data[i] != tag:
        raise ValueError(f"tag {tag} expected")
    length, i = _uvarint(data, i + 1)
    if length > len(data) - i:
        raise ValueError("length beyond the end")
    return data[i : i + length], i + length


def decode_pairs(run: bytes) -> Pairs:
    """Return the (name, value) pairs of a run."""
    pairs, i = [], 0
    while i < len(run):
        body, i = _field(run, i, 0x0A)
        name, j = _field(body, 0, 0x0A)
        value, j = _field(body, j, 0x12)
        if j != len(body):
            raise ValueError("bytes after a pair")
        pairs.append((name, value))
    return pairs


def compare_label_runs(a: bytes, b: bytes) -> int:
    """Return -1, 0 or 1 in label order."""
    x, y = decode_pairs(a), decode_pairs(b)
    return (x > y) - (x < y)


def sort_label_runs(runs: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Return (order, groups) of runs."""
    order = sorted(range(len(runs)), key=lambda row: decode_pairs(runs[row]))
    starts = [k for k in range(len(order)) if k == 0 or runs[order[k]] != runs[order[k - 1]]]
    return order, [*starts, len(order)]


def merge_label_runs(
    streams: Sequence[Sequence[bytes]], limit: bytes | None
) -> tuple[list[int], list[int]]:
    """Return (order, groups) of the rows of concatenated streams that lie below the limit."""
    rows = [run for stream in streams for run in stream]
    bound = None if limit is None else decode_pairs(limit)
    order = [
        row for row in sort_label_runs(rows)[0] if bound is None or decode_pairs(rows[row]) < bound
    ]
    starts = [k for k in range(len(order)) if k == 0 or rows[order[k]] != rows[order[k - 1]]]
    return order, [*starts, len(order)]


def take_label_runs(runs: Sequence[bytes], rows: Sequence[int]) -> list[bytes]:
    """Return the chosen runs."""
    return [runs[row] for row in rows]


def edit_label_runs(
    runs: Sequence[bytes], names: Sequence[bytes], pairs: Sequence[bytes]
) -> list[bytes]:
    """Return every run with each named label replaced by its framed pair, b"" for none."""
    edits = dict(zip(names, pairs, strict=True))
    out = []
    for run in runs:
        framed = {name: _frame(name, value) for name, value in decode_pairs(run)} | edits
        out.append(b"".join(framed[name] for name in sorted(framed)))
    return out


def _frame(name: bytes, value: bytes) -> bytes:
    body = b"\x0a" + _length(name) + name + b"\x12" + _length(value) + value
    return b"\x0a" + _length(body) + body


def _length(part: bytes) -> bytes:
    rest, out = len(part), bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


def find_label_values(runs: Sequence[bytes], name: bytes) -> list[bytes | None]:
    """Return each run's value of one label, None where it has none."""
    return [dict(decode_pairs(run)).get(name) for run in runs]


def pack_chunks(chunks: Sequence[tuple[int, int]], data: bytes) -> bytes:
    """Return the bytes of (start, length) chunks one after another."""
    out = b""
    for start, length in chunks:
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError("chunk outside of data")
        out += data[start : start + length]
    return out


def join_chunks(groups: Sequence[Sequence[Sequence[Chunk]]]) -> list[list[Chunk]]:
    """Return, for each series, the chunks of its rows in order, identical ones once."""
    joined = []
    for rows in groups:
        distinct = {chunk for row in rows for chunk in row}
        joined.append(sorted(distinct, key=lambda c: (c[0], c[1], c[2], len(c[3]), c[3])))
    return joined
