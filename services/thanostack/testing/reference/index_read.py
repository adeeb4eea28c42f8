"""Plain references of the kernels in `lib/kernels/index_read.py`, over Python values.

Damage raises ValueError where a kernel returns a negative status.
"""

from __future__ import annotations

from collections.abc import Sequence

from thanostack.testing.reference.index_write import checksum

Entry = tuple[bytes, bytes, int]
Chunk = tuple[int, int, int]
"""(mint, maxt, reference)."""


def _uvarint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if i >= len(data) or shift > 63:
            raise ValueError("not a uvarint")
        value += (data[i] % 128) << shift
        i += 1
        if data[i - 1] < 128:
            if value >> 64:
                raise ValueError("more than 64 bits")
            return value, i
        shift += 7


def _varint(data: bytes, i: int) -> tuple[int, int]:
    value, i = _uvarint(data, i)
    return (value // 2 if value % 2 == 0 else -(value + 1) // 2), i


def _string(data: bytes, i: int) -> tuple[bytes, int]:
    length, i = _uvarint(data, i)
    if length > len(data) - i:
        raise ValueError("length beyond the end")
    return data[i : i + length], i + length


def scan_symbols(body: bytes, count: int) -> list[int]:
    """Return where each string begins."""
    offsets, i = [], 0
    for _ in range(count):
        offsets.append(i)
        _, i = _string(body, i)
    return offsets


def _entry(body: bytes, i: int) -> tuple[Entry, int]:
    if i >= len(body) or body[i] != 2:
        raise ValueError("not an entry")
    name, i = _string(body, i + 1)
    value, i = _string(body, i)
    offset, i = _uvarint(body, i)
    return (name, value, offset), i


def scan_postings_table(body: bytes, count: int) -> tuple[list[int], list[int]]:
    """Return where entries begin, and which begin a name; ([..], []) for entries out of order."""
    offsets, entries, i = [], [], 0
    for _ in range(count):
        offsets.append(i)
        entry, i = _entry(body, i)
        entries.append(entry)
    keys = [entry[:2] for entry in entries]
    if keys != sorted(set(keys)):
        return offsets, []
    starts = [k for k in range(count) if k == 0 or keys[k][0] != keys[k - 1][0]]
    return offsets, [*starts, count]


def list_table_values(body: bytes, offsets: Sequence[int]) -> list[Entry]:
    """Return (name, value, list offset) of chosen entries."""
    return [_entry(body, offset)[0] for offset in offsets]


def find_postings(entries: Sequence[Entry], value: bytes) -> int | None:
    """Return the list offset of a value among the entries of one name."""
    return next((offset for _, candidate, offset in entries if candidate == value), None)


def decode_series(
    data: bytes, ref: int, symbols: Sequence[bytes], mint: int, maxt: int
) -> tuple[list[tuple[bytes, bytes]], list[Chunk]]:
    """Return labels and chunks in [mint, maxt] of one series entry."""
    length, i = _uvarint(data, ref)
    if i + length + 4 > len(data):
        raise ValueError("entry beyond the end")
    body = data[i : i + length]
    if checksum(body, 0, length) != int.from_bytes(data[i + length : i + length + 4], "big"):
        raise ValueError("checksum")
    count, i = _uvarint(body, 0)
    labels = []
    for _ in range(count):
        name, i = _uvarint(body, i)
        value, i = _uvarint(body, i)
        labels.append((symbols[name], symbols[value]))
    count, i = _uvarint(body, i)
    chunks: list[Chunk] = []
    for k in range(count):
        if k == 0:
            start, i = _varint(body, i)
            span, i = _uvarint(body, i)
            ref, i = _uvarint(body, i)
        else:
            gap, i = _uvarint(body, i)
            start = chunks[-1][1] + gap
            span, i = _uvarint(body, i)
            step, i = _varint(body, i)
            ref = chunks[-1][2] + step
        chunks.append((start, start + span, ref))
    return labels, [chunk for chunk in chunks if chunk[1] >= mint and chunk[0] <= maxt]


def _chunk(segment: bytes, offset: int) -> tuple[int, bytes]:
    length, i = _uvarint(segment, offset)
    end = i + 1 + length
    if end + 4 > len(segment):
        raise ValueError("chunk beyond the end")
    if checksum(segment, i, end) != int.from_bytes(segment[end : end + 4], "big"):
        raise ValueError("checksum")
    return segment[i], segment[i + 1 : end]


def measure_chunks(segment: bytes, offsets: Sequence[int]) -> list[int]:
    """Return the lengths of chunks."""
    return [len(_chunk(segment, offset)[1]) for offset in offsets]


def copy_chunks(segment: bytes, offsets: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return (encoding, bytes) of chunks."""
    return [_chunk(segment, offset) for offset in offsets]


def intersect_sorted(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Return the numbers in both."""
    return sorted(set(a) & set(b))


def subtract_sorted(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Return the numbers of a that are not in b."""
    return sorted(set(a) - set(b))
