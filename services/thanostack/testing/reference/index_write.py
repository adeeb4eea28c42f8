"""Plain references of the kernels in `lib/kernels/index_write.py`, over Python values."""

from __future__ import annotations

from collections.abc import Sequence

Chunk = tuple[int, int, int, bytes]
"""(mint, maxt, encoding, bytes)."""


def uvarint(value: int) -> bytes:
    """Return a LEB128 integer."""
    out = []
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def varint(value: int) -> bytes:
    """Return a zig-zag LEB128 integer."""
    return uvarint(2 * value if value >= 0 else -2 * value - 1)


def checksum(data: bytes, start: int, stop: int) -> int:
    """Return the CRC-32C of a range, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data[start:stop]:
        crc ^= byte
        for _ in range(8):
            crc = crc // 2 ^ (0x82F63B78 if crc % 2 else 0)
    return crc ^ 0xFFFFFFFF


def _sealed(body: bytes) -> bytes:
    return body + checksum(body, 0, len(body)).to_bytes(4, "big")


def frame_chunks(
    series: Sequence[Sequence[Chunk]], segment_bytes: int
) -> tuple[list[bytes], list[bytes]]:
    """Return the segments without their headers, and each series' encoded chunk part."""
    segments, metas = [b""], []
    for chunks in series:
        begin = 8 + len(segments[-1])
        pending, first_batch = 0, True
        refs = []
        for k, (_, _, encoding, body) in enumerate(chunks):
            pending += 10 + len(body)
            cut = k > 0 and pending + 8 > segment_bytes
            if first_batch and begin > 8:
                cut = pending + begin > segment_bytes
                first_batch = not cut
            if cut:
                pending = 10 + len(body)
                segments.append(b"")
            refs.append((len(segments) - 1) * 2**32 + 8 + len(segments[-1]))
            segments[-1] += uvarint(len(body)) + _sealed(bytes([encoding]) + body)
        meta = uvarint(len(chunks))
        for k, (mint, maxt, _, _) in enumerate(chunks):
            if k == 0:
                meta += varint(mint) + uvarint(maxt - mint) + uvarint(refs[0])
            else:
                meta += uvarint(mint - chunks[k - 1][1]) + uvarint(maxt - mint)
                meta += varint(refs[k] - refs[k - 1])
        metas.append(meta)
    return segments, metas


def encode_series(
    rows: Sequence[Sequence[tuple[int, int]]], metas: Sequence[bytes], position: int
) -> tuple[bytes, list[int]]:
    """Return the entries of series given as (name, value) symbols, and their ids."""
    out, ids = b"", []
    for symbols, meta in zip(rows, metas, strict=True):
        while (position + len(out)) % 16:
            out += b"\0"
        ids.append((position + len(out)) // 16)
        body = uvarint(len(symbols))
        body += b"".join(uvarint(name) + uvarint(value) for name, value in symbols) + meta
        out += uvarint(len(body)) + _sealed(body)
    return out, ids


def scatter_postings(
    rows: Sequence[Sequence[int]], ids: Sequence[int], pairs: int
) -> list[list[int]]:
    """Return each pair's list of ids, then the list of all."""
    lists = [[i for row, i in zip(rows, ids, strict=True) if pair in row] for pair in range(pairs)]
    return [*lists, list(ids)]


def seal_postings(lists: Sequence[Sequence[int]]) -> bytes:
    """Return postings lists with length, count and checksum."""
    out = b""
    for ids in lists:
        body = len(ids).to_bytes(4, "big") + b"".join(i.to_bytes(4, "big") for i in ids)
        out += len(body).to_bytes(4, "big") + _sealed(body)
    return out


def encode_postings_table(entries: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """Return the entries (name, value, offset) of a postings offset table."""
    out = b""
    for name, value, offset in entries:
        out += b"\x02" + uvarint(len(name)) + name + uvarint(len(value)) + value + uvarint(offset)
    return out
