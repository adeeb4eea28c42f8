"""Duration expressions: arithmetic inside ranges, steps and offsets, done once before a query.

Source: Prometheus 3.14 `promql/durations.go`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.promql.ast import DurationExpr, Expr, NumberLiteral

_SECONDS_MAX = float(1 << 63) / 1e9


@dataclass(frozen=True, slots=True)
class DurationContext:
    """What `step()` and `range()` mean in one query, ms."""

    step_ms: int
    range_ms: int


def resolve_duration(expr: DurationExpr, context: DurationContext, *, negative: bool) -> int:
    """Return a duration expression in ms, cut towards zero.

    Args:
        expr: the expression.
        context: of the query.
        negative: whether zero and less is allowed, as in an offset.

    Raises:
        InvalidInput: when it has no value, or one that no duration may have.
    """
    seconds = _evaluate(expr, context)
    if math.isnan(seconds) or math.isinf(seconds):
        raise _error(expr, "duration is NaN or infinite")
    if seconds <= 0 and not negative:
        raise _error(expr, "duration must be greater than 0")
    if abs(seconds) > _SECONDS_MAX:
        raise _error(expr, "duration is out of range")
    return int(seconds * 1000)


def _error(expr: Expr, text: str) -> InvalidInput:
    return InvalidInput(f"{expr.position.start}:{expr.position.end}: {text}")


def seconds_of(duration_ms: int) -> float:
    """Return ms in seconds as Go does: whole seconds plus the rest, each rounded."""
    sign = -1 if duration_ms < 0 else 1
    whole, rest = divmod(abs(duration_ms), 1000)
    return sign * (whole + rest * 1_000_000 / 1e9)


def _evaluate(expr: Expr | None, context: DurationContext) -> float:
    if expr is None:
        return 0.0
    if isinstance(expr, NumberLiteral):
        return expr.value
    if not isinstance(expr, DurationExpr):
        raise InvalidInput(f"unexpected duration expression type {type(expr).__name__}")
    if expr.op == "step":
        return seconds_of(context.step_ms)
    if expr.op == "range":
        return seconds_of(context.range_ms)
    left, right = _evaluate(expr.lhs, context), _evaluate(expr.rhs, context)
    if expr.op in {"/", "%"} and right == 0:
        raise _error(expr, "division by zero" if expr.op == "/" else "modulo by zero")
    return _operate(expr.op, left, right)


def _operate(op: str, left: float, right: float) -> float:
    try:
        match op:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "%":
                return math.fmod(left, right)
            case "^":
                return math.pow(left, right)
            case "min_of":
                return min(left, right)
            case "max_of":
                return max(left, right)
    except (OverflowError, ValueError):
        return math.nan
    raise InvalidInput(f"unexpected duration expression operator {op!r}")
