"""Append samples to the head: stage (validate, encode the log record), then apply (encode chunks).

    columns --head_stage--> accepted columns + WAL record --(write)--> head_apply --> open chunks
                                                                            └──> closed frames

Staging changes nothing that a reader or a later request could see: a row only notes, under the
request's epoch, which staged sample is its newest. When the log refuses, the epoch passes and
the notes are void; there is nothing to roll back.

Source: Prometheus `tsdb/head_append.go` (append rules, sizing of chunks);
docs/formats/chunks-head.md.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import BYTES_OUT, I64, I64_OUT, U64, U64_OUT, i64
from thanostack.lib.kernels.head_series import NEVER
from thanostack.lib.kernels.head_types import (
    CHUNK_BYTES_MAX,
    CHUNKS,
    CHUNKS_MADE,
    CLOSED_TOP,
    EPOCH,
    FREE_SLAB,
    HEAD,
    MAX_T,
    MIN_T,
    SAMPLES_PER_CHUNK,
    SLAB_BYTES,
    SLAB_CLASSES,
    SLAB_HEADER,
    SLAB_SLACK,
    SLABS_TOP,
)
from thanostack.lib.kernels.varint import write_uvarint, write_varint
from thanostack.lib.kernels.wide import (
    copy_bytes,
    crc32c,
    load64,
    prefetch,
    store64,
    store_be32,
    store_be64,
)
from thanostack.lib.kernels.xor_chunk import append_run_to_chunk, append_to_chunk, start_chunk

STORED, DUPLICATE, OUT_OF_ORDER, OUT_OF_BOUNDS, TOO_FAR, CONFLICT, UNKNOWN, FIRST_REJECTED = range(
    8
)
SLABS_FULL, CLOSED_FULL = -1, -2
SAMPLE_RECORD_BYTES = 30  # Bound: two ten-byte varints and eight bytes; the header takes 17 once.
_FRAME_MAX = 1200
AHEAD = 12  # samples whose cache misses overlap


@device
def _judge(t, value, last_t, last_v, limits):
    """Return the outcome of a sample against the newest one of its series."""
    if t > limits[1]:
        return np.int64(TOO_FAR)
    if t < limits[0] or t == NEVER:
        return np.int64(OUT_OF_BOUNDS)
    if last_t == NEVER or t > last_t:
        return np.int64(STORED)
    if t == last_t:
        return np.int64(DUPLICATE) if value == last_v else np.int64(CONFLICT)
    return np.int64(OUT_OF_ORDER)


@kernel(i64(HEAD, I64, I64, I64_OUT, U64_OUT, I64, I64_OUT, I64_OUT, BYTES_OUT))
def head_stage(head, rows, offsets, timestamps, values, limits, staged, outcome, record):
    """Validate samples, move the accepted ones to the front, and write their WAL record.

    Args:
        head: the tables; rows get their staging notes.
        rows: int64[S]; the row of each series, -1 = none (its samples count as UNKNOWN).
        offsets: int64[S + 1].
        timestamps: int64[N], ms; accepted ones are moved to the front.
        values: uint64[N]; likewise.
        limits: int64[2]; the earliest and the latest timestamp accepted, inclusive.
        staged: int64[N], written; the rows of the accepted samples.
        outcome: int64[8], raised by the number of samples of each outcome; [FIRST_REJECTED] gets
            the index of the first series with a refused sample, if it was -1.
        record: uint8[m], written; m at least 17 + SAMPLE_RECORD_BYTES N. A samples record (type 2).

    Returns:
        The length of the record; the number of accepted samples is outcome[STORED].
    """
    head.meta[EPOCH] += 1
    if head.meta[EPOCH] & 0xFFFFFFFF == 0:
        # A row that was never staged has epoch 0.
        head.meta[EPOCH] += 1
    epoch = np.uint32(head.meta[EPOCH] & 0xFFFFFFFF)
    n = np.int64(0)
    length = np.int64(0)
    base_ref = np.int64(0)
    base_t = np.int64(0)
    count = np.int64(offsets.shape[0] - 1)
    for s in range(count):
        r = rows[s]
        if s + AHEAD < count:
            prefetch(head.rows, rows[s + AHEAD])
            prefetch(head.refs, rows[s + AHEAD])
        for k in range(offsets[s], offsets[s + 1]):
            t = timestamps[k]
            value = values[k]
            verdict = np.int64(UNKNOWN)
            if r >= 0:
                row = head.rows[r]
                last_t = row.last_t
                last_v = row.last_v
                if row.stage_epoch == epoch:
                    last_t = timestamps[row.stage_index]
                    last_v = values[row.stage_index]
                verdict = _judge(t, value, last_t, last_v, limits)
            outcome[verdict] += 1
            if verdict != STORED:
                if verdict != DUPLICATE and outcome[FIRST_REJECTED] < 0:
                    outcome[FIRST_REJECTED] = s
                continue
            ref = head.refs[r]
            if n == 0:
                base_ref = ref
                base_t = t
                record[0] = np.uint8(2)
                store_be64(record, 1, np.uint64(ref))
                store_be64(record, 9, np.uint64(t))
                length = np.int64(17)
            length = write_varint(record, length, ref - base_ref)
            length = write_varint(record, length, t - base_t)
            store_be64(record, length, value)
            length += 8
            timestamps[n] = t
            values[n] = value
            staged[n] = r
            head.rows[r].stage_epoch = epoch
            head.rows[r].stage_index = np.int32(n)
            n += 1
    return length


@device
def _take_slab(head, size_class):
    """Return the offset of a slab of this class, or SLABS_FULL."""
    at = head.meta[FREE_SLAB + size_class] - 1
    if at >= 0:
        head.meta[FREE_SLAB + size_class] = np.int64(load64(head.slabs, at))
        return at
    at = head.meta[SLABS_TOP]
    if at + SLAB_BYTES[size_class] > head.slabs.shape[0]:
        return np.int64(SLABS_FULL)
    head.meta[SLABS_TOP] = at + SLAB_BYTES[size_class]
    return at


@device
def free_slab(head, at, size_class):
    """Put a slab on its class's free list."""
    store64(head.slabs, at, np.uint64(head.meta[FREE_SLAB + size_class]))
    head.meta[FREE_SLAB + size_class] = at + 1


@routine
def _grow_slab(head, row):
    """Move the open chunk to the next slab class; False when the arena is full."""
    size_class = np.int64(row.slab_class)
    assert size_class + 1 < SLAB_CLASSES
    at = _take_slab(head, size_class + 1)
    if at < 0:
        return False
    used = SLAB_HEADER + ((np.int64(row.position) + 7) >> 3)
    copy_bytes(head.slabs, row.slab, used, head.slabs, at)
    free_slab(head, row.slab, size_class)
    row.slab = at
    row.slab_class = np.uint8(size_class + 1)
    return True


@device
def _fitting_class(length):
    """Return the smallest slab class that a chunk of this length fits into."""
    size_class = np.int64(0)
    while SLAB_BYTES[size_class] < SLAB_HEADER + length + SLAB_SLACK:
        size_class += 1
    return size_class


@device
def range_end(t, width):
    """Return the end of the chunk range that holds t, as upstream's truncating division has it."""
    quotient = np.int64(abs(t) // width)
    return (-quotient if t < 0 else quotient) * width + width


@device
def _predict_end(first, last, end):
    """Return where a chunk that is a quarter full should end, so that chunks fill evenly."""
    n = np.float64(end - first) / np.float64((last - first + 1) * 4)
    if n <= 1:
        return end
    return np.int64(np.float64(first) + np.float64(end - first) / np.floor(n))


@routine
def close_chunk(head, r, row):
    """Write the open chunk of a row as a chunks_head frame and free its slab; CLOSED_FULL or 0."""
    at = head.meta[CLOSED_TOP]
    index = head.meta[CHUNKS]
    if at + _FRAME_MAX > head.closed.shape[0] or index >= head.chunks.shape[0]:
        return np.int64(CLOSED_FULL)
    length = (np.int64(row.position) + 7) >> 3
    mint = np.int64(load64(head.slabs, row.slab + 8))
    store_be64(head.closed, at, np.uint64(head.refs[r]))
    store_be64(head.closed, at + 8, np.uint64(mint))
    store_be64(head.closed, at + 16, np.uint64(row.last_t))
    head.closed[at + 24] = np.uint8(1)
    body = write_uvarint(head.closed, at + 25, np.uint64(length))
    copy_bytes(head.slabs, row.slab + SLAB_HEADER, length, head.closed, body)
    store_be32(head.closed, body + length, crc32c(head.closed, at, body + length))
    head.meta[CLOSED_TOP] = body + length + 4
    chunk = head.chunks[index]
    chunk.mint = mint
    chunk.maxt = row.last_t
    chunk.ref = -1 - at
    chunk.row = np.int32(r)
    chunk.previous = head.tails[r]
    chunk.length = np.int32(length)
    chunk.header = np.int32(body - at)
    head.tails[r] = np.int32(index)
    head.meta[CHUNKS] = index + 1
    free_slab(head, row.slab, np.int64(row.slab_class))
    row.slab = np.int64(-1)
    row.slab_class = np.uint8(_fitting_class(length))
    row.count = np.uint8(0)
    return np.int64(0)


@device
def _full(head, row, t):
    """Return whether the open chunk ends before a sample at t; may predict its end anew."""
    if ((np.int64(row.position) + 7) >> 3) > CHUNK_BYTES_MAX:
        return True
    next_at = np.int64(load64(head.slabs, row.slab))
    if row.count == SAMPLES_PER_CHUNK // 4:
        first = np.int64(load64(head.slabs, row.slab + 8))
        next_at = _predict_end(first, row.last_t, next_at)
        store64(head.slabs, row.slab, np.uint64(next_at))
    return t >= next_at or row.count >= SAMPLES_PER_CHUNK * 2


@device
def append_sample(head, r, t, value, chunk_range):
    """Append a valid sample to a row; 0, SLABS_FULL or CLOSED_FULL (nothing was changed then)."""
    row = head.rows[r]
    if row.count > 0 and _full(head, row, t):
        if close_chunk(head, r, row) < 0:
            return np.int64(CLOSED_FULL)
    if row.count == 0:
        at = _take_slab(head, np.int64(row.slab_class))
        if at < 0:
            return np.int64(SLABS_FULL)
        row.slab = at
        store64(head.slabs, at, np.uint64(range_end(t, chunk_range)))
        store64(head.slabs, at + 8, np.uint64(t))
        start_chunk(head.slabs, at + SLAB_HEADER, row, t, value)
        head.meta[CHUNKS_MADE] += 1
    else:
        used = SLAB_HEADER + ((np.int64(row.position) + 7) >> 3)
        if used + SLAB_SLACK > SLAB_BYTES[row.slab_class] and not _grow_slab(head, row):
            return np.int64(SLABS_FULL)
        append_to_chunk(head.slabs, row.slab + SLAB_HEADER, row, t, value)
    row.last_t = t
    row.last_v = value
    if t > head.meta[MAX_T]:
        head.meta[MAX_T] = t
    if t < head.meta[MIN_T]:
        head.meta[MIN_T] = t
    return np.int64(0)


@device
def append_run(head, row, run, timestamps, values):
    """Append samples of one row to its open chunk; return the first that `append_sample` has to.

    Args:
        head: the tables.
        row: the row's record.
        run: (items, first, stop); which samples, by their indices.
        timestamps, values: columns.
    """
    items, first, stop = run
    quarter = np.int64(SAMPLES_PER_CHUNK // 4)
    count = np.int64(row.count)
    if count < 2 or count == quarter:
        return first
    most = quarter if count < quarter else np.int64(SAMPLES_PER_CHUNK * 2)
    size = min(SLAB_BYTES[row.slab_class] - SLAB_HEADER - SLAB_SLACK, np.int64(CHUNK_BYTES_MAX))
    bounds = np.int64(load64(head.slabs, row.slab)), size
    run = items, first, min(stop, first + most - count)
    k = append_run_to_chunk(
        head.slabs, row.slab + SLAB_HEADER, row, run, timestamps, values, bounds
    )
    head.meta[MAX_T] = max(head.meta[MAX_T], row.last_t)
    return k


@kernel(i64(HEAD, I64, I64, U64, i64, i64, i64))
def head_apply(head, staged, timestamps, values, first, count, chunk_range):
    """Append staged samples [first, count) to the open chunks.

    Args:
        head: the tables.
        staged: int64[N]; rows, of `head_stage`.
        timestamps, values: the accepted samples.
        first, count: which of them.
        chunk_range: ms; no chunk crosses a multiple of it.

    Returns:
        `count`; or a smaller index: flush the closed frames and call again from there. -1 when the
        slab arena is exhausted.

    Cost: about 31 ns a sample.
    """
    for k in range(first, count):
        if k + AHEAD < count:
            row = head.rows[staged[k + AHEAD]]
            prefetch(head.slabs, row.slab)
            prefetch(head.slabs, row.slab + SLAB_HEADER + (np.int64(row.position) >> 3))
        status = append_sample(head, staged[k], timestamps[k], values[k], chunk_range)
        if status == CLOSED_FULL:
            return np.int64(k)
        if status < 0:
            return np.int64(-1)
    return np.int64(count)
