"""Relabeling of whole requests, from the protobuf definitions; tables are a dictionary of runs."""

from itertools import pairwise

from thanostack.testing.reference.protobuf import Malformed, field, fields, read_uvarint, uvarint

MALFORMED, ROWS_FULL, LABELS_FULL = -1, -2, -3
UNCHANGED, DROPPED, CHANGED, MISS = range(4)
STAYS, GOES = -1, -2
_NO_RUN = -1


def known_runs(seen):
    """Return {label run: (start of the new run, its bytes or the outcome)}."""
    runs = {}
    for k in range(int(seen.meta[0])):
        key, size, run, outcome = (int(x) for x in seen.entries[5 * k : 5 * k + 4])
        runs.setdefault(bytes(seen.arena[key : key + size]), (run, outcome))
    return runs


def _series(body, number):
    """Yield (tag, content start, stop) of each series, one byte of tag as senders write it."""
    for found, kind, at, content in fields(body, 0, len(body)):
        if (found, kind) == (number, 2) and (number == 5 or body[at] == 0x0A):
            yield at, *content


def _label_run(body, start, stop):
    labels = [
        (at, content[1])
        for number, kind, at, content in fields(body, start, stop)
        if (number, kind) == (1, 2) and body[at] == 0x0A
    ]
    if not labels:
        return start, start
    if any(a[1] != b[0] for a, b in pairwise(labels)):
        return -1, labels[-1][1]
    return labels[0][0], labels[-1][1]


def _settle(runs, label_run, row, totals):
    if label_run not in runs:
        row[5] = MISS
        totals[0] += 1
        return
    start, outcome = runs[label_run]
    row[5] = {STAYS: UNCHANGED, GOES: DROPPED}.get(outcome, CHANGED)
    if row[5] == DROPPED:
        totals[1] += 1
    elif row[5] == CHANGED:
        row[6], row[7] = start, outcome
        totals[2] += 1
        totals[3] += outcome


def relabel_resolve(body, seen, rows, totals):
    """See the kernel."""
    runs, count = known_runs(seen), 0
    try:
        for tag, begin, stop in _series(body, 1):
            if count * 8 >= len(rows):
                return ROWS_FULL
            row = rows[count * 8 : count * 8 + 8]
            row[:3] = tag, begin, stop
            row[3], row[4] = _label_run(body, begin, stop)
            run = None if row[3] < 0 else bytes(body[row[3] : row[4]])
            _settle(runs, run, row, totals)
            count += 1
    except Malformed:
        return MALFORMED
    return count


def _written_labels(body, symbols, start, stop):
    """Return the label run of a 2.0 series, None for a reference beyond the symbols."""
    texts = [bytes(body[symbols[k] : symbols[k + 1]]) for k in range(0, len(symbols), 2)]
    run = b""
    for number, kind, _, content in fields(body, start, stop):
        if (number, kind) != (1, 2):
            continue
        refs, i = [], content[0]
        while i < content[1]:
            ref, i = read_uvarint(body, i, content[1])
            refs.append(ref)
            if len(refs) % 2 == 1 and i >= content[1]:
                return None
            if len(refs) % 2 == 0:
                if max(refs[-2:]) >= len(texts):
                    return None
                run += field(1, b"".join(field(k + 1, texts[refs[k - 2]]) for k in range(2)))
    return run


def relabel_resolve_v2(body, symbols, labels, seen, rows, totals):
    """See the kernel; `labels` is taken to be large enough."""
    runs, count, top = known_runs(seen), 0, 0
    try:
        for tag, begin, stop in _series(body, 5):
            if count * 8 >= len(rows):
                return ROWS_FULL
            row = rows[count * 8 : count * 8 + 8]
            row[:3] = tag, begin, stop
            run = _written_labels(body, symbols, begin, stop)
            if run is None:
                row[3:6] = _NO_RUN, _NO_RUN, UNCHANGED
            else:
                labels[top : top + len(run)] = list(run)
                row[3:5] = top, top + len(run)
                top += len(run)
                _settle(runs, run, row, totals)
            count += 1
    except Malformed:
        return MALFORMED
    return count


def _new_run(seen, spill, row):
    start, size = int(row[6]), int(row[7])
    data = seen.arena if start >= 0 else spill
    start = start if start >= 0 else -1 - start
    return bytes(data[start : start + size])


def _others(body, start, stop):
    """Return the fields of a series that are no labels."""
    found = list(fields(body, start, stop))
    ends = [at for _, _, at, _ in found[1:]] + [stop]
    return b"".join(
        bytes(body[at:end])
        for (number, _, at, _), end in zip(found, ends, strict=True)
        if number != 1
    )


def _rewritten(body, rows, count, changed_series):
    out, done = b"", 0
    for s in range(count):
        row = rows[s * 8 : s * 8 + 8]
        if row[5] == UNCHANGED:
            continue
        out += bytes(body[done : row[0]])
        if row[5] == CHANGED:
            out += changed_series(row)
        done = int(row[2])
    return out + bytes(body[done:])


def relabel_write(body, seen, spill, rows, count, out):
    """See the kernel."""

    def changed(row):
        start, stop, run = int(row[1]), int(row[2]), _new_run(seen, spill, row)
        if row[3] < 0:
            return field(1, run + _others(body, start, stop))
        return field(1, run + bytes(body[start : row[3]]) + bytes(body[row[4] : stop]))

    text = _rewritten(body, rows, count, changed)
    out[: len(text)] = list(text)
    return len(text)


def relabel_write_v2(body, seen, spill, rows, count, symbol, out):
    """See the kernel."""
    symbols = []

    def changed(row):
        refs = b""
        run = _new_run(seen, spill, row)
        for _, _, _, label in fields(run, 0, len(run)):
            for _, _, _, text in fields(run, *label):
                refs += uvarint(symbol + len(symbols))
                symbols.append(run[text[0] : text[1]])
        packed = field(1, refs) if refs else b""
        return field(5, packed + _others(body, int(row[1]), int(row[2])))

    text = _rewritten(body, rows, count, changed)
    text += b"".join(field(4, each) for each in symbols)
    out[: len(text)] = list(text)
    return len(text)


def relabel_learn(data, spill, rows, misses, seen):
    """See the kernel; which entry follows which, and the hash table, are not kept up."""
    runs = known_runs(seen)
    for k, s in enumerate(misses):
        row = rows[int(s) * 8 : int(s) * 8 + 8]
        if row[3] < 0:
            continue
        key = bytes(data[row[3] : row[4]])
        if key in runs:
            continue
        run = _new_run(seen, spill, row) if row[5] == CHANGED else b""
        entry, top = int(seen.meta[0]), int(seen.meta[1])
        slots = 2 * (entry + 1) > len(seen.table)
        if slots or 5 * (entry + 1) > len(seen.entries) or top + len(key + run) > len(seen.arena):
            return k
        outcome = {UNCHANGED: STAYS, DROPPED: GOES}.get(int(row[5]), len(run))
        seen.arena[top : top + len(key + run)] = list(key + run)
        seen.entries[5 * entry : 5 * entry + 5] = top, len(key), top + len(key), outcome, -1
        seen.meta[:2] = entry + 1, top + len(key + run)
        runs[key] = (top + len(key), outcome)
    return len(misses)
