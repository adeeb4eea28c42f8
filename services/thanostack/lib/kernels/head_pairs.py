"""The head's index: one record a label pair and one a label name, and the rows that carry a pair.

    run --each pair: as the series before has it, else XXH64--> pair_table --> record --> postings

Rows are appended to a pair's list as they come; a list moves to one of twice the room when it is
full, and leaves its place to others.

Invariants: a pair is in the table once; the table is at most half full; equality is decided by
bytes, never by a hash.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, U64_OUT, i64
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.head_types import (
    BLOCK,
    FREE_POSTINGS,
    HEAD,
    NEWEST_NAME,
    PAIR_BYTES_TOP,
    PAIRS,
    POSTINGS_TOP,
    SCRATCH,
    SHARED,
)
from thanostack.lib.kernels.varint import read_length
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes, prefetch

PAIRS_FULL, POSTINGS_FULL = -5, -6
_PAIRS_AHEAD = BLOCK // 2
_HASHES = SCRATCH + _PAIRS_AHEAD


@device
def _pair_slot(table, hash32):
    return np.int64(hash32) & np.int64(table.shape[0] - 1)


@device
def _insert_pair(table, hash32, p):
    mask = np.int64(table.shape[0] - 1)
    slot = _pair_slot(table, hash32)
    while table[slot] != np.uint64(0):
        slot = (slot + 1) & mask
    table[slot] = np.uint64(hash32) << np.uint64(32) | np.uint64(p + 1)


@device
def _pair_hash(data, start, length):
    return np.uint32(xxh64(data, start, start + length) & np.uint64(0xFFFFFFFF))


@device
def _is_pair(head, p, data, start, length):
    pair = head.pairs[p]
    return pair.length == length and equal_bytes(head.pair_bytes, pair.start, data, start, length)


@device
def _find_pair(head, data, start, length, hash32):
    """Return the record whose bytes equal these, or -1."""
    mask = np.int64(head.pair_table.shape[0] - 1)
    slot = _pair_slot(head.pair_table, hash32)
    while head.pair_table[slot] != np.uint64(0):
        entry = head.pair_table[slot]
        if entry >> np.uint64(32) == np.uint64(hash32):
            p = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
            if _is_pair(head, p, data, start, length):
                return p
        slot = (slot + 1) & mask
    return np.int64(-1)


@device
def _new_pair(head, data, start, length, hash32):
    """Append a record with a copy of its bytes and return its index, or PAIRS_FULL."""
    p = head.meta[PAIRS]
    at = head.meta[PAIR_BYTES_TOP]
    if p >= head.pairs.shape[0] or at + length > head.pair_bytes.shape[0]:
        return np.int64(PAIRS_FULL)
    copy_bytes(data, start, length, head.pair_bytes, at)
    pair = head.pairs[p]
    pair.start = at
    pair.length = np.int32(length)
    pair.hash = hash32
    pair.count = np.int32(0)
    pair.capacity = np.int32(0)
    pair.postings = np.int64(-1)
    pair.name = np.int32(-1)
    pair.next = np.int32(-1)
    head.meta[PAIRS] = p + 1
    head.meta[PAIR_BYTES_TOP] = at + length
    _insert_pair(head.pair_table, hash32, p)
    return p


@device
def _name_of(head, data, start, length, like):
    """Return the name record that a pair's bytes begin with, `like` being a likely one; or -1."""
    if like >= 0 and _is_pair(head, like, data, start, length):
        return like
    return _find_pair(head, data, start, length, _pair_hash(data, start, length))


@routine
def _add_pair(head, data, start, length, hash32, like):
    """Append the record of a new pair, and of its name if that is new; its index or PAIRS_FULL.

    Its name is likely that of the pair `like`, if that is not -1.
    """
    size, name = read_length(data, start + 1, start + length)
    name_length = name + size - start
    owner = np.int64(head.pairs[like].name) if like >= 0 else np.int64(-1)
    owner = _name_of(head, data, start, name_length, owner)
    if owner < 0:
        name_hash = _pair_hash(data, start, name_length)
        owner = _new_pair(head, data, start, name_length, name_hash)
        if owner < 0:
            return owner
        head.pairs[owner].postings = head.meta[NEWEST_NAME]
        head.meta[NEWEST_NAME] = owner
    p = _new_pair(head, data, start, length, hash32)
    if p >= 0:
        head.pairs[p].name = np.int32(owner)
        head.pairs[p].next = head.pairs[owner].next
        head.pairs[owner].next = np.int32(p)
    return p


@routine
def _grow_list(meta, pairs, postings, p):
    """Move a pair's list to one of twice the room; False when the arena is full."""
    pair = pairs[p]
    count = np.int64(pair.count)
    power = np.int64(1)
    while np.int64(1) << power <= count:
        power += 1
    size = np.int64(1) << power
    at = meta[FREE_POSTINGS + power] - 1
    if at >= 0:
        meta[FREE_POSTINGS + power] = postings[at]
    else:
        at = meta[POSTINGS_TOP]
        if at + size > postings.shape[0]:
            return False
        meta[POSTINGS_TOP] = at + size
    for k in range(count):
        postings[at + k] = postings[pair.postings + k]
    if pair.capacity > 0:
        old = power - 1
        postings[pair.postings] = np.int32(meta[FREE_POSTINGS + old])
        meta[FREE_POSTINGS + old] = pair.postings + 1
    pair.postings = at
    pair.capacity = np.int32(size)
    return True


@device
def _append_posting(head, p, r):
    """Append a row to a pair's list; False when the arena is full."""
    pair = head.pairs[p]
    if pair.count == pair.capacity and not _grow_list(head.meta, head.pairs, head.postings, p):
        return False
    head.postings[pair.postings + np.int64(pair.count)] = np.int32(r)
    pair.count += np.int32(1)
    return True


@device
def _hash_pairs(head, keys, i, stop):
    """Note for at most _PAIRS_AHEAD pairs the record, if the series before has it too, or the hash.

    Return how many, and the offset after them. Scratch: the records, -2 - (the record that the
    series before has there, or -1) where hashed; the hashes.
    """
    n = np.int64(0)
    while i < stop and n < _PAIRS_AHEAD:
        length, inner = read_length(keys, i + 1, stop)
        p = head.meta[SCRATCH + n] if n < head.meta[SHARED] else np.int64(-1)
        if p < 0 or not _is_pair(head, p, keys, inner, length):
            hash32 = _pair_hash(keys, inner, length)
            head.meta[SCRATCH + n] = -2 - p
            head.meta[_HASHES + n] = np.int64(hash32)
            prefetch(head.pair_table, _pair_slot(head.pair_table, hash32))
        n += 1
        i = inner + length
    head.meta[SHARED] = n
    return n, i


@device
def _find_pairs(head, keys, i, stop):
    """Note the records of the pairs from `i` to `stop`, all hashed; 0 or PAIRS_FULL."""
    n = np.int64(0)
    while i < stop:
        length, inner = read_length(keys, i + 1, stop)
        p = head.meta[SCRATCH + n]
        if p < 0:
            hash32 = np.uint32(head.meta[_HASHES + n])
            p = _find_pair(head, keys, inner, length, hash32)
            if p < 0:
                p = _add_pair(head, keys, inner, length, hash32, -2 - head.meta[SCRATCH + n])
                if p < 0:
                    head.meta[SHARED] = 0
                    return p
            head.meta[SCRATCH + n] = p
        prefetch(head.postings, head.pairs[p].postings + np.int64(head.pairs[p].count))
        n += 1
        i = inner + length
    return np.int64(0)


@device
def index_row(head, keys, start, stop, r):
    """Add a row to the postings of each pair of its run; 0, or PAIRS_FULL or POSTINGS_FULL."""
    i = start
    while i < stop:
        n, after = _hash_pairs(head, keys, i, stop)
        if _find_pairs(head, keys, i, after) < 0:
            return np.int64(PAIRS_FULL)
        for k in range(n):
            if not _append_posting(head, head.meta[SCRATCH + k], r):
                return np.int64(POSTINGS_FULL)
        i = after
    return np.int64(0)


@device
def label_count(data, start, stop):
    """Return the number of labels of a run."""
    count = np.int64(0)
    i = start
    while i < stop:
        length, inner = read_length(data, i + 1, stop)
        i = inner + length
        count += 1
    return count


@device
def postings_needed(head, data, start, stop):
    """Return the items that the lists of a run's pairs may take from the arena for one more row."""
    needed = np.int64(0)
    i = start
    while i < stop:
        length, inner = read_length(data, i + 1, stop)
        p = _find_pair(head, data, inner, length, _pair_hash(data, inner, length))
        if p < 0:
            needed += 2
        elif head.pairs[p].count == head.pairs[p].capacity:
            needed += 2 * np.int64(head.pairs[p].count) + 2
        i = inner + length
    return needed


@kernel(i64(HEAD, U64_OUT))
def head_rehash_pairs(head, table):
    """Fill a new, empty pair table from the records; return how many there are."""
    for p in range(head.meta[PAIRS]):
        _insert_pair(table, head.pairs[p].hash, np.int64(p))
    return head.meta[PAIRS]


@kernel(i64(HEAD, BYTES))
def head_find_pair(head, pair):
    """Return the record of a label pair (0A n name 12 v value) or name (0A n name), or -1."""
    length = np.int64(pair.shape[0])
    zero = np.int64(0)
    return _find_pair(head, pair, zero, length, _pair_hash(pair, zero, length))


@kernel(i64(HEAD, i64, i64))
def head_next_pair(head, kind, index):
    """Walk the record lists: kind 0 gives the newest name, 1 the name before, 2 the pair before.

    Args:
        head: the tables.
        kind: 0, 1 or 2.
        index: a record; ignored for kind 0.

    Returns:
        A record, or -1 at the end.
    """
    if kind == 0:
        return head.meta[NEWEST_NAME]
    if kind == 1:
        return head.pairs[index].postings
    return np.int64(head.pairs[index].next)


@kernel(i64(HEAD, i64, I64_OUT))
def head_name_pairs(head, name, out):
    """Write the pair records of a name record, newest first; return their number.

    The number may exceed the room in `out`: call again with more.
    """
    count = np.int64(0)
    p = np.int64(head.pairs[name].next)
    while p >= 0:
        if count < out.shape[0]:
            out[count] = p
        count += 1
        p = np.int64(head.pairs[p].next)
    return count


@kernel(i64(HEAD, I64, I64_OUT, BYTES_OUT))
def head_pair_values(head, records, offsets, out):
    """Copy the value parts of pair records.

    Args:
        head: the tables.
        records: int64[n]; pairs, not names.
        offsets: int64[n + 1], written; always complete.
        out: uint8[m], written.

    Returns:
        The bytes needed; nothing useful is in `out` when that is more than m.
    """
    at = np.int64(0)
    offsets[0] = 0
    for k in range(records.shape[0]):
        pair = head.pairs[records[k]]
        stop = pair.start + np.int64(pair.length)
        size, name = read_length(head.pair_bytes, pair.start + 1, stop)
        length, value = read_length(head.pair_bytes, name + size + 1, stop)
        if at + length <= out.shape[0]:
            copy_bytes(head.pair_bytes, value, length, out, at)
        at += length
        offsets[k + 1] = at
    return at
