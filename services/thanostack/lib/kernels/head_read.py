"""Read the head and let go of old data: snapshots of rows, label bytes, chunk collection.

A snapshot copies open chunks and frames that are not in `chunks_head` yet, and gives references
for the others: nothing of the head is held while an answer is encoded.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES_OUT, CHUNKS_OUT, I32, I64, I64_OUT, i64
from thanostack.lib.kernels.head_append import free_slab
from thanostack.lib.kernels.head_series import NEVER
from thanostack.lib.kernels.head_types import (
    CHUNKS,
    CHUNKS_MADE,
    CHUNKS_REMOVED,
    CLOSED_TOP,
    HEAD,
    MIN_T,
    ROWS,
    SLAB_HEADER,
)
from thanostack.lib.kernels.wide import copy_bytes, load64

FULL = -1
_NO_TIME = np.int64((1 << 63) - 1)


@device
def _swap(chunks, refs, i, j):
    a, b = chunks[i], chunks[j]
    mint, maxt, start, length = a.mint, a.maxt, a.start, a.length
    a.mint, a.maxt, a.start, a.length = b.mint, b.maxt, b.start, b.length
    b.mint, b.maxt, b.start, b.length = mint, maxt, start, length
    ref = refs[i]
    refs[i] = refs[j]
    refs[j] = ref


@kernel(i64(HEAD, I32, I64_OUT, BYTES_OUT))
def head_labels(head, rows, offsets, out):
    """Copy the label runs of rows.

    Args:
        head: the tables.
        rows: int32[S].
        offsets: int64[S + 1], written; always complete.
        out: uint8[m], written.

    Returns:
        The bytes needed; nothing useful is in `out` when that is more than m.
    """
    at = np.int64(0)
    offsets[0] = 0
    for k in range(rows.shape[0]):
        row = head.rows[rows[k]]
        length = max(np.int64(row.key_bytes), np.int64(0))
        if at + length <= out.shape[0]:
            copy_bytes(head.keys, row.key, length, out, at)
        at += length
        offsets[k + 1] = at
    return at


@kernel(i64(HEAD, I32, i64, i64, I64_OUT, CHUNKS_OUT, I64_OUT, BYTES_OUT))
def head_snapshot(head, rows, mint, maxt, offsets, chunks, refs, out):
    """Copy the chunks of rows that overlap [mint, maxt].

    Args:
        head: the tables.
        rows: int32[S].
        mint, maxt: inclusive ms.
        offsets: int64[S + 1], written; chunks of row k are [offsets[k], offsets[k + 1]).
        chunks: CHUNK_DTYPE[C], written; `start` indexes `out`, or is -1 where only `refs` knows.
        refs: int64[C], written; the chunks_head reference, or -1 where `out` has the bytes.
        out: uint8[m], written.

    Returns:
        The bytes written, or FULL when C or m is too small.
    """
    at = np.int64(0)
    n = np.int64(0)
    offsets[0] = 0
    for k in range(rows.shape[0]):
        r = rows[k]
        row = head.rows[r]
        if row.key_bytes < 0:
            offsets[k + 1] = n
            continue
        first = n
        index = np.int64(head.tails[r])
        while index >= 0:
            closed = head.chunks[index]
            if closed.maxt < mint:
                break
            if closed.mint <= maxt:
                if n >= chunks.shape[0] or at + closed.length > out.shape[0]:
                    return np.int64(FULL)
                chunks[n].mint = closed.mint
                chunks[n].maxt = closed.maxt
                chunks[n].length = closed.length
                chunks[n].encoding = np.int32(1)
                refs[n] = closed.ref
                chunks[n].start = np.int64(-1)
                if closed.ref < 0:
                    start = -1 - closed.ref + closed.header
                    copy_bytes(head.closed, start, np.int64(closed.length), out, at)
                    chunks[n].start = at
                    refs[n] = np.int64(-1)
                    at += np.int64(closed.length)
                n += 1
            index = np.int64(closed.previous)
        last = n - 1
        while first < last:
            _swap(chunks, refs, first, last)
            first += 1
            last -= 1
        if row.count > 0:
            opened = np.int64(load64(head.slabs, row.slab + 8))
            length = (np.int64(row.position) + 7) >> 3
            if opened <= maxt and row.last_t >= mint:
                if n >= chunks.shape[0] or at + length > out.shape[0]:
                    return np.int64(FULL)
                copy_bytes(head.slabs, row.slab + SLAB_HEADER, length, out, at)
                chunks[n].mint = opened
                chunks[n].maxt = row.last_t
                chunks[n].start = at
                chunks[n].length = np.int32(length)
                chunks[n].encoding = np.int32(1)
                refs[n] = np.int64(-1)
                at += length
                n += 1
        offsets[k + 1] = n
    return at


@kernel(i64(HEAD, I64, i64))
def head_place_closed(head, refs, first):
    """Give the closed chunks from index `first` on their file references; return their number.

    Args:
        head: the tables; the frames are free again afterwards.
        refs: int64[n]; in the order in which the chunks were closed.
        first: index of the first pending chunk.
    """
    for k in range(refs.shape[0]):
        head.chunks[first + k].ref = refs[k]
    head.meta[CLOSED_TOP] = 0
    return np.int64(refs.shape[0])


@kernel(i64(HEAD, i64, I64_OUT))
def head_frame_lengths(head, first, lengths):
    """Write the frame length of each pending chunk from index `first` on; return their number."""
    count = head.meta[CHUNKS] - first
    for k in range(count):
        stop = head.meta[CLOSED_TOP]
        if k + 1 < count:
            stop = -1 - head.chunks[first + k + 1].ref
        lengths[k] = stop - (-1 - head.chunks[first + k].ref)
    return count


@kernel(i64(HEAD, i64))
def head_drop_before(head, mint):
    """Forget all chunks that end before mint; return the number of rows left without any.

    The head's earliest time becomes that of what is left, as upstream: after a gap of days nobody
    has to cut one empty block range after the other. The records move together in place, in the
    order in which the chunks were closed, so that each row's list can be linked anew.
    """
    for r in range(head.meta[ROWS]):
        head.tails[r] = np.int32(-1)
    kept = np.int64(0)
    lowest = _NO_TIME
    for index in range(head.meta[CHUNKS]):
        chunk = head.chunks[index]
        if chunk.maxt < mint:
            continue
        r = chunk.row
        target = head.chunks[kept]
        target.mint = chunk.mint
        target.maxt = chunk.maxt
        target.ref = chunk.ref
        target.row = r
        target.length = chunk.length
        target.header = chunk.header
        target.previous = head.tails[r]
        head.tails[r] = np.int32(kept)
        kept += 1
        lowest = min(lowest, chunk.mint)
    head.meta[CHUNKS_REMOVED] += head.meta[CHUNKS] - kept
    head.meta[CHUNKS] = kept
    empty = np.int64(0)
    for r in range(head.meta[ROWS]):
        row = head.rows[r]
        if row.key_bytes < 0:
            continue
        if row.count > 0 and row.last_t < mint:
            free_slab(head, row.slab, np.int64(row.slab_class))
            row.slab = np.int64(-1)
            row.count = np.uint8(0)
            head.meta[CHUNKS_REMOVED] += 1
        if row.count > 0:
            lowest = min(lowest, np.int64(load64(head.slabs, row.slab + 8)))
        elif head.tails[r] < 0:
            empty += 1
    head.meta[MIN_T] = max(mint, lowest)
    return empty


@device
def _has_room(head, r, mint, maxt):
    """Return whether a chunk of row r overlaps no other and does not follow the open one."""
    row = head.rows[r]
    newest = np.int64(head.tails[r])
    if row.count > 0:
        if np.int64(load64(head.slabs, row.slab + 8)) <= maxt:
            return False
    elif row.last_t != NEVER and (newest < 0 or mint > head.chunks[newest].maxt):
        return mint > row.last_t
    while newest >= 0 and head.chunks[newest].mint > maxt:
        newest = np.int64(head.chunks[newest].previous)
    return newest < 0 or head.chunks[newest].maxt < mint


@device
def _fill(chunk, mint, maxt, ref, length):
    chunk.mint = mint
    chunk.maxt = maxt
    chunk.ref = ref
    chunk.length = length
    chunk.header = np.int32(0)


@kernel(i64(HEAD, I64, I64, I64, I64, I64))
def head_attach_chunks(head, rows, mints, maxts, refs, lengths):
    """Link chunks found in chunks_head to their rows, each at its place in time.

    A series that was forgotten and came back has two references in the log, and chunks of one may
    lie between chunks of the other. None may be pending: the records of a row stay ascending by
    shifting what they hold.

    Args:
        head: the tables.
        rows: int64[n]; -1 is left out.
        mints, maxts: int64[n], ms inclusive.
        refs: int64[n]; chunks_head references.
        lengths: int64[n]; of the chunk bytes.

    Returns:
        The number attached; a chunk that overlaps another or follows the open one is left out.
    """
    count = np.int64(0)
    for k in range(rows.shape[0]):
        r = rows[k]
        index = head.meta[CHUNKS]
        if r < 0 or index >= head.chunks.shape[0] or not _has_room(head, r, mints[k], maxts[k]):
            continue
        older = np.int64(head.tails[r])
        head.chunks[index].row = np.int32(r)
        head.chunks[index].previous = np.int32(older)
        at = index
        while older >= 0 and head.chunks[older].mint > maxts[k]:
            later = head.chunks[older]
            _fill(head.chunks[at], later.mint, later.maxt, later.ref, later.length)
            at = older
            older = np.int64(later.previous)
        _fill(head.chunks[at], mints[k], maxts[k], refs[k], np.int32(lengths[k]))
        head.tails[r] = np.int32(index)
        head.meta[CHUNKS] = index + 1
        if at == index and head.rows[r].count == 0:
            head.rows[r].last_t = maxts[k]
        count += 1
    head.meta[CHUNKS_MADE] += count
    return count
