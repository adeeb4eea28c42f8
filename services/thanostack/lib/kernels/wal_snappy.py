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


def _short_copies():
    """Return int64[256, 4], what each tag says of its copy; one of them is not used.

    LENGTH; and how far back it copies from beyond eight bytes, as eight are copied at once: BACK,
    and more of it in the two bytes after the tag, under a MASK. What is longer than 16 bytes, and
    what is no copy, gets a distance that is never there.
    """
    table = np.zeros((256, 4), np.int64)
    table[:, _BACK] = _NOT_SHORT
    for tag in range(256):
        kind, high = tag & 3, tag >> 2
        if kind == 1:
            table[tag] = 4 + (high & 7), 0xFF, (tag >> 5 << 8) - 8, 0
        if kind == 2 and high < 16:
            table[tag] = high + 1, 0xFFFF, -8, 0
    return table


_SHORT = _short_copies()


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
def _repeat(out, at, back, length, end):
    """Append `length` bytes that begin `back` bytes before `at`; the ranges may overlap.

    Where there is room before `end`, up to seven bytes more are written.
    """
    done = np.int64(0)
    if back >= 8:
        stop = length if length + 7 <= end - at else length - 7
        while done < stop:
            store64(out, at + done, load64(out, at + done - back))
            done += 8
    while done < length:
        out[at + done] = out[at + done - back]
        done += 1


@device
def _pairs_left(i, stop, at, end):
    """Return how many pairs are sure to stay inside: one reads 25 bytes, moves by 20, makes 32."""
    return min(stop - i, end - at) >> 5


@device
def _pair(data, i, out, at, first):
    """Decode a literal of up to 16 bytes, or none, and the copy of up to 16 after it.

    Nothing branches on whether there is a literal: in records most often there is one, with too
    many exceptions to guess. 16 bytes may be written for each of the two; what is beyond its length
    is overwritten by what follows.

    Args:
        data, i: the pair's first byte; 24 more are there.
        out, at: where it goes; room for 32 bytes.
        first: eight bytes after where the block begins in `out`; not beyond `at`.

    Returns:
        Where the input and the output are, and whether it was such a pair; if not, what is there
        is another element.
    """
    word = load64(data, i)
    tag = np.int64(word & np.uint64(255))
    is_literal = tag & 3 == 0
    length = (tag >> 2) + 1 if is_literal else np.int64(0)
    step = (tag >> 2) + 2 if is_literal else np.int64(0)
    store64(out, at, load64(data, i + 1))
    # The copy's tag is in the word already: a load less to wait for.
    tag = np.int64((word >> np.uint64(8 * step & 63)) & np.uint64(255))
    if step > 7:
        if step > 17:
            return i, at, False
        store64(out, at + 8, load64(data, i + 9))
        tag = np.int64(data[i + step])
    i += step
    at += length
    back = np.int64(load64(data, i) >> np.uint64(8)) & _SHORT[tag, _MASK]
    back += _SHORT[tag, _BACK]
    if np.uint64(back) > np.uint64(at - first):
        return i, at, False
    store64(out, at, load64(out, at - 8 - back))
    length = _SHORT[tag, _LENGTH]
    if length > 8:
        store64(out, at + 8, load64(out, at - back))
    # Not by a table, as the next pair waits for it.
    return i + (tag & 3) + 1, at + length, True


@device
def _any_element(data, i, stop, out, begin, at, end):
    """Decode one element; return where the input and the output are, the input -1 if it is bad."""
    bad = np.int64(-1), np.int64(0)
    length, back, i = _slow_element(data, i, stop)
    if i < 0 or length > end - at:
        return bad
    if back != LITERAL:
        if back == 0 or back > at - begin:
            return bad
        _repeat(out, at, back, length, end)
        return i, at + length
    if length > stop - i:
        return bad
    copy_bytes(data, i, length, out, at)
    return i + length, at + length


@device
def _block(data, i, stop, out, begin, at, end):
    """Decode from element `i` on to exactly `out[at:end]`; return whether that worked.

    Args:
        data, i, stop: the rest of a block; `i` is -1 if what came before was bad.
        out, begin: where the block begins.
        at, end: what is left to write.
    """
    while 0 <= i < stop:
        pairs = _pairs_left(i, stop, at, end) if at - begin >= 8 else np.int64(0)
        goes_on = pairs > 0
        for _ in range(pairs):
            i, at, goes_on = _pair(data, i, out, at, begin + 8)
            if not goes_on:
                break
        if not goes_on:
            i, at = _any_element(data, i, stop, out, begin, at, end)
    return i >= 0 and at == end


@device
def _two_blocks(data, a, b, out, begin, middle, end):
    """Decode two blocks in turns, until one of them nears its end.

    Where the next element begins is known only when this one was looked at; the processor looks at
    the other block's meanwhile.

    Args:
        data: of both.
        a, b: (first element, stop) of the blocks.
        out, begin, middle, end: the first one goes to `out[begin:middle]`, the other behind it.

    Returns:
        Where the input and the output of the first one are, and of the other; an input of -1 is a
        bad block.
    """
    i, i_stop = a
    j, j_stop = b
    at, to = begin, middle
    while i >= 0 and j >= 0:
        pairs = min(_pairs_left(i, i_stop, at, middle), _pairs_left(j, j_stop, to, end))
        if pairs <= 0:
            break
        goes_on = both = at - begin >= 8 and to - middle >= 8
        if both:
            for _ in range(pairs):
                i, at, goes_on = _pair(data, i, out, at, begin + 8)
                j, to, both = _pair(data, j, out, to, middle + 8)
                if not (goes_on and both):
                    break
        if not goes_on:
            i, at = _any_element(data, i, i_stop, out, begin, at, middle)
        if not both:
            j, to = _any_element(data, j, j_stop, out, middle, to, end)
    return i, at, j, to


@device
def _block_at(data, bounds, compressions, record, room):
    """Return (size, first element) of a record if it is a block of at most `room`; size -1: no."""
    if record >= compressions.shape[0] or compressions[record] != SNAPPY:
        return np.int64(-1), np.int64(-1)
    size, body = _plain_size(data, bounds[record], bounds[record + 1])
    return size if size <= room else np.int64(-1), body


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
    # The record that was decoded in part with the one before it, and where that ended.
    begun = np.int64(-1)
    begun_i = begun_to = np.int64(0)
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
        else:
            end = at + size
            i, to = body, at
            if record == begun:
                i, to = begun_i, begun_to
            else:
                more, j = _block_at(data, bounds, compressions, record + 1, out.shape[0] - end)
                if more >= 0:
                    begun, blocks = record + 1, ((body, stop), (j, bounds[record + 2]))
                    i, to, begun_i, begun_to = _two_blocks(data, *blocks, out, at, end, end + more)
            if not _block(data, i, stop, out, at, to, end):
                state[0] = DECOMPRESS_BAD
                return np.int64(record)
        at += size
        out_bounds[record + 1] = at
    return np.int64(compressions.shape[0])
