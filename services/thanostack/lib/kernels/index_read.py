"""Read a block's index and chunk segments; every byte may be hostile.

Scans turn the variable-length tables into arrays of offsets once; afterwards a series or a list is
found by its offset alone. Nothing that a file claims is used before it is proved to lie inside the
file, and checksums are compared before contents are.

Source: `docs/formats/index.md`, `docs/formats/chunks.md`; Prometheus `tsdb/index`, `tsdb/chunks`.
"""

import numpy as np

from thanostack.lib.kernels._jit import kernel, routine
from thanostack.lib.kernels._types import (
    BYTES,
    BYTES_OUT,
    CHUNKS_OUT,
    I64,
    I64_OUT,
    array_in,
    array_out,
    i64,
    u32,
)
from thanostack.lib.kernels.label_order import compare_bytes, compare_spans
from thanostack.lib.kernels.varint import (
    read_length,
    read_uvarint,
    uvarint_size,
    write_uvarint,
    zigzag,
)
from thanostack.lib.kernels.wide import copy_bytes, crc32c, load_be32

_U32 = array_in(u32)
_U32_OUT = array_out(u32)

BAD_LENGTH, BAD_CHECKSUM, BAD_LABELS, BAD_CHUNKS, NO_ROOM, BAD_ORDER = -1, -2, -3, -4, -5, -6
SYMBOLS_START, SYMBOLS_STOP, SERIES_STOP, VERSION, MINT, MAXT, NEXT_ROW, LAST_REF = range(8)


@kernel(i64(BYTES, i64, i64, _U32_OUT))
def scan_symbols(data, start, stop, offsets):
    """Write where each of len(offsets) strings begins, from `start` on; return 0, or -1.

    -1: a string passes `stop`, or the range is not inside data. Offsets point at the length.
    """
    if start < 0 or stop < start or stop > data.shape[0]:
        return np.int64(-1)
    i = start
    for k in range(offsets.shape[0]):
        offsets[k] = np.uint32(i - start)
        length, i = read_length(data, i, stop)
        if i < 0:
            return np.int64(-1)
        i += length
    return np.int64(0)


@routine
def _read_entry(data, i, stop):
    """Return (name, name length, value, value length, after) of a postings table entry.

    After, the offset of the list's offset, is -1 for a bad entry.
    """
    bad = (np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(-1))
    if i < 0 or i >= stop or data[i] != 2:
        return bad
    name_length, name = read_length(data, i + 1, stop)
    if name < 0:
        return bad
    value_length, value = read_length(data, name + name_length, stop)
    if value < 0:
        return bad
    return name, name_length, value, value_length, value + value_length


@kernel(i64(BYTES, i64, i64, _U32_OUT, _U32_OUT))
def scan_postings_table(data, start, stop, entries, groups):
    """Write where each entry begins, and which entries begin a new name.

    Args:
        data: uint8[n]; the index.
        start: first entry.
        stop: after the last entry.
        entries: uint32[E] out; offsets from `start` on.
        groups: uint32[E + 1] out; entry numbers.

    Returns:
        The number of names; -1 for an entry that passes `stop`, -2 when entries do not ascend by
        (name, value), which version 1 allows: then `groups` means nothing.
    """
    if start < 0 or stop < start or stop > data.shape[0]:
        return np.int64(-1)
    count = np.int64(0)
    sorted_so_far = True
    i = start
    name = np.int64(0)
    name_length = np.int64(0)
    value = np.int64(0)
    value_length = np.int64(0)
    for k in range(entries.shape[0]):
        entries[k] = np.uint32(i - start)
        at, length, value_at, size, after = _read_entry(data, i, stop)
        if after < 0:
            return np.int64(-1)
        _, i = read_uvarint(data, after, stop)
        if i < 0:
            return np.int64(-1)
        order = np.int64(-1)
        if k > 0:
            order = compare_bytes(data, name, name_length, data, at, length)
        if order < 0:
            groups[count] = np.uint32(k)
            count += 1
        elif order > 0 or compare_bytes(data, value, value_length, data, value_at, size) >= 0:
            sorted_so_far = False
        name = at
        name_length = length
        value = value_at
        value_length = size
    groups[count] = np.uint32(entries.shape[0])
    return count if sorted_so_far else np.int64(-2)


@kernel(i64(BYTES, i64, i64, _U32, BYTES))
def find_postings(data, start, stop, entries, value):
    """Return the offset of one value's list by binary search; -1 if absent, -2 for a bad entry.

    Args:
        data: uint8[n]; the index.
        start: first entry of the table.
        stop: after the last entry.
        entries: uint32[V] from `start` on; the entries of one name, values ascending.
        value: uint8[...].
    """
    if start < 0 or stop < start or stop > data.shape[0]:
        return np.int64(-2)
    low = np.int64(0)
    high = np.int64(entries.shape[0])
    while low < high:
        middle = (low + high) >> 1
        _, _, at, length, after = _read_entry(data, start + np.int64(entries[middle]), stop)
        if after < 0:
            return np.int64(-2)
        order = compare_bytes(data, at, length, value, np.int64(0), value.shape[0])
        if order == 0:
            offset, end = read_uvarint(data, after, stop)
            if end < 0 or offset > np.uint64(data.shape[0]):
                return np.int64(-2)
            return np.int64(offset)
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return np.int64(-1)


@kernel(i64(BYTES, i64, i64, _U32, I64_OUT))
def list_table_values(data, start, stop, entries, spans):
    """Write where the names and values of chosen entries lie; return 0, or -1 for a bad entry.

    Args:
        data: uint8[n]; the index.
        start: first entry of the table.
        stop: after the last entry.
        entries: uint32[V]; from `start` on.
        spans: int64[5V] out; name start, name stop, value start, value stop, list offset.
    """
    if start < 0 or stop < start or stop > data.shape[0] or spans.shape[0] < 5 * entries.shape[0]:
        return np.int64(-1)
    for k in range(entries.shape[0]):
        at, length, value, size, after = _read_entry(data, start + np.int64(entries[k]), stop)
        if after < 0:
            return np.int64(-1)
        offset, end = read_uvarint(data, after, stop)
        if end < 0 or offset > np.uint64(data.shape[0]):
            return np.int64(-1)
        spans[5 * k] = at
        spans[5 * k + 1] = at + length
        spans[5 * k + 2] = value
        spans[5 * k + 3] = value + size
        spans[5 * k + 4] = np.int64(offset)
    return np.int64(0)


@routine
def _symbol(data, symbols, state, reference):
    """Return (length, offset) of a symbol; offset -1 for a reference to none."""
    if state[VERSION] == 1:
        at = np.int64(reference & np.uint64(0x7FFFFFFFFFFFFFFF))
        if at < state[SYMBOLS_START] or reference >= np.uint64(state[SYMBOLS_STOP]):
            return np.int64(0), np.int64(-1)
    else:
        if reference >= np.uint64(symbols.shape[0]):
            return np.int64(0), np.int64(-1)
        at = state[SYMBOLS_START] + np.int64(symbols[np.int64(reference)])
    return read_length(data, at, state[SYMBOLS_STOP])


@routine
def _decode_labels(data, i, stop, symbols, state, out, at):
    """Write the run of a series, label count at `i`; return its end in `out`, or a status."""
    count, i = read_uvarint(data, i, stop)
    if i < 0:
        return np.int64(BAD_LABELS)
    last = np.int64(0)
    last_length = np.int64(0)
    k = np.uint64(0)
    while k < count:
        name_ref, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(BAD_LABELS)
        value_ref, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(BAD_LABELS)
        name_length, name = _symbol(data, symbols, state, name_ref)
        value_length, value = _symbol(data, symbols, state, value_ref)
        if name < 0 or value < 0:
            return np.int64(BAD_LABELS)
        if compare_bytes(data, last, last_length, data, name, name_length) >= 0:
            return np.int64(BAD_LABELS)
        last = name
        last_length = name_length
        k += np.uint64(1)
        if value_length == 0:
            continue  # an empty value is no label, and no part of a canonical run
        size = 2 + name_length + uvarint_size(np.uint64(name_length))
        size += value_length + uvarint_size(np.uint64(value_length))
        if at + size + 11 > out.shape[0]:
            return np.int64(NO_ROOM)
        out[at] = 10
        at = write_uvarint(out, at + 1, np.uint64(size))
        out[at] = 10
        at = write_uvarint(out, at + 1, np.uint64(name_length))
        copy_bytes(data, name, name_length, out, at)
        at += name_length
        out[at] = 18
        at = write_uvarint(out, at + 1, np.uint64(value_length))
        copy_bytes(data, value, value_length, out, at)
        at += value_length
    return at


@routine
def _skip_labels(data, i, stop):
    count, i = read_uvarint(data, i, stop)
    # Bound: a label takes two bytes at least, so a lying count ends with the entry.
    if i < 0 or count > np.uint64(stop - i):
        return np.int64(-1)
    for _ in range(2 * np.int64(count)):
        _, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(-1)
    return i


@routine
def _decode_chunks(data, i, stop, state, out, at):
    """Write the chunks that overlap [MINT, MAXT]; return their end in `out`, or a status.

    `start` takes the reference, length and encoding are 0: both are in the segment.
    """
    count, i = read_uvarint(data, i, stop)
    if i < 0 or count > np.uint64(stop - i):
        return np.int64(BAD_CHUNKS)
    maxt = np.int64(0)
    ref = np.int64(0)
    for c in range(np.int64(count)):
        first, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(BAD_CHUNKS)
        length, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(BAD_CHUNKS)
        pointer, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(BAD_CHUNKS)
        if c == 0:
            mint = zigzag(first)
            ref = np.int64(pointer)
        else:
            mint = maxt + np.int64(first)
            ref += zigzag(pointer)
        maxt = mint + np.int64(length)
        if maxt < mint:
            return np.int64(BAD_CHUNKS)
        if maxt < state[MINT] or mint > state[MAXT]:
            continue
        if at >= out.shape[0]:
            return np.int64(NO_ROOM)
        out[at]["mint"] = mint
        out[at]["maxt"] = maxt
        out[at]["start"] = ref
        out[at]["length"] = 0
        out[at]["encoding"] = 0
        at += 1
    return at


@kernel(i64(BYTES, I64, _U32, I64_OUT, BYTES_OUT, I64_OUT, I64_OUT, CHUNKS_OUT, I64_OUT))
def decode_series(data, refs, symbols, state, out, out_offsets, chunk_offsets, chunks, kept):
    """Write labels and chunk references of series with chunks in [MINT, MAXT], until one is full.

    Args:
        data: uint8[n]; the index.
        refs: int64[R]; offsets of series entries.
        symbols: uint32[n_symbols] from SYMBOLS_START on.
        state: int64[8] in and out; see the constants: bounds of symbols, end of the series
            section, version, bounds in ms, next row of refs, offset of the entry last read.
        out: uint8[m] out; label runs.
        out_offsets: int64[K + 1] out; at most K series.
        chunk_offsets: int64[K + 1] out.
        chunks: CHUNK_DTYPE[C] out; `start` is the reference.
        kept: int64[K] out; the row of refs that each series is.

    Returns:
        The series written, NEXT_ROW telling where to go on; BAD_LENGTH, BAD_CHECKSUM, BAD_LABELS,
        BAD_CHUNKS for a damaged entry at LAST_REF, BAD_ORDER for one that is not above the one
        before; NO_ROOM when not even one series fits.
    """
    count = np.int64(0)
    at = np.int64(0)
    c = np.int64(0)
    out_offsets[0] = 0
    chunk_offsets[0] = 0
    limit = min(state[SERIES_STOP], np.int64(data.shape[0]))
    if state[SYMBOLS_START] < 0 or state[SYMBOLS_STOP] > data.shape[0]:
        return np.int64(BAD_LENGTH)
    while state[NEXT_ROW] < refs.shape[0] and count < kept.shape[0]:
        ref = refs[state[NEXT_ROW]]
        state[LAST_REF] = ref
        if ref < 0:
            return np.int64(BAD_LENGTH)
        length, body = read_length(data, ref, limit)
        if body < 0 or body + length + 4 > limit:
            return np.int64(BAD_LENGTH)
        stop = body + length
        if crc32c(data, body, stop) != load_be32(data, stop):
            return np.int64(BAD_CHECKSUM)
        i = _skip_labels(data, body, stop)
        if i < 0:
            return np.int64(BAD_LABELS)
        last_chunk = _decode_chunks(data, i, stop, state, chunks, c)
        end = at
        if last_chunk > c:
            end = _decode_labels(data, body, stop, symbols, state, out, at)
        worst = min(last_chunk, end)
        if worst == NO_ROOM and count > 0:
            return count
        if worst < 0:
            return worst
        if last_chunk > c:
            before = out_offsets[max(count - 1, np.int64(0))]
            if count > 0 and compare_spans(out, before, at, out, at, end) != -1:
                return np.int64(BAD_ORDER)
            kept[count] = state[NEXT_ROW]
            count += 1
            at = end
            c = last_chunk
            out_offsets[count] = at
            chunk_offsets[count] = c
        state[NEXT_ROW] += 1
    return count


@kernel(i64(BYTES, i64, I64, I64_OUT))
def measure_chunks(segment, number, refs, lengths):
    """Write the length of every chunk of one segment, checksums compared.

    Args:
        segment: uint8[n]; a whole segment file.
        number: the segment's number, from 0.
        refs: int64[C]; number << 32 | offset. Those of other segments are left alone.
        lengths: int64[C] out.

    Returns:
        0; or -(1 + 2c) for a chunk c that passes the end, -(2 + 2c) for a wrong checksum.
    """
    for c in range(refs.shape[0]):
        if refs[c] >> 32 != number:
            continue
        length, body = read_length(segment, refs[c] & 0xFFFFFFFF, np.int64(segment.shape[0]))
        # Bound: the encoding byte lies before the data, the CRC after it.
        if body < 0 or body + 1 + length + 4 > segment.shape[0] or length > 0x7FFFFFFF:
            return -(1 + 2 * np.int64(c))
        end = body + 1 + length
        if crc32c(segment, body, end) != load_be32(segment, end):
            return -(2 + 2 * np.int64(c))
        lengths[c] = length
    return np.int64(0)


@kernel(i64(BYTES, i64, I64, CHUNKS_OUT, BYTES_OUT))
def copy_chunks(segment, number, refs, chunks, out):
    """Copy the chunks of one segment to where their records say; return how many, or -1.

    Args:
        segment: uint8[n]; a whole segment file.
        number: the segment's number, from 0.
        refs: int64[C]; number << 32 | offset. Those of other segments are left alone.
        chunks: CHUNK_DTYPE[C] in and out; start and length are set, encoding is written.
        out: uint8[m] out.

    Returns:
        The number copied; -1 when a chunk is not as long as its record, or does not fit.
    """
    copied = np.int64(0)
    for c in range(refs.shape[0]):
        if refs[c] >> 32 != number:
            continue
        length, body = read_length(segment, refs[c] & 0xFFFFFFFF, np.int64(segment.shape[0]))
        start = chunks[c]["start"]
        if body < 0 or body + 1 + length > segment.shape[0] or length != chunks[c]["length"]:
            return np.int64(-1)
        if start < 0 or start + length > out.shape[0]:
            return np.int64(-1)
        chunks[c]["encoding"] = np.int32(segment[body])
        copy_bytes(segment, body + 1, length, out, start)
        copied += 1
    return copied


@kernel(i64(I64, I64, I64_OUT))
def intersect_sorted(a, b, out):
    """Write the common numbers of two strictly ascending lists; return how many.

    Steps double while the longer list lags, so a short list against a long one costs
    O(short * log(long / short)).

    Args:
        a: int64[n].
        b: int64[m].
        out: int64[min(n, m)] out.
    """
    if a.shape[0] > b.shape[0]:
        a, b = b, a
    count = np.int64(0)
    j = np.int64(0)
    for k in range(a.shape[0]):
        wanted = a[k]
        step = np.int64(1)
        while j + step < b.shape[0] and b[j + step] < wanted:
            step *= 2
        low = j + (step >> 1)
        high = min(j + step + 1, np.int64(b.shape[0]))
        while low < high:
            middle = (low + high) >> 1
            if b[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        j = low
        if j >= b.shape[0]:
            break
        if b[j] == wanted:
            if count >= out.shape[0]:
                break
            out[count] = wanted
            count += 1
    return count


@kernel(i64(I64, I64, I64_OUT))
def subtract_sorted(a, b, out):
    """Write the numbers of one ascending list that are not in another; return how many.

    Args:
        a: int64[n].
        b: int64[m].
        out: int64[n] out.
    """
    count = np.int64(0)
    j = np.int64(0)
    for k in range(a.shape[0]):
        while j < b.shape[0] and b[j] < a[k]:
            j += 1
        if j >= b.shape[0] or b[j] != a[k]:
            out[count] = a[k]
            count += 1
    return count
