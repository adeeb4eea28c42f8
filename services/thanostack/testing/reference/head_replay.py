"""Logged samples to a `HeadModel`; the log's references are a dictionary."""

from thanostack.testing.reference.head_append import DUPLICATE, OUT_OF_BOUNDS, STORED, UNKNOWN
from thanostack.testing.reference.head_model import NEVER


def replay_map_refs(ref_keys, ref_rows, refs, rows, count):
    """Enter references into `ref_keys`, a dictionary."""
    del ref_rows
    before = len(ref_keys)
    pairs = zip(refs[:count].tolist(), rows[:count].tolist(), strict=True)
    ref_keys.update((ref, row) for ref, row in pairs if row >= 0 and ref)
    return len(ref_keys) - before


def replay_apply(head, ref_keys, ref_rows, refs, timestamps, values, bounds, outcome, rows):
    """Append logged samples that are newer than what their series has."""
    del ref_rows, rows
    first, count, mint, chunk_range = bounds.tolist()
    for k in range(first, count):
        t, value = int(timestamps[k]), int(values[k])
        r = ref_keys.get(int(refs[k]))
        if t < mint or t == NEVER:
            outcome[OUT_OF_BOUNDS] += 1
        elif r is None:
            outcome[UNKNOWN] += 1
        elif t <= head.rows[r].last_t:
            if t == head.rows[r].last_t and head.rows[r].open is None:
                head.rows[r].last_v = value
            outcome[DUPLICATE] += 1
        elif head.append(r, t, value, chunk_range):
            outcome[STORED] += 1
        else:
            return k
    return count
