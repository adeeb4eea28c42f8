"""Taking requests apart by node, and 2.0 into 1.0, equal their references."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thanostack.lib.kernels import remote_write_forward as kernels
from thanostack.lib.kernels import remote_write_scan as scan_kernels
from thanostack.lib.kernels import write_quorum
from thanostack.lib.pb import prometheus_remote_pb2, remote_write_v2_pb2
from thanostack.testing.reference import remote_write_forward as reference
from thanostack.testing.reference import write_quorum as quorum_reference
from thanostack.testing.reference.protobuf import field, uvarint

PROFILE = settings(max_examples=60, derandomize=True, deadline=None)
TEXT = st.one_of(st.sampled_from([b"", b"a", b"job", b"x" * 200]), st.binary(max_size=6))
LABEL = st.tuples(TEXT, TEXT).map(lambda d: field(1, field(1, d[0]) + field(2, d[1])))
SAMPLE = st.floats().map(lambda v: field(2, b"\x09" + struct.pack("<d", v) + b"\x10\x05"))
OTHER = st.sampled_from([field(3, b""), field(4, b"h" * 40), field(9, b"zz"), b"\x48\x05"])
SERIES = (
    st.lists(st.one_of(LABEL, SAMPLE, OTHER), max_size=8)
    .map(b"".join)
    .map(lambda content: field(1, content))
)
REQUEST = st.lists(st.one_of(SERIES, OTHER), max_size=9).map(b"".join)


def array(data):
    return np.frombuffer(data, np.uint8)


@st.composite
def hostile(draw, good):
    """Bytes that begin as a request and then lie."""
    data = bytearray(draw(st.one_of(good, st.binary(max_size=60))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3)):
        if data:
            data[at % len(data)] = byte
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def scanned(module, body, room=80):
    starts, bounds = np.zeros(room, np.int64), np.zeros(2 * room, np.int64)
    counts = np.full(3 * room, 7, np.int32)
    totals = np.full(3, 7, np.int64)
    n = int(module.forward_scan(array(body), starts, bounds, counts, totals))
    if n < 0:
        return n, None
    return n, (starts[:n], bounds[: 2 * n], counts[: 3 * n], totals)


@PROFILE
@given(hostile(REQUEST))
def test_scans_equal_the_reference(body):
    """Whole or damaged requests: the same series, or both say malformed."""
    n, found = scanned(reference, body)
    m, ours = scanned(kernels, body)
    assert n == m
    if n >= 0:
        assert [a.tolist() for a in found] == [b.tolist() for b in ours]


def test_too_many_series_are_a_status():
    """The arrays' room is not left."""
    assert scanned(kernels, field(1, b"") * 3, room=2)[0] == kernels.SERIES_FULL


@PROFILE
@given(REQUEST, st.data())
def test_shares_equal_the_reference(body, data):
    """Groups, their order and the bytes gathered from them; every replica of a series is there."""
    n, found = scanned(reference, body)
    starts, bounds, _, _ = found
    replicas, nodes = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    node = st.integers(0, nodes - 1)
    placed = data.draw(st.lists(node, min_size=n * replicas, max_size=n * replicas))
    placement = np.array(placed, np.int32)
    both = []
    for module in (reference, kernels):
        groups = np.full(replicas * nodes * kernels.GROUP_WIDTH, -7, np.int64)
        order = np.full(n * replicas, -7, np.int32)
        used = module.forward_group(placement, replicas, nodes, starts, bounds, groups, order)
        out = np.full(3 * len(body) + 8, 9, np.uint8)
        end = module.forward_gather(array(body), starts, bounds, order, out, 2)
        both.append((int(used), groups.tolist(), order.tolist(), int(end), out.tobytes()))
    assert both[0] == both[1]
    assert sorted(both[1][2]) == sorted(list(range(n)) * replicas)


@PROFILE
@given(st.lists(st.integers(0, 9), max_size=10, unique=True), st.integers(0, 5), st.data())
def test_counting_equals_the_reference(series, first, data):
    """Answers are counted, and those that reach the number are told."""
    needed = data.draw(st.integers(1, 3))
    start = data.draw(st.lists(st.integers(0, 3), min_size=15, max_size=15))
    both = []
    for module in (quorum_reference, write_quorum):
        waited, counts = np.full(15, 5, np.int32), np.array(start, np.int32)
        numbers = np.array(series, np.int32)
        reached = int(module.quorum_count(numbers, first, needed, waited, counts))
        both.append((reached, waited.tolist(), counts.tolist()))
    assert both[0] == both[1]


REFS = st.lists(st.integers(0, 5), max_size=8)
EXEMPLAR = st.tuples(REFS, st.binary(max_size=3)).map(
    lambda d: field(4, field(1, b"".join(map(uvarint, d[0]))) + b"\x11" + b"12345678" + b"\x18\x07")
)
SERIES_2 = st.tuples(
    REFS, st.lists(st.one_of(SAMPLE, EXEMPLAR, st.just(field(3, b"h" * 300)), OTHER), max_size=5)
).map(lambda d: field(5, field(1, b"".join(map(uvarint, d[0]))) + b"".join(d[1])))
REQUEST_2 = st.tuples(
    st.lists(TEXT.map(lambda text: field(4, text)), min_size=6, max_size=6).map(b"".join),
    st.lists(st.one_of(SERIES_2, st.just(b"\x48\x05")), max_size=5).map(b"".join),
).map(b"".join)


def translated(module, body, room):
    symbols = np.zeros(2 * 200, np.int64)
    n = int(scan_kernels.remote_write_symbols(array(body), symbols))
    out = np.zeros(room, np.uint8)
    if n < 0:
        return -1, b""
    written = int(module.forward_translate(array(body), symbols[: 2 * n], out))
    return min(written, 0), out[: max(written, 0)].tobytes()


@PROFILE
@given(hostile(REQUEST_2))
def test_translations_equal_the_reference(body):
    """2.0 requests, whole or damaged: the same 1.0 bytes, or both refuse."""
    expected, got = translated(reference, body, 1 << 16), translated(kernels, body, 1 << 16)
    assert (expected[0] < 0, expected[1]) == (got[0] < 0, got[1])


@PROFILE
@given(REQUEST_2, st.integers(0, 400))
def test_a_translation_never_leaves_its_room(body, room):
    """Too little room is a status, whatever it is."""
    status, _ = translated(kernels, body, room)
    full, whole = translated(kernels, body, 1 << 16)
    assert status in {full, kernels.OUT_FULL}
    if full == 0 and room > len(whole) + 32:
        assert status == 0


def test_a_translation_is_the_message_that_upstream_would_make():
    """By message objects: labels, samples, exemplars and histograms all arrive, in their fields."""
    second = remote_write_v2_pb2.Request(symbols=["", "__name__", "up", "trace", "x" * 300])
    series = second.timeseries.add(labels_refs=[1, 2, 3, 4])
    series.samples.add(value=1.5, timestamp=-7, start_timestamp=3)
    series.exemplars.add(labels_refs=[3, 4], value=2.0, timestamp=8)
    series.histograms.add(count_int=3, sum=2.5, schema=-1, timestamp=9, positive_deltas=[1, -2])
    second.timeseries.add(labels_refs=[1, 2])
    body = second.SerializeToString()
    first = prometheus_remote_pb2.WriteRequest.FromString(translated(kernels, body, 4096)[1])
    one, two = first.timeseries
    labels = [(label.name, label.value) for label in one.labels]
    assert labels == [("__name__", "up"), ("trace", "x" * 300)]
    assert [(s.value, s.timestamp) for s in one.samples] == [(1.5, -7)]
    assert [(e.value, e.timestamp, e.labels[0].value) for e in one.exemplars] == [
        (2.0, 8, "x" * 300)
    ]
    assert [(h.count_int, h.sum, h.schema, h.timestamp) for h in one.histograms] == [
        (3, 2.5, -1, 9)
    ]
    assert list(one.histograms[0].positive_deltas) == [1, -2]
    assert [label.value for label in two.labels] == ["up"]
