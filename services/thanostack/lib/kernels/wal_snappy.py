"""Decompress a batch of snappy-framed records, without a Python call for each.

    block    uvarint length | elements
    element  low 2 bits of the tag: 0 literal, 1 copy (11-bit offset), 2 copy (16), 3 copy (32)

A block whose length cannot be true is refused before anything is written: an element makes at
most 64 bytes out of 3. Compressing stays with a library, which is faster than this would be.

Source: snappy, "format_description".
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.varint import read_uvarint
from thanostack.lib.kernels.wide import copy_bytes, load64, store64

PLAIN, SNAPPY = 0, 8
LITERAL = -1

DECOMPRESS_DONE = 0
DECOMPRESS_FULL = 1
DECOMPRESS_FOREIGN = 2
DECOMPRESS_BAD = -1


_LENGTH, _MASK, _BACK = range(3)
_NOT_SHORT = 1 << 40


def _short_elements():
    """Return int64[256, 4], what each tag says of its element; one of them is not used.

    LENGTH; and how far back it copies from beyond eight bytes, as eight are copied at once: BACK,
    and more of it in the two bytes after the tag, under a MASK. A literal gets the smallest
    distance, what is longer than 16 bytes one that is never there.
    """
    table = np.zeros((256, 4), np.int64)
    table[:, _BACK] = _NOT_SHORT
    for tag in range(256):
        kind, high = tag & 3, tag >> 2
        if kind == 0 and high < 16:
            table[tag] = high + 1, 0, 0, 0
        if kind == 1:
            table[tag] = 4 + (high & 7), 0xFF, (tag >> 5 << 8) - 8, 0
        if kind == 2 and high < 16:
            table[tag] = high + 1, 0xFFFF, -8, 0
    return table


_SHORT = _short_elements()


@device
def _plain_size(data, start, stop):
    """Return (length a block claims, offset of its first element); (-1, -1) if it is a lie."""
    claimed, i = read_uvarint(data, start, stop)
    if i < 0 or claimed > np.uint64(0xFFFFFFFF):
        return np.int64(-1), np.int64(-1)
    size = np.int64(claimed)
    if size > (stop - i) * 22:
        return np.int64(-1), np.int64(-1)
    return size, i


@device
def _slow_element(data, i, stop):
    """Return (length, offset back or LITERAL, next offset); next is -1 if cut short."""
    tag = np.int64(data[i])
    i += 1
    kind = tag & 3
    if kind == 0:
        extra = max((tag >> 2) - 59, np.int64(0))
    else:
        extra = np.int64(1) << (kind - 1)
    if extra > stop - i:
        return np.int64(0), np.int64(LITERAL), np.int64(-1)
    number = np.int64(0)
    for k in range(extra):
        number |= np.int64(data[i + k]) << (8 * k)
    if kind == 0:
        length = number if extra > 0 else tag >> 2
        return length + 1, np.int64(LITERAL), i + extra
    if kind == 1:
        return 4 + ((tag >> 2) & 7), ((tag >> 5) << 8) | number, i + extra
    return 1 + (tag >> 2), number, i + extra


@device
def _repeat(out, at, back, length):
    """Append `length` bytes that begin `back` bytes before `at`; the ranges may overlap."""
    done = np.int64(0)
    if back >= 8:
        while done + 8 <= length:
            store64(out, at + done, load64(out, at + done - back))
            done += 8
    while done < length:
        out[at + done] = out[at + done - back]
        done += 1


@device
def _short_element(data, i, tag, out, room, at):
    """Decode an element of up to 16 bytes and return its length; 0 if it is none.

    Nothing branches on the kind: records are short elements of any kind in turn. 16 bytes may be
    written; what is beyond the element's length is overwritten by the next one.

    Args:
        data, i: its first byte; 17 more are there.
        tag: that byte.
        out, at: where it goes.
        room: how much more than eight bytes are written before `at`, at least 0.
    """
    back = np.int64(load64(data, i) >> np.uint64(8)) & _SHORT[tag, _MASK]
    back += _SHORT[tag, _BACK]
    if np.uint64(back) > np.uint64(room):
        return np.int64(0)
    length = _SHORT[tag, _LENGTH]
    is_literal = tag & 3 == 0
    copied = load64(out, at - 8 - back)
    store64(out, at, load64(data, i + 1) if is_literal else copied)
    if length > 8:
        copied = load64(out, at - back)
        store64(out, at + 8, load64(data, i + 9) if is_literal else copied)
    return length


@device
def _step(tag):
    """Return the bytes of a short element; not by a table, as the next element waits for it."""
    kind = tag & 3
    return kind + 1 if kind != 0 else (tag >> 2) + 2


@device
def _short_elements_from(data, i, stop, out, begin, at, end):
    """Decode short elements while there are any; return where the input and the output are."""
    while at + 32 <= end and i + 34 <= stop:
        word = load64(data, i)
        tag = np.int64(word & np.uint64(255))
        length = _short_element(data, i, tag, out, at - begin - 8, at)
        if length == 0:
            break
        step = _step(tag)
        at += length
        i += step
        if step > 7:
            continue
        # The next tag is in the word already: a load less to wait for.
        tag = np.int64((word >> np.uint64(8 * step)) & np.uint64(255))
        length = _short_element(data, i, tag, out, at - begin - 8, at)
        if length == 0:
            break
        at += length
        i += _step(tag)
    return i, at


@device
def _block(data, i, stop, out, at, end):
    """Decode elements to exactly `out[at:end]`; return whether that worked."""
    begin = at
    while i < stop:
        if at - begin >= 8:
            i, at = _short_elements_from(data, i, stop, out, begin, at, end)
        if i >= stop:
            break
        length, back, i = _slow_element(data, i, stop)
        if i < 0 or length > end - at:
            return False
        if back != LITERAL:
            if back == 0 or back > at - begin:
                return False
            _repeat(out, at, back, length)
        else:
            if length > stop - i:
                return False
            copy_bytes(data, i, length, out, at)
            i += length
        at += length
    return at == end


@kernel(i64(BYTES, I64, I64, i64, BYTES_OUT, I64_OUT, I64_OUT))
def wal_decompress(data, bounds, compressions, first, out, out_bounds, state):
    """Decompress records from `first` on and return the index of the first that was not done.

    Args:
        data: uint8[n]; records, compressed.
        bounds: int64[records + 1]; record i is data[bounds[i]:bounds[i + 1]]; inside `data`.
        compressions: int64[records]; 0 as it is, 8 snappy; anything else stops the kernel.
        first: where to begin; `out_bounds[first]` says where in `out`.
        out: uint8[m]; records decompressed, one after another.
        out_bounds: int64[records + 1].
        state: int64[2]; DECOMPRESS_DONE, FULL (`out` is too small for this record: the second
            number is its size), FOREIGN or BAD.
    """
    state[0] = DECOMPRESS_DONE
    at = out_bounds[first]
    for record in range(first, compressions.shape[0]):
        start, stop = bounds[record], bounds[record + 1]
        if compressions[record] != PLAIN and compressions[record] != SNAPPY:
            state[0] = DECOMPRESS_FOREIGN
            return np.int64(record)
        size, body = stop - start, start
        # Upstream: an empty payload is an empty record, whatever its flag.
        packed = compressions[record] == SNAPPY and stop > start
        if packed:
            size, body = _plain_size(data, start, stop)
            if size < 0:
                state[0] = DECOMPRESS_BAD
                return np.int64(record)
        if at + size > out.shape[0]:
            state[0] = DECOMPRESS_FULL
            state[1] = size
            return np.int64(record)
        if not packed:
            copy_bytes(data, body, size, out, at)
        elif not _block(data, body, stop, out, at, at + size):
            state[0] = DECOMPRESS_BAD
            return np.int64(record)
        at += size
        out_bounds[record + 1] = at
    return np.int64(compressions.shape[0])
