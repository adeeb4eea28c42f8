"""Append the samples of a log to the head: references to rows, then rows to chunks.

    references --table--> rows --counting--> order by row --runs of a row--> open chunks

A head is larger than the caches and a log goes through all of it once a round. Appending in the
log's order fetches a row and both ends of its chunk for every sample; in the order of rows once for
all that it gets.

The table is open addressing, 0 = free. References are counted up, so the slots of `_NEIGHBOURS`
references in a row lie side by side, and a round walks them in order; a taken slot leads one beyond
the next `_NEIGHBOURS`, which comes to every slot.

Source: Prometheus `tsdb/head_wal.go`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import I32, I32_OUT, I64, I64_OUT, U64, U64_OUT, i64
from thanostack.lib.kernels.head_append import (
    AHEAD,
    CLOSED_FULL,
    DUPLICATE,
    OUT_OF_BOUNDS,
    STORED,
    UNKNOWN,
    append_run,
    append_sample,
)
from thanostack.lib.kernels.head_series import NEVER
from thanostack.lib.kernels.head_types import CLOSED_TOP, HEAD, SLAB_HEADER
from thanostack.lib.kernels.wide import prefetch

_NEIGHBOURS = 256


@device
def _ref_slot(ref_keys, ref):
    mask = np.int64(ref_keys.shape[0] - 1)
    mixed = np.int64(
        (ref // np.uint64(_NEIGHBOURS) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
    )
    slot = (mixed * _NEIGHBOURS + np.int64(ref % np.uint64(_NEIGHBOURS))) & mask
    while ref_keys[slot] != np.uint64(0) and ref_keys[slot] != ref:
        slot = (slot + _NEIGHBOURS + 1) & mask
    return slot


@kernel(i64(U64_OUT, I32_OUT, I64_OUT, U64, I64, I64, i64))
def replay_map_refs(ref_keys, ref_rows, ref_lasts, refs, rows, lasts, count):
    """Enter series references and their rows into the replay's hash table.

    Args:
        ref_keys: uint64[2^k], 0 = free; at most half full.
        ref_rows: int32[2^k].
        ref_lasts: int64[2^k], ms.
        refs: uint64[count].
        rows: int64[count]; -1 is left out.
        lasts: int64[count], ms; what the row has up to there, samples before it are skipped.
        count: of all three.

    Returns:
        The number of references that were not there before.
    """
    new = np.int64(0)
    for k in range(count):
        if rows[k] < 0 or refs[k] == np.uint64(0):
            continue
        slot = _ref_slot(ref_keys, refs[k])
        if ref_keys[slot] == np.uint64(0):
            ref_keys[slot] = refs[k]
            new += 1
        ref_rows[slot] = np.int32(rows[k])
        ref_lasts[slot] = lasts[k]
    return new


@kernel(i64(U64, I32, I64, U64, i64, I64_OUT, U64_OUT, I32_OUT, I64_OUT))
def replay_find_rows(ref_keys, ref_rows, ref_lasts, refs, mint, timestamps, values, rows, outcome):
    """Find the rows of logged samples and close the gaps of those that are not needed.

    Those are samples of unknown series, before mint, and before what closed chunks have: of a log
    that reaches back far, most are.

    Args:
        ref_keys, ref_rows, ref_lasts: of `replay_map_refs`.
        refs: uint64[count].
        mint: the earliest timestamp kept, ms.
        timestamps: int64[n], ms; of the samples and of those kept.
        values: uint64[n], likewise.
        rows: int32[n], written.
        outcome: int64[8]; raised by OUT_OF_BOUNDS, UNKNOWN, DUPLICATE (a chunk has it).

    Returns:
        How many samples are kept.
    """
    mask = np.int64(ref_keys.shape[0] - 1)
    slot = np.int64(0)
    at = np.int64(0)
    for k in range(refs.shape[0]):
        t = timestamps[k]
        if t < mint or t == NEVER:
            # First: a block has it, and its series may be gone from the log for that reason.
            outcome[OUT_OF_BOUNDS] += 1
            continue
        ref = refs[k]
        # Most often the reference after the one before.
        slot = (slot + 1) & mask
        if ref_keys[slot] != ref:
            slot = _ref_slot(ref_keys, ref)
        if ref == np.uint64(0) or ref_keys[slot] == np.uint64(0):
            outcome[UNKNOWN] += 1
            continue
        if t < ref_lasts[slot]:
            outcome[DUPLICATE] += 1
            continue
        rows[at] = ref_rows[slot]
        if at != k:
            timestamps[at] = t
            values[at] = values[k]
        at += 1
    return at


@kernel(i64(I32, i64, I32_OUT, I32_OUT))
def replay_order(rows, count, ends, order):
    """Order samples by row, those of one row as they came.

    Args:
        rows: int32[n], of which `count` are looked at.
        count: of samples.
        ends: int32[all rows + 1]; scratch.
        order: int32[n], written; indices of samples.

    Returns:
        `count`.
    """
    width = np.int64(ends.shape[0] - 1)
    for r in range(width + 1):
        ends[r] = 0
    for k in range(count):
        ends[rows[k] + 1] += 1
    for r in range(width):
        ends[r + 1] += ends[r]
    for k in range(count):
        r = rows[k]
        order[ends[r]] = np.int32(k)
        ends[r] += 1
    return np.int64(count)


@device
def _ask_ahead(head, rows, timestamps, values, order, j, stop):
    """Ask for what the samples ahead of j in the order will touch."""
    if j + 2 * AHEAD < stop:
        k = order[j + 2 * AHEAD]
        prefetch(head.rows, rows[k])
        prefetch(timestamps, k)
        prefetch(values, k)
        row = head.rows[rows[order[j + AHEAD]]]
        prefetch(head.slabs, row.slab)
        prefetch(head.slabs, row.slab + SLAB_HEADER + (np.int64(row.position) >> 3))


@kernel(i64(HEAD, I32, I64, U64, I32, I64, I64_OUT))
def replay_apply(head, rows, timestamps, values, order, bounds, outcome):
    """Append logged samples; what the head has already is skipped.

    Args:
        head: the tables.
        rows, timestamps, values: columns of `replay_find_rows`.
        order: of `replay_order`.
        bounds: int64[4]; first and count (of the order, [first, count) is handled), the bytes of
            closed chunks to stop at, the chunk range in ms.
        outcome: int64[8]; raised by STORED, DUPLICATE (already there).

    Returns:
        As `head_apply`.
    """
    count = bounds[1]
    first = bounds[0]
    while first < count:
        r = np.int64(rows[order[first]])
        stop = first
        while stop < count and rows[order[stop]] == r:
            _ask_ahead(head, rows, timestamps, values, order, stop, count)
            stop += 1
        row = head.rows[r]
        while first < stop:
            k = append_run(head, row, (order, first, stop), timestamps, values)
            outcome[STORED] += k - first
            first = k
            if first == stop:
                break
            t, value = timestamps[order[first]], values[order[first]]
            if row.last_t != NEVER and t <= row.last_t:
                if t == row.last_t and row.count == 0:
                    # A chunk of chunks_head has no value at hand; the log repeats its last sample.
                    row.last_v = value
                outcome[DUPLICATE] += 1
                first += 1
                continue
            if head.meta[CLOSED_TOP] > bounds[2]:
                return first
            status = append_sample(head, r, t, value, bounds[3])
            if status == CLOSED_FULL:
                return first
            if status < 0:
                return np.int64(-1)
            outcome[STORED] += 1
            first += 1
    return first
