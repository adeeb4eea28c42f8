"""Forms of results, and rules that scripts cannot state."""

import numpy as np
import pytest

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.promql.engine import (
    Engine,
    EngineOptions,
    MatrixResult,
    ScalarResult,
    StringResult,
    VectorResult,
)
from thanostack.lib.promql.parser import ParserOptions, parse_expr
from thanostack.testing.memory_queryable import MemoryQueryable

ALL = ParserOptions(enable_experimental_functions=True)


def queryable() -> MemoryQueryable:
    found = MemoryQueryable()
    for i in range(3):
        labels = {"__name__": "m", "i": str(i)}
        found.add(labels, [(t, float(t // 1000 + i)) for t in range(0, 61_000, 10_000)])
    found.add({"__name__": "n", "i": "0"}, [(60_000, 7.0)])
    return found


def instant(query, time=60_000, **options):
    return Engine(EngineOptions(**options)).instant(parse_expr(query, ALL), queryable(), time).value


def vector(query, **options):
    value = instant(query, **options)
    assert isinstance(value, VectorResult)
    return {
        tuple(sorted(value.labels.mapping(i).items())): float(value.values[i])
        for i in range(len(value))
    }


def test_a_scalar():
    assert ScalarResult(60_000, 61.0) == instant("time() + 1")


def test_a_string():
    assert StringResult(60_000, "x") == instant("('x')")


def test_a_vector_has_the_evaluation_time():
    value = instant("m", time=65_000)
    assert value.timestamps.tolist() == [65_000] * 3


def test_a_range_vector_has_raw_times():
    value = instant("m{i='1'}[25s]")
    assert isinstance(value, MatrixResult)
    assert tuple(column.tolist() for column in value.series(0)) == (
        [40_000, 50_000, 60_000],
        [41.0, 51.0, 61.0],
    )


def test_a_scalar_range_is_one_series_without_labels():
    value = Engine().range(parse_expr("time()"), queryable(), 0, 2000, 1000).value
    assert (value.labels.mapping(0), value.values.tolist()) == ({}, [0.0, 1.0, 2.0])


def test_an_empty_answer():
    value = Engine().range(parse_expr("nothing"), queryable(), 0, 2000, 1000).value
    assert (len(value), value.offsets.tolist()) == (0, [0])


def test_a_lookback_of_its_own():
    expr = parse_expr("m")
    assert len(Engine().instant(expr, queryable(), 66_000, lookback_ms=5_000).value) == 0
    assert len(Engine().instant(expr, queryable(), 64_000, lookback_ms=5_000).value) == 3


def test_names_go_at_once_or_at_the_end():
    """By (__name__) still sees the name of a sum when removal is delayed."""
    assert vector("sum by (__name__) (m * 1)") == {(): 183.0}
    assert vector("sum by (__name__) (m)") == {(("__name__", "m"),): 183.0}
    kept = vector("count by (__name__) (abs({__name__=~'m|n', i!='0'}))", delayed_name_removal=True)
    assert kept == {(): 2.0}
    with pytest.raises(ExecutionFailed, match="same labelset"):
        vector("abs({__name__=~'m|n'})")


def test_delayed_removal_lets_label_functions_see_names():
    query = "label_replace(abs(m), 'name', '$1', '__name__', '(.*)')"
    assert {"m"} == {dict(key)["name"] for key in vector(query, delayed_name_removal=True)}
    assert not any("name" in dict(key) for key in vector(query))


def test_limit_ratio_splits_in_two():
    """What a ratio keeps and what its complement keeps are everything, and nothing twice."""
    first, second = vector("limit_ratio(0.5, m)"), vector("limit_ratio(-0.5, m)")
    assert set(vector("m")) == set(first) | set(second)
    assert not set(first) & set(second)


def test_an_unknown_function_is_refused_by_name():
    expr = parse_expr("abs(m)")
    function = type(expr.function)(
        name="nope", arg_types=expr.function.arg_types, return_type=expr.function.return_type
    )
    broken = type(expr)(function=function, args=expr.args)
    with pytest.raises(ExecutionFailed, match=r"function nope\(\) is not implemented"):
        Engine().instant(broken, queryable(), 0)


def test_step_invariant_parts_are_read_once():
    """A selector with @ is evaluated once, however many steps and slices there are."""
    found = queryable()
    Engine(EngineOptions(bytes_max=2_000)).range(
        parse_expr("rate(m[1m] @ 60) * 2 + on(i) m"), found, 0, 600_000, 10_000
    )
    (sources,) = found.selected
    assert len(sources[0].reads) == 1


def test_many_series_group_by_first_appearance():
    found = MemoryQueryable()
    for i in range(1000):
        found.add({"__name__": "m", "i": f"{i:04}", "g": str(i % 7)}, [(0, float(i))])
    value = Engine().instant(parse_expr("sum by (g) (m)"), found, 0).value
    assert [str(i) for i in range(7)] == [value.labels.mapping(i)["g"] for i in range(7)]
    assert np.isclose(499_500.0, value.values.sum())


def test_a_subquery_of_an_instant_query_ranks_each_of_its_steps():
    """Of `m - 30 < 0` the largest is negated to be the smallest: the winner changes on the way."""
    lead = "topk(1, (m{i='0'} - 30) or (20 - m{i='1'}))"
    expected = {(("i", "0"),): 4.0, (("i", "1"),): 3.0}
    assert expected == vector(f"count_over_time({lead}[61s:10s])")
    value = instant(f"{lead}[61s:10s]")
    assert isinstance(value, MatrixResult)
    assert [3, 4] == sorted(len(value.series(row)[0]) for row in range(len(value)))


@pytest.mark.parametrize("query", ["topk(2, m @ 60)", "sort_desc(m @ 60)"])
def test_what_is_the_same_at_every_step_is_an_instant_of_its_own(query):
    """Neither a ranking nor a warning on sorting takes it for a range of steps."""
    result = Engine(EngineOptions()).range(
        parse_expr(query, ALL), queryable(), 0, 60_000, 30_000, query=query
    )
    assert () == result.warnings
    assert {(0, 30_000, 60_000)} == {
        tuple(result.value.series(row)[0].tolist()) for row in range(len(result.value))
    }
