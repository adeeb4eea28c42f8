"""Encode chunk segments, series entries and postings of a block.

    chunk segment   uvarint length | encoding | data | CRC(encoding, data)
    series entry    padding to 16 | uvarint length | labels, chunks | CRC(labels, chunks)
    postings list   u32 length | u32 n | n x u32 id | CRC(n, ids)

The chunk part of a series entry is encoded when its chunks are written, the label part when all
symbols are known; in between there are a few bytes a chunk and four a label.

Source: `docs/formats/index.md`, `docs/formats/chunks.md`; Prometheus `tsdb/index`, `tsdb/chunks`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BYTES,
    BYTES_OUT,
    CHUNKS,
    I32,
    I64,
    I64_OUT,
    array_in,
    i64,
    u32,
)
from thanostack.lib.kernels.varint import (
    uvarint_size,
    write_uvarint,
    write_varint,
)
from thanostack.lib.kernels.wide import copy_bytes, crc32c, store_be32

_SEGMENT_HEADER = 8
_CHUNK_OVERHEAD = 10  # length 5 at most, encoding 1, CRC 4

SEGMENT, POSITION, SEGMENT_BYTES, LAST_REF, FLOATS, HISTOGRAMS, CUTS, ROW = range(8)


@kernel(i64(BYTES, i64, i64))
def checksum(data, start, stop):
    """Return the CRC-32C of data[start:stop], or -1 for a range out of bounds."""
    if start < 0 or stop < start or stop > data.shape[0]:
        return np.int64(-1)
    return crc32c(data, start, stop)


@device
def _sample_count(data, start, encoding):
    count = (np.int64(data[start]) << 8) | np.int64(data[start + 1])
    # Histograms with start times keep two flag bits above the count.
    return count & 0x3FFF if encoding >= 5 else count


@device
def _is_histogram(encoding):
    return encoding == 2 or encoding == 3 or encoding >= 5


@kernel(i64(BYTES, CHUNKS, I64, I64_OUT, BYTES_OUT, I64_OUT, BYTES_OUT, I64_OUT))
def frame_chunks(data, chunks, chunk_offsets, state, out, cuts, meta, meta_offsets):
    """Write the chunks of S series as segment bytes, and the chunk part of their index entries.

    A segment is cut where Prometheus would: between two chunks, when the worst case of this
    series' chunks so far would not fit any more.

    Args:
        data: uint8[n].
        chunks: CHUNK_DTYPE[C], into data.
        chunk_offsets: int64[S + 1]; chunks of series.
        state: int64[8] in and out; see the constants: segment from 0, position in it, its bytes at
            most, last reference, float samples, histogram samples, cuts made, and row in trouble.
        out: uint8[m] out; m >= bytes of all chunks + 10 a chunk.
        cuts: int64[C] out; offsets in `out` where a new segment begins.
        meta: uint8[k] out; k >= 10 a series + 30 a chunk.
        meta_offsets: int64[S + 1] out.

    Returns:
        The bytes written; -1 for a chunk outside of data or without samples' count, -2 for chunks
        of one series that overlap or descend, -3 for a chunk whose maxt lies below its mint, -4
        when an output is too short.
    """
    at = np.int64(0)
    m = np.int64(0)
    meta_offsets[0] = 0
    state[CUTS] = 0
    for row in range(chunk_offsets.shape[0] - 1):
        state[ROW] = row
        first = chunk_offsets[row]
        stop = chunk_offsets[row + 1]
        if first < 0 or stop < first or stop > chunks.shape[0]:
            return np.int64(-1)
        if m + 10 + 30 * (stop - first) > meta.shape[0]:
            return np.int64(-4)
        m = write_uvarint(meta, m, np.uint64(stop - first))
        begin = state[POSITION]
        pending = np.int64(0)
        first_batch = True
        last_maxt = np.int64(0)
        last_ref = np.int64(0)
        for c in range(first, stop):
            start = chunks[c]["start"]
            length = np.int64(chunks[c]["length"])
            encoding = np.int64(chunks[c]["encoding"])
            if start < 0 or length < 2 or start > data.shape[0] - length:
                return np.int64(-1)
            if chunks[c]["maxt"] < chunks[c]["mint"]:
                return np.int64(-3)
            if c > first and chunks[c]["mint"] <= last_maxt:
                return np.int64(-2)
            pending += length + _CHUNK_OVERHEAD
            cut = c > first and pending + _SEGMENT_HEADER > state[SEGMENT_BYTES]
            if first_batch and begin > _SEGMENT_HEADER:
                cut = pending + begin > state[SEGMENT_BYTES]
                first_batch = not cut
            if cut:
                pending = length + _CHUNK_OVERHEAD
                cuts[state[CUTS]] = at
                state[CUTS] += 1
                state[SEGMENT] += 1
                state[POSITION] = _SEGMENT_HEADER
            if at + length + _CHUNK_OVERHEAD > out.shape[0]:
                return np.int64(-4)
            ref = (state[SEGMENT] << 32) | state[POSITION]
            framed = write_uvarint(out, at, np.uint64(length))
            out[framed] = np.uint8(encoding)
            copy_bytes(data, start, length, out, framed + 1)
            end = framed + 1 + length
            store_be32(out, end, crc32c(out, framed, end))
            state[POSITION] += end + 4 - at
            at = end + 4
            if _is_histogram(encoding):
                state[HISTOGRAMS] += _sample_count(data, start, encoding)
            else:
                state[FLOATS] += _sample_count(data, start, encoding)
            if c == first:
                m = write_varint(meta, m, chunks[c]["mint"])
            else:
                m = write_uvarint(meta, m, np.uint64(chunks[c]["mint"] - last_maxt))
            m = write_uvarint(meta, m, np.uint64(chunks[c]["maxt"] - chunks[c]["mint"]))
            if c == first:
                m = write_uvarint(meta, m, np.uint64(ref))
            else:
                m = write_varint(meta, m, ref - last_ref)
            last_maxt = chunks[c]["maxt"]
            last_ref = ref
        if stop > first:
            state[LAST_REF] = last_ref
        meta_offsets[row + 1] = m
    return at


@kernel(i64(I32, I64, I32, BYTES, I64, i64, BYTES_OUT, I64_OUT))
def encode_series(pair_ids, row_offsets, symbols, meta, meta_offsets, position, out, series_ids):
    """Write series entries; return the bytes written, padding included.

    Args:
        pair_ids: int32[N]; label pairs of S series.
        row_offsets: int64[S + 1] into pair_ids.
        symbols: int32[2P]; name and value symbol of each pair id.
        meta: uint8[k]; the encoded chunk parts.
        meta_offsets: int64[S + 1] into meta.
        position: offset in the file of out[0].
        out: uint8[m] out; m >= 35 a series + 10 a label + k.
        series_ids: int64[S] out; offset in the file / 16.

    Returns:
        The bytes written, or -1 when `out` is too short.
    """
    at = np.int64(0)
    for row in range(row_offsets.shape[0] - 1):
        first = row_offsets[row]
        stop = row_offsets[row + 1]
        chunk_bytes = meta_offsets[row + 1] - meta_offsets[row]
        if at + 35 + 10 * (stop - first) + chunk_bytes > out.shape[0]:
            return np.int64(-1)
        while (position + at) & 15:
            out[at] = 0
            at += 1
        series_ids[row] = (position + at) >> 4
        size = uvarint_size(np.uint64(stop - first)) + chunk_bytes
        for k in range(first, stop):
            pair = 2 * np.int64(pair_ids[k])
            size += uvarint_size(np.uint64(symbols[pair]))
            size += uvarint_size(np.uint64(symbols[pair + 1]))
        at = write_uvarint(out, at, np.uint64(size))
        body = at
        at = write_uvarint(out, at, np.uint64(stop - first))
        for k in range(first, stop):
            pair = 2 * np.int64(pair_ids[k])
            at = write_uvarint(out, at, np.uint64(symbols[pair]))
            at = write_uvarint(out, at, np.uint64(symbols[pair + 1]))
        copy_bytes(meta, meta_offsets[row], chunk_bytes, out, at)
        at += chunk_bytes
        store_be32(out, at, crc32c(out, body, at))
        at += 4
    return at


@kernel(i64(I32, I64, array_in(u32), I64_OUT, BYTES_OUT))
def scatter_postings(pair_ids, row_offsets, series_ids, cursors, out):
    """Write each series' id to the lists of its pairs and of all; return the ids written, or -1.

    Rows come in ascending order of id, so every list ends up ascending: a counting sort.

    Args:
        pair_ids: int32[N]; label pairs of S series.
        row_offsets: int64[S + 1] into pair_ids.
        series_ids: uint32[S]; ascending.
        cursors: int64[P + 1] in and out; where in `out` each pair's list goes on; last, of all.
        out: uint8[m] out.
    """
    every = cursors.shape[0] - 1
    written = np.int64(0)
    for row in range(row_offsets.shape[0] - 1):
        value = np.int64(series_ids[row])
        for k in range(row_offsets[row], row_offsets[row + 1] + 1):
            pair = every if k == row_offsets[row + 1] else np.int64(pair_ids[k])
            at = cursors[pair]
            if at + 4 > out.shape[0]:
                return np.int64(-1)
            store_be32(out, at, value)
            cursors[pair] = at + 4
            written += 1
    return written


@kernel(i64(I64, BYTES_OUT))
def seal_postings(offsets, out):
    """Write length, count and CRC around the ids of every list; return the lists, or -1.

    Args:
        offsets: int64[L + 1] into out; list l takes [offsets[l], offsets[l + 1]): u32 length, u32
            count, the ids already in place, CRC.
        out: uint8[m] in and out.
    """
    for k in range(offsets.shape[0] - 1):
        start = offsets[k]
        stop = offsets[k + 1]
        if start < 0 or stop < start + 12 or stop > out.shape[0]:
            return np.int64(-1)
        store_be32(out, start, stop - start - 8)
        store_be32(out, start + 4, (stop - start - 12) // 4)
        store_be32(out, stop - 4, crc32c(out, start + 4, stop - 4))
    return np.int64(offsets.shape[0] - 1)


@kernel(i64(BYTES, I64, I64, I64, I64, BYTES_OUT))
def encode_postings_table(arena, starts, stops, names, offsets, out):
    """Write the entries of the postings offset table; return the bytes written.

    Args:
        arena: uint8[n]; strings.
        starts: int64[...] into arena; string r is the value of the pair of rank r.
        stops: int64[...] into arena.
        names: int64[P]; string number of each pair's name.
        offsets: int64[P]; where in the file each pair's list begins.
        out: uint8[m] out; an empty one only measures.

    Returns:
        The bytes written (or needed), or -1 when `out` is too short.
    """
    at = np.int64(0)
    for rank in range(names.shape[0]):
        name = names[rank]
        name_length = stops[name] - starts[name]
        value_length = stops[rank] - starts[rank]
        size = np.int64(1) + uvarint_size(np.uint64(name_length)) + name_length
        size += uvarint_size(np.uint64(value_length)) + value_length
        size += uvarint_size(np.uint64(offsets[rank]))
        if out.shape[0] > 0:
            if at + size > out.shape[0]:
                return np.int64(-1)
            out[at] = 2
            i = write_uvarint(out, at + 1, np.uint64(name_length))
            copy_bytes(arena, starts[name], name_length, out, i)
            i = write_uvarint(out, i + name_length, np.uint64(value_length))
            copy_bytes(arena, starts[rank], value_length, out, i)
            write_uvarint(out, i + value_length, np.uint64(offsets[rank]))
        at += size
    return at
