"""Label sets as integers: the interning tables of one query.

    symbols   arena of bytes, offsets, hashes, open-addressing slots     text -> symbol id
    sets      packed pairs `name << 32 | value`, offsets, hashes, slots   label set -> set id

A name or value is compared as bytes once, when it is interned; from then on two label sets are
equal exactly when their ids are. Grouping, matching and name dropping read pairs, build new pairs
and intern those. Tables are owned and grown by the caller: a kernel that finds one full returns
how far it came, and is called again from there.

Invariants: pairs of a set ascend by the bytes of their names; slots are at most half full.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BOOL,
    BYTES,
    BYTES_OUT,
    I64,
    I64_OUT,
    U64,
    U64_OUT,
    i64,
)
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.varint import read_length, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes

_MIX = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)


@device
def _find_symbol(a, start, length, hashes, offsets, slots, arena, counts):
    """Return the id of a text, interning it if new; the caller left room for one more."""
    h = xxh64(a, start, start + length)
    mask = np.uint64(slots.shape[0] - 1)
    q = np.int64(h & mask)
    while slots[q] >= 0:
        s = slots[q]
        if hashes[s] == h and offsets[s + 1] - offsets[s] == length:
            if equal_bytes(arena, offsets[s], a, start, length):
                return s
        q = np.int64((np.uint64(q) + np.uint64(1)) & mask)
    s = counts[0]
    counts[0] = s + 1
    slots[q] = s
    hashes[s] = h
    copy_bytes(a, start, length, arena, offsets[s])
    offsets[s + 1] = offsets[s] + length
    return s


@device
def _symbols_fit(n, n_bytes, counts, hashes, offsets, slots, arena):
    """Return whether `n` more symbols of together `n_bytes` can be interned."""
    total = counts[0] + n
    if total > hashes.shape[0] or 2 * total > slots.shape[0]:
        return False
    return offsets[counts[0]] + n_bytes <= arena.shape[0]


@kernel(i64(BYTES, I64, U64_OUT, I64_OUT, I64_OUT, BYTES_OUT, I64_OUT, I64_OUT))
def intern_symbols(data, ends, hashes, offsets, slots, arena, ids, counts):
    """Write the ids of texts `data[ends[i]:ends[i + 1]]`, interning new ones.

    `counts[0]` is the number of symbols, `counts[1]` the text to go on with. Returns how many
    texts are done in all; fewer than there are means that a table is full.
    """
    n = ends.shape[0] - 1
    for i in range(counts[1], n):
        length = ends[i + 1] - ends[i]
        if not _symbols_fit(1, length, counts, hashes, offsets, slots, arena):
            counts[1] = i
            return i
        ids[i] = _find_symbol(data, ends[i], length, hashes, offsets, slots, arena, counts)
    counts[1] = n
    return n


@kernel(i64(BYTES, I64, U64_OUT, I64_OUT, I64_OUT, BYTES_OUT, U64_OUT, I64_OUT, I64_OUT))
def intern_pairs(data, runs, hashes, offsets, slots, arena, pairs, pair_offsets, counts):
    """Write the packed pairs of canonical label runs `data[runs[i]:runs[i + 1]]`.

    `counts[0]` is the number of symbols, `counts[1]` the run to go on with. Returns how many runs
    are done in all (fewer than there are: a table is full), or -1 - i when run i is malformed.

    Cost: a label equal to the one in the same place of the previous run is recognised by one
    comparison of its bytes and neither hashed nor looked up.
    """
    n = runs.shape[0] - 1
    if counts[1] == 0:
        pair_offsets[0] = 0
    for row in range(counts[1], n):
        i = runs[row]
        stop = runs[row + 1]
        o = pair_offsets[row]
        # Bound: a label takes at least two bytes of a run.
        room = (stop - i) // 2 + 1
        if o + room > pairs.shape[0] or not _symbols_fit(
            2 * room, stop - i, counts, hashes, offsets, slots, arena
        ):
            counts[1] = row
            return row
        before = np.int64(0)
        before_stop = np.int64(0)
        known = np.int64(0)
        if row > 0:
            before = runs[row - 1]
            before_stop = runs[row]
            known = pair_offsets[row - 1]
        while i < stop:
            length, body = read_length(data, i + 1, stop)
            if body < 0:
                return -1 - row
            end = body + length
            if before < before_stop:
                old_length, old_body = read_length(data, before + 1, before_stop)
                before = old_body + old_length
                if old_length == length and equal_bytes(data, old_body, data, body, length):
                    pairs[o] = pairs[known]
                    o += 1
                    known += 1
                    i = end
                    continue
                known += 1
            size, at = read_length(data, body + 1, end)
            if at < 0:
                return -1 - row
            name = _find_symbol(data, at, size, hashes, offsets, slots, arena, counts)
            size, at = read_length(data, at + size + 1, end)
            if at < 0:
                return -1 - row
            value = _find_symbol(data, at, size, hashes, offsets, slots, arena, counts)
            pairs[o] = np.uint64(name) << np.uint64(32) | np.uint64(value)
            o += 1
            i = end
        pair_offsets[row + 1] = o
    counts[1] = n
    return n


@device
def _hash_pairs(pairs, start, stop):
    h = np.uint64(stop - start) * _MIX
    for p in range(start, stop):
        h = (h ^ pairs[p]) * _MIX
        h ^= h >> np.uint64(29)
    return h


@kernel(i64(U64, I64, U64_OUT, I64_OUT, U64_OUT, I64_OUT, I64_OUT, I64_OUT))
def intern_sets(pairs, pair_offsets, hashes, offsets, set_pairs, slots, ids, counts):
    """Write the set ids of label sets given as packed pairs, interning new sets.

    `counts[0]` is the number of sets, `counts[1]` the row to go on with. Returns how many rows
    are done in all; fewer than there are means that a table is full.
    """
    n = pair_offsets.shape[0] - 1
    mask = np.uint64(slots.shape[0] - 1)
    for row in range(counts[1], n):
        start = pair_offsets[row]
        stop = pair_offsets[row + 1]
        total = counts[0] + 1
        full = total > hashes.shape[0] or 2 * total > slots.shape[0]
        if full or offsets[counts[0]] + stop - start > set_pairs.shape[0]:
            counts[1] = row
            return row
        h = _hash_pairs(pairs, start, stop)
        q = np.int64(h & mask)
        found = np.int64(-1)
        while slots[q] >= 0 and found < 0:
            s = slots[q]
            if hashes[s] == h and offsets[s + 1] - offsets[s] == stop - start:
                found = s
                for k in range(stop - start):
                    if set_pairs[offsets[s] + k] != pairs[start + k]:
                        found = np.int64(-1)
                        break
            q = np.int64((np.uint64(q) + np.uint64(1)) & mask)
        if found < 0:
            found = counts[0]
            counts[0] = total
            slots[q] = found
            hashes[found] = h
            for k in range(stop - start):
                set_pairs[offsets[found] + k] = pairs[start + k]
            offsets[total] = offsets[found] + stop - start
        ids[row] = found
    counts[1] = n
    return n


@kernel(i64(I64, I64, U64, BOOL, U64_OUT, I64_OUT))
def project_pairs(ids, offsets, set_pairs, keep, pairs, pair_offsets):
    """Write of each set the pairs whose name is kept; returns the number of pairs.

    `keep[name]` is a bool for each symbol. The caller gave room for all pairs of all rows.
    """
    o = np.int64(0)
    pair_offsets[0] = 0
    for row in range(ids.shape[0]):
        for p in range(offsets[ids[row]], offsets[ids[row] + 1]):
            if keep[np.int64(set_pairs[p] >> np.uint64(32))]:
                pairs[o] = set_pairs[p]
                o += 1
        pair_offsets[row + 1] = o
    return o


@device
def _compare_symbols(x, y, offsets, arena):
    """Return -1, 0 or 1 as the bytes of symbol x sort before, as or after those of y."""
    if x == y:
        return np.int64(0)
    i = offsets[x]
    j = offsets[y]
    n = min(offsets[x + 1] - i, offsets[y + 1] - j)
    for k in range(n):
        if arena[i + k] != arena[j + k]:
            return np.int64(-1) if arena[i + k] < arena[j + k] else np.int64(1)
    return np.int64(-1) if offsets[x + 1] - i < offsets[y + 1] - j else np.int64(1)


@kernel(i64(I64, I64, U64, I64, BYTES, i64, I64, U64_OUT, I64_OUT))
def assign_pairs(ids, offsets, set_pairs, symbols, arena, name, values, pairs, pair_offsets):
    """Write each set with label `name` set to symbol `values[row]`, or without it where negative.

    Returns the number of pairs. The caller gave room for all pairs of all rows and one a row.
    """
    o = np.int64(0)
    pair_offsets[0] = 0
    for row in range(ids.shape[0]):
        pending = values[row] >= 0
        mine = np.uint64(name) << np.uint64(32) | np.uint64(max(values[row], np.int64(0)))
        for p in range(offsets[ids[row]], offsets[ids[row] + 1]):
            other = np.int64(set_pairs[p] >> np.uint64(32))
            if other == name:
                continue
            if pending and _compare_symbols(name, other, symbols, arena) < 0:
                pairs[o] = mine
                o += 1
                pending = False
            pairs[o] = set_pairs[p]
            o += 1
        if pending:
            pairs[o] = mine
            o += 1
        pair_offsets[row + 1] = o
    return o


@kernel(i64(I64, I64, U64, i64, I64_OUT))
def lookup_values(ids, offsets, set_pairs, name, values):
    """Write the value symbol of one label for each set, -1 where it is absent; returns the hits."""
    hits = np.int64(0)
    for row in range(ids.shape[0]):
        values[row] = -1
        for p in range(offsets[ids[row]], offsets[ids[row] + 1]):
            if np.int64(set_pairs[p] >> np.uint64(32)) == name:
                values[row] = np.int64(set_pairs[p] & _LOW)
                hits += 1
                break
    return hits


@device
def _compare_sets(x, y, offsets, set_pairs, symbols, arena):
    """Return -1, 0 or 1 as set x sorts before, as or after set y in label order."""
    i = offsets[x]
    j = offsets[y]
    n = min(offsets[x + 1] - i, offsets[y + 1] - j)
    for k in range(n):
        a = set_pairs[i + k]
        b = set_pairs[j + k]
        if a == b:
            continue
        order = _compare_symbols(
            np.int64(a >> np.uint64(32)), np.int64(b >> np.uint64(32)), symbols, arena
        )
        if order == 0:
            order = _compare_symbols(np.int64(a & _LOW), np.int64(b & _LOW), symbols, arena)
        return order
    short = offsets[x + 1] - i - (offsets[y + 1] - j)
    return np.int64(-1) if short < 0 else (np.int64(1) if short > 0 else np.int64(0))


@kernel(i64(I64, I64, U64, I64, BYTES, I64_OUT, I64_OUT))
def sort_sets(ids, offsets, set_pairs, symbols, arena, order, scratch):
    """Sort positions `order` by the label order of `ids[order[i]]`, stably; returns their number.

    Cost: a bottom-up merge; O(n) when the sets are sorted already.
    """
    n = order.shape[0]
    width = np.int64(1)
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            if middle >= high:
                break
            x = ids[order[middle - 1]]
            y = ids[order[middle]]
            if x == y or _compare_sets(x, y, offsets, set_pairs, symbols, arena) <= 0:
                continue
            i = low
            j = middle
            for k in range(low, high):
                take_right = i >= middle
                if not take_right and j < high:
                    x = ids[order[i]]
                    y = ids[order[j]]
                    take_right = _compare_sets(x, y, offsets, set_pairs, symbols, arena) > 0
                if take_right:
                    scratch[k] = order[j]
                    j += 1
                else:
                    scratch[k] = order[i]
                    i += 1
            for k in range(low, high):
                order[k] = scratch[k]
        width *= 2
    return n


@kernel(i64(I64, I64, U64, I64, BYTES, BYTES_OUT, I64_OUT))
def encode_sets(ids, offsets, set_pairs, symbols, arena, data, runs):
    """Write the canonical label runs of sets; returns the bytes needed.

    Nothing is written beyond `data`: when the return exceeds its length the content is void and
    the caller comes again with room.
    """
    o = np.int64(0)
    runs[0] = 0
    for row in range(ids.shape[0]):
        for p in range(offsets[ids[row]], offsets[ids[row] + 1]):
            name = np.int64(set_pairs[p] >> np.uint64(32))
            value = np.int64(set_pairs[p] & _LOW)
            n = symbols[name + 1] - symbols[name]
            v = symbols[value + 1] - symbols[value]
            body = 2 + uvarint_size(np.uint64(n)) + n + uvarint_size(np.uint64(v)) + v
            size = 1 + uvarint_size(np.uint64(body)) + body
            if o + size <= data.shape[0]:
                data[o] = 10
                at = write_uvarint(data, o + 1, np.uint64(body))
                data[at] = 10
                at = write_uvarint(data, at + 1, np.uint64(n))
                copy_bytes(arena, symbols[name], n, data, at)
                at += n
                data[at] = 18
                at = write_uvarint(data, at + 1, np.uint64(v))
                copy_bytes(arena, symbols[value], v, data, at)
            o += size
        runs[row + 1] = o
    return o
