"""A block's `tombstones`: which time ranges of which series are deleted.

    01 30 BA 30 | version 01 | entries | CRC(entries)
    entry: uvarint series | varint mint | varint maxt      closed interval, ms

The checksum covers the entries only. A missing file is an empty one.

Invariants: of one series intervals ascend and neither overlap nor touch.
Source: Prometheus `tsdb/tombstones/tombstones.go`; `docs/formats/tombstones.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from thanostack.lib.foundation.errors import BlockCorrupt
from thanostack.lib.index.toc import checksum
from thanostack.lib.tsdb.block_meta import replace_file

TOMBSTONES_FILE = "tombstones"
MAGIC = bytes.fromhex("0130BA30")
VERSION = 1
_HEADER_BYTES = 5

Intervals = tuple[tuple[int, int], ...]
"""Closed (mint, maxt) in ms."""
Tombstones = Mapping[int, Intervals]
"""Postings number of a series -> its deleted intervals."""


def merge_intervals(intervals: list[tuple[int, int]]) -> Intervals:
    """Return intervals in order, those that overlap or touch joined.

    Example:
        >>> merge_intervals([(5, 9), (1, 4), (20, 30)])
        ((1, 9), (20, 30))
    """
    merged: list[tuple[int, int]] = []
    for mint, maxt in sorted(intervals):
        if merged and mint <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(maxt, merged[-1][1]))
        else:
            merged.append((mint, maxt))
    return tuple(merged)


def encode_tombstones(tombstones: Tombstones) -> bytes:
    """Return the file's bytes."""
    entries = bytearray()
    for series in sorted(tombstones):
        for mint, maxt in tombstones[series]:
            entries += _uvarint(series) + _varint(mint) + _varint(maxt)
    body = bytes(entries)
    return MAGIC + bytes([VERSION]) + body + checksum(body).to_bytes(4, "big")


def decode_tombstones(body: bytes, file: str = TOMBSTONES_FILE) -> Tombstones:
    """Return the tombstones of a file's bytes.

    Raises:
        BlockCorrupt: for a wrong magic, version or checksum, or a torn entry.
    """
    if len(body) < _HEADER_BYTES + 4:
        raise BlockCorrupt(file, 0, f"{len(body)} bytes are too short")
    if body[:4] != MAGIC or body[4] != VERSION:
        raise BlockCorrupt(file, 0, f"magic and version {body[:5].hex()} are unknown")
    entries = body[_HEADER_BYTES:-4]
    expected, found = checksum(entries), int.from_bytes(body[-4:], "big")
    if expected != found:
        raise BlockCorrupt(file, 5, f"checksum {expected:08x} expected, {found:08x} found")
    collected: dict[int, list[tuple[int, int]]] = {}
    i = 0
    while i < len(entries):
        begin = i
        try:
            series, i = _read_uvarint(entries, i)
            mint, i = _read_varint(entries, i)
            maxt, i = _read_varint(entries, i)
        except IndexError as error:
            raise BlockCorrupt(file, _HEADER_BYTES + begin, "an entry is torn") from error
        collected.setdefault(series, []).append((mint, maxt))
    return {series: merge_intervals(intervals) for series, intervals in collected.items()}


def read_tombstones(folder: Path) -> Tombstones:
    """Return the tombstones of a block's folder.

    Raises:
        BlockCorrupt: if the file is damaged.
    """
    path = folder / TOMBSTONES_FILE
    try:
        return decode_tombstones(path.read_bytes(), str(path))
    except FileNotFoundError:
        return {}


def write_tombstones(folder: Path, tombstones: Tombstones) -> None:
    """Replace the tombstones of a block's folder.

    Raises:
        OSError: if the disk refuses.
    """
    replace_file(folder / TOMBSTONES_FILE, encode_tombstones(tombstones))


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _varint(value: int) -> bytes:
    return _uvarint(value << 1 if value >= 0 else (-value << 1) - 1)


def _read_uvarint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[i]
        i += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise IndexError("longer than 64 bits")
            return value, i
        shift += 7
        if shift > 63:
            raise IndexError("longer than ten bytes")


def _read_varint(data: bytes, i: int) -> tuple[int, int]:
    value, i = _read_uvarint(data, i)
    return (value >> 1) ^ -(value & 1), i
