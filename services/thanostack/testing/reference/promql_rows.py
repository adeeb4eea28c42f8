"""Plain references of `lib/kernels/promql_rows.py`, over lists; None is an absent value.

Operators and functions have the names that PromQL gives them. Elementary functions (`exp`, `^`,
`sin`…) have no reference here: they are checked against bits that Go itself printed.

Source: Prometheus documentation, "Operators" and "Functions".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence

from thanostack.testing.reference.promql_windows import divide

Row = Sequence[float | None]


def _quiet(function: Callable[..., float], *args: float) -> float:
    """Return a function of `math` with C's answers where Python raises."""
    try:
        return function(*args)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf


def operate(op: str, a: float, b: float) -> tuple[float, bool]:
    """Return (value, kept) of `a op b`."""
    match op:
        case "+":
            return a + b, True
        case "-":
            return a - b, True
        case "*":
            return a * b, True
        case "/":
            return divide(a, b), True
        case "%":
            return _quiet(math.fmod, a, b), True
    holds = {"==": a == b, "!=": a != b, ">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b}
    return a, holds[op]


def _clamp(x: float, low: float, high: float) -> float:
    below = -math.inf if -math.inf in {x, high} else min(high, x)
    if below != -math.inf and (math.isnan(x) or math.isnan(high)):
        below = math.nan
    if math.inf in {below, low}:
        return math.inf
    return math.nan if math.isnan(below) or math.isnan(low) else max(low, below)


def _date(name: str, x: float) -> float:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=int(x))
    following = (moment.replace(day=28) + dt.timedelta(days=4)).replace(day=1)
    parts = {
        "minute": moment.minute,
        "hour": moment.hour,
        "day_of_week": moment.isoweekday() % 7,
        "day_of_month": moment.day,
        "day_of_year": moment.timetuple().tm_yday,
        "days_in_month": (following - dt.timedelta(days=1)).day,
        "month": moment.month,
        "year": moment.year,
    }
    return float(parts[name])


DATES = (
    "minute",
    "hour",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "days_in_month",
    "month",
    "year",
)


def apply(name: str, x: float, a: float, b: float) -> float:
    """Return a function of one value with up to two parameters."""
    match name:
        case "-":
            return -x
        case "abs":
            return abs(x)
        case "ceil" | "floor":
            rounded = {"ceil": math.ceil, "floor": math.floor}[name]
            return math.copysign(float(rounded(x)), x) if math.isfinite(x) else x
        case "sqrt":
            return _quiet(math.sqrt, x)
        case "sgn":
            return x if x == 0 or math.isnan(x) else math.copysign(1.0, x)
        case "deg":
            return x * 180 / math.pi
        case "rad":
            return x * math.pi / 180
        case "round":
            inverse = divide(1.0, a)
            scaled = x * inverse + 0.5
            return divide(float(math.floor(scaled)) if math.isfinite(scaled) else scaled, inverse)
        case "clamp":
            return _clamp(x, a, b)
    return _date(name, x)


def transform_rows(
    row: Row, name: str, params: Sequence[tuple[float, float]], *, swapped: bool, as_bool: bool
) -> list[float | None]:
    """Return an operation of every value with the scalars of its step."""
    out: list[float | None] = []
    for x, (a, b) in zip(row, params, strict=True):
        if x is None:
            out.append(None)
        elif name in OPERATORS:
            value, kept = operate(name, a, x) if swapped else operate(name, x, a)
            if name in COMPARISONS:
                value = x
            out.append(float(kept) if as_bool else value if kept else None)
        elif name == "clamp" and b < a:
            out.append(None)
        else:
            out.append(apply(name, x, a, b))
    return out


COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")
OPERATORS = ("+", "-", "*", "/", "%", *COMPARISONS)
FUNCTIONS = ("abs", "ceil", "floor", "sqrt", "sgn", "deg", "rad", "round", "clamp", *DATES)


def combine_scalars(left: Sequence[float], right: Sequence[float], op: str) -> list[float]:
    """Return `left op right` at every step."""
    pairs = [operate(op, a, b) for a, b in zip(left, right, strict=True)]
    return [float(kept) if op in COMPARISONS else value for value, kept in pairs]


def combine_rows(
    left: Sequence[Row],
    right: Sequence[Row],
    pairs: Sequence[tuple[int, int]],
    op: str,
    *,
    as_bool: bool,
) -> list[list[float | None]]:
    """Return `left[i] op right[j]` for each pair of rows."""
    out = []
    for i, j in pairs:
        row: list[float | None] = []
        for a, b in zip(left[i], right[j], strict=True):
            if a is None or b is None:
                row.append(None)
                continue
            value, kept = operate(op, a, b)
            row.append(float(kept) if as_bool else value if kept else None)
        out.append(row)
    return out


def mark_groups(
    present: Sequence[Sequence[bool]], groups: Sequence[int], n: int
) -> list[list[bool]]:
    """Return for each group and step whether one of its rows is there."""
    steps = range(len(present[0]) if present else 0)
    return [
        [any(row[k] for row, g in zip(present, groups, strict=True) if g == group) for k in steps]
        for group in range(n)
    ]


def first_clash(
    present: Sequence[Sequence[bool]], groups: Sequence[int], wanted: Sequence[bool]
) -> tuple[int, int] | None:
    """Return (row, step) of the first value, by step, whose group has one already."""
    for k, look in enumerate(wanted):
        seen = set()
        for row, group in enumerate(groups):
            if look and present[row][k]:
                if group in seen:
                    return row, k
                seen.add(group)
    return None
