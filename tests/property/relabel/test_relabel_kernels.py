"""The kernels that relabel requests equal their plain twins, on good and hostile bytes."""

from __future__ import annotations

import copy

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import relabel as kernels
from thanostack.lib.kernels.relabel import Outcomes
from thanostack.lib.kernels.remote_write_scan import remote_write_symbols
from thanostack.testing.examples import examples
from thanostack.testing.reference import relabel as reference
from thanostack.testing.reference.protobuf import field, uvarint

PROFILE = examples(80)
TEXT = st.sampled_from([b"", b"a", b"b", b"job", b"up" * 5, b"\xff", b"x" * 200])
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=4)
OTHER = st.sampled_from(
    [field(2, b"\x10\x05"), field(4, b"h"), field(3, b""), b"\x48\x05", field(9, b"z")]
)
ROOM = 16


def run_of(pairs):
    return b"".join(field(1, field(1, name) + field(2, value)) for name, value in pairs)


def runs_of(pairs):
    return [field(1, field(1, name) + field(2, value)) for name, value in pairs]


@st.composite
def series(draw):
    """A 1.0 series: mostly labels first, sometimes anywhere."""
    labels, others = runs_of(draw(PAIRS)), draw(st.lists(OTHER, max_size=3))
    parts = labels + others
    return b"".join(draw(st.permutations(parts)) if draw(st.integers(0, 5)) == 0 else parts)


@st.composite
def requests(draw):
    """A 1.0 request, with fields that are no series between them."""
    pieces = [field(1, content) for content in draw(st.lists(series(), max_size=6))]
    pieces += draw(st.lists(st.sampled_from([field(3, b"meta"), b"\x48\x05"]), max_size=2))
    return b"".join(draw(st.permutations(pieces)))


@st.composite
def requests_v2(draw):
    """A 2.0 request; some references lead nowhere."""
    symbols = [b"", *draw(st.lists(TEXT, min_size=1, max_size=5))]
    body = b"".join(field(4, symbol) for symbol in symbols)
    for _ in range(draw(st.integers(0, 5))):
        refs = draw(st.lists(st.integers(0, len(symbols)), max_size=6))
        if draw(st.booleans()):
            refs = [min(ref, len(symbols) - 1) for ref in refs[: len(refs) // 2 * 2]]
        labels = field(1, b"".join(uvarint(ref) for ref in refs))
        body += field(5, labels + b"".join(draw(st.lists(OTHER, max_size=2))))
    return body


def damaged(draw, body):
    """Return the body, perhaps cut or with a byte changed."""
    kind = draw(st.sampled_from(["whole", "whole", "cut", "flip"]))
    if kind == "cut":
        return body[: draw(st.integers(0, len(body)))]
    if kind == "flip" and body:
        at = draw(st.integers(0, len(body) - 1))
        return body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
    return body


def fresh(entries=64, arena=1 << 14, slots=128):
    return Outcomes(
        np.zeros(2, np.int64), np.zeros(entries * kernels.ENTRY_WIDTH, np.int64),
        np.zeros(arena, np.uint8), np.zeros(slots, np.uint64),
    )  # fmt: skip


def as_array(data):
    return np.frombuffer(data, np.uint8)


def resolved(module, body, seen, version):
    """Return (status, rows, totals, label bytes) of a body."""
    rows, totals = np.full(ROOM * 8, -7, np.int64), np.zeros(4, np.int64)
    if version == 1:
        return int(module.relabel_resolve(as_array(body), seen, rows, totals)), rows, totals, body
    symbols = np.zeros(64, np.int64)
    count = int(remote_write_symbols(as_array(body), symbols))
    if count < 0:
        return count, rows, totals, b""
    labels = np.zeros(1 << 14, np.uint8)
    status = int(
        module.relabel_resolve_v2(as_array(body), symbols[: 2 * count], labels, seen, rows, totals)
    )
    return status, rows, totals, labels.tobytes()


def decide(draw, rows, count):
    """Give each miss an outcome and return (indices, spill)."""
    spill, misses = b"", []
    for s in range(count):
        row = rows[8 * s : 8 * s + 8]
        if row[kernels.STATE] == kernels.MISS:
            misses.append(s)
            run = run_of(draw(PAIRS))
            row[kernels.STATE] = draw(st.sampled_from([0, 1, 2]))
            if row[kernels.STATE] == kernels.CHANGED:
                row[kernels.RUN], row[kernels.RUN_BYTES] = -1 - len(spill), len(run)
                spill += run
    return np.array(misses, np.int64), spill


def written(module, body, seen, spill, rows, count, version):
    out = np.zeros(1 << 15, np.uint8)
    arguments = (as_array(body), seen, as_array(spill), rows, count)
    if version == 1:
        return out[: int(module.relabel_write(*arguments, out))].tobytes()
    return out[: int(module.relabel_write_v2(*arguments, 9, out))].tobytes()


def meaningful(rows, count):
    """Return the rows, without what says nothing in their state."""
    found = rows[: 8 * count].reshape(-1, 8).tolist()
    return [row if row[5] == kernels.CHANGED else row[:6] for row in found]


def check(data, body, seen, version):
    """Compare both twins on one body and teach the tables what was missing."""
    status, rows, totals, labels = resolved(kernels, body, seen, version)
    expected = resolved(reference, body, seen, version)
    assert status == expected[0]
    if status < 0:
        return
    assert meaningful(rows, status) == meaningful(expected[1], status)
    assert totals.tolist() == expected[2].tolist()
    misses, spill = decide(data.draw, rows, status)
    results = [written(m, body, seen, spill, rows, status, version) for m in (kernels, reference)]
    assert results[0] == results[1]
    other = copy.deepcopy(seen)
    learnt = [
        int(m.relabel_learn(as_array(labels), as_array(spill), rows, misses, tables))
        for m, tables in ((kernels, seen), (reference, other))
    ]
    assert learnt[0] == learnt[1]
    assert reference.known_runs(seen) == reference.known_runs(other)
    assert seen.meta.tolist() == other.meta.tolist()


@PROFILE
@given(st.data(), st.lists(requests(), min_size=1, max_size=4))
def test_requests_equal_the_reference(data, bodies):
    """Over several requests, the first of which is sent again at the end."""
    seen = fresh()
    for body in [*bodies, bodies[0]]:
        check(data, body, seen, 1)


@PROFILE
@given(st.data(), st.lists(requests_v2(), min_size=1, max_size=4))
def test_version_2_equals_the_reference(data, bodies):
    """The same, with labels as references to symbols."""
    seen = fresh()
    for body in [*bodies, bodies[0]]:
        check(data, body, seen, 2)


@PROFILE
@given(st.data(), requests(), requests_v2())
def test_hostile_bytes_equal_the_reference(data, body, body_v2):
    """What is cut or changed is the same status, or the same rows."""
    seen = fresh()
    check(data, body, seen, 1)
    check(data, damaged(data.draw, body), seen, 1)
    check(data, damaged(data.draw, body_v2), seen, 2)


@PROFILE
@given(st.data(), st.lists(requests(), min_size=1, max_size=3), st.integers(1, 4))
def test_full_tables_equal_the_reference(data, bodies, entries):
    """Tables that are full in one way or another take what fits and say how much that was."""
    for seen in (fresh(entries=entries), fresh(arena=20 * entries), fresh(slots=4)):
        for body in bodies:
            check(data, body, seen, 1)


def test_too_little_room_is_a_status():
    """More series than rows, and label runs beyond their buffer."""
    body = field(1, b"") * 3
    rows, totals = np.zeros(16, np.int64), np.zeros(4, np.int64)
    assert kernels.relabel_resolve(as_array(body), fresh(), rows, totals) == kernels.ROWS_FULL
    body = field(4, b"a") + field(5, field(1, b"\x00\x00"))
    symbols = np.array([2, 3], np.int64)
    labels = np.zeros(8, np.uint8)
    status = kernels.relabel_resolve_v2(as_array(body), symbols, labels, fresh(), rows, totals)
    assert status == kernels.LABELS_FULL
