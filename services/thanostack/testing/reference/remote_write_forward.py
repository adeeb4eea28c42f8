"""Plain-Python twins of the kernels that take write requests apart by node."""

from thanostack.testing.reference.protobuf import Malformed, field, fields, read_uvarint

MALFORMED, SERIES_FULL, OUT_FULL, BAD_SYMBOL = -1, -2, -4, -5


class _BadSymbol(Exception):
    pass


def forward_scan(body, starts, bounds, counts, totals):
    """See the kernel."""
    found = []
    try:
        for number, kind, at, content in fields(body, 0, len(body)):
            if (number, kind) == (1, 2):
                kinds = [(n, k) for n, k, _, _ in fields(body, *content)]
                found.append((at, content, [kinds.count((n, 2)) for n in (2, 4, 3)]))
    except Malformed:
        return MALFORMED
    if len(found) > len(starts):
        return SERIES_FULL
    for s, (at, content, seen) in enumerate(found):
        starts[s] = at
        bounds[2 * s : 2 * s + 2] = content
        counts[3 * s : 3 * s + 3] = seen
    totals[:] = [sum(seen[k] for _, _, seen in found) for k in range(3)]
    return len(found)


def forward_group(placement, replicas, n_nodes, starts, bounds, groups, order):
    """See the kernel."""
    shares = {share: [] for share in range(replicas * n_nodes)}
    for at, node in enumerate(placement):
        series, replica = divmod(at, replicas)
        shares[int(node) * replicas + replica].append(series)
    first = 0
    for share, series in shares.items():
        size = sum(int(bounds[2 * s + 1]) - int(starts[s]) for s in series)
        groups[share * 3 : share * 3 + 3] = [first, len(series), size]
        order[first : first + len(series)] = series
        first += len(series)
    return sum(bool(series) for series in shares.values())


def forward_gather(body, starts, bounds, series, out, at):
    """See the kernel."""
    entries = b"".join(bytes(body[int(starts[s]) : int(bounds[2 * s + 1])]) for s in series)
    out[at : at + len(entries)] = list(entries)
    return at + len(entries)


def _labels(body, start, stop, symbols):
    refs = []
    while start < stop:
        value, start = read_uvarint(body, start, stop)
        refs.append(value)
    if len(refs) % 2 or any(ref >= len(symbols) // 2 for ref in refs):
        raise _BadSymbol
    texts = [bytes(body[symbols[2 * ref] : symbols[2 * ref + 1]]) for ref in refs]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return b"".join(field(1, field(1, name) + field(2, value)) for name, value in pairs)


def _exemplar(body, start, stop, symbols):
    out, spans = b"", [(at, n, k, c) for n, k, at, c in fields(body, start, stop)]
    ends = [at for at, _, _, _ in spans[1:]] + [stop]
    for (at, number, kind, content), end in zip(spans, ends, strict=True):
        is_labels = (number, kind) == (1, 2)
        out += _labels(body, *content, symbols) if is_labels else bytes(body[at:end])
    return out


def _series(body, start, stop, symbols):
    out = b""
    for number, kind, _, content in fields(body, start, stop):
        if kind != 2:
            continue
        if number == 1:
            out += _labels(body, *content, symbols)
        elif number == 2:
            out += field(2, bytes(body[content[0] : content[1]]))
        elif number == 3:
            out += field(4, bytes(body[content[0] : content[1]]))
        elif number == 4:
            out += field(3, _exemplar(body, *content, symbols))
    return out


def forward_translate(body, symbols, out):
    """See the kernel; `out` is large enough."""
    written = b""
    try:
        for number, kind, _, content in fields(body, 0, len(body)):
            if (number, kind) == (5, 2):
                written += field(1, _series(body, *content, symbols))
    except Malformed:
        return MALFORMED
    except _BadSymbol:
        return BAD_SYMBOL
    out[: len(written)] = list(written)
    return len(written)
