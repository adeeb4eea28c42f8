"""Scanning a write request, from the field tables of docs/formats and nothing else."""

from itertools import pairwise

from thanostack.testing.reference.protobuf import Malformed, field, fields, read_uvarint

MALFORMED, SERIES_FULL, SAMPLES_FULL, LABELS_FULL, BAD_SYMBOL = -1, -2, -3, -4, -5


def read_sample(body, start, stop):
    """Return (timestamp, value bits) of a Sample."""
    t = value = 0
    for number, kind, _, content in fields(body, start, stop):
        if (number, kind) == (1, 1):
            value = int.from_bytes(bytes(body[content[0] : content[1]]), "little")
        elif (number, kind) == (2, 0):
            t = content - (1 << 64) if content >> 63 else content
    return t, value


def _series(body, start, stop, stats):
    runs, samples = [], []
    for number, kind, at, content in fields(body, start, stop):
        if kind != 2:
            continue
        if number == 1:
            runs.append((at, content[1]))
        elif number == 2:
            samples.append(read_sample(body, *content))
        elif number == 3:
            stats[1] += 1
        elif number == 4:
            stats[0] += 1
    joined = all(a[1] == b[0] for a, b in pairwise(runs))
    if not runs:
        return (start, start), samples
    return ((runs[0][0], runs[-1][1]) if joined else (-1 - start, stop)), samples


def _store(series, bounds, offsets, timestamps, values):
    if 2 * len(series) > len(bounds):
        return SERIES_FULL
    if sum(len(samples) for _, samples in series) > len(timestamps):
        return SAMPLES_FULL
    n = 0
    offsets[0] = 0
    for s, (run, samples) in enumerate(series):
        bounds[2 * s], bounds[2 * s + 1] = run
        for t, value in samples:
            timestamps[n], values[n] = t, value
            n += 1
        offsets[s + 1] = n
    return len(series)


def remote_write_scan(body, first, stop, bounds, offsets, timestamps, values, stats):
    """See the kernel."""
    series = []
    try:
        for number, kind, _, content in fields(body, first, stop):
            if (number, kind) == (1, 2):
                series.append(_series(body, *content, stats))
            elif (number, kind) == (3, 2):
                stats[2] += 1
    except Malformed:
        return MALFORMED
    return _store(series, bounds, offsets, timestamps, values)


def remote_write_symbols(body, symbols):
    """See the kernel."""
    count = 0
    try:
        for number, kind, _, content in fields(body, 0, len(body)):
            if (number, kind) == (4, 2):
                if 2 * count + 2 > len(symbols):
                    return SERIES_FULL
                symbols[2 * count], symbols[2 * count + 1] = content
                count += 1
    except Malformed:
        return MALFORMED
    return count


def _packed(body, start, stop):
    refs = []
    while start < stop:
        value, start = read_uvarint(body, start, stop)
        refs.append(value)
    return refs


def _labels_v2(body, symbols, refs):
    out = b""
    if len(refs) % 2:
        return None
    for name, value in zip(refs[::2], refs[1::2], strict=True):
        if max(name, value) >= len(symbols) // 2:
            return None
        texts = [bytes(body[symbols[2 * i] : symbols[2 * i + 1]]) for i in (name, value)]
        out += field(1, field(1, texts[0]) + field(2, texts[1]))
    return out


def remote_write_scan_v2(body, symbols, labels, bounds, offsets, timestamps, values, stats):
    """See the kernel; `labels` is large enough."""
    series, at = [], 0
    try:
        for number, kind, _, content in fields(body, 0, len(body)):
            if (number, kind) != (5, 2):
                continue
            run, samples = b"", []
            for inner, inner_kind, _, value in fields(body, *content):
                if inner_kind != 2:
                    continue
                if inner == 1 and run is not None:
                    more = _labels_v2(body, symbols, _packed(body, *value))
                    run = None if more is None else run + more
                    if run is None:
                        break
                elif inner == 2:
                    samples.append(read_sample(body, *value))
                elif inner in (3, 4, 5):
                    stats[(0, 1, 2)[inner - 3]] += 1
            if run is None:
                series.append(((BAD_SYMBOL, 0), []))
                continue
            labels[at : at + len(run)] = list(run)
            series.append(((at, at + len(run)), samples))
            at += len(run)
    except Malformed:
        return MALFORMED
    stats[3] = at
    return _store(series, bounds, offsets, timestamps, values)
