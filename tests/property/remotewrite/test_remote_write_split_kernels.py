"""The kernels that take write requests apart equal their plain twins, on good and hostile bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import remote_write_counts as counts_kernels
from thanostack.lib.kernels import remote_write_split as kernels
from thanostack.lib.pb import prometheus_remote_pb2 as remote
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import remote_write_counts as counts_reference
from thanostack.testing.reference import remote_write_split as reference

EXAMPLES = examples(50)

TEXTS = st.sampled_from(["", "a", "tenant", "b" * 7, "c" * 8, "d" * 200, "é"])
LABELS = st.lists(st.tuples(st.sampled_from(["", "a", "tenant", "tenan", "tenant2"]), TEXTS))
SAMPLES = st.lists(st.tuples(st.floats(), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=3)


@st.composite
def requests(draw):
    request = remote.WriteRequest()
    for labels, samples in draw(st.lists(st.tuples(LABELS, SAMPLES), max_size=12)):
        series = request.timeseries.add()
        for name, value in labels:
            series.labels.add(name=name, value=value)
        for value, timestamp in samples:
            series.samples.add(value=value, timestamp=timestamp)
            series.histograms.add(timestamp=timestamp)
    return request.SerializeToString()


@st.composite
def hostile(draw):
    """Bytes that begin as a request and then lie: cut, mutated, or random altogether."""
    data = bytearray(draw(st.one_of(requests(), st.binary(max_size=80))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)):
        if data:
            data[at % len(data)] = byte
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def as_array(data):
    return guarded(data)


def split(module, data, name, n_series, room):
    rows = np.full(n_series * kernels.ROW_WIDTH, -7, np.int64)
    groups = np.full(room * 3, -7, np.int64)
    table = np.full(1 << (2 * room + 1).bit_length(), -1, np.int64)
    n = int(module.group_by_label(as_array(data), as_array(name), n_series, rows, table, groups))
    if n < 0:
        return n, None
    sizes = groups[: n * 3].reshape(n, 3)[:, 2]
    at = np.ascontiguousarray(np.cumsum(sizes) - sizes)
    out = np.zeros(int(sizes.sum()), np.uint8)
    total = int(module.write_groups(as_array(data), rows, n_series, at, out))
    parts = (rows.tolist(), groups[: n * 3].tolist(), at.tolist(), total, out.tobytes())
    return n, parts


def check_runs(data, field, room):
    for start, stop in ((0, len(data)), (len(data) // 3, len(data)), (-1, 0), (0, len(data) + 1)):
        runs = [np.full(room * kernels.RUN_WIDTH, -7, np.int64) for _ in range(2)]
        expected = reference.message_runs(data, start, stop, field, runs[0])
        assert expected == kernels.message_runs(as_array(data), start, stop, field, runs[1])
        if expected >= 0:
            assert runs[0].tolist() == runs[1].tolist()


@EXAMPLES
@given(requests(), st.integers(1, 5), st.integers(0, 3))
def test_runs_equal_the_reference(data, field, room):
    """Runs of a well-formed request are those of the twin, whatever room there is."""
    check_runs(data, field, room)


@EXAMPLES
@given(hostile(), st.integers(1, 5))
def test_runs_of_hostile_bytes_equal_the_reference(data, field):
    """A lie is the same status in both."""
    check_runs(data, field, 3)


@EXAMPLES
@given(requests(), st.sampled_from([b"tenant", b"a", b"zz"]), st.integers(1, 20))
def test_groups_equal_the_reference(data, name, room):
    """Groups, their bodies and their sizes are those of the twin, and too many is a status."""
    n_series = len(remote.WriteRequest.FromString(data).timeseries)
    assert split(reference, data, name, n_series, room) == split(
        kernels, data, name, n_series, room
    )


@EXAMPLES
@given(hostile(), st.integers(0, 6))
def test_groups_of_hostile_bytes_equal_the_reference(data, n_series):
    """A lie, also about the number of series, is the same status in both."""
    assert split(reference, data, b"tenant", n_series, 4) == split(
        kernels, data, b"tenant", n_series, 4
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0a\x05abc",
        b"\x09\x00",
        b"\x0b",
        b"\x00\x00",
    ],
)
def test_lying_lengths_are_a_status(data):
    """Lengths beyond the end, endless numbers, cut fixed fields, groups and field zero are -1."""
    runs = np.zeros(5, np.int64)
    assert kernels.message_runs(as_array(data), 0, len(data), 1, runs) == -1


@EXAMPLES
@given(hostile(), st.sampled_from([(1, 4), (5, 3)]))
def test_counts_equal_the_reference(data, numbers):
    """Series, samples and histograms of 1.0 and 2.0, and a status for what is no request."""
    counts = [np.zeros(2, np.int64) for _ in range(2)]
    expected = counts_reference.remote_write_counts(data, *numbers, counts[0])
    found = int(counts_kernels.remote_write_counts(as_array(data), *numbers, counts[1]))
    assert found == expected
    if expected >= 0:
        assert counts[0].tolist() == counts[1].tolist()
