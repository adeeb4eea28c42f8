"""The head's series table: find rows by label bytes, create rows, let go of dead ones.

    label run --next-row guess, else XXH64--> table --> row --> pairs (`head_pairs`)

A sender repeats its series in the same order, so each row remembers which row followed it:
comparing bytes with that guess skips hashing. Where the order is lost, runs are looked up many at a
time, so that their cache misses overlap. Equality is always decided by bytes, never by a hash.

Invariants: a row's key is canonical; a key is in the table once; the table is at most half full.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, I32_OUT, I64, I64_OUT, U64_OUT, i64
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.head_pairs import (
    PAIRS_FULL,
    POSTINGS_FULL,
    index_row,
    label_count,
    postings_needed,
)
from thanostack.lib.kernels.head_types import (
    ALIVE,
    BLOCK,
    FREE_ROW,
    HEAD,
    KEYS_TOP,
    NEXT_REF,
    PAIR_BYTES_TOP,
    PAIRS,
    POSTINGS_TOP,
    ROWS,
    SCRATCH,
    SHARED,
    WIDTH,
)
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes, prefetch

ROWS_FULL, KEYS_FULL = -3, -4
NEVER = np.int64(-(1 << 63))
KEY_BYTES_AHEAD = 512


@device
def _row_slot(table, hashed):
    return np.int64(hashed & np.uint64(0x7FFFFFFF)) & np.int64(table.shape[0] - 1)


@device
def _has_key(head, r, data, start, length):
    row = head.rows[r]
    return row.key_bytes == length and equal_bytes(head.keys, row.key, data, start, length)


@device
def _find_row(head, data, start, length, hashed):
    """Return the row whose key equals these bytes, or -1."""
    mask = np.int64(head.table.shape[0] - 1)
    slot = _row_slot(head.table, hashed)
    while head.table[slot] != np.uint64(0):
        entry = head.table[slot]
        if entry >> np.uint64(32) == hashed >> np.uint64(32):
            r = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
            if _has_key(head, r, data, start, length):
                return r
        slot = (slot + 1) & mask
    return np.int64(-1)


@device
def _tagged_row(table, hashed):
    """Return the first row that a table has under a hash's tag, or -1."""
    mask = np.int64(table.shape[0] - 1)
    slot = _row_slot(table, hashed)
    while table[slot] != np.uint64(0):
        entry = table[slot]
        if entry >> np.uint64(32) == hashed >> np.uint64(32):
            return np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
        slot = (slot + 1) & mask
    return np.int64(-1)


@device
def _prefetch_key(head, r):
    """Begin to load what a comparison with a row's key reads, its tail perhaps not."""
    row = head.rows[r]
    for at in range(row.key, row.key + min(np.int64(row.key_bytes), KEY_BYTES_AHEAD) + 63, 64):
        prefetch(head.keys, at)


@device
def _find_block(head, data, bounds, first, stop, found):
    """Find the rows of at most BLOCK runs, each step for all, so that their cache misses overlap.

    A series that nothing predicts takes four misses, one after another: slot, row, key, reference.
    """
    for s in range(first, stop):
        if bounds[2 * s] >= 0:
            hashed = xxh64(data, bounds[2 * s], bounds[2 * s + 1])
            head.meta[SCRATCH + s - first] = np.int64(hashed)
            prefetch(head.table, _row_slot(head.table, hashed))
    for s in range(first, stop):
        found[s] = -1
        if bounds[2 * s] >= 0:
            found[s] = _tagged_row(head.table, np.uint64(head.meta[SCRATCH + s - first]))
            prefetch(head.rows, found[s])
    for s in range(first, stop):
        if found[s] >= 0:
            _prefetch_key(head, found[s])
    for s in range(first, stop):
        start, length = bounds[2 * s], bounds[2 * s + 1] - bounds[2 * s]
        if found[s] >= 0 and not _has_key(head, found[s], data, start, length):
            hashed = np.uint64(head.meta[SCRATCH + s - first])
            found[s] = _find_row(head, data, start, length, hashed)


@device
def _follow(head, data, bounds, s, count, previous, found):
    """Find rows as long as each is the one that followed last time; return the first that is not.

    The second number is the row of the run before it.
    """
    while s < count and previous >= 0 and bounds[2 * s] >= 0:
        guess = np.int64(head.rows[previous].next)
        length = bounds[2 * s + 1] - bounds[2 * s]
        if guess < 0 or not _has_key(head, guess, data, bounds[2 * s], length):
            break
        found[s] = guess
        previous = guess
        s += 1
    return s, previous


@kernel(i64(HEAD, BYTES, I64, i64, I64_OUT))
def head_resolve(head, data, bounds, count, found):
    """Find the rows of label runs.

    Args:
        head: the tables; only the rows' `next` is written, and how far to look ahead next time.
        data: uint8[n].
        bounds: int64[2 count]; run s is [bounds[2 s], bounds[2 s + 1]). A negative start is a miss.
        count: of runs.
        found: int64[count], written; the row, or -1.

    Returns:
        The number of misses.

    Cost: about 28 ns a series of ten labels when the order repeats, 150 when there is none.
    """
    previous = np.int64(-1)
    misses = np.int64(0)
    s = np.int64(0)
    # Runs that are looked up together: few after a run that was predicted, else ever more.
    width = max(head.meta[WIDTH], np.int64(1))
    while s < count:
        first, previous = _follow(head, data, bounds, s, count, previous, found)
        width = np.int64(1) if first > s else width
        s = min(first + width, count)
        width = min(2 * width, np.int64(BLOCK))
        _find_block(head, data, bounds, first, s, found)
        for k in range(first, s):
            if found[k] < 0:
                misses += 1
            elif previous >= 0:
                head.rows[previous].next = np.int32(found[k])
            previous = found[k]
    head.meta[WIDTH] = width
    return misses


@device
def _insert_row(table, hashed, r):
    mask = np.int64(table.shape[0] - 1)
    slot = _row_slot(table, hashed)
    while table[slot] != np.uint64(0):
        slot = (slot + 1) & mask
    table[slot] = (hashed >> np.uint64(32)) << np.uint64(32) | np.uint64(r + 1)


@device
def _take_row(head):
    """Return a free row, recycled or new; ROWS_FULL when there is none."""
    r = head.meta[FREE_ROW] - 1
    if r >= 0:
        head.meta[FREE_ROW] = np.int64(head.rows[r].next)
        return r
    r = head.meta[ROWS]
    if r >= head.rows.shape[0]:
        return np.int64(ROWS_FULL)
    head.meta[ROWS] = r + 1
    return r


@device
def _init_row(row, key, length):
    row.key = key
    row.key_bytes = np.int32(length)
    row.last_t = NEVER
    row.last_v = np.uint64(0)
    row.delta = np.int64(0)
    row.slab = np.int64(-1)
    row.position = np.int32(0)
    row.next = np.int32(-1)
    row.stage_index = np.int32(0)
    row.stage_epoch = np.uint32(0)
    row.count = np.uint8(0)
    row.leading = np.uint8(255)
    row.trailing = np.uint8(0)
    row.slab_class = np.uint8(0)


@device
def _room(head, data, start, stop, labels):
    """Return 0 when a new series surely fits, else what is full: none may be made by halves."""
    length = stop - start
    if head.meta[KEYS_TOP] + length > head.keys.shape[0]:
        return np.int64(KEYS_FULL)
    if head.meta[FREE_ROW] == 0 and head.meta[ROWS] >= head.rows.shape[0]:
        return np.int64(ROWS_FULL)
    if head.meta[PAIRS] + 2 * labels > head.pairs.shape[0]:
        return np.int64(PAIRS_FULL)
    # A pair's bytes, and those of its name once more.
    if head.meta[PAIR_BYTES_TOP] + 2 * length > head.pair_bytes.shape[0]:
        return np.int64(PAIRS_FULL)
    # Bound: no list is longer than there are series, and it doubles when full.
    left = head.postings.shape[0] - head.meta[POSTINGS_TOP]
    if labels * 2 * (head.meta[ALIVE] + 1) > left:
        if postings_needed(head, data, start, stop) > left:
            return np.int64(POSTINGS_FULL)
    return np.int64(0)


@device
def _hash_ahead(head, data, bounds, s, count):
    """Return the hash of run s and begin to load its slot; 0 where there is no run."""
    if s >= count or bounds[2 * s] < 0:
        return np.uint64(0)
    hashed = xxh64(data, bounds[2 * s], bounds[2 * s + 1])
    prefetch(head.table, _row_slot(head.table, hashed))
    return hashed


@kernel(i64(HEAD, BYTES, I64, i64, i64, U64_OUT, I64_OUT, I64_OUT))
def head_create(head, data, bounds, first, count, refs, rows, created):
    """Find or create the rows of canonical label runs.

    Args:
        head: the tables.
        data: uint8[n].
        bounds: int64[2 count]; canonical runs; one with a negative start is left out.
        first, count: runs [first, count) are handled.
        refs: uint64[count]; the series reference to give to a new row, 0 = the next one.
        rows: int64[count], written.
        created: int64[count + 1]; created[0] is the number of new rows so far, the indices of
            their runs follow it.

    Returns:
        `count`; or a smaller index where a hash table has to grow (call again from there with
        bigger tables); or ROWS_FULL, KEYS_FULL, PAIRS_FULL, POSTINGS_FULL. The series made until
        then stay: they are in `rows` and `created`.

    Cost: below 3 µs a new series of ten labels.
    """
    head.meta[SHARED] = 0
    hashed = _hash_ahead(head, data, bounds, first, count)
    for s in range(first, count):
        own = hashed
        hashed = _hash_ahead(head, data, bounds, s + 1, count)
        start = bounds[2 * s]
        if start < 0:
            continue
        stop = bounds[2 * s + 1]
        r = _find_row(head, data, start, stop - start, own)
        ref = np.int64(refs[s])
        if r < 0:
            if 2 * (head.meta[ROWS] + 1) > head.table.shape[0]:
                return np.int64(s)
            labels = label_count(data, start, stop)
            if 2 * (head.meta[PAIRS] + 2 * labels) > head.pair_table.shape[0]:
                return np.int64(s)
            status = _room(head, data, start, stop, labels)
            if status < 0:
                return status
            at = head.meta[KEYS_TOP]
            r = _take_row(head)
            copy_bytes(data, start, stop - start, head.keys, at)
            head.meta[KEYS_TOP] = at + stop - start
            _init_row(head.rows[r], at, stop - start)
            if ref == 0:
                ref = head.meta[NEXT_REF]
            head.refs[r] = ref
            head.tails[r] = np.int32(-1)
            _insert_row(head.table, own, r)
            index_row(head, head.keys, at, at + stop - start, r)
            if s > 0 and rows[s - 1] >= 0:
                head.rows[rows[s - 1]].next = np.int32(r)
            if s + 1 < count and rows[s + 1] >= 0:
                head.rows[r].next = np.int32(rows[s + 1])
            head.meta[ALIVE] += 1
            created[0] += 1
            created[created[0]] = s
        # Also a second reference of a known series is taken.
        head.meta[NEXT_REF] = max(head.meta[NEXT_REF], ref + 1)
        rows[s] = r
    return count


@kernel(i64(HEAD, U64_OUT))
def head_rehash_rows(head, table):
    """Fill a new, empty row table from the rows; return how many there are."""
    count = np.int64(0)
    for r in range(head.meta[ROWS]):
        row = head.rows[r]
        if row.key_bytes >= 0:
            _insert_row(table, xxh64(head.keys, row.key, row.key + row.key_bytes), np.int64(r))
            count += 1
    return count


@kernel(i64(HEAD, I32_OUT))
def head_alive_rows(head, out):
    """Write the rows in use, ascending; return their number (out has room for all rows)."""
    count = np.int64(0)
    for r in range(head.meta[ROWS]):
        if head.rows[r].key_bytes >= 0:
            out[count] = np.int32(r)
            count += 1
    return count


@kernel(i64(HEAD, HEAD, i64, i64, I64_OUT))
def head_reindex(head, fresh, first, stop, keys):
    """Copy the living rows [first, stop) into fresh key, pair and posting arenas.

    A row lives while it has a chunk. The rows themselves stay where they are: their new key offsets
    go to `keys` until `head_swap_index` makes them current, so appends go on in between.

    Args:
        head: the tables in use.
        fresh: tables that share `rows`, `refs`, `tails`; own meta, keys, table, pairs, postings.
        first, stop: rows.
        keys: int64[rows]; the new key offset, -1 where not copied. A row with an offset is skipped.

    Returns:
        `stop`; or a smaller row where a fresh hash table has to grow; or a negative status.
    """
    fresh.meta[SHARED] = 0
    for r in range(first, stop):
        row = head.rows[r]
        if row.key_bytes < 0 or keys[r] >= 0 or (head.tails[r] < 0 and row.count == 0):
            continue
        start, length = row.key, np.int64(row.key_bytes)
        if 2 * (fresh.meta[ALIVE] + 1) > fresh.table.shape[0]:
            return np.int64(r)
        labels = label_count(head.keys, start, start + length)
        if 2 * (fresh.meta[PAIRS] + 2 * labels) > fresh.pair_table.shape[0]:
            return np.int64(r)
        at = fresh.meta[KEYS_TOP]
        if at + length > fresh.keys.shape[0]:
            return np.int64(KEYS_FULL)
        copy_bytes(head.keys, start, length, fresh.keys, at)
        fresh.meta[KEYS_TOP] = at + length
        _insert_row(fresh.table, xxh64(fresh.keys, at, at + length), np.int64(r))
        status = index_row(fresh, fresh.keys, at, at + length, np.int64(r))
        if status < 0:
            return status
        fresh.meta[ALIVE] += 1
        keys[r] = at
    return stop


@kernel(i64(HEAD, I64, I64_OUT))
def head_swap_index(head, keys, dropped):
    """Point the rows at their new keys and free the rows that have none.

    Args:
        head: the tables, fresh arenas already in place; rows are written.
        keys: int64[rows] of `head_reindex`.
        dropped: int64[rows], written; the references of the series freed.

    Returns:
        The number of series freed.
    """
    count = np.int64(0)
    for r in range(head.meta[ROWS]):
        row = head.rows[r]
        if row.key_bytes < 0:
            continue
        if keys[r] >= 0:
            row.key = keys[r]
            continue
        dropped[count] = head.refs[r]
        count += 1
        row.key_bytes = np.int32(-1)
        row.next = np.int32(head.meta[FREE_ROW])
        head.meta[FREE_ROW] = np.int64(r) + 1
    return count
