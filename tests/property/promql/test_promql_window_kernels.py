"""The window kernels have the bits of their references, window by window."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import promql_extended, promql_windows
from thanostack.testing.examples import examples
from thanostack.testing.promql_script import STALE
from thanostack.testing.reference import promql_extended as extended_reference
from thanostack.testing.reference import promql_windows as reference
from thanostack.testing.step_rows import batch_of, bit_rows, rows_of

checked = examples(50)
numbers = st.one_of(
    st.integers(0, 9).map(float),
    st.floats(-1e3, 1e3),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-300, -0.0]),
)
times = st.lists(st.integers(-60, 300), unique=True, max_size=14).map(sorted)


def series_of(values):
    return times.flatmap(
        lambda ts: st.tuples(*(values for _ in ts)).map(lambda vs: list(zip(ts, vs, strict=True)))
    )


batches = st.lists(series_of(numbers), min_size=1, max_size=3)
grids = st.tuples(st.integers(-50, 100), st.integers(0, 40), st.integers(1, 8))
ranges = st.integers(1, 120)
OPERATIONS = {
    "sum": promql_windows.SUM,
    "avg": promql_windows.AVG,
    "min": promql_windows.MIN,
    "max": promql_windows.MAX,
    "count": promql_windows.COUNT,
    "stddev": promql_windows.STDDEV,
    "stdvar": promql_windows.STDVAR,
    "last": promql_windows.LAST,
    "first": promql_windows.FIRST,
    "present": promql_windows.PRESENT,
    "irate": promql_windows.IRATE,
    "idelta": promql_windows.IDELTA,
    "resets": promql_windows.RESETS,
    "changes": promql_windows.CHANGES,
    "deriv": promql_windows.DERIV,
    "predict": promql_windows.PREDICT,
    "quantile": promql_windows.QUANTILE,
    "mad": promql_windows.MAD,
    "smooth": promql_windows.SMOOTH,
    "ts_first": promql_windows.TS_FIRST,
    "ts_last": promql_windows.TS_LAST,
    "ts_max": promql_windows.TS_MAX,
    "ts_min": promql_windows.TS_MIN,
}


def times_of(grid):
    first, step, count = grid
    return [first + k * step for k in range(count)]


def blank(series, grid):
    shape = (len(series), grid[2])
    return np.empty(shape), np.empty(shape, np.bool_)


def assert_equal(expected, out, present, points):
    assert bit_rows(expected) == bit_rows(rows_of(out, present))
    assert np.count_nonzero(present) == points


def test_every_operation_has_a_reference():
    assert set(reference.FUNCTIONS) == set(OPERATIONS)


@checked
@given(
    st.lists(series_of(numbers | st.just(STALE)), min_size=1, max_size=3),
    grids,
    ranges,
    st.booleans(),
)
def test_instant_rows(series, grid, lookback, want_time):
    batch, (out, present) = batch_of(series), blank(series, grid)
    points = promql_windows.instant_rows(
        batch.offsets, batch.timestamps, batch.values, np.array([*grid[:2], 0, 0, 0, 0]),
        lookback, want_time, out, present,
    )  # fmt: skip
    expected = [reference.instant_rows(one, times_of(grid), lookback, want_time) for one in series]
    assert_equal(expected, out, present, points)


@checked
@given(batches, grids, ranges, st.sampled_from([0.0, 60.0, 0.3]), st.booleans())
def test_rate_rows(series, grid, range_ms, divisor, is_counter):
    batch, (out, present) = batch_of(series), blank(series, grid)
    points = promql_windows.rate_rows(
        batch.offsets, batch.timestamps, batch.values, np.array([*grid[:2], range_ms, 0, 0, 0]),
        np.array([divisor]), is_counter, np.empty(20, np.int64), out, present,
    )  # fmt: skip
    expected = [
        reference.rate_rows(one, times_of(grid), range_ms, divisor, is_counter) for one in series
    ]
    assert_equal(expected, out, present, points)


@examples(200)
@given(
    batches,
    grids,
    ranges,
    st.sampled_from(sorted(OPERATIONS)),
    st.tuples(*(st.sampled_from([0.1, 0.5, 0.75, -1.0, 2.0, np.nan]),) * 2),
    st.integers(-1000, 1000),
)
def test_window_rows(series, grid, range_ms, name, pair, shift):
    batch, (out, present) = batch_of(series), blank(series, grid)
    first, step, count = grid
    spec = np.array([first, step, range_ms, first + shift, step + 1, OPERATIONS[name]])
    points = promql_windows.window_rows(
        batch.offsets, batch.timestamps, batch.values, spec,
        np.repeat(np.array(pair)[:, np.newaxis], count, axis=1), np.empty(20), out, present,
    )  # fmt: skip
    both = [(t, first + shift + k * (step + 1)) for k, t in enumerate(times_of(grid))]
    expected = [reference.window_rows(one, both, range_ms, name, [pair] * count) for one in series]
    assert_equal(expected, out, present, points)


def test_quantile_of_a_long_window():
    """Windows of more samples than the insertion sort takes are heap-sorted."""
    series = [[(t, float(t * 7919 % 1000)) for t in range(300)]]
    batch, out = batch_of(series), np.empty((1, 1))
    promql_windows.window_rows(
        batch.offsets, batch.timestamps, batch.values,
        np.array([299, 0, 1000, 0, 0, promql_windows.QUANTILE]), np.full((2, 1), 0.37),
        np.empty(300), out, np.empty((1, 1), np.bool_),
    )  # fmt: skip
    assert out[0, 0] == reference.quantile(0.37, [v for _, v in series[0]])


@checked
@given(
    batches,
    grids,
    ranges,
    st.integers(1, 100),
    st.sampled_from(["delta", "increase", "resets", "changes", "instant"]),
    st.booleans(),
)
def test_extended_rows(series, grid, range_ms, lookback, name, smoothed):
    operations = {
        "delta": promql_extended.DELTA,
        "increase": promql_extended.INCREASE,
        "instant": promql_extended.INSTANT,
        "resets": promql_windows.RESETS,
        "changes": promql_windows.CHANGES,
    }
    smoothed = smoothed or name == "instant"
    range_ms = 0 if name == "instant" else range_ms
    batch, (out, present) = batch_of(series), blank(series, grid)
    after = lookback if smoothed else 0
    points = promql_extended.extended_rows(
        batch.offsets, batch.timestamps, batch.values,
        np.array([*grid[:2], range_ms, lookback, after, operations[name]]), np.array([60.0]),
        smoothed, out, present,
    )  # fmt: skip
    divisor = 60.0 if name in {"delta", "increase"} else 0.0
    expected = [
        extended_reference.extended_rows(
            one, times_of(grid), range_ms, lookback, name, divisor, smoothed
        )
        for one in series
    ]
    assert_equal(expected, out, present, points)
