"""The series table with dictionaries, on a `HeadModel`."""

import xxhash

from thanostack.lib.model.label_runs import decode_run
from thanostack.testing.reference.head_model import Row, pairs_of
from thanostack.testing.reference.head_pairs import PAIRS_FULL, fill

ROWS_FULL, KEYS_FULL = -3, -4


def _run(data, bounds, s):
    return data[int(bounds[2 * s]) : int(bounds[2 * s + 1])].tobytes()


def head_resolve(head, data, bounds, count, found):
    """Look runs up."""
    for s in range(count):
        found[s] = -1 if bounds[2 * s] < 0 else head.by_run.get(_run(data, bounds, s), -1)
    return int((found[:count] < 0).sum())


def _room(head, run):
    """Return 0, or what has no room for one more series; a label may need two records."""
    if head.keys_top + len(run) > head.keys_max:
        return KEYS_FULL
    if not head.freed and len(head.rows) >= head.rows_max:
        return ROWS_FULL
    if len(head.records) + 2 * len(decode_run(run)) > head.pairs_max:
        return PAIRS_FULL
    return PAIRS_FULL if head.pair_bytes + 2 * len(run) > head.pair_bytes_max else 0


def head_create(head, data, bounds, first, count, refs, rows, created):
    """Look runs up, and make those that are missing."""
    for s in range(first, count):
        if bounds[2 * s] < 0:
            continue
        run, ref = _run(data, bounds, s), int(refs[s])
        if run not in head.by_run:
            if 2 * (len(head.rows) + 1) > head.table:
                return s
            if 2 * (len(head.records) + 2 * len(decode_run(run))) > head.pair_table:
                return s
            status = _room(head, run)
            if status:
                return status
            ref = ref or head.next_ref
            if head.freed:
                r = head.freed.pop()
                head.rows[r] = Row(run, ref)
            else:
                r = len(head.rows)
                head.rows.append(Row(run, ref))
            head.by_run[run] = r
            head.index(run, r)
            created[0] += 1
            created[created[0]] = s
        head.next_ref = max(head.next_ref, ref + 1)
        rows[s] = head.by_run[run]
    return count


def head_rehash_rows(head, table):
    """Enter every row: the hash's high half is the tag, its low 31 bits the place."""
    entries = []
    for r, row in enumerate(head.rows):
        if row.run is not None:
            hashed = xxhash.xxh64_intdigest(row.run)
            entries.append((hashed >> 32, hashed & 0x7FFFFFFF, r))
    return fill(table, entries)


def head_alive_rows(head, out):
    """List the rows in use."""
    found = [r for r, row in enumerate(head.rows) if row.run is not None]
    out[: len(found)] = found
    return len(found)


def head_reindex(head, fresh, first, stop, keys):
    """Index rows with a chunk anew."""
    for r in range(first, stop):
        row = head.rows[r]
        lives = row.open is not None or head.chunks_of(r)
        if row.run is None or keys[r] >= 0 or not lives:
            continue
        if 2 * (fresh.alive + 1) > fresh.table:
            return r
        if 2 * (len(fresh.records) + 2 * len(pairs_of(row.run))) > fresh.pair_table:
            return r
        keys[r] = fresh.keys_top
        fresh.by_run[row.run] = r
        fresh.index(row.run, r)
    return stop


def head_swap_index(head, keys, dropped):
    """Free the rows that were not indexed anew."""
    gone = [r for r, row in enumerate(head.rows) if row.run is not None and keys[r] < 0]
    for k, r in enumerate(gone):
        dropped[k] = head.rows[r].ref
        head.rows[r].run = None
        head.freed.append(r)
    return len(gone)
