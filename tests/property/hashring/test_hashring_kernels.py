"""Hashes and placement equal their references, for whatever bytes and rings there are."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.hashring import Endpoint, HashmodRing, KetamaRing
from thanostack.lib.hashring.placement import SECTIONS_PER_NODE
from thanostack.lib.kernels import hashring as kernels
from thanostack.testing.examples import examples
from thanostack.testing.reference import hashring as reference
from thanostack.testing.reference.protobuf import field

PROFILE = examples(120)
TEXT = st.one_of(
    st.sampled_from([b"", b"a", b"job", b"\xff", b"\xed\xa0\x80", b"x" * 15, b"y" * 16, b"z" * 17]),
    st.binary(max_size=40),
    st.integers(100, 300).map(lambda n: b"long" * n),
)
UNKNOWN = st.sampled_from(
    [b"\x48\x05", field(9, b"zz"), b"\x4d1234", b"\x4912345678", b"\x8a\x00\x02\x0a\x00"]
)
NAME = TEXT.map(lambda text: field(1, text))
VALUE = TEXT.map(lambda text: field(2, text))
LABEL = st.one_of(
    st.tuples(NAME, VALUE).map(b"".join),
    st.lists(st.one_of(NAME, VALUE, UNKNOWN), max_size=4).map(b"".join),
).map(lambda content: field(1, content))
SAMPLE = st.binary(max_size=20).map(lambda content: field(2, content))
SERIES = st.lists(st.one_of(LABEL, LABEL, SAMPLE, UNKNOWN), max_size=8).map(b"".join)


def hashed(module, body, bounds, prefix):
    """Return the hashes, or the status; scratch and body are no longer than promised."""
    longest = max((stop - max(start, -1 - start) for start, stop in bounds), default=0)
    packed = np.zeros(len(prefix) + longest + kernels.PACKED_SLACK, np.uint8)
    hashes = np.zeros(len(bounds), np.uint64)
    flat = np.array(bounds, np.int64).reshape(-1)
    status = module.hashring_series_hashes(
        np.frombuffer(body, np.uint8), flat, np.frombuffer(prefix, np.uint8), packed, hashes
    )
    return hashes.tolist() if status == len(hashes) else int(status)


@PROFILE
@given(st.lists(SERIES, max_size=4), TEXT, st.binary(max_size=20), st.booleans())
def test_series_hashes_equal_reference(series, tenant, tail, are_scattered):
    """Labels of any length, scattered or not, near the end of the body or not."""
    starts = np.cumsum([0, *map(len, series)]).tolist()
    bounds = [(-1 - a if are_scattered else a, b) for a, b in pairwise(starts)]
    body, prefix = b"".join(series) + tail, tenant + b"\xff"
    expected = hashed(reference, body, bounds, prefix)
    assert isinstance(expected, list)
    assert expected == hashed(kernels, body, bounds, prefix)


@PROFILE
@given(SERIES, st.data())
def test_hostile_series_end_in_a_status(body, data):
    """Cut or changed bytes are hashed as the reference does, or refused as it does."""
    start = data.draw(st.integers(0, len(body)))
    stop = data.draw(st.integers(start, len(body)))
    if body and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(body) - 1))
        body = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
    whole = [(start, stop)]
    assert hashed(reference, body, whole, b"t\xff") == hashed(kernels, body, whole, b"t\xff")


@PROFILE
@given(st.binary(max_size=60))
def test_random_bytes_equal_reference(body):
    """Bytes that never were labels."""
    whole = [(0, len(body))]
    assert hashed(reference, body, whole, b"\xff") == hashed(kernels, body, whole, b"\xff")


def test_sections_equal_reference():
    """All thousand sections of addresses of several lengths, none included."""
    addresses = [b"", b"node-1:10901", b"x" * 70]
    offsets = np.cumsum([0, *map(len, addresses)])
    results = []
    for module in (reference, kernels):
        positions = np.zeros(len(addresses) * SECTIONS_PER_NODE, np.uint64)
        joined = np.frombuffer(b"".join(addresses), np.uint8)
        done = module.hashring_sections(joined, offsets, np.zeros(75, np.uint8), positions)
        results.append((int(done), positions.tolist()))
    assert results[0] == results[1]


@st.composite
def walks(draw):
    """Sections, zones and a number of replicas; a node may lack sections."""
    zones = draw(st.lists(st.integers(0, 3), min_size=1, max_size=7))
    owners = draw(st.lists(st.integers(0, len(zones) - 1), min_size=1, max_size=30))
    return owners, zones, draw(st.integers(1, len(zones)))


@PROFILE
@given(walks())
def test_replicas_equal_reference(walk):
    """Any spread of nodes over zones; the walk ends even where a node cannot be found."""
    owners, zones, replicas = walk
    room = np.bincount(zones, minlength=4)
    results = []
    for module in (reference, kernels):
        table = np.full((len(owners), replicas), -1, np.int32)
        counts = np.zeros(len(room), np.int64)
        done = module.hashring_replicas(
            np.array(owners, np.int32), np.array(zones, np.int32), room, counts, table
        )
        results.append((int(done), table[: int(done)].tolist()))
    assert results[0] == results[1]


HASHES = st.lists(
    st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1])), max_size=20
).map(lambda values: np.array(values, np.uint64))


@PROFILE
@given(HASHES, st.integers(1, 12), st.integers(1, 5))
def test_hashmod_equals_reference(hashes, n_nodes, replicas):
    """The sum of hash and replica wraps around at 2^64."""
    tables = [np.zeros((len(hashes), replicas), np.int32) for _ in range(2)]
    for module, out in zip((reference, kernels), tables, strict=True):
        assert module.hashring_place_hashmod(hashes, n_nodes, out) == len(hashes)
    assert tables[0].tolist() == tables[1].tolist()


@PROFILE
@given(HASHES, st.integers(0, 10), st.data())
def test_ketama_equals_reference(hashes, bits, data):
    """Sections anywhere, many at one place, with buckets of any coarseness."""
    near = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([*hashes.tolist(), 7, 2**64 - 1]))
    positions = np.sort(np.array(data.draw(st.lists(near, min_size=1, max_size=30)), np.uint64))
    table = np.arange(2 * len(positions), dtype=np.int32).reshape(-1, 2)
    width = bits + 1
    starts = np.array([k << (64 - width) for k in range(1 << width)], np.uint64)
    buckets = np.append(np.searchsorted(positions, starts), len(positions)).astype(np.int32)
    outs = [np.zeros((len(hashes), 2), np.int32) for _ in range(2)]
    for module, out in zip((reference, kernels), outs, strict=True):
        done = module.hashring_place_ketama(hashes, positions, buckets, table, out)
        assert done == len(hashes)
    assert outs[0].tolist() == outs[1].tolist()


ZONES = st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=7)


@examples(25)
@given(ZONES, st.data())
def test_replicas_differ_and_spread(zones, data):
    """A series' nodes are all different, and no zone has two more than one that has a node left."""
    endpoints = [Endpoint(f"n{i}", az) for i, az in enumerate(zones)]
    replicas = data.draw(st.integers(1, len(zones)))
    ring = KetamaRing(endpoints, replicas)
    for row in ring.place(np.arange(50, dtype=np.uint64) << np.uint64(58), replicas).tolist():
        assert len(set(row)) == replicas
        taken = {az: sum(zones[node] == az for node in row) for az in set(zones)}
        fewest = min((n for az, n in taken.items() if n < zones.count(az)), default=replicas)
        assert max(taken.values()) <= fewest + 1


@examples(15)
@given(ZONES, st.sampled_from(["a", "b", ""]))
def test_a_new_node_moves_series_to_itself_only(zones, zone):
    """Growth moves about 1/N of the series, all of them to the new node."""
    old = [Endpoint(f"n{i}") for i in range(len(zones))]
    hashes = np.random.default_rng(1).integers(0, 2**64, 2000, np.uint64)
    before = KetamaRing(old, 1).place(hashes, 1)[:, 0]
    after = KetamaRing([*old, Endpoint("new", zone)], 1).place(hashes, 1)[:, 0]
    moved = before != after
    assert set(after[moved].tolist()) <= {len(old)}
    assert 0.5 < moved.mean() * (len(old) + 1) < 1.5


def test_more_replicas_begin_with_the_fewer():
    """A node to fall back to is the one after the replicas, on every kind of ring."""
    endpoints = [Endpoint(f"n{i}") for i in range(6)]
    hashes = np.random.default_rng(2).integers(0, 2**64, 500, np.uint64)
    for ring in (HashmodRing(endpoints), KetamaRing(endpoints, 2)):
        two, four = ring.place(hashes, 2), ring.place(hashes, 4)
        assert two.tolist() == four[:, :2].tolist()
