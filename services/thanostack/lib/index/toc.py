"""The frame of an index file: header, table of contents, and sections with a checksum.

    BA AA D7 00 | version | sections ... | six u64 offsets | CRC
    section: u32 length | u32 count | ... | CRC(count ...)

A zero offset says that the section is absent. Versions: 1 refers to symbols and series by byte
offset, 2 by ordinal and by offset / 16; 3 is read as 2.

Source: Prometheus `tsdb/index/index.go` (`TOC`); `docs/formats/index.md`.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

import numpy as np

from thanostack.lib.foundation.errors import IndexCorrupt
from thanostack.lib.kernels import index_write
from thanostack.lib.model.label_runs import Uint8Array

MAGIC = bytes.fromhex("BAAAD700")
WRITE_VERSION = 2
READ_VERSIONS = (1, 2, 3)
HEADER_BYTES = 5
SERIES_ALIGN = 16
_TOC = struct.Struct(">6Q")
TOC_BYTES = _TOC.size + 4


def checksum(data: Uint8Array | bytes) -> int:
    """Return the CRC-32C of bytes."""
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    return int(index_write.checksum(array, 0, len(array)))


@dataclass(frozen=True, slots=True)
class TableOfContents:
    """Where each section begins, in bytes from the start of the file; 0 = absent."""

    symbols: int
    series: int
    label_indices: int
    label_indices_table: int
    postings: int
    postings_table: int

    def encode(self) -> bytes:
        """Return the last 52 bytes of an index."""
        body = _TOC.pack(*astuple(self))
        return body + struct.pack(">I", checksum(body))


def read_toc(data: Uint8Array, file: str) -> tuple[int, TableOfContents]:
    """Return version and table of contents of a whole index.

    Raises:
        IndexCorrupt: for a wrong magic, version or checksum, or an offset beyond the file.
    """
    if len(data) < HEADER_BYTES + TOC_BYTES:
        raise IndexCorrupt(file, 0, f"an index of {len(data)} bytes is too short")
    if data[:4].tobytes() != MAGIC:
        raise IndexCorrupt(file, 0, f"magic {MAGIC.hex()} expected, {bytes(data[:4]).hex()} found")
    version = int(data[4])
    if version not in READ_VERSIONS:
        raise IndexCorrupt(file, 4, f"version 1, 2 or 3 expected, {version} found")
    start = len(data) - TOC_BYTES
    body = data[start : start + _TOC.size].tobytes()
    found = int.from_bytes(data[-4:].tobytes(), "big")
    if checksum(body) != found:
        raise IndexCorrupt(
            file, start, f"checksum {checksum(body):08x} expected, {found:08x} found"
        )
    toc = TableOfContents(*_TOC.unpack(body))
    if max(astuple(toc)) > start:
        raise IndexCorrupt(file, start, "a section begins beyond the end of the file")
    return version, toc


def read_section(data: Uint8Array, offset: int, file: str, what: str) -> tuple[int, int, int]:
    """Return (count, first byte after the count, first byte after the body) of a checked section.

    Raises:
        IndexCorrupt: if its length passes the end of the file, or its checksum differs.
    """
    if offset + 12 > len(data):
        raise IndexCorrupt(file, offset, f"the {what} begin beyond the end of the file")
    length, count = struct.unpack(">II", data[offset : offset + 8].tobytes())
    stop = offset + 4 + length
    if length < 4 or stop + 4 > len(data):
        raise IndexCorrupt(file, offset, f"the {what} claim {length} bytes")
    expected = int(index_write.checksum(data, offset + 4, stop))
    found = int.from_bytes(data[stop : stop + 4].tobytes(), "big")
    if expected != found:
        raise IndexCorrupt(
            file, offset, f"checksum {expected:08x} of the {what} expected, {found:08x} found"
        )
    return count, offset + 8, stop
