"""Texts that users and dashboards see: annotations with positions, numbers, label sets."""

import math

import pytest

from thanostack.lib.promql.ast import Position
from thanostack.lib.promql.engine import Engine, EngineOptions
from thanostack.lib.promql.engine.annotations import Annotations, ForcedMonotonicity
from thanostack.lib.promql.engine.labels import LabelTable
from thanostack.lib.promql.engine.numbers_text import (
    format_general,
    format_shortest,
    parse_float,
    quote,
)
from thanostack.lib.promql.parser import parse_expr
from thanostack.testing.memory_queryable import MemoryQueryable


def queryable() -> MemoryQueryable:
    found = MemoryQueryable(warnings=("store a is away",))
    found.add({"__name__": "g"}, [(0, 1.0), (30_000, 2.0)])
    for le, count in (("1", 5.0), ("2", 3.0), ("+Inf", 6.0)):
        found.add({"__name__": "b_bucket", "le": le}, [(30_000, count)])
    return found


def instant(query, options=EngineOptions()):  # noqa: B008
    return Engine(options).instant(parse_expr(query), queryable(), 60_000, query=query)


def test_positions_are_line_and_column():
    """The position is that of the argument; columns begin anew on each line."""
    result = instant("1 +\n  rate(g[5m])")
    (info,) = result.infos
    assert info == (
        "PromQL info: metric might not be a counter, name does not end in "
        '_total/_sum/_count/_bucket: "g" (2:8)'
    )


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("count_over_time(sort(g)[1m:15s])", True),
        ("count_over_time(sort(g)[1m:15s] @ 60)", True),
        ("count_over_time(sort(g)[15s:15s])", False),
        ("count_over_time(sort(g @ 60)[1m:15s])", False),
        ("sort(g)", False),
    ],
)
def test_sorting_is_in_vain_in_a_subquery_too(query, told):
    """Upstream looks at the steps around the sorting, not at those of the whole query."""
    assert told == any("sort is ineffective" in warning for warning in instant(query).warnings)


def test_what_a_subquery_found_has_no_position():
    """Upstream says 1:1 of it, wherever it stands."""
    (info,) = instant("1 +\n  rate((g)[5m:1m])").infos
    assert info.endswith('"g" (1:1)')


def test_source_warnings_travel_with_the_result():
    assert instant("g").warnings == ("store a is away",)


def test_forced_monotonicity_carries_its_figures():
    (info,) = instant("histogram_quantile(0.5, b_bucket)").infos
    assert info.endswith(
        "from buckets 2 to 2, with a max diff of 2, over 1 samples from 1970-01-01T00:01:00Z to "
        "1970-01-01T00:01:00Z (1:25)"
    )


def test_delayed_names_are_told():
    """Only with delayed removal does histogram_quantile still know the metric."""
    (info,) = instant(
        "histogram_quantile(0.5, b_bucket)", EngineOptions(delayed_name_removal=True)
    ).infos
    assert 'for metric name "b_bucket"' in info


def test_types_judge_counters_when_switched_on():
    (info,) = instant("rate(g[5m])", EngineOptions(type_and_unit_labels=True)).infos
    assert info == (
        'PromQL info: metric might not be a counter, __type__ label is not set to "counter" or '
        '"histogram", got "": "g" (1:6)'
    )


def test_a_repeated_annotation_is_told_once():
    told = Annotations()
    told.add("PromQL warning: x", Position(0, 1))
    told.add("PromQL warning: x", Position(5, 6))
    told.add_forced("", Position(0, 1), ForcedMonotonicity(1, 2, 3, 0, 0, 1))
    assert told.texts("PromQL warning: ", "0123456") == ["PromQL warning: x (1:6)"]


@pytest.mark.parametrize(
    ("value", "general", "shortest"),
    [
        (1.0, "1", "1"),
        (0.1, "0.1", "0.1"),
        (100000.0, "100000", "100000"),
        (1e6, "1e+06", "1000000"),
        (123456789.0, "1.23456789e+08", "123456789"),
        (1.234e-05, "1.234e-05", "0.00001234"),
        (0.0001, "0.0001", "0.0001"),
        (1e21, "1e+21", "1000000000000000000000"),
        (-2.5e-300, "-2.5e-300", "-0." + "0" * 299 + "25"),
        (math.inf, "+Inf", "+Inf"),
        (-math.inf, "-Inf", "-Inf"),
        (math.nan, "NaN", "NaN"),
        (0.0, "0", "0"),
        (-0.0, "-0", "-0"),
    ],
)
def test_numbers_as_go_writes_them(value, general, shortest):
    assert (general, shortest) == (format_general(value), format_shortest(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("+Inf", math.inf),
        ("infinity", math.inf),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("0x1p4", 16.0),
        ("", None),
        ("1_0", None),
        (" 1", None),
        ("x", None),
        ("1e999", None),
    ],
)
def test_numbers_as_go_reads_them(text, value):
    assert value == parse_float(text)


def test_label_sets_as_errors_write_them():
    table = LabelTable()
    labels = {"__name__": "m", "b": 'q"\n', "a.b": "ü"}
    assert table.describe(table.add_mapping(labels)) == '{__name__="m", "a.b"="ü", b="q\\"\\n"}'
    assert quote("\x00\u200b") == '"\\x00\\u200b"'
