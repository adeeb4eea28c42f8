"""Files of closed head chunks: scan one, and gather chunks out of one.

    file    01 30 BC 91 | version 01 | 00 00 00 | chunks | zeros
    chunk   u64 series ref | u64 mint | u64 maxt | encoding | uvarint length | data | CRC-32C

The CRC covers everything before it. Bit 7 of the encoding marks an out-of-order chunk. A chunk
whose reference and times are all zero ends the used part: files may be preallocated.

Source: Prometheus `tsdb/chunks/head_chunks.go`; `docs/formats/chunks-head.md`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BYTES,
    BYTES_OUT,
    I64,
    I64_OUT,
    array_out,
    i64,
    record_dtype,
)
from thanostack.lib.kernels.varint import read_uvarint
from thanostack.lib.kernels.wide import copy_bytes, crc32c, load_be32, load_be64

FIXED = 25
CRC = 4
META_MAX = 34
"""Fewer bytes than this left in a file are its zero tail, or damage; upstream's bound."""

SCAN_DONE = 0
SCAN_MORE = 1
SCAN_FULL = 2
SCAN_TORN = -1
SCAN_BAD_LENGTH = -2
SCAN_BAD_CRC = -3

GATHER_BAD = -1

HEAD_CHUNK_DTYPE = record_dtype(
    [
        ("series_ref", np.uint64),
        ("offset", np.int64),  # of the chunk in the bytes scanned
        ("mint", np.int64),  # ms, inclusive
        ("maxt", np.int64),  # ms, inclusive
        ("length", np.int32),  # of the encoded bytes
        ("count", np.int32),  # samples, as the first two encoded bytes say
        ("encoding", np.int32),  # with the out-of-order bit
    ],
    align=True,
)
HEAD_CHUNKS_OUT = array_out(HEAD_CHUNK_DTYPE)


@device
def _only_zeros(data, start, stop):
    for i in range(start, stop):
        if data[i] != 0:
            return False
    return True


@device
def _chunk_end(data, i, stop):
    """Return (start, length) of the encoded bytes of the chunk at `i`; (-1, 0) bad length.

    Where the length goes beyond `stop` it is still returned, up to 2 GiB.
    """
    size, start = read_uvarint(data, i + FIXED, min(stop, i + FIXED + 5))
    if start < 0 or size > np.uint64(0x7FFFFFFF):
        return np.int64(-1), np.int64(0)
    return start, np.int64(size)


@kernel(i64(BYTES, i64, i64, HEAD_CHUNKS_OUT, I64_OUT))
def head_chunks_scan(data, position, last, chunks, state):
    """Describe the chunks in `data[position:]`, CRCs checked; return how many.

    Args:
        data: uint8[n]; a stretch of a file, after its header.
        position: where the first chunk begins.
        last: 1 if the file ends where `data` does, else 0.
        chunks: HEAD_CHUNK_DTYPE[room].
        state: int64[2]; SCAN_*, and the first byte not described. MORE: `data` ends inside this
            chunk and the file goes on. TORN: so does the file.
    """
    stop = np.int64(data.shape[0])
    count = np.int64(0)
    status = np.int64(SCAN_DONE)
    i = position
    while i < stop:
        if i + META_MAX > stop:
            if last == 0:
                status = np.int64(SCAN_MORE)
            elif not _only_zeros(data, i, stop):
                status = np.int64(SCAN_TORN)
            break
        ref = load_be64(data, i)
        mint = load_be64(data, i + 8)
        maxt = load_be64(data, i + 16)
        if ref == np.uint64(0) and mint == np.uint64(0) and maxt == np.uint64(0):
            break
        start, length = _chunk_end(data, i, stop)
        if start < 0:
            status = np.int64(SCAN_BAD_LENGTH)
            break
        end = start + length
        if end + CRC > stop:
            status = np.int64(SCAN_TORN if last else SCAN_MORE)
            break
        if crc32c(data, i, end) != load_be32(data, end):
            status = np.int64(SCAN_BAD_CRC)
            break
        if count == chunks.shape[0]:
            status = np.int64(SCAN_FULL)
            break
        chunk = chunks[count]
        chunk["series_ref"] = ref
        chunk["offset"] = i
        chunk["mint"] = np.int64(mint)
        chunk["maxt"] = np.int64(maxt)
        chunk["length"] = np.int32(length)
        chunk["encoding"] = np.int32(data[i + 24])
        chunk["count"] = np.int32(0)
        if length >= 2:
            chunk["count"] = np.int32((np.int64(data[start]) << 8) | np.int64(data[start + 1]))
        count += 1
        i = end + CRC
    state[0] = status
    state[1] = i
    return count


@kernel(i64(BYTES, i64, I64, I64, I64, I64, BYTES_OUT))
def head_chunks_gather(data, base, picks, offsets, lengths, starts, out):
    """Copy the encoded bytes of chunks out of a stretch of a file, lengths and CRCs checked.

    Args:
        data: uint8[n]; the file's bytes from offset `base` on.
        base: where in the file `data` begins.
        picks: int64[k]; which chunks lie in `data`.
        offsets: int64[C]; where each chunk lies in the file.
        lengths: int64[C]; of its encoded bytes.
        starts: int64[C]; where they go in `out`.
        out: uint8[m].

    Returns:
        `k`, or GATHER_BAD - i if chunk picks[i] is not what it should be.
    """
    stop = np.int64(data.shape[0])
    for k in range(picks.shape[0]):
        pick = picks[k]
        at = offsets[pick] - base
        if at < 0 or at + META_MAX > stop:
            return np.int64(GATHER_BAD) - k
        start, length = _chunk_end(data, at, stop)
        if start < 0 or length != lengths[pick] or start + length + CRC > stop:
            return np.int64(GATHER_BAD) - k
        if starts[pick] < 0 or starts[pick] + length > out.shape[0]:
            return np.int64(GATHER_BAD) - k
        if crc32c(data, at, start + length) != load_be32(data, start + length):
            return np.int64(GATHER_BAD) - k
        copy_bytes(data, start, length, out, starts[pick])
    return np.int64(picks.shape[0])
