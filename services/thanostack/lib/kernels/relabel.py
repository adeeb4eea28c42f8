"""Relabeling of whole write requests: what became of a label run before becomes of it again.

    body ──resolve──► rows: unchanged | dropped | changed, with the new run | a miss
                      misses: decided elsewhere, their rows filled in, and learnt
    body + rows ──write──► the new body

`Outcomes` is a hash table from label runs, byte for byte, to what rules made of them. A sender
repeats its series in the same order, so each entry remembers which entry followed it, and comparing
bytes with that guess skips hashing. Entries are only ever added; runs that rows point to stay.

    entries  int64[n, 5] flat: key start, key bytes, run start, run bytes or outcome, next entry
    rows     int64[n, 8] flat, one a series: tag, content start and stop, label run start and stop,
             state, new run start and bytes; a negative run start is -1 - offset in the spill

Label runs of remote write 1.0 lie in the body; of 2.0 they are written out from its symbols, and a
series that changes gets references to symbols of its own at the end of the body.

Source: Prometheus `prompb/remote.proto`, `prompb/io/prometheus/write/v2/types.proto`.
"""

from typing import Any, NamedTuple

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, U64_OUT, Tables, i64
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.remote_write_scan import BAD_SYMBOL, next_field, skip_field
from thanostack.lib.kernels.remote_write_scan import write_labels as write_symbol_labels
from thanostack.lib.kernels.varint import read_length, read_uvarint, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes

MALFORMED, ROWS_FULL, LABELS_FULL = -1, -2, -3
ENTRY_WIDTH, ROW_WIDTH = 5, 8
TAG, BEGIN, STOP, LABELS, LABELS_STOP, STATE, RUN, RUN_BYTES = range(8)
UNCHANGED, DROPPED, CHANGED, MISS = 0, 1, 2, 3
N_MISSES, N_DROPPED, N_CHANGED, N_RUN_BYTES = range(4)
ENTRIES, TOP = 0, 1
STAYS, GOES = -1, -2  # outcomes in the place of the run's bytes


class Outcomes(NamedTuple):
    """The tables, in the order that kernels take them.

    Args:
        meta: int64[2]; entries used, bytes of the arena used.
        entries: int64[n * 5].
        arena: uint8[m]; keys and new runs.
        table: uint64[power of two]; hash32 << 32 | entry + 1, 0 free.
    """

    meta: Any
    entries: Any
    arena: Any
    table: Any


OUTCOMES = Tables(Outcomes, (I64_OUT, I64_OUT, BYTES_OUT, U64_OUT))


@device
def _is_key(seen, entry, data, start, length):
    at = entry * ENTRY_WIDTH
    return seen.entries[at + 1] == length and equal_bytes(
        seen.arena, seen.entries[at], data, start, length
    )


@device
def _find(seen, data, start, length, hashed):
    """Return the entry of a label run, or -1."""
    mask = np.int64(seen.table.shape[0] - 1)
    slot = np.int64(hashed & np.uint64(0x7FFFFFFF)) & mask
    tag = hashed >> np.uint64(32)
    while seen.table[slot] != np.uint64(0):
        value = seen.table[slot]
        if value >> np.uint64(32) == tag:
            entry = np.int64(value & np.uint64(0xFFFFFFFF)) - 1
            if _is_key(seen, entry, data, start, length):
                return entry
        slot = (slot + 1) & mask
    return np.int64(-1)


@device
def _follower(seen, previous):
    """Return the entry that followed an entry last time, -1 if that is not known."""
    if previous < 0:
        return np.int64(-1)
    return seen.entries[previous * ENTRY_WIDTH + 4]


@device
def _look_up(seen, data, rows, at, previous):
    """Return the entry of a row's label run by its hash, or -1; it follows `previous` now."""
    start = rows[at + LABELS]
    stop = rows[at + LABELS_STOP]
    entry = _find(seen, data, start, stop - start, xxh64(data, start, stop))
    if entry >= 0 and previous >= 0:
        seen.entries[previous * ENTRY_WIDTH + 4] = entry
    return entry


@device
def _settle(seen, entry, rows, at, totals):
    """Fill in what became of a row, -1 for a miss."""
    if entry < 0:
        rows[at + STATE] = MISS
        totals[N_MISSES] += 1
        return
    run = seen.entries[entry * ENTRY_WIDTH + 3]
    if run == STAYS:
        rows[at + STATE] = UNCHANGED
    elif run == GOES:
        rows[at + STATE] = DROPPED
        totals[N_DROPPED] += 1
    else:
        rows[at + STATE] = CHANGED
        rows[at + RUN] = seen.entries[entry * ENTRY_WIDTH + 2]
        rows[at + RUN_BYTES] = run
        totals[N_CHANGED] += 1
        totals[N_RUN_BYTES] += run


@device
def _begins_with(seen, entry, body, begin, end):
    """Return whether a 1.0 series is an entry's label run and then no label; bytes, not fields."""
    length = seen.entries[entry * ENTRY_WIDTH + 1]
    if length > end - begin or not _is_key(seen, entry, body, begin, length):
        return False
    i = begin + length
    while i < end:
        if body[i] == 0x12:
            length, i = read_length(body, i + 1, end)
            if i < 0:
                return False
            i += length
        else:
            key, i = read_uvarint(body, i, end)
            if i < 0 or key <= np.uint64(0x0A):
                return False
            i = skip_field(body, i, end, np.int64(key & np.uint64(7)))
            if i < 0:
                return False
    return True


@device
def _label_bounds(body, i, stop, rows, at):
    """Write the bounds of the label run of a 1.0 series; False if the series is malformed.

    The start is -1 where the label fields do not stand together.
    """
    start = i
    end = i
    seen = False
    regular = True
    while i < stop:
        if body[i] == 0x0A:
            length, inner = read_length(body, i + 1, stop)
            if inner < 0:
                return False
            if not seen:
                start = i
                seen = True
            elif i != end:
                regular = False
            i = inner + length
            end = i
        else:
            _, inner, i = next_field(body, i, stop)
            if i < 0:
                return False
    rows[at + LABELS] = start if regular else -1
    rows[at + LABELS_STOP] = end
    return True


@kernel(i64(BYTES, OUTCOMES, I64_OUT, I64_OUT))
def relabel_resolve(body, seen, rows, totals):
    """Find what became of each label run of a remote write 1.0 request.

    Args:
        body: uint8[n].
        seen: the tables; only which entry follows which is written.
        rows: int64[S * 8], written.
        totals: int64[4], raised by misses, dropped and changed series, and bytes of new runs.

    Returns:
        The number of series, MALFORMED, or ROWS_FULL when there are more than S.

    Cost: about 45 ns a series of ten labels that came in the same order before.
    """
    i = np.int64(0)
    stop = np.int64(body.shape[0])
    count = np.int64(0)
    previous = np.int64(-1)
    while i < stop:
        if body[i] != 0x0A:
            _, _, i = next_field(body, i, stop)
            if i < 0:
                return np.int64(MALFORMED)
            continue
        length, begin = read_length(body, i + 1, stop)
        if begin < 0:
            return np.int64(MALFORMED)
        at = count * ROW_WIDTH
        if at >= rows.shape[0]:
            return np.int64(ROWS_FULL)
        rows[at + TAG] = i
        rows[at + BEGIN] = begin
        rows[at + STOP] = begin + length
        i = begin + length
        entry = _follower(seen, previous)
        if entry >= 0 and _begins_with(seen, entry, body, begin, i):
            rows[at + LABELS] = begin
            rows[at + LABELS_STOP] = begin + seen.entries[entry * ENTRY_WIDTH + 1]
        elif not _label_bounds(body, begin, i, rows, at):
            return np.int64(MALFORMED)
        elif rows[at + LABELS] < 0:
            entry = np.int64(-1)
        else:
            entry = _look_up(seen, body, rows, at, previous)
        _settle(seen, entry, rows, at, totals)
        previous = entry
        count += 1
    return count


@device
def _write_refs(body, i, stop, symbols, labels, at):
    """Write out the label run of a 2.0 series; return the offset after it, or a status."""
    while i < stop:
        key, inner, i = next_field(body, i, stop)
        if i < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x0A):
            length, inner = read_length(body, inner, stop)
            at = write_symbol_labels(body, inner, inner + length, symbols, labels, at)
            if at < 0:
                return np.int64(at)
    return np.int64(at)


@kernel(i64(BYTES, I64, BYTES_OUT, OUTCOMES, I64_OUT, I64_OUT))
def relabel_resolve_v2(body, symbols, labels, seen, rows, totals):
    """Find what became of each label run of a remote write 2.0 request.

    Args:
        body: uint8[n].
        symbols: int64[2 K] of `remote_write_symbols`.
        labels: uint8[m], written; the label runs, which rows index. A series with a reference
            beyond the symbols has none and stays unchanged: storage refuses it.
        seen, rows, totals: as `relabel_resolve`.

    Returns:
        As `relabel_resolve`; LABELS_FULL when the runs do not fit.
    """
    i = np.int64(0)
    stop = np.int64(body.shape[0])
    count = np.int64(0)
    top = np.int64(0)
    previous = np.int64(-1)
    while i < stop:
        key, inner, end = next_field(body, i, stop)
        if end < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x2A):
            at = count * ROW_WIDTH
            if at >= rows.shape[0]:
                return np.int64(ROWS_FULL)
            _, begin = read_length(body, inner, stop)
            rows[at + TAG] = i
            rows[at + BEGIN] = begin
            rows[at + STOP] = end
            after = _write_refs(body, begin, end, symbols, labels, top)
            if after == BAD_SYMBOL:
                rows[at + LABELS] = -1
                rows[at + LABELS_STOP] = -1
                rows[at + STATE] = UNCHANGED
                previous = np.int64(-1)
            elif after < 0:
                return np.int64(MALFORMED) if after == MALFORMED else np.int64(LABELS_FULL)
            else:
                rows[at + LABELS] = top
                rows[at + LABELS_STOP] = after
                entry = _follower(seen, previous)
                if entry < 0 or not _is_key(seen, entry, labels, top, after - top):
                    entry = _look_up(seen, labels, rows, at, previous)
                _settle(seen, entry, rows, at, totals)
                previous = entry
                top = after
            count += 1
        i = end
    return count


@device
def _copy_run(seen, spill, rows, at, out, to):
    """Write the new run of a row; return the offset after it."""
    run = rows[at + RUN]
    length = rows[at + RUN_BYTES]
    if run >= 0:
        copy_bytes(seen.arena, run, length, out, to)
    else:
        copy_bytes(spill, -1 - run, length, out, to)
    return to + length


@device
def _copy_others(body, i, stop, out, to):
    """Write the fields of a series that are no labels (field 1); return the offset after them."""
    while i < stop:
        key, inner = read_uvarint(body, i, stop)
        end = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
        if key >> np.uint64(3) != np.uint64(1):
            copy_bytes(body, i, end - i, out, to)
            to += end - i
        i = end
    return to


@device
def _others_size(body, i, stop):
    size = np.int64(0)
    while i < stop:
        key, inner = read_uvarint(body, i, stop)
        end = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
        if key >> np.uint64(3) != np.uint64(1):
            size += end - i
        i = end
    return size


@device
def _write_changed(body, seen, spill, rows, at, out, to):
    """Write a 1.0 series with its new labels in front; return the offset after it."""
    begin, stop = rows[at + BEGIN], rows[at + STOP]
    labels, after = rows[at + LABELS], rows[at + LABELS_STOP]
    if labels >= 0:
        others = (stop - begin) - (after - labels)
    else:
        others = _others_size(body, begin, stop)
    out[to] = np.uint8(0x0A)
    to = write_uvarint(out, to + 1, np.uint64(rows[at + RUN_BYTES] + others))
    to = _copy_run(seen, spill, rows, at, out, to)
    if labels < 0:
        return _copy_others(body, begin, stop, out, to)
    copy_bytes(body, begin, labels - begin, out, to)
    to += labels - begin
    copy_bytes(body, after, stop - after, out, to)
    return to + stop - after


@kernel(i64(BYTES, OUTCOMES, BYTES, I64, i64, BYTES_OUT))
def relabel_write(body, seen, spill, rows, count, out):
    """Write a request anew: dropped series left out, changed ones of 1.0 with their new labels.

    Args:
        body: uint8[n]; 1.0, or 2.0 where no series changed.
        seen: the tables that rows refer to.
        spill: uint8[k]; new runs that the tables do not have.
        rows: int64[count * 8]; none a miss.
        count: of series.
        out: uint8[m], written; n + the bytes of new runs + 10 a changed series are enough.

    Returns:
        The bytes written.
    """
    done = np.int64(0)
    to = np.int64(0)
    for s in range(count):
        at = s * ROW_WIDTH
        if rows[at + STATE] == UNCHANGED:
            continue
        copy_bytes(body, done, rows[at + TAG] - done, out, to)
        to += rows[at + TAG] - done
        done = rows[at + STOP]
        if rows[at + STATE] == CHANGED:
            to = _write_changed(body, seen, spill, rows, at, out, to)
    copy_bytes(body, done, body.shape[0] - done, out, to)
    return to + body.shape[0] - done


@device
def _text(data, i):
    """Return (start, length) of the name or value field at `i` of a well-formed Label."""
    length, inner = read_length(data, i + 1, np.int64(data.shape[0]))
    return inner, length


@device
def _refs_size(run, i, stop, symbol):
    """Return the bytes of the references that the labels of a run take, and the next symbol."""
    size = np.int64(0)
    while i < stop:
        length, inner = read_length(run, i + 1, stop)
        size += uvarint_size(np.uint64(symbol)) + uvarint_size(np.uint64(symbol + 1))
        symbol += 2
        i = inner + length
    return size, symbol


@routine
def _write_changed_v2(body, run, i, stop, begin, end, symbol, out, to):
    """Write a 2.0 series with references to new symbols; return (offset after, next symbol)."""
    refs, following = _refs_size(run, i, stop, symbol)
    size = _others_size(body, begin, end) + refs
    if refs > 0:
        size += 1 + uvarint_size(np.uint64(refs))
    out[to] = np.uint8(0x2A)
    to = write_uvarint(out, to + 1, np.uint64(size))
    if refs > 0:
        out[to] = np.uint8(0x0A)
        to = write_uvarint(out, to + 1, np.uint64(refs))
        while symbol < following:
            to = write_uvarint(out, to, np.uint64(symbol))
            symbol += 1
    return _copy_others(body, begin, end, out, to), following


@routine
def _write_symbols(run, i, stop, out, to):
    """Write the names and values of a run as symbols; return the offset after them."""
    while i < stop:
        length, inner = read_length(run, i + 1, stop)
        i = inner + length
        while inner < i:
            start, size = _text(run, inner)
            out[to] = np.uint8(0x22)
            to = write_uvarint(out, to + 1, np.uint64(size))
            copy_bytes(run, start, size, out, to)
            to += size
            inner = start + size
    return to


@kernel(i64(BYTES, OUTCOMES, BYTES, I64, i64, i64, BYTES_OUT))
def relabel_write_v2(body, seen, spill, rows, count, symbol, out):
    """Write a 2.0 request anew: dropped series left out, changed ones with symbols of their own.

    Args:
        body, seen, spill, rows, count: as `relabel_write`.
        symbol: how many symbols the body has.
        out: uint8[m], written; n + 3 times the bytes of new runs + 32 a changed series are enough.

    Returns:
        The bytes written.
    """
    done = np.int64(0)
    to = np.int64(0)
    for s in range(count):
        at = s * ROW_WIDTH
        if rows[at + STATE] == UNCHANGED:
            continue
        copy_bytes(body, done, rows[at + TAG] - done, out, to)
        to += rows[at + TAG] - done
        done = rows[at + STOP]
        if rows[at + STATE] == CHANGED:
            begin, run, size = rows[at + BEGIN], rows[at + RUN], rows[at + RUN_BYTES]
            if run >= 0:
                to, symbol = _write_changed_v2(
                    body, seen.arena, run, run + size, begin, done, symbol, out, to
                )
            else:
                run = -1 - run
                to, symbol = _write_changed_v2(
                    body, spill, run, run + size, begin, done, symbol, out, to
                )
    copy_bytes(body, done, body.shape[0] - done, out, to)
    to += body.shape[0] - done
    for s in range(count):
        at = s * ROW_WIDTH
        if rows[at + STATE] == CHANGED:
            run, size = rows[at + RUN], rows[at + RUN_BYTES]
            if run >= 0:
                to = _write_symbols(seen.arena, run, run + size, out, to)
            else:
                to = _write_symbols(spill, -1 - run, -1 - run + size, out, to)
    return to


@kernel(i64(BYTES, BYTES, I64, I64, OUTCOMES))
def relabel_learn(data, spill, rows, misses, seen):
    """Add what was decided of label runs to the tables, as far as they have room.

    Args:
        data: uint8[n]; what the rows' label runs index.
        spill: uint8[k]; their new runs.
        rows: int64[S * 8].
        misses: int64[m]; the rows to learn; one without a label run is left out.
        seen: the tables.

    Returns:
        How many of `misses` are done with; fewer than m when the tables are full.
    """
    for k in range(misses.shape[0]):
        at = misses[k] * ROW_WIDTH
        start = rows[at + LABELS]
        if start < 0:
            continue
        length = rows[at + LABELS_STOP] - start
        hashed = xxh64(data, start, start + length)
        if _find(seen, data, start, length, hashed) >= 0:
            continue
        entry = seen.meta[ENTRIES]
        top = seen.meta[TOP]
        run = rows[at + RUN_BYTES] if rows[at + STATE] == CHANGED else np.int64(0)
        if (entry + 1) * ENTRY_WIDTH > seen.entries.shape[0]:
            return np.int64(k)
        if top + length + run > seen.arena.shape[0] or 2 * (entry + 1) > seen.table.shape[0]:
            return np.int64(k)
        copy_bytes(data, start, length, seen.arena, top)
        place = entry * ENTRY_WIDTH
        seen.entries[place] = top
        seen.entries[place + 1] = length
        seen.entries[place + 2] = top + length
        seen.entries[place + 3] = run
        seen.entries[place + 4] = -1
        if rows[at + STATE] == UNCHANGED:
            seen.entries[place + 3] = STAYS
        elif rows[at + STATE] == DROPPED:
            seen.entries[place + 3] = GOES
        else:
            copy_bytes(spill, -1 - rows[at + RUN], run, seen.arena, top + length)
        seen.meta[ENTRIES] = entry + 1
        seen.meta[TOP] = top + length + run
        mask = np.int64(seen.table.shape[0] - 1)
        slot = np.int64(hashed & np.uint64(0x7FFFFFFF)) & mask
        while seen.table[slot] != np.uint64(0):
            slot = (slot + 1) & mask
        seen.table[slot] = (hashed >> np.uint64(32)) << np.uint64(32) | np.uint64(entry + 1)
    return np.int64(misses.shape[0])
