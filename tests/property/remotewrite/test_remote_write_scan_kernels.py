"""Scanning requests and bringing labels into canonical form equal their references."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import label_canonical, remote_write_scan
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import label_canonical as canonical_reference
from thanostack.testing.reference import remote_write_scan as reference
from thanostack.testing.reference.protobuf import field, uvarint

PROFILE = examples(80)
TEXT = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"job", b"\xff", "ü€😀".encode(), b"\xed\xa0\x80"]),
    st.binary(max_size=6),
    st.just(b"x" * 200),
)
UNKNOWN = st.sampled_from([b"\x48\x05", field(9, b"zz"), b"\x4d1234", b"\x4912345678"])


def sample(t, value):
    return b"\x09" + struct.pack("<d", value) + b"\x10" + uvarint(t & (1 << 64) - 1)


LABEL = st.tuples(TEXT, TEXT, st.booleans()).map(
    lambda d: field(1, b"".join([field(1, d[0]), field(2, d[1])][:: -1 if d[2] else 1]))
)
SAMPLE = st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats()).map(
    lambda d: field(2, sample(*d))
)
SERIES = st.tuples(
    st.lists(LABEL, max_size=6),
    st.lists(st.one_of(SAMPLE, LABEL, UNKNOWN, st.just(field(3, b"")), st.just(field(4, b""))),
             max_size=4),
).map(lambda d: field(1, b"".join(d[0]) + b"".join(d[1])))  # fmt: skip
REQUEST = st.lists(st.one_of(SERIES, UNKNOWN, st.just(field(3, b"meta"))), max_size=6).map(b"".join)


def mutated(data, body):
    """Return the body, cut or with one byte changed, as the strategy draws it."""
    kind = data.draw(st.sampled_from(["whole", "cut", "flip"]))
    if kind == "cut":
        return body[: data.draw(st.integers(0, len(body)))]
    if kind == "flip" and body:
        at = data.draw(st.integers(0, len(body) - 1))
        return body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
    return body


def scanned(module, body, room=64):
    arrays = (
        np.zeros(2 * room, np.int64), np.zeros(room + 1, np.int64), np.zeros(room, np.int64),
        np.zeros(room, np.uint64), np.zeros(4, np.int64),
    )  # fmt: skip
    count = int(module.remote_write_scan(guarded(body), 0, len(body), *arrays))
    if count < 0:
        return count
    bounds, offsets, timestamps, values, stats = arrays
    n = offsets[count]
    return (
        bounds[: 2 * count].tolist(), offsets[: count + 1].tolist(), timestamps[:n].tolist(),
        values[:n].tolist(), stats.tolist(),
    )  # fmt: skip


@PROFILE
@given(REQUEST, st.data())
def test_scan_equals_reference(body, data):
    """Whole, cut or damaged requests give the reference's columns or its status."""
    hostile = mutated(data, body)
    assert scanned(reference, hostile) == scanned(remote_write_scan, hostile)


@PROFILE
@given(st.binary(max_size=60))
def test_random_bytes_equal_reference(body):
    """Bytes that never were a request."""
    assert scanned(reference, body) == scanned(remote_write_scan, body)


def test_full_arrays_are_a_status():
    """Too little room is told apart: series, samples."""
    two = field(1, field(2, sample(1, 1.0)) + field(2, sample(2, 1.0))) * 2
    arrays = (np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(9, np.int64),
              np.zeros(9, np.uint64), np.zeros(4, np.int64))  # fmt: skip
    scan = remote_write_scan.remote_write_scan
    body = guarded(two)
    assert scan(body, 0, len(two), *arrays) == remote_write_scan.SERIES_FULL
    arrays = (np.zeros(9, np.int64), np.zeros(9, np.int64), np.zeros(1, np.int64),
              np.zeros(1, np.uint64), np.zeros(4, np.int64))  # fmt: skip
    assert scan(body, 0, len(two), *arrays) == remote_write_scan.SAMPLES_FULL


REFS = st.lists(st.integers(0, 9), max_size=6)
SERIES_V2 = st.tuples(REFS, st.lists(st.one_of(SAMPLE, UNKNOWN), max_size=3)).map(
    lambda d: field(5, field(1, b"".join(map(uvarint, d[0]))) + b"".join(d[1]))
)
REQUEST_V2 = st.tuples(
    st.lists(st.sampled_from([b"", b"a", b"job", b"long" * 40]), max_size=8),
    st.lists(SERIES_V2, max_size=4),
).map(lambda d: b"".join(field(4, s) for s in d[0]) + b"".join(d[1]))


def scanned_v2(module, body, room=64):
    data, symbols = guarded(body), np.zeros(2 * room, np.int64)
    count = int(module.remote_write_symbols(data, symbols))
    if count < 0:
        return count
    labels = np.zeros(1 << 14, np.uint8)
    arrays = (
        np.zeros(2 * room, np.int64), np.zeros(room + 1, np.int64), np.zeros(room, np.int64),
        np.zeros(room, np.uint64), np.zeros(4, np.int64),
    )  # fmt: skip
    n = int(module.remote_write_scan_v2(data, symbols[: 2 * count], labels, *arrays))
    if n < 0:
        return n
    bounds, offsets, timestamps, values, stats = arrays
    total = offsets[n]
    return (
        symbols[: 2 * count].tolist(), labels[: stats[3]].tobytes(), bounds[: 2 * n].tolist(),
        offsets[: n + 1].tolist(), timestamps[:total].tolist(), values[:total].tolist(),
        stats.tolist(),
    )  # fmt: skip


@PROFILE
@given(REQUEST_V2, st.data())
def test_scan_v2_equals_reference(body, data):
    """Requests of remote write 2.0, whole, cut or damaged."""
    hostile = mutated(data, body)
    assert scanned_v2(reference, hostile) == scanned_v2(remote_write_scan, hostile)


def test_overlong_labels_are_refused():
    """A value of 64 KiB is taken, one byte more is not: it would stay in memory for good."""
    for size, refused in ((65_536, 0), (65_537, 1)):
        body = field(1, field(1, b"a") + field(2, b"x" * size))
        expected = canonical(canonical_reference, body, 4)
        assert (refused, expected) == (expected[0], canonical(label_canonical, body, 4))


def canonical(module, body, labels_max):
    bounds, found = np.array([0, len(body)], np.int64), np.array([-1], np.int64)
    out, runs = np.zeros(len(body) + 16, np.uint8), np.zeros(2, np.int64)
    statuses = np.zeros(1, np.int64)
    refused = module.label_canonicalise(
        guarded(body), bounds, found, np.zeros(4 * labels_max, np.int64), out, runs,
        statuses,
    )  # fmt: skip
    return int(refused), statuses.tolist(), runs.tolist(), out[: max(runs[1], 0)].tobytes()


@PROFILE
@given(st.lists(st.one_of(LABEL, UNKNOWN, SAMPLE), max_size=8).map(b"".join), st.data())
def test_canonical_form_equals_reference(body, data):
    """Labels in any order and state: the same run, or the same fault."""
    hostile = mutated(data, body)
    assert canonical(canonical_reference, hostile, 4) == canonical(label_canonical, hostile, 4)
