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
from thanostack.lib.kernels._types import (
    BYTES,
    I32,
    I32_OUT,
    I64,
    I64_OUT,
    U64,
    U64_OUT,
    array_out,
    i64,
    record_dtype,
)
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
from thanostack.lib.kernels.wal_records import (
    DECODE_BAD,
    DECODE_DONE,
    DECODE_FULL,
    SAMPLES,
    SAMPLES_V2,
    next_sample,
    samples_base,
)
from thanostack.lib.kernels.wide import load_be64, prefetch

_NEIGHBOURS = 256


REF_DTYPE = record_dtype(
    [
        ("ref", np.uint64),  # of a series in the log; 0 = free
        ("last_t", np.int64),  # what closed chunks have up to there, ms; samples before are skipped
        ("row", np.int32),
    ]
)
_REFS_OUT = array_out(REF_DTYPE)
SAMPLE_BYTES_MIN = 10  # of a samples record


@device
def _ref_slot(table, ref):
    mask = np.int64(table.shape[0] - 1)
    mixed = np.int64(
        (ref // np.uint64(_NEIGHBOURS) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
    )
    slot = (mixed * _NEIGHBOURS + np.int64(ref % np.uint64(_NEIGHBOURS))) & mask
    while table[slot].ref != np.uint64(0) and table[slot].ref != ref:
        slot = (slot + _NEIGHBOURS + 1) & mask
    return slot


@kernel(i64(_REFS_OUT, U64, I64, I64, i64))
def replay_map_refs(table, refs, rows, lasts, count):
    """Enter series references and their rows into the replay's hash table.

    Args:
        table: REF_DTYPE[2^k]; at most half full.
        refs: uint64[count].
        rows: int64[count]; -1 is left out.
        lasts: int64[count], ms; what the row has up to there.
        count: of all three.

    Returns:
        The number of references that were not there before.
    """
    new = np.int64(0)
    for k in range(count):
        if rows[k] < 0 or refs[k] == np.uint64(0):
            continue
        entry = table[_ref_slot(table, refs[k])]
        if entry.ref == np.uint64(0):
            entry.ref = refs[k]
            new += 1
        entry.row = np.int32(rows[k])
        entry.last_t = lasts[k]
    return new


@device
def _gather_record(table, data, body, is_v2, columns, at, mint):
    """Add the samples of a record that are needed to the columns.

    Args:
        table: of `replay_map_refs`.
        data: records.
        body: (first, stop); the record without its type.
        is_v2: its layout.
        columns: (timestamps, values, rows).
        at: how many they have.
        mint: ms.

    Returns:
        (how many they have now, of blocks already, of no series, of chunks already); the first is
        -1 if the record does not decode.
    """
    i, stop = body
    timestamps, values, rows = columns
    mask = np.int64(table.shape[0] - 1)
    slot = old = unknown = duplicate = np.int64(0)
    base_ref, base_time, i = samples_base(data, i, stop, is_v2)
    is_first = True
    while 0 <= i < stop:
        ref, time, i = next_sample(data, i, stop, is_v2, is_first)
        if i < 0:
            break
        ref += base_ref
        t = np.int64(base_time + time)
        if is_v2:
            base_ref = ref
            if is_first:
                base_time = np.uint64(t)
            is_first = False
        i += 8
        if t < mint:
            # First: a block has it, and its series may be gone from the log for that reason.
            old += 1
            continue
        # Most often the reference after the one before.
        slot = (slot + 1) & mask
        if table[slot].ref != ref:
            slot = _ref_slot(table, ref)
        if table[slot].ref == np.uint64(0):
            unknown += 1
            continue
        if t < table[slot].last_t:
            duplicate += 1
            continue
        rows[at] = table[slot].row
        timestamps[at] = t
        values[at] = load_be64(data, i - 8)
        at += 1
    if i < 0:
        at = np.int64(-1)
    return at, old, unknown, duplicate


@kernel(i64(_REFS_OUT, BYTES, I64, I64, I64_OUT, U64_OUT, I32_OUT, I64_OUT, I64_OUT))
def replay_gather(table, data, bounds, begin, timestamps, values, rows, outcome, state):
    """Decode the float samples of a batch and find their rows; leave out those not needed.

    Those are samples before mint, of unknown series, and before what closed chunks have: of a log
    that reaches back far, most are.

    Args:
        table: REF_DTYPE[2^k]; of `replay_map_refs`.
        data: uint8[n]; records.
        bounds: int64[records + 1]; record i is data[bounds[i]:bounds[i + 1]].
        begin: int64[3]; the record to begin with, how many samples the columns have, mint in ms
            (more than NEVER).
        timestamps: int64[room], ms.
        values: uint64[room].
        rows: int32[room].
        outcome: int64[8]; raised by OUT_OF_BOUNDS, UNKNOWN, DUPLICATE (a chunk has it).
        state: int64[2]; DECODE_*, and the first record not taken, of which nothing counts.

    Returns:
        How many samples the columns have.

    Cost: about 3 ns a sample.
    """
    at = begin[1]
    room = np.int64(rows.shape[0])
    columns = timestamps, values, rows
    state[0] = DECODE_DONE
    for record in range(begin[0], bounds.shape[0] - 1):
        i, stop = bounds[record], bounds[record + 1]
        if i >= stop or (data[i] != SAMPLES and data[i] != SAMPLES_V2):
            continue
        state[1] = record
        if (stop - i) // SAMPLE_BYTES_MIN > room - at:
            state[0] = DECODE_FULL
            return at
        body = i + 1, stop
        if data[i] == SAMPLES:
            found = _gather_record(table, data, body, False, columns, at, begin[2])
        else:
            found = _gather_record(table, data, body, True, columns, at, begin[2])
        if found[0] < 0:
            state[0] = DECODE_BAD
            return at
        at = found[0]
        outcome[OUT_OF_BOUNDS] += found[1]
        outcome[UNKNOWN] += found[2]
        outcome[DUPLICATE] += found[3]
    state[1] = bounds.shape[0] - 1
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
        rows, timestamps, values: columns of `replay_gather`.
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
