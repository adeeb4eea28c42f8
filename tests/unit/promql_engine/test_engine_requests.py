"""What a query asks of its sources: times, ranges and hints of every selector."""

import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.model.queryable import SelectHints
from thanostack.lib.promql.engine import Engine
from thanostack.lib.promql.parser import ParserOptions, parse_expr

ALL = ParserOptions(
    enable_experimental_functions=True,
    enable_extended_range_selectors=True,
    enable_binop_fill_modifiers=True,
)
S = 1000
M = 60 * S


def asked(query, start=10 * M, end=20 * M, step=M):
    return Engine().selectors(parse_expr(query, ALL), start, end, step)


@pytest.mark.parametrize(
    ("query", "mint", "maxt"),
    [
        ("m", 5 * M + 1, 20 * M),
        ("m offset 2m", 3 * M + 1, 18 * M),
        ("m offset -2m", 7 * M + 1, 22 * M),
        ("rate(m[3m])", 7 * M + 1, 20 * M),
        ("m @ 60", -4 * M + 1, M),
        ("m @ end()", 15 * M + 1, 20 * M),
        ("rate(m[3m] @ start() offset 1m)", 6 * M + 1, 9 * M),
        ("max_over_time(m[4m:1m])", M + 1, 20 * M),
        ("max_over_time(m[4m:1m] offset 1m)", 1, 19 * M),
        ("max_over_time(m[4m:1m] @ 600)", M + 1, 10 * M),
        ("max_over_time(rate(m[2m])[4m:1m])", 4 * M + 1, 20 * M),
        ("m smoothed", 5 * M + 1, 25 * M),
        ("rate(m[2m] anchored)", 3 * M + 1, 20 * M),
        ("rate(m[2m] smoothed)", 3 * M + 1, 25 * M),
        ("rate(m[step() * 3])", 7 * M + 1, 20 * M),
        ("rate(m[range() / 2])", 5 * M + 1, 20 * M),
    ],
)
def test_times(query, mint, maxt):
    """The range is (first data time - range or lookback, last data time]."""
    (request,) = asked(query)
    assert (mint, maxt) == (request.mint, request.maxt)


@pytest.mark.parametrize(
    ("query", "hints"),
    [
        ("m", SelectHints(step_ms=M)),
        ("rate(m[5m])", SelectHints(step_ms=M, range_ms=5 * M, function="rate")),
        (
            "sum by (a, b) (m)",
            SelectHints(step_ms=M, function="sum", grouping=("a", "b"), by=True),
        ),
        ("sum without (a) (m)", SelectHints(step_ms=M, function="sum", grouping=("a",))),
        ("sum(m + 1)", SelectHints(step_ms=M)),
        ("max_over_time(m[5m:7s])", SelectHints(step_ms=7 * S, function="max_over_time")),
    ],
)
def test_hints(query, hints):
    assert hints == asked(query)[0].hints


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("m[1m - 2m]", "duration must be greater than 0"),
        ("m[1m / (1 - 1)]", "division by zero"),
        ("m[1m % (1 - 1)]", "modulo by zero"),
        ("m[10 ^ 400]", "duration is NaN or infinite"),
        ("m[10 ^ 20]", "duration is out of range"),
    ],
)
def test_durations_without_a_usable_value(query, message):
    with pytest.raises(InvalidInput, match=message):
        Engine().selectors(parse_expr(query), 0, 0, 0)
