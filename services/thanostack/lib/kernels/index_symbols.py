"""From label runs to symbols: intern label pairs, then order their strings.

A block's index needs every label pair three times: as two symbols in its series, as a postings
list, and as two strings in the symbol table. The pair, framed as it lies in the canonical run, is
interned once, so a series costs one table look-up a label, and none where it repeats the series
before it:

    run of series   | 0A len 0A n name 12 n value | 0A len ...
    arena           the distinct pairs, one after another        pair id -> arena offsets
    table           open addressing over xxh64, id + 1, 0 = free

Nothing is allocated here: when a table, the arena or the id space is full the kernel says so and
goes on from the same row after its caller has made room.

Source: `docs/formats/index.md`; the idea is measured in `docs/performance.md`.
"""

import numpy as np

from thanostack.lib.kernels._jit import kernel, routine
from thanostack.lib.kernels._types import (
    BYTES,
    BYTES_OUT,
    I32_OUT,
    I64,
    I64_OUT,
    U64_OUT,
    i64,
)
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.label_order import (
    common_prefix,
    compare_bytes,
    compare_rows,
    read_pair,
    rows_in_bounds,
)
from thanostack.lib.kernels.varint import uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes


@routine
def _find_slot(data, start, stop, digest, table, hashes, arena, arena_offsets):
    """Return the table slot that holds this pair, or the free one where it belongs."""
    mask = table.shape[0] - 1
    slot = np.int64(digest & np.uint64(mask))
    length = stop - start
    while table[slot] != 0:
        pair = table[slot] - 1
        begin = arena_offsets[pair]
        if (
            hashes[pair] == digest
            and arena_offsets[pair + 1] - begin == length
            and equal_bytes(arena, begin, data, start, length)
        ):
            return slot
        slot = (slot + 1) & mask
    return slot


@kernel(i64(BYTES, I64, I64_OUT, I32_OUT, U64_OUT, BYTES_OUT, I64_OUT, I32_OUT, I64_OUT))
def intern_label_pairs(
    data, offsets, state, table, hashes, arena, arena_offsets, pair_ids, row_offsets
):
    """Write the pair ids of rows of runs, giving new pairs new ids; rows must ascend strictly.

    Args:
        data: uint8[n].
        offsets: int64[S + 1] into data.
        state: int64[2] in and out; the next row, and the number of distinct pairs so far.
        table: int32[2^k] in and out; pair id + 1, 0 = free.
        hashes: uint64[cap] in and out; xxh64 of each pair; cap <= len(table) / 2.
        arena: uint8[m] in and out.
        arena_offsets: int64[cap + 1] in and out.
        pair_ids: int32[...] out; at least n / 6 long.
        row_offsets: int64[S + 1] out; row r is pair_ids[row_offsets[r]:row_offsets[r + 1]].

    Returns:
        0 when all rows are done; 1 when hashes, arena or table must grow before state[0] can go on;
        -1 for a malformed run, names out of order, or bad offsets; -2 when row state[0] is not
        above the one before.
    """
    if not rows_in_bounds(data, offsets):
        return np.int64(-1)
    if state[0] == 0:
        row_offsets[0] = 0
    for row in range(state[0], offsets.shape[0] - 1):
        state[0] = row
        at = row_offsets[row]
        i = offsets[row]
        stop = offsets[row + 1]
        previous = i
        previous_stop = i
        position = at
        position_stop = at
        if row > 0:
            previous = offsets[row - 1]
            previous_stop = offsets[row]
            position = row_offsets[row - 1]
            position_stop = at
            if compare_rows(data, offsets, row - 1, row) != -1:
                return np.int64(-2)
        last_name = i
        last_length = np.int64(0)
        while i < stop:
            name, length, _, _, following = read_pair(data, i, stop)
            if following < 0 or at >= pair_ids.shape[0]:
                return np.int64(-1)
            if compare_bytes(data, last_name, last_length, data, name, length) >= 0:
                return np.int64(-1)
            last_name = name
            last_length = length
            size = following - i
            # The pair at this place in the series before is most often the same one.
            repeats = (
                position < position_stop
                and previous + size <= previous_stop
                and common_prefix(data, previous, data, i, size) == size
            )
            if repeats:
                pair_ids[at] = pair_ids[position]
            else:
                digest = xxh64(data, i, following)
                slot = _find_slot(data, i, following, digest, table, hashes, arena, arena_offsets)
                if table[slot] == 0:
                    pair = state[1]
                    end = arena_offsets[pair]
                    full = pair + 1 >= arena_offsets.shape[0] or pair >= hashes.shape[0]
                    if full or 2 * (pair + 1) > table.shape[0] or end + size > arena.shape[0]:
                        return np.int64(1)
                    copy_bytes(data, i, size, arena, end)
                    arena_offsets[pair + 1] = end + size
                    hashes[pair] = digest
                    table[slot] = np.int32(pair + 1)
                    state[1] = pair + 1
                pair_ids[at] = table[slot] - np.int32(1)
            if position < position_stop:
                pair = pair_ids[position]
                previous += arena_offsets[pair + 1] - arena_offsets[pair]
                position += 1
            at += 1
            i = following
        row_offsets[row + 1] = at
    state[0] = offsets.shape[0] - 1
    return np.int64(0)


@kernel(i64(U64_OUT, i64, I32_OUT))
def fill_pair_table(hashes, count, table):
    """Insert pairs 0..count-1, known to be distinct, into an empty table; return count, or -1.

    -1 means that the table is less than twice as long as count.
    """
    if 2 * count > table.shape[0] or count > hashes.shape[0]:
        return np.int64(-1)
    mask = table.shape[0] - 1
    for pair in range(count):
        slot = np.int64(hashes[pair] & np.uint64(mask))
        while table[slot] != 0:
            slot = (slot + 1) & mask
        table[slot] = np.int32(pair + 1)
    return np.int64(count)


@kernel(i64(BYTES, I64, I64, I64_OUT, I64_OUT, I64_OUT))
def split_label_pairs(arena, offsets, order, starts, stops, names):
    """Write where the strings of ordered pairs lie: P values, then the distinct names.

    Args:
        arena: uint8[n].
        offsets: int64[P + 1] into arena.
        order: int64[P]; pair ids by (name, value).
        starts: int64[2P] out; string k begins here.
        stops: int64[2P] out.
        names: int64[P] out; string number of the name of the pair of rank r.

    Returns:
        The number of distinct names, or -1 for a malformed pair.
    """
    if not rows_in_bounds(arena, offsets):
        return np.int64(-1)
    pairs = order.shape[0]
    count = np.int64(0)
    for rank in range(pairs):
        pair = order[rank]
        stop = offsets[pair + 1]
        name, length, value, value_length, following = read_pair(arena, offsets[pair], stop)
        if following != stop:
            return np.int64(-1)
        starts[rank] = value
        stops[rank] = value + value_length
        last = pairs + count - 1
        if count == 0 or compare_bytes(
            arena, starts[last], stops[last] - starts[last], arena, name, length
        ):
            last += 1
            count += 1
            starts[last] = name
            stops[last] = name + length
        names[rank] = last
    return count


@routine
def _compare_strings(data, starts, stops, x, y):
    return compare_bytes(
        data, starts[x], stops[x] - starts[x], data, starts[y], stops[y] - starts[y]
    )


@kernel(i64(BYTES, I64, I64, I64_OUT, I64_OUT, I32_OUT))
def rank_strings(data, starts, stops, scratch, order, ordinals):
    """Write the bytewise order of N strings and each one's ordinal among the distinct ones.

    A bottom-up merge sort that leaves ordered neighbours alone: values come in as one ascending
    run a label name.

    Args:
        data: uint8[n].
        starts: int64[N] into data.
        stops: int64[N] into data.
        scratch: int64[N].
        order: int64[N] out.
        ordinals: int32[N] out; from 0.

    Returns:
        The number of distinct strings, or -1 for a string out of bounds.
    """
    count = starts.shape[0]
    for k in range(count):
        if starts[k] < 0 or stops[k] < starts[k] or stops[k] > data.shape[0]:
            return np.int64(-1)
        order[k] = k
    width = np.int64(1)
    while width < count:
        for low in range(0, count - width, 2 * width):
            middle = low + width
            high = min(low + 2 * width, count)
            if _compare_strings(data, starts, stops, order[middle - 1], order[middle]) <= 0:
                continue
            # Only the left half moves away: the right one is read before it is overwritten.
            for k in range(low, middle):
                scratch[k] = order[k]
            i = low
            j = middle
            for k in range(low, high):
                if i >= middle:
                    break
                left_first = (
                    j >= high or _compare_strings(data, starts, stops, scratch[i], order[j]) <= 0
                )
                if left_first:
                    order[k] = scratch[i]
                    i += 1
                else:
                    order[k] = order[j]
                    j += 1
        width *= 2
    distinct = np.int64(0)
    for k in range(count):
        if k > 0 and _compare_strings(data, starts, stops, order[k - 1], order[k]) != 0:
            distinct += 1
        ordinals[order[k]] = np.int32(distinct)
    return distinct + np.int64(1 if count > 0 else 0)


@kernel(i64(BYTES, I64, I64, I64, BYTES_OUT))
def encode_symbols(data, starts, stops, order, out):
    """Write the distinct strings in order, each with its length; return the bytes written.

    Args:
        data: uint8[n].
        starts: int64[N] into data.
        stops: int64[N] into data.
        order: int64[N]; as `rank_strings` wrote it.
        out: uint8[m] out; an empty one only measures.

    Returns:
        The bytes written (or needed), or -1 when `out` is too short.
    """
    at = np.int64(0)
    for k in range(order.shape[0]):
        string = order[k]
        if k > 0 and _compare_strings(data, starts, stops, order[k - 1], string) == 0:
            continue
        length = stops[string] - starts[string]
        size = uvarint_size(np.uint64(length)) + length
        if out.shape[0] > 0:
            if at + size > out.shape[0]:
                return np.int64(-1)
            copy_bytes(data, starts[string], length, out, write_uvarint(out, at, np.uint64(length)))
        at += size
    return at
