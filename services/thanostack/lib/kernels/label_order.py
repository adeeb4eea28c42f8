"""Label order over canonical label runs: compare, sort, merge, take, edit and find.

A run is `0A len ( 0A n name  12 n value )` a pair. Label order compares pair by pair, name before
value, bytewise, and puts the shorter prefix first. Runs that share bytes share pairs, so a compare
finds the first differing byte eight at a time, steps over the lengths up to it, and decodes only
the pair it lies in.

Lengths inside a run are never trusted: a run that is no sequence of pairs is the status -1.

Source: Prometheus `model/labels` (`Compare`); `lib/model/label_runs.py` for the bytes.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, CHUNKS, CHUNKS_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.varint import read_length
from thanostack.lib.kernels.wide import copy_bytes, ctz64, load64, load_be64

_MALFORMED = 2


@device
def compare_bytes(a, i, n, b, j, m):
    """Return -1, 0 or 1 for `n` bytes of `a` at `i` against `m` bytes of `b` at `j`, bytewise."""
    common = min(n, m)
    if common > 0 and a[i] != b[j]:
        return np.int64(-1) if a[i] < b[j] else np.int64(1)
    done = np.int64(0)
    while done + 8 <= common:
        x = load_be64(a, i + done)
        y = load_be64(b, j + done)
        if x != y:
            return np.int64(-1) if x < y else np.int64(1)
        done += 8
    while done < common:
        if a[i + done] != b[j + done]:
            return np.int64(-1) if a[i + done] < b[j + done] else np.int64(1)
        done += 1
    if n == m:
        return np.int64(0)
    return np.int64(-1) if n < m else np.int64(1)


@device
def read_pair(a, i, stop):
    """Return (name start, name length, value start, value length, next) of the pair at `i`.

    Next is -1 when the bytes before `stop` are no pair. All ranges lie before `stop`.
    """
    bad = (np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(-1))
    if i >= stop or a[i] != 10:
        return bad
    length, body = read_length(a, i + 1, stop)
    if body < 0:
        return bad
    end = body + length
    if body >= end or a[body] != 10:
        return bad
    name_length, name = read_length(a, body + 1, end)
    if name < 0:
        return bad
    value_tag = name + name_length
    if value_tag >= end or a[value_tag] != 18:
        return bad
    value_length, value = read_length(a, value_tag + 1, end)
    if value < 0 or value + value_length != end:
        return bad
    return name, name_length, value, value_length, end


@device
def common_prefix(a, i, b, j, length):
    """Return how many leading bytes of two ranges are equal, at most `length`."""
    done = np.int64(0)
    while done + 8 <= length:
        difference = load64(a, i + done) ^ load64(b, j + done)
        if difference != np.uint64(0):
            return done + (ctz64(difference) >> np.int64(3))
        done += 8
    while done < length and a[i + done] == b[j + done]:
        done += 1
    return done


@routine
def compare_spans(a, i, a_stop, b, j, b_stop):
    """Return -1, 0 or 1 for two runs in label order; 2 if one is malformed where it matters."""
    shorter = min(a_stop - i, b_stop - j)
    same = common_prefix(a, i, b, j, shorter)
    if same == shorter:
        # One run is a prefix of the other, and runs end where a pair ends.
        if a_stop - i == b_stop - j:
            return np.int64(0)
        return np.int64(-1) if a_stop - i < b_stop - j else np.int64(1)
    differs = i + same
    start = i
    following = i
    while following <= differs:
        start = following
        length, body = read_length(a, start + 1, a_stop)
        if body < 0:
            return np.int64(_MALFORMED)
        following = body + length
    an, anl, av, avl, a_next = read_pair(a, start, a_stop)
    bn, bnl, bv, bvl, b_next = read_pair(b, j + start - i, b_stop)
    if a_next < 0 or b_next < 0:
        return np.int64(_MALFORMED)
    order = compare_bytes(a, an, anl, b, bn, bnl)
    if order == 0:
        order = compare_bytes(a, av, avl, b, bv, bvl)
    return order if order != 0 else np.int64(_MALFORMED)


@device
def compare_rows(data, offsets, x, y):
    """Return -1, 0 or 1 for two rows in label order; 2 if one is malformed where it matters."""
    return compare_spans(data, offsets[x], offsets[x + 1], data, offsets[y], offsets[y + 1])


@device
def rows_in_bounds(data, offsets):
    """Return whether offsets rise from >= 0 to at most the end of `data`."""
    previous = np.int64(0)
    for k in range(offsets.shape[0]):
        if offsets[k] < previous:
            return False
        previous = offsets[k]
    return offsets.shape[0] > 0 and previous <= data.shape[0]


@kernel(i64(BYTES, BYTES))
def compare_label_runs(a, b):
    """Return -1, 0 or 1 for two runs in label order; 2 if one is malformed."""
    return compare_spans(a, np.int64(0), a.shape[0], b, np.int64(0), b.shape[0])


@routine
def _merge_halves(data, offsets, source, target, low, middle, high):
    """Merge source[low:middle] and source[middle:high] to target; False when a run is malformed."""
    i = low
    j = middle
    if middle < high:
        ordered = compare_rows(data, offsets, source[middle - 1], source[middle])
        if ordered == _MALFORMED:
            return False
        if ordered <= 0:
            j = high
            for k in range(middle, high):
                target[k] = source[k]
            high = middle
    for k in range(low, high):
        take_left = j >= high
        if i < middle and j < high:
            order = compare_rows(data, offsets, source[i], source[j])
            if order == _MALFORMED:
                return False
            take_left = order <= 0
        if take_left and i < middle:
            target[k] = source[i]
            i += 1
        else:
            target[k] = source[j]
            j += 1
    return True


@kernel(i64(BYTES, I64, I64_OUT, I64_OUT, I64_OUT))
def sort_label_runs(data, offsets, scratch, order, groups):
    """Write the stable order of S runs and where equal ones begin; return the number of groups.

    A bottom-up merge sort; halves that are in order already are not compared again, so sorted
    input costs one compare a row.

    Args:
        data: uint8[n].
        offsets: int64[S + 1] into data.
        scratch: int64[S].
        order: int64[S] out; row numbers in label order.
        groups: int64[S + 1] out; group g is order[groups[g]:groups[g + 1]], all equal.

    Returns:
        The number of groups, or -1 for a malformed run or offsets.
    """
    if not rows_in_bounds(data, offsets):
        return np.int64(-1)
    rows = offsets.shape[0] - 1
    for k in range(rows):
        order[k] = k
    width = np.int64(1)
    flipped = False
    while width < rows:
        for low in range(0, rows, 2 * width):
            middle = min(low + width, rows)
            high = min(low + 2 * width, rows)
            if flipped:
                good = _merge_halves(data, offsets, scratch, order, low, middle, high)
            else:
                good = _merge_halves(data, offsets, order, scratch, low, middle, high)
            if not good:
                return np.int64(-1)
        flipped = not flipped
        width *= 2
    if flipped:
        for k in range(rows):
            order[k] = scratch[k]
    count = np.int64(0)
    for k in range(rows):
        if k == 0 or compare_rows(data, offsets, order[k - 1], order[k]) != 0:
            groups[count] = k
            count += 1
    groups[count] = rows
    return count


@routine
def _sift_down(data, offsets, heads, heap, size, at):
    """Restore the heap of streams below `at`; False when a run is malformed."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return True
        if child + 1 < size:
            order = compare_rows(data, offsets, heads[heap[child + 1]], heads[heap[child]])
            if order == _MALFORMED:
                return False
            if order < 0 or (order == 0 and heap[child + 1] < heap[child]):
                child += 1
        order = compare_rows(data, offsets, heads[heap[child]], heads[heap[at]])
        if order == _MALFORMED:
            return False
        if order > 0 or (order == 0 and heap[at] < heap[child]):
            return True
        swapped = heap[at]
        heap[at] = heap[child]
        heap[child] = swapped
        at = child


@kernel(i64(BYTES, I64, I64, i64, I64_OUT, I64_OUT, I64_OUT, I64_OUT))
def merge_label_runs(data, offsets, stops, limit, heads, heap, order, groups):
    """Merge K ascending streams of runs up to a limit; return the number of distinct runs.

    Args:
        data: uint8[n].
        offsets: int64[R + 1] into data; rows of all streams, and perhaps the limit's.
        stops: int64[K]; the row after each stream's last.
        limit: row number; only runs below this one are merged. -1: all.
        heads: int64[K] in and out; each stream's first row, then its first row not merged.
        heap: int64[K]; scratch.
        order: int64[R] out; row numbers in label order, equal runs by stream.
        groups: int64[R + 1] out; group g is order[groups[g]:groups[g + 1]], all equal.

    Returns:
        The number of groups; -1 for a malformed run or offsets, -2 for a stream that descends.
    """
    if not rows_in_bounds(data, offsets) or limit >= offsets.shape[0] - 1:
        return np.int64(-1)
    size = np.int64(0)
    for k in range(stops.shape[0]):
        if heads[k] < 0 or stops[k] > offsets.shape[0] - 1:
            return np.int64(-1)
        if heads[k] < stops[k]:
            heap[size] = k
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        if not _sift_down(data, offsets, heads, heap, size, at):
            return np.int64(-1)
    count = np.int64(0)
    taken = np.int64(0)
    while size > 0:
        row = heads[heap[0]]
        step = np.int64(-1)
        if taken > 0:
            step = compare_rows(data, offsets, order[taken - 1], row)
            if step == _MALFORMED:
                return np.int64(-1)
            if step > 0:
                return np.int64(-2)
        if step < 0:
            if limit >= 0:
                below = compare_rows(data, offsets, row, limit)
                if below == _MALFORMED:
                    return np.int64(-1)
                if below >= 0:
                    break
            groups[count] = taken
            count += 1
        order[taken] = row
        taken += 1
        heads[heap[0]] = row + 1
        if row + 1 >= stops[heap[0]]:
            size -= 1
            heap[0] = heap[size]
        if not _sift_down(data, offsets, heads, heap, size, np.int64(0)):
            return np.int64(-1)
    groups[count] = taken
    return count


@kernel(i64(BYTES, I64, I64, BYTES_OUT, I64_OUT))
def take_label_runs(data, offsets, rows, out, out_offsets):
    """Copy chosen runs one after another; return their bytes, or -1 for a row out of bounds.

    Args:
        data: uint8[n].
        offsets: int64[S + 1] into data.
        rows: int64[T]; row numbers, repeats allowed.
        out: uint8[m] out; an empty one only measures.
        out_offsets: int64[T + 1] out.
    """
    if not rows_in_bounds(data, offsets):
        return np.int64(-1)
    at = np.int64(0)
    out_offsets[0] = 0
    for k in range(rows.shape[0]):
        if rows[k] < 0 or rows[k] >= offsets.shape[0] - 1:
            return np.int64(-1)
        start = offsets[rows[k]]
        length = offsets[rows[k] + 1] - start
        if out.shape[0] > 0:
            if at + length > out.shape[0]:
                return np.int64(-1)
            copy_bytes(data, start, length, out, at)
        at += length
        out_offsets[k + 1] = at
    return at


@kernel(i64(BYTES, I64, BYTES, I64, BYTES, I64, BYTES_OUT, I64_OUT))
def edit_label_runs(data, offsets, names, name_offsets, pairs, pair_offsets, out, out_offsets):
    """Set or remove the same labels in every run; return the bytes written.

    Args:
        data: uint8[n].
        offsets: int64[S + 1] into data.
        names: uint8[...]; the names to edit.
        name_offsets: int64[E + 1] into names; names strictly ascending.
        pairs: uint8[...]; the framed pair that replaces or joins each name's; empty removes it.
        pair_offsets: int64[E + 1] into pairs.
        out: uint8[m] out; m >= n + S * len(pairs) always suffices.
        out_offsets: int64[S + 1] out.

    Returns:
        The bytes written; -1 for a malformed run or offsets, -2 when `out` is too short.
    """
    if not (rows_in_bounds(data, offsets) and rows_in_bounds(names, name_offsets)):
        return np.int64(-1)
    if not rows_in_bounds(pairs, pair_offsets):
        return np.int64(-1)
    edits = name_offsets.shape[0] - 1
    at = np.int64(0)
    out_offsets[0] = 0
    for row in range(offsets.shape[0] - 1):
        i = offsets[row]
        stop = offsets[row + 1]
        if at + (stop - i) + pairs.shape[0] > out.shape[0]:
            return np.int64(-2)
        kept = i
        edit = np.int64(0)
        while edit < edits:
            name_length = name_offsets[edit + 1] - name_offsets[edit]
            order = np.int64(1)
            following = i
            # Pairs below the edited name stay in one stretch that is copied at once.
            while i < stop:
                name, length, _, _, following = read_pair(data, i, stop)
                if following < 0:
                    return np.int64(-1)
                order = compare_bytes(data, name, length, names, name_offsets[edit], name_length)
                if order >= 0:
                    break
                i = following
            copy_bytes(data, kept, i - kept, out, at)
            at += i - kept
            if i < stop and order == 0:
                i = following
            kept = i
            size = pair_offsets[edit + 1] - pair_offsets[edit]
            copy_bytes(pairs, pair_offsets[edit], size, out, at)
            at += size
            edit += 1
        copy_bytes(data, kept, stop - kept, out, at)
        at += stop - kept
        out_offsets[row + 1] = at
    return at


@kernel(i64(BYTES, I64, BYTES, I64_OUT, I64_OUT))
def find_label_values(data, offsets, name, starts, stops):
    """Write where each run's value of one label lies; return how many runs have it.

    Args:
        data: uint8[n].
        offsets: int64[S + 1] into data.
        name: uint8[...]; the label's name.
        starts: int64[S] out; into data.
        stops: int64[S] out; equal to starts where the run lacks the label.

    Returns:
        The number of runs with the label, or -1 for a malformed run or offsets.
    """
    if not rows_in_bounds(data, offsets):
        return np.int64(-1)
    found = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        i = offsets[row]
        stop = offsets[row + 1]
        starts[row] = i
        stops[row] = i
        while i < stop:
            at, length, value, value_length, i = read_pair(data, i, stop)
            if i < 0:
                return np.int64(-1)
            order = compare_bytes(data, at, length, name, np.int64(0), name.shape[0])
            if order == 0:
                starts[row] = value
                stops[row] = value + value_length
                found += 1
            if order >= 0:
                break
    return found


@kernel(i64(CHUNKS, BYTES, i64, CHUNKS_OUT, BYTES_OUT))
def pack_chunks(chunks, data, at, out_chunks, out):
    """Copy chunks with their bytes to `out` from `at` on; return the offset after the last.

    Args:
        chunks: CHUNK_DTYPE[C], into data.
        data: uint8[n].
        at: where in out to begin.
        out_chunks: CHUNK_DTYPE[C] out; the same with `start` moved.
        out: uint8[m] out.

    Returns:
        The next offset; -1 when a chunk lies outside data or does not fit.
    """
    for c in range(chunks.shape[0]):
        start = chunks[c]["start"]
        length = np.int64(chunks[c]["length"])
        if start < 0 or length < 0 or start > data.shape[0] - length:
            return np.int64(-1)
        if at < 0 or at + length > out.shape[0]:
            return np.int64(-1)
        copy_bytes(data, start, length, out, at)
        out_chunks[c] = chunks[c]
        out_chunks[c]["start"] = at
        at += length
    return at


@routine
def _chunk_order(data, x, y):
    """Return the order of two chunks by (mint, maxt, encoding, length, bytes)."""
    if x["mint"] != y["mint"]:
        return np.int64(-1) if x["mint"] < y["mint"] else np.int64(1)
    if x["maxt"] != y["maxt"]:
        return np.int64(-1) if x["maxt"] < y["maxt"] else np.int64(1)
    if x["encoding"] != y["encoding"]:
        return np.int64(-1) if x["encoding"] < y["encoding"] else np.int64(1)
    if x["length"] != y["length"]:
        return np.int64(-1) if x["length"] < y["length"] else np.int64(1)
    length = np.int64(x["length"])
    return compare_bytes(data, x["start"], length, data, y["start"], length)


@routine
def _sort_chunks(data, chunks, scratch, low, high):
    """Sort chunks[low:high]; a bottom-up merge sort that leaves ordered neighbours alone."""
    width = np.int64(1)
    while width < high - low:
        for left in range(low, high, 2 * width):
            middle = left + width
            right = min(left + 2 * width, high)
            if middle >= right or _chunk_order(data, chunks[middle - 1], chunks[middle]) <= 0:
                continue
            for k in range(left, right):
                scratch[k] = chunks[k]
            i = left
            j = middle
            for k in range(left, right):
                if j >= right or (i < middle and _chunk_order(data, scratch[i], scratch[j]) <= 0):
                    chunks[k] = scratch[i]
                    i += 1
                else:
                    chunks[k] = scratch[j]
                    j += 1
        width *= 2


@kernel(i64(I64, I64, I64, I64, CHUNKS, BYTES, CHUNKS_OUT, I64_OUT, CHUNKS_OUT))
def join_chunks(order, groups, starts, stops, chunks, data, scratch, out_offsets, out):
    """Join the chunks of equal series, in order, identical ones once; return how many are left.

    Chunks are identical when bounds, encoding and bytes are. The tie-break below (mint, maxt) is
    (encoding, length, bytes): the outcome does not depend on which stream came first.

    Args:
        order: int64[R]; row numbers.
        groups: int64[G + 1]; series g joins the rows order[groups[g]:groups[g + 1]].
        starts: int64[rows]; a row's first chunk.
        stops: int64[rows]; the chunk after a row's last.
        chunks: CHUNK_DTYPE[C], into data.
        data: uint8[n].
        scratch: CHUNK_DTYPE[C].
        out_offsets: int64[G + 1] out.
        out: CHUNK_DTYPE[C] out.

    Returns:
        The number of chunks kept; -1 for a row or chunk out of bounds.
    """
    for c in range(chunks.shape[0]):
        length = np.int64(chunks[c]["length"])
        if chunks[c]["start"] < 0 or length < 0 or chunks[c]["start"] > data.shape[0] - length:
            return np.int64(-1)
    at = np.int64(0)
    out_offsets[0] = 0
    for g in range(groups.shape[0] - 1):
        low = at
        for k in range(groups[g], groups[g + 1]):
            row = order[k]
            if starts[row] < 0 or stops[row] > chunks.shape[0]:
                return np.int64(-1)
            if at + max(stops[row] - starts[row], np.int64(0)) > out.shape[0]:
                return np.int64(-1)
            for c in range(starts[row], stops[row]):
                out[at] = chunks[c]
                at += 1
        _sort_chunks(data, out, scratch, low, at)
        kept = low
        for k in range(low, at):
            if kept == low or _chunk_order(data, out[kept - 1], out[k]) != 0:
                out[kept] = out[k]
                kept += 1
        at = kept
        out_offsets[g + 1] = at
    return at
