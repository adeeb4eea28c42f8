"""Arithmetic and aggregation kernels have the bits of their references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import promql_aggregates, promql_buckets, promql_rows
from thanostack.lib.kernels._jit import DISABLED
from thanostack.lib.promql.engine.aggregation import RANKING, STREAMING
from thanostack.lib.promql.engine.labels import members_by_group
from thanostack.lib.promql.engine.row_functions import OPERATORS, ROW_FUNCTIONS
from thanostack.testing.examples import examples
from thanostack.testing.reference import promql_aggregates as aggregate_reference
from thanostack.testing.reference import promql_buckets as bucket_reference
from thanostack.testing.reference import promql_rows as reference
from thanostack.testing.step_rows import bit_rows, bits, matrix_of, rows_of

checked = examples(50)
thorough = examples(200)
STEPS = 4
numbers = st.one_of(
    st.integers(-3, 5).map(float),
    st.floats(-1e3, 1e3),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, -0.0]),
)
values = st.none() | numbers
row = st.lists(values, min_size=STEPS, max_size=STEPS)
scalars = st.lists(numbers, min_size=STEPS, max_size=STEPS)
tables = st.lists(row, min_size=1, max_size=6)
grouped = tables.flatmap(
    lambda t: st.tuples(st.just(t), st.lists(st.integers(0, 2), min_size=len(t), max_size=len(t)))
)


def blank(rows):
    return np.empty((rows, STEPS)), np.empty((rows, STEPS), np.bool_)


@thorough
@given(row, st.sampled_from(reference.OPERATORS), scalars, st.booleans(), st.booleans())
def test_transform_rows_by_operators(items, name, numbers_by_step, swapped, as_bool):
    as_bool = as_bool and name in reference.COMPARISONS
    matrix, present = matrix_of([items], STEPS)
    op = OPERATORS[name] + promql_rows.SWAPPED * swapped + promql_rows.AS_BOOL * as_bool
    params = np.array([numbers_by_step, numbers_by_step])
    points = promql_rows.transform_rows(matrix, present, op, params)
    pairs = [(a, a) for a in numbers_by_step]
    expected = reference.transform_rows(items, name, pairs, swapped=swapped, as_bool=as_bool)
    assert bit_rows([expected]) == bit_rows(rows_of(matrix, present))
    assert np.count_nonzero(present) == points


@pytest.mark.skipif(DISABLED, reason="plain math raises where compiled code gives NaN")
@thorough
@given(row, st.sampled_from(reference.FUNCTIONS), scalars, scalars)
def test_transform_rows_by_functions(items, name, first, second):
    if name in reference.DATES:
        items = [None if x is None or not abs(x) < 1e9 else x * 1e5 for x in items]
    matrix, present = matrix_of([items], STEPS)
    promql_rows.transform_rows(matrix, present, ROW_FUNCTIONS[name], np.array([first, second]))
    pairs = list(zip(first, second, strict=True))
    expected = reference.transform_rows(items, name, pairs, swapped=False, as_bool=False)
    assert bit_rows([expected]) == bit_rows(rows_of(matrix, present))


@checked
@given(scalars, scalars, st.sampled_from(reference.OPERATORS))
def test_combine_scalars(left, right, op):
    out = np.empty((1, STEPS))
    promql_rows.combine_scalars(np.array(left), np.array(right), OPERATORS[op], out)
    assert bit_rows([reference.combine_scalars(left, right, op)]) == bit_rows(out.tolist())


@checked
@given(tables, tables, st.sampled_from(reference.OPERATORS), st.booleans(), st.data())
def test_combine_rows(left, right, op, as_bool, data):
    as_bool = as_bool and op in reference.COMPARISONS
    pair = st.tuples(st.integers(0, len(left) - 1), st.integers(0, len(right) - 1))
    pairs = data.draw(st.lists(pair, max_size=4))
    out, present = blank(len(pairs))
    lefts = np.array([i for i, _ in pairs], np.int64)
    rights = np.array([j for _, j in pairs], np.int64)
    points = promql_rows.combine_rows(
        *matrix_of(left, STEPS), *matrix_of(right, STEPS), lefts, rights,
        OPERATORS[op] + promql_rows.AS_BOOL * as_bool, out, present,
    )  # fmt: skip
    expected = reference.combine_rows(left, right, pairs, op, as_bool=as_bool)
    assert bit_rows(expected) == bit_rows(rows_of(out, present))
    assert np.count_nonzero(present) == points


@checked
@given(grouped, st.lists(st.booleans(), min_size=STEPS, max_size=STEPS))
def test_group_presence(table_and_groups, wanted):
    """mark_groups and first_clash agree with looking at every step on its own."""
    table, groups = table_and_groups
    _, present = matrix_of(table, STEPS)
    numbers_of_groups = np.array(groups, np.int64)
    out = np.zeros((3, STEPS), np.bool_)
    fresh = promql_rows.mark_groups(present, numbers_of_groups, out)
    assert reference.mark_groups(present.tolist(), groups, 3) == out.tolist()
    assert fresh == np.count_nonzero(out)
    seen = np.zeros((3, STEPS), np.bool_)
    found = promql_rows.first_clash(present, numbers_of_groups, np.array([wanted]), seen)
    expected = reference.first_clash(present.tolist(), groups, wanted)
    assert expected == (None if found < 0 else divmod(found, STEPS))


@thorough
@given(grouped, st.sampled_from(sorted(STREAMING)), st.integers(1, 3))
def test_accumulate_and_finish(table_and_groups, name, batch):
    """Groups have the bits of one sequential pass, whatever the batches."""
    table, groups = table_and_groups
    matrix, present = matrix_of(table, STEPS)
    state = np.zeros((5, 3, STEPS))
    for first in range(0, len(table), batch):
        part = slice(first, first + batch)
        numbers_of_groups = np.array(groups[part], np.int64)
        promql_aggregates.accumulate_rows(
            matrix[part], present[part], numbers_of_groups, STREAMING[name], state
        )
    out, seen = blank(3)
    points = promql_aggregates.finish_groups(state, STREAMING[name], out, seen)
    expected = aggregate_reference.accumulate_rows(name, table, groups, 3)
    assert bit_rows(expected) == bit_rows(rows_of(out, seen))
    assert np.count_nonzero(seen) == points


@checked
@given(grouped, scalars)
def test_quantile_groups(table_and_groups, q):
    table, groups = table_and_groups
    members, bounds = members_by_group(np.array(groups, np.int64), 3)
    out, seen = blank(3)
    promql_aggregates.quantile_groups(
        *matrix_of(table, STEPS), members, bounds, np.array(q), np.empty(10), out, seen
    )
    expected = aggregate_reference.quantile_groups(table, groups, 3, q)
    assert bit_rows(expected) == bit_rows(rows_of(out, seen))


@thorough
@given(
    grouped,
    st.sampled_from(sorted(RANKING)),
    st.lists(st.integers(-1, 4), min_size=STEPS, max_size=STEPS),
)
def test_rank_rows(table_and_groups, name, wanted):
    """The rows kept, and their order at the last step, are those of Go's heap."""
    table, groups = table_and_groups
    matrix, present = matrix_of(table, STEPS)
    members, bounds = members_by_group(np.array(groups, np.int64), 3)
    keep, order = np.empty(present.shape, np.bool_), np.empty(len(table), np.int64)
    promql_aggregates.rank_rows(
        matrix, present, members, bounds, np.array(wanted), RANKING[name], np.empty(9, np.int64),
        keep, order,
    )  # fmt: skip
    for k in range(STEPS):
        ranked = []
        for group in range(3):
            column = [(i, table[i][k]) for i, g in enumerate(groups) if g == group]
            column = [(i, value) for i, value in column if value is not None]
            ranked += aggregate_reference.rank_rows(name, column, wanted[k])
        assert sorted(ranked) == np.flatnonzero(keep[:, k]).tolist()
    assert ranked == order[order >= 0].tolist()


bounds_of_buckets = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 10.0, np.inf])
histogram = st.lists(
    st.tuples(bounds_of_buckets, st.integers(0, 20).map(float) | st.just(5.000000000001)),
    min_size=1,
    max_size=6,
)


def bucket_arrays(buckets):
    order = sorted(range(len(buckets)), key=lambda i: buckets[i][0])
    rows = np.zeros(len(buckets), promql_buckets.BUCKET_DTYPE)
    rows["row"], rows["upper"] = order, [buckets[i][0] for i in order]
    counts = np.array([[count] for _, count in buckets])
    return counts, np.ones(counts.shape, np.bool_), rows, np.array([0, len(buckets)], np.int64)


@thorough
@given(histogram, st.sampled_from([0.0, 0.2, 0.5, 0.99, 1.0, -1.0, 2.0, np.nan]))
def test_quantile_buckets(buckets, q):
    out, seen, report = np.empty((1, 1)), np.empty((1, 1), np.bool_), np.zeros((1, 6))
    promql_buckets.quantile_buckets(
        *bucket_arrays(buckets), np.array([[q]]), np.empty((2, 9)), report, out, seen
    )
    expected, forced = bucket_reference.quantile_buckets(q, buckets)
    assert bits(expected) == bits(out[0, 0])
    got = tuple(report[0, 1:4].tolist()) if report[0, 0] else None
    assert forced == got


@thorough
@given(histogram, numbers, numbers)
def test_fraction_buckets(buckets, low, high):
    out, seen = np.empty((1, 1)), np.empty((1, 1), np.bool_)
    promql_buckets.fraction_buckets(
        *bucket_arrays(buckets), np.array([[low], [high]]), np.empty((2, 9)), out, seen
    )
    assert bits(bucket_reference.fraction_buckets(low, high, buckets)) == bits(out[0, 0])
