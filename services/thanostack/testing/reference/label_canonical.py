"""Canonical label runs, from docs/formats/label-run.md."""

from thanostack.testing.reference.protobuf import Malformed, field, fields

MALFORMED, FULL, EMPTY_NAME, DUPLICATE_NAME, NOT_UTF8, TOO_MANY, EMPTY_VALUE, NO_LABELS = range(
    -1, -9, -1
)
TOO_LONG = -9


def _is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def canonicalise(body, start, stop, labels_max):
    """Return the canonical bytes of the labels in a range, or the status of the first fault."""
    labels = []
    try:
        for number, kind, _, content in fields(body, start, stop):
            if (number, kind) != (1, 2):
                continue
            if len(labels) == labels_max:
                return TOO_MANY
            pair = [b"", b""]
            for inner, inner_kind, _, value in fields(body, *content):
                if inner in (1, 2) and inner_kind == 2:
                    pair[inner - 1] = bytes(body[value[0] : value[1]])
            if not pair[0]:
                return EMPTY_NAME
            if not pair[1]:
                return EMPTY_VALUE
            if max(map(len, pair)) > 65_536:
                return TOO_LONG
            if any(name == pair[0] for name, _ in labels):
                return DUPLICATE_NAME
            labels.append(tuple(pair))
    except Malformed:
        return MALFORMED
    if not labels:
        return NO_LABELS
    if not all(_is_utf8(text) for pair in labels for text in pair):
        return NOT_UTF8
    return b"".join(field(1, field(1, name) + field(2, value)) for name, value in sorted(labels))


def label_canonicalise(body, bounds, found, fields, out, canonical, statuses):
    """See the kernel; `out` is large enough."""
    at = refused = 0
    for s, row in enumerate(found):
        canonical[2 * s] = canonical[2 * s + 1] = -1
        statuses[s] = 0
        if row >= 0:
            continue
        start = int(bounds[2 * s])
        start = -1 - start if start < 0 else start
        run = canonicalise(body, start, int(bounds[2 * s + 1]), len(fields) // 4)
        if isinstance(run, int):
            statuses[s] = run
            refused += 1
            continue
        out[at : at + len(run)] = list(run)
        canonical[2 * s], canonical[2 * s + 1] = at, at + len(run)
        at += len(run)
    return refused
