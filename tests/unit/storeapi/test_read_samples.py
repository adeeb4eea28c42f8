"""Overlapping chunks become one series, as the mode says."""

import struct

import pytest

from thanostack.lib.foundation.errors import ChunkCorrupt
from thanostack.lib.model.series import STALE_NAN_BITS
from thanostack.lib.storeapi.dedup import Dedup, DedupMode, read_samples
from thanostack.lib.storeapi.info import TIME_MAX, TIME_MIN
from thanostack.lib.storeapi.series_source import MergedSeries
from thanostack.testing.memory_store import chunked_batch
from thanostack.testing.reference import storeapi_dedup as reference

NONE, PENALTY, CHAIN = DedupMode.NONE, DedupMode.PENALTY, DedupMode.CHAIN
STALE = struct.unpack("<d", struct.pack("<Q", STALE_NAN_BITS))[0]


def every(step, first, count, value=0.0):
    return [(first + k * step, value + k) for k in range(count)]


def read(batch, mode=NONE, mint=TIME_MIN, maxt=TIME_MAX, first=0, stop=None, **options):
    dedup = Dedup(mode, options.pop("qmint", TIME_MIN), options.pop("qmaxt", TIME_MAX), **options)
    stop = len(batch) if stop is None else stop
    found = read_samples(batch, first, stop, mint, maxt, dedup)
    return [
        list(zip(*(column.tolist() for column in found.series(i)), strict=True))
        for i in range(len(found))
    ]


def test_chunks_in_a_row_are_concatenated():
    """Nothing changes where nothing overlaps, and bounds are inclusive."""
    chunks = [every(1000, 0, 5), every(1000, 5000, 5, 5.0)]
    batch = chunked_batch([({"a": "1"}, chunks), ({"a": "2"}, chunks[:1])])
    for mode in DedupMode:
        assert [[*chunks[0], *chunks[1]], chunks[0]] == read(batch, mode, function="rate")
        assert [[*chunks[0], *chunks[1]][3:7], chunks[0][3:]] == read(batch, mode, 3000, 6000)
        assert [chunks[0]] == read(batch, mode, first=1)


def test_overlap_without_dedup_merges_by_time():
    """All timestamps are there, the first chunk's values win."""
    batch = chunked_batch([({}, [every(1000, 0, 4), [(500, 9.0), (1000, 8.0), (7000, 7.0)]])])
    expected = [(0, 0.0), (500, 9.0), (1000, 1.0), (2000, 2.0), (3000, 3.0), (7000, 7.0)]
    assert [expected] == read(batch)


def test_chunk_headers_that_lie_do_not_break_order():
    """A chunk that goes back in time loses those samples."""
    batch = chunked_batch([({}, [every(1000, 0, 4), every(1000, 2000, 4, 50.0)])])
    batch.chunks["mint"][1] = 4000
    assert [[*every(1000, 0, 4), (4000, 52.0), (5000, 53.0)]] == read(batch)


def replicas():
    a = every(15_000, 0, 20)
    b = [(t + 1000, v + 100) for t, v in every(15_000, 0, 20)]
    return [a[:5] + a[12:], b]


def test_penalty_is_upstreams():
    """Lanes are folded by the rule; a slice of time is cut from the whole fold."""
    batch = chunked_batch([({"a": "1"}, replicas()), ({"a": "2"}, replicas()[1:])])
    expected = reference.fold(replicas())
    assert [expected, replicas()[1]] == read(batch, PENALTY)
    part = [(t, v) for t, v in expected if 60_000 <= t <= 200_000]
    assert [part] == read(batch, PENALTY, 60_000, 200_000, stop=1)


def test_fold_begins_where_the_query_begins():
    """Samples before the query's first time take no part in the fold."""
    batch = chunked_batch([({}, replicas())])
    begun = [[(t, v) for t, v in lane if t >= 61_000] for lane in replicas()]
    assert [reference.fold(begun)] == read(batch, PENALTY, qmint=61_000)
    assert [reference.fold(begun)] != read(batch, PENALTY, 61_000)


def counters():
    a = [(0, 10.0), (15_000, 20.0), (30_000, 5.0), (45_000, STALE), (300_000, 9.0), (315_000, 12.0)]
    b = [(1_000, 11.0), *((t, t / 1000) for t in range(16_000, 300_000, 15_000))]
    return [a, b]


@pytest.mark.parametrize("function", ["rate", "increase", "irate"])
def test_counters_are_folded_as_totals(function):
    """Resets are added up before the fold, and a switch never lets the value fall."""
    batch = chunked_batch([({}, counters())])
    lanes = [reference._totals(lane) for lane in counters()]
    expected = reference.fold(lanes, counter=True)
    assert [expected] == read(batch, PENALTY, function=function)
    values = [v for _, v in expected]
    assert values == sorted(values)


def test_totals_count_from_the_first_sample_of_a_chunk():
    """What lies before the query still counts towards the total."""
    batch = chunked_batch([({}, counters())])
    lanes = [[(t, v) for t, v in reference._totals(lane) if t >= 20_000] for lane in counters()]
    expected = reference.fold(lanes, counter=True)
    assert [expected] == read(batch, PENALTY, qmint=20_000, function="rate")


def test_resets_are_left_for_those_who_count_them():
    """`resets`, and whatever takes gauges, sees the samples as they are."""
    batch = chunked_batch([({}, counters()), ({"a": "1"}, counters()[:1])])
    raw, alone = read(batch, PENALTY, function="resets")
    assert [t for t, _ in reference.fold(counters())] == [t for t, _ in raw]
    assert (30_000, 5.0) in alone


def test_a_counter_without_replicas_is_left_alone():
    """One lane keeps its resets under `rate`: PromQL handles them."""
    batch = chunked_batch([({"a": "1"}, counters()[:1]), ({"a": "2"}, counters())])
    assert [v for t, v in read(batch, PENALTY, function="rate")[0] if t == 30_000] == [5.0]


def test_chain_keeps_all_samples():
    """Every timestamp of every replica, once."""
    batch = chunked_batch([({}, replicas())])
    assert [reference.chain(replicas())] == read(batch, CHAIN)
    assert sorted({t for lane in replicas() for t, _ in lane}) == [
        t for t, _ in read(batch, CHAIN)[0]
    ]


def test_equal_bounds_put_larger_bytes_first():
    """Which replica is preferred does not depend on which answered first."""
    low, high = every(15_000, 0, 4, 1.0), every(15_000, 0, 4, 2.0)
    both = [chunked_batch([({}, order)]) for order in ([low, high], [high, low])]
    assert read(both[0], PENALTY) == read(both[1], PENALTY)
    bodies = {both[0].chunk_bytes(c): lane for c, lane in enumerate([low, high])}
    assert [bodies[max(bodies)]] == read(both[0], PENALTY)


def test_series_without_chunks_are_empty():
    """A store may know a series and have no samples of it."""
    batch = chunked_batch([({"a": "1"}, []), ({"a": "2"}, replicas())])
    assert read(batch, PENALTY)[0] == []
    assert read(batch)[0] == []


def test_corrupt_chunks_are_an_error():
    """Not an empty answer."""
    batch = chunked_batch([({}, [every(1000, 0, 4)])])
    batch.chunks["length"] = 3
    source = MergedSeries(batch, Dedup(NONE, 0, 9000))
    with pytest.raises(ChunkCorrupt):
        source.samples(0, 1, 0, 9000)
