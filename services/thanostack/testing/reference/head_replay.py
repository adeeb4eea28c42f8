"""Logged samples to a `HeadModel`; the log's references are a dictionary."""

from thanostack.testing.reference.head_append import DUPLICATE, OUT_OF_BOUNDS, STORED, UNKNOWN
from thanostack.testing.reference.head_model import NEVER


def replay_map_refs(ref_keys, ref_rows, ref_lasts, refs, rows, lasts, count):
    """Enter references into `ref_keys`, a dictionary of rows and their last timestamps."""
    del ref_rows, ref_lasts
    before = len(ref_keys)
    entries = zip(*(column[:count].tolist() for column in (refs, rows, lasts)), strict=True)
    ref_keys.update((ref, (row, last)) for ref, row, last in entries if row >= 0 and ref)
    return len(ref_keys) - before


def replay_find_rows(ref_keys, ref_rows, ref_lasts, refs, mint, timestamps, values, rows, outcome):
    """Move the samples that have a row and are not too old together."""
    del ref_rows, ref_lasts
    kept = []
    for k in range(len(refs)):
        t, found = int(timestamps[k]), ref_keys.get(int(refs[k]))
        if t < mint or t == NEVER:
            outcome[OUT_OF_BOUNDS] += 1
        elif found is None:
            outcome[UNKNOWN] += 1
        elif t < found[1]:
            outcome[DUPLICATE] += 1
        else:
            kept.append((found[0], t, int(values[k])))
    for at, sample in enumerate(kept):
        rows[at], timestamps[at], values[at] = sample
    return len(kept)


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
