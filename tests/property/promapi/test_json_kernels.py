"""Result JSON equals the reference, number texts equal Go's, hostile label runs are refused."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import promapi_json as kernels
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import promapi_json as reference

PROFILE = examples(60)
FLOATS = st.one_of(
    st.floats(width=64),
    st.floats(1e-8, 1e-3),
    st.floats(-1e22, -1e14),
    st.integers(-(10**18), 10**18).map(float),
    st.integers(0, 2**64 - 1).map(lambda n: np.uint64(n).view(np.float64).item()),
)
TEXT = st.one_of(st.text(max_size=6), st.sampled_from(['"', "\\", "\n", "\x01", "é\U0001f600"]))
LABELS = st.dictionaries(TEXT.filter(bool), TEXT, max_size=3)


def written(function, labels, offsets, timestamps, values, span):
    first, stop = span[1], span[2]
    text = orjson.dumps(values[first:stop], option=orjson.OPT_SERIALIZE_NUMPY)
    size = 6 * len(labels.data) + 64 * len(labels) + kernels.POINT_BYTES_MAX * len(values) + 64
    out = np.zeros(size, np.uint8)
    arguments = (guarded(text), np.array(span, np.int64), out)
    n = function(labels.data, labels.offsets, offsets, timestamps, values, *arguments)
    return out[:n].tobytes()


@PROFILE
@given(
    st.lists(st.tuples(LABELS, st.lists(st.tuples(st.integers(-(2**50), 2**50), FLOATS)))),
    st.booleans(),
    st.integers(0, 5),
)
def test_series_equal_reference(series, comma, cut):
    """Any points, in one call or cut in two, are the reference's bytes and valid JSON."""
    labels = LabelRuns.of_mappings([mapping for mapping, _ in series])
    offsets = np.cumsum([0] + [len(points) for _, points in series]).astype(np.int64)
    points = [point for _, group in series for point in group]
    timestamps = np.array([t for t, _ in points], np.int64)
    values = np.array([v for _, v in points], np.float64)
    n, cut = len(points), min(cut, len(points))
    columns = (labels, offsets, timestamps, values)
    expected = written(reference.write_json_series, *columns, [0, 0, n, 0, comma])
    got = written(kernels.write_json_series, *columns, [0, 0, cut, 0, comma])
    row = int(np.searchsorted(offsets, cut, "right")) - 1
    more = comma or cut > 0
    got += written(kernels.write_json_series, *columns, [max(row, 0), cut, n, 0, more])
    assert expected == got
    json.loads(b"[" + got.removeprefix(b",") + b"]")


@PROFILE
@given(FLOATS)
def test_number_text_is_gos(value):
    """Every double reads back, in Go's dress."""
    labels, offsets = LabelRuns.of([b""]), np.array([0, 1], np.int64)
    columns = (labels, offsets, np.array([1500], np.int64), np.array([value]))
    text = written(kernels.write_json_series, *columns, [0, 0, 1, 1, 0]).decode()
    expected = reference.format_go_float(value)
    assert f'{{"metric":{{}},"value":[1.500,"{expected}"]}}' == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (0.1, "0.1"), (1e15, "1000000000000000"),
        (1e16, "10000000000000000"), (1.5e20, "150000000000000000000"), (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"), (1e-5, "0.00001"),
        (1e-6, "0.000001"), (9.5e-7, "9.5e-07"), (1e-7, "1e-07"), (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"), (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"), (float("nan"), "NaN"), (1.25e17, "125000000000000000"),
    ],
)  # fmt: skip
def test_reference_is_go(value, expected):
    """The reference's texts are Go's, from its documentation and playground."""
    assert expected == reference.format_go_float(value)


@PROFILE
@given(st.lists(LABELS, max_size=4))
def test_labels_equal_reference(series):
    """Label sets are objects divided by commas."""
    labels = LabelRuns.of_mappings(series)
    results = []
    for function in (reference.write_json_labels, kernels.write_json_labels):
        out = np.zeros(6 * len(labels.data) + 4 * len(labels) + 8, np.uint8)
        offsets = np.zeros(len(labels) + 1, np.int64)
        n = function(labels.data, labels.offsets, 0, len(labels), offsets, out)
        results.append((n, out[: max(n, 0)].tobytes(), offsets.tolist()))
    assert results[0] == results[1]


@PROFILE
@given(st.binary(max_size=40))
def test_bytes_that_are_not_utf8_are_replaced(value):
    """The body is always UTF-8, as Python decodes it with replacement, byte for byte or not."""
    labels = LabelRuns.of([encode_run([(b"a", value)])])
    out, offsets = np.zeros(6 * len(labels.data) + 64, np.uint8), np.zeros(2, np.int64)
    n = kernels.write_json_labels(labels.data, labels.offsets, 0, 1, offsets, out)
    decoded = json.loads(out[:n].tobytes().decode())
    assert set(value.decode(errors="replace")) == set(decoded.get("a", ""))


@PROFILE
@given(st.binary(max_size=60))
def test_hostile_label_runs_are_refused(data):
    """Random bytes give a status or JSON, and never a read outside."""
    runs = LabelRuns.of([data])
    out, offsets = np.zeros(6 * len(data) * 4 + 64, np.uint8), np.zeros(2, np.int64)
    assert kernels.write_json_labels(runs.data, runs.offsets, 0, 1, offsets, out) >= -1
