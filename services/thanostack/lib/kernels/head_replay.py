"""Append the samples of a log to the head: references to rows, then rows to chunks.

    references --table--> rows --ask memory for--> row records --ask for--> chunk ends --append

A head is larger than the caches and a log goes through all of it once a round, so appending sample
by sample mostly waits. Samples are taken `ROWS_AHEAD` at a time instead: each step runs over all of
them and asks memory for what the next one will touch, so that the waits overlap (190 ns a sample
without, 41 to 75 with).

The table is open addressing, 0 = free, probed linearly. References are counted up, so the slots of
`_NEIGHBOURS` references in a row lie side by side, and a round walks them in order.

Source: Prometheus `tsdb/head_wal.go`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import I32, I32_OUT, I64, I64_OUT, U64, U64_OUT, i64
from thanostack.lib.kernels.head_append import (
    CLOSED_FULL,
    DUPLICATE,
    OUT_OF_BOUNDS,
    STORED,
    UNKNOWN,
    append_sample,
)
from thanostack.lib.kernels.head_series import NEVER
from thanostack.lib.kernels.head_types import HEAD, SLAB_HEADER
from thanostack.lib.kernels.wide import prefetch

ROWS_AHEAD = 24  # three lines each, and the first-level cache may be shared
_NEIGHBOURS = 16


@device
def _ref_slot(ref_keys, ref):
    mask = np.int64(ref_keys.shape[0] - 1)
    mixed = np.int64(
        (ref // np.uint64(_NEIGHBOURS) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
    )
    slot = (mixed * _NEIGHBOURS + np.int64(ref % np.uint64(_NEIGHBOURS))) & mask
    while ref_keys[slot] != np.uint64(0) and ref_keys[slot] != ref:
        slot = (slot + 1) & mask
    return slot


@kernel(i64(U64_OUT, I32_OUT, U64, I64, i64))
def replay_map_refs(ref_keys, ref_rows, refs, rows, count):
    """Enter series references and their rows into the replay's hash table.

    Args:
        ref_keys: uint64[2^k], 0 = free; at most half full.
        ref_rows: int32[2^k].
        refs: uint64[count].
        rows: int64[count]; -1 is left out.
        count: of both.

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
    return new


@device
def _find_rows(head, ref_keys, ref_rows, refs, first, stop, rows):
    """Write the rows of references [first, stop), -1 unknown, and ask for their records."""
    mask = np.int64(ref_keys.shape[0] - 1)
    slot = np.int64(0)
    for k in range(first, stop):
        ref = refs[k]
        # Most often the reference after the one before.
        slot = (slot + 1) & mask
        if ref_keys[slot] != ref:
            slot = _ref_slot(ref_keys, ref)
        if ref == np.uint64(0) or ref_keys[slot] == np.uint64(0):
            rows[k - first] = -1
            continue
        rows[k - first] = np.int64(ref_rows[slot])
        prefetch(head.rows, rows[k - first])


@device
def _ask_for_chunks(head, rows, count):
    """Ask for the two ends of the open chunks of rows: all that an append touches."""
    for k in range(count):
        if rows[k] >= 0:
            row = head.rows[rows[k]]
            prefetch(head.slabs, row.slab)
            prefetch(head.slabs, row.slab + SLAB_HEADER + (np.int64(row.position) >> 3))


@kernel(i64(HEAD, U64, I32, U64, I64, U64, I64, I64_OUT, I64_OUT))
def replay_apply(head, ref_keys, ref_rows, refs, timestamps, values, bounds, outcome, rows):
    """Append logged samples; what the head has already is skipped.

    Args:
        head: the tables.
        ref_keys, ref_rows: of `replay_map_refs`.
        refs, timestamps, values: columns of logged samples.
        bounds: int64[4]; first and count (samples [first, count) are handled), the earliest
            timestamp kept, the chunk range in ms.
        outcome: int64[8]; raised by STORED, DUPLICATE (already there), OUT_OF_BOUNDS, UNKNOWN.
        rows: int64[ROWS_AHEAD]; scratch.

    Returns:
        As `head_apply`.
    """
    for first in range(bounds[0], bounds[1], ROWS_AHEAD):
        stop = min(first + ROWS_AHEAD, bounds[1])
        _find_rows(head, ref_keys, ref_rows, refs, first, stop, rows)
        _ask_for_chunks(head, rows, stop - first)
        for k in range(first, stop):
            t = timestamps[k]
            if t < bounds[2] or t == NEVER:
                # First: a block has it, and its series may be gone from the log for that reason.
                outcome[OUT_OF_BOUNDS] += 1
                continue
            r = rows[k - first]
            if r < 0:
                outcome[UNKNOWN] += 1
                continue
            row = head.rows[r]
            if row.last_t != NEVER and t <= row.last_t:
                if t == row.last_t and row.count == 0:
                    # A chunk of chunks_head has no value at hand; the log repeats its last sample.
                    row.last_v = values[k]
                outcome[DUPLICATE] += 1
                continue
            status = append_sample(head, r, t, values[k], bounds[3])
            if status == CLOSED_FULL:
                return np.int64(k)
            if status < 0:
                return np.int64(-1)
            outcome[STORED] += 1
    return bounds[1]
