"""Deduplication kernels equal their references, and upstream's vectors."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import storeapi_dedup as kernels
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import storeapi_dedup as reference

PROFILE = examples(60)
VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.5, 7.0, 1e300, -3.0, float("inf"), float("nan")])
GAPS = st.one_of(st.integers(1, 12_000), st.sampled_from([10_000, 15_000, 30_000]))


@st.composite
def lanes_of_samples(draw, rising=True):
    series = []
    for _ in range(draw(st.integers(0, 4))):
        lanes = []
        for _ in range(draw(st.integers(1, 4))):
            t = draw(st.integers(-20_000, 20_000))
            lane = []
            for _ in range(draw(st.integers(0, 12))):
                lane.append((t, draw(VALUES)))
                t += draw(GAPS) if rising else draw(st.integers(-5_000, 12_000))
            lanes.append(lane)
        series.append(lanes)
    return series


def columns(series):
    lanes = [lane for group in series for lane in group]
    series_lanes = np.cumsum([0] + [len(group) for group in series]).astype(np.int64)
    offsets = np.cumsum([0] + [len(lane) for lane in lanes]).astype(np.int64)
    samples = [sample for lane in lanes for sample in lane]
    timestamps = np.array([t for t, _ in samples], np.int64)
    return series_lanes, offsets, timestamps, np.array([v for _, v in samples], np.float64)


def run(function, series, option):
    series_lanes, offsets, timestamps, values = columns(series)
    state = np.zeros(16 * 8, np.int64)
    out = np.zeros(len(series) + 1, np.int64), np.zeros_like(timestamps), np.zeros_like(values)
    count = function(series_lanes, offsets, timestamps, values, option, state, *out)
    return count, out[0].tobytes(), out[1][:count].tobytes(), out[2][:count].tobytes()


@PROFILE
@given(lanes_of_samples(), st.sampled_from([0, 1]))
def test_penalty_fold_equals_reference(series, counter):
    """The state array walks as the tree of iterators does, bit for bit."""
    expected = run(reference.fold_penalty, series, counter)
    assert expected == run(kernels.fold_penalty, series, counter)


@PROFILE
@given(lanes_of_samples(), st.sampled_from([kernels.FIRST_WINS, kernels.CHAIN]))
def test_chain_fold_equals_reference(series, mode):
    """Ties are decided as Go's heap decides them, or by the first lane."""
    assert run(reference.fold_chain, series, mode) == run(kernels.fold_chain, series, mode)


@PROFILE
@given(lanes_of_samples(rising=False), st.sampled_from([0, 1]), st.integers(-9_000, 60_000))
def test_trim_equals_reference(series, counter, maxt):
    """Resets, repeated times and falling times are treated as upstream treats them."""
    series_lanes, offsets, timestamps, values = columns(series)
    options = np.array([-10_000, maxt, counter], np.int64)
    results = []
    for function in (reference.trim_lanes, kernels.trim_lanes):
        out = np.zeros_like(offsets), np.zeros_like(timestamps), np.zeros_like(values)
        count = function(series_lanes, offsets, timestamps, values, options, *out)
        results.append(
            (count, out[0].tobytes(), out[1][:count].tobytes(), out[2][:count].tobytes())
        )
    assert results[0] == results[1]


CHUNK = st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 5), st.integers(0, 3))


@PROFILE
@given(st.lists(st.lists(CHUNK, max_size=8), max_size=4), st.binary(min_size=8, max_size=8))
def test_split_equals_reference(series, data):
    """Chunks go greedily to the first lane that ended; ties by falling bytes."""
    series = [sorted(chunks, key=lambda c: (c[0], c[0] + c[1])) for chunks in series]
    chunks = np.zeros(sum(map(len, series)), CHUNK_DTYPE)
    for row, (mint, width, start, length) in zip(chunks, itertools.chain(*series), strict=True):
        row["mint"], row["maxt"], row["encoding"] = mint, mint + width, 1
        row["start"], row["length"] = start, length
    offsets = np.cumsum([0] + [len(c) for c in series]).astype(np.int64)
    data = guarded(data)
    results = []
    for function in (reference.split_lanes, kernels.split_lanes):
        out = np.zeros_like(offsets), np.zeros(len(chunks) + len(series) + 1, np.int64)
        moved = np.zeros_like(chunks)
        lanes = function(offsets, chunks, data, np.zeros(24, np.int64), *out, moved)
        bodies = [
            (c["mint"], c["maxt"], data[c["start"] : c["start"] + c["length"]].tobytes())
            for c in moved
        ]
        results.append((lanes, out[0].tolist(), out[1].tolist(), bodies))
    assert results[0] == results[1]


def lane(times, value=1.0):
    return [(t * 1000, value) for t in times]


SAME = [(10_000, 10.0), (20_000, 11.0), (30_000, 12.0), (40_000, 13.0)]
VECTORS = {
    "the first side is preferred": (
        [SAME, [(t, v + 10) for t, v in SAME]],
        SAME,
    ),
    "the side that starts earlier wins": (
        [lane([10.1, 20.1, 30.1, 40.1]), lane([10, 20, 30, 40], 2.0)],
        lane([10, 20, 30, 40], 2.0),
    ),
    "a gap of one sample does not switch": (
        [lane([10, 20, 40]), lane([10, 20, 30, 40], 2.0)],
        lane([10, 20, 40]),
    ),
    "nor when the other is off by half": (
        [lane([10, 20, 40]), lane([15, 25, 35, 45], 2.0)],
        lane([10, 20, 40]),
    ),
    "a gap of more than two deltas switches and stays": (
        [lane([10, 20, 30, 60, 70]), lane([10.1, 20.1, 30.1, 40.1, 50.1, 60.1], 2.0)],
        lane([10, 20, 30]) + lane([50.1, 60.1], 2.0),
    ),
    "three lanes one after another": (
        [lane([10, 20]), lane([60, 70], 3.0), lane([200, 210], 5.0)],
        lane([10, 20]) + lane([60, 70], 3.0) + lane([200, 210], 5.0),
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_upstream_vector(name):
    """Kernel and reference give what Thanos's own iterator test expects."""
    lanes, expected = VECTORS[name]
    lanes = [[(int(t), v) for t, v in side] for side in lanes]
    expected = [(int(t), v) for t, v in expected]
    assert expected == reference.fold(lanes)
    count, _, timestamps, values = run(kernels.fold_penalty, [lanes], 0)
    got = zip(np.frombuffer(timestamps, np.int64), np.frombuffer(values), strict=True)
    assert (len(expected), expected) == (count, [(int(t), v) for t, v in got])


COUNTER_A = [(10_000, 8.0), (20_000, 9.0), (50_001, 10.0), (60_000, 11.0), (70_000, 12.0),
             (80_000, 13.0), (90_000, 14.0), (100_000, 15.0)]  # fmt: skip
COUNTER_B = [(10_001, 8.0), (45_001, 8.5), (55_001, 9.5), (65_001, 10.5)]


def test_counter_regression_2401():
    """A lagging replica is raised; chunks only move forward, upstream's mock also rewinds."""
    head = [(10_000, 8.0), (20_000, 9.0), (45_001, 9.0), (55_001, 10.0), (65_001, 11.0)]
    rewound = [*head, (90_000, 14.0), (100_000, 15.0)]
    forward = [*head, (100_000, 15.0)]
    lanes = [COUNTER_A, COUNTER_B]
    assert rewound == reference.fold(lanes, counter=True, rewind=True)
    assert forward == reference.fold(lanes, counter=True)
    count, _, timestamps, values = run(kernels.fold_penalty, [lanes], 1)
    assert [t for t, _ in forward] == np.frombuffer(timestamps, np.int64).tolist()
    assert [v for _, v in forward] == np.frombuffer(values).tolist()
    assert len(forward) == count


LANE_VECTORS = [
    ([], [[]]),
    ([(0, 20), (21, 100), (110, 300)], [[0, 1, 2]]),
    ([(0, 20), (0, 30), (21, 50), (31, 60), (100, 160)], [[0, 2, 4], [1, 3]]),
    ([(50, 55), (55, 100)], [[0], [1]]),
    (
        [(0, 20), (0, 30), (1, 15), (2, 36), (16, 200), (21, 50), (31, 60), (100, 160)],
        [[0, 5, 7], [1, 6], [2, 4], [3]],
    ),
]


@pytest.mark.parametrize(("chunks", "expected"), LANE_VECTORS)
def test_overlap_split_vector(chunks, expected):
    """Lanes are those of upstream's overlap split test; touching ends overlap."""
    rows = np.zeros(len(chunks), CHUNK_DTYPE)
    for number, (row, (mint, maxt)) in enumerate(zip(rows, chunks, strict=True)):
        row["mint"], row["maxt"], row["start"], row["encoding"] = mint, maxt, number, 1
    offsets, out = np.array([0, len(chunks)], np.int64), np.zeros_like(rows)
    series, bounds = np.zeros(2, np.int64), np.zeros(len(chunks) + 2, np.int64)
    data, scratch = np.zeros(16, np.uint8), np.zeros(24, np.int64)
    lanes = kernels.split_lanes(offsets, rows, data, scratch, series, bounds, out)
    got = [out["start"][bounds[k] : bounds[k + 1]].tolist() for k in range(lanes)]
    assert expected == got == reference.split(chunks)
