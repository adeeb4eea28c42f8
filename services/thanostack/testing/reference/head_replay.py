"""Logged samples to a `HeadModel`; the log's references are a dictionary."""

import struct

from thanostack.testing.reference.head_append import DUPLICATE, OUT_OF_BOUNDS, STORED, UNKNOWN
from thanostack.testing.reference.wal_records import BAD, DONE, FULL, Undecodable, samples_of_record


def replay_map_refs(table, refs, rows, lasts, count):
    """Enter references into `table`, a dictionary of rows and their last timestamps."""
    before = len(table)
    entries = zip(*(column[:count].tolist() for column in (refs, rows, lasts)), strict=True)
    table.update((ref, (row, last)) for ref, row, last in entries if row >= 0 and ref)
    return len(table) - before


def _outcome(table, ref, t, mint):
    if t < mint:
        return OUT_OF_BOUNDS
    if ref not in table:
        return UNKNOWN
    return DUPLICATE if t < table[ref][1] else STORED


def replay_gather(table, data, bounds, begin, timestamps, values, rows, outcome, state):
    """Append the samples of whole records that have a row and are not too old to the columns."""
    first, at, mint = begin.tolist()
    state[:2] = [DONE, len(bounds) - 1]
    for record in range(first, len(bounds) - 1):
        body = data[bounds[record] : bounds[record + 1]].tobytes()
        if body[:1] in {b"\x02", b"\x0b"} and len(body) // 10 > len(rows) - at:
            state[:2] = [FULL, record]
            break
        try:
            samples = samples_of_record(body) or []
        except Undecodable:
            state[:2] = [BAD, record]
            break
        for ref, t, value in samples:
            found = _outcome(table, ref, t, mint)
            if found == STORED:
                (bits,) = struct.unpack(">Q", struct.pack(">d", value))
                rows[at], timestamps[at], values[at] = table[ref][0], t, bits
                at += 1
            else:
                outcome[found] += 1
    return at


def replay_order(rows, count, ends, order):
    """Sort by row; Python's sort keeps the order of equals."""
    del ends
    order[:count] = sorted(range(count), key=rows.__getitem__)
    return count


def replay_apply(head, rows, timestamps, values, order, bounds, outcome):
    """Append logged samples that are newer than what their series has."""
    first, count, closed_max, chunk_range = bounds.tolist()
    for j in range(first, count):
        k = order[j]
        r, t, value = int(rows[k]), int(timestamps[k]), int(values[k])
        if t <= head.rows[r].last_t:
            if t == head.rows[r].last_t and head.rows[r].open is None:
                head.rows[r].last_v = value
            outcome[DUPLICATE] += 1
        elif head.closed_top > closed_max or not head.append(r, t, value, chunk_range):
            return j
        else:
            outcome[STORED] += 1
    return count
