"""From a parsed tree to one that can be evaluated, and to the selections it needs.

`prepare` returns a tree of the same nodes in which everything that is known before the query is
resolved: duration expressions, `@ start()` and `@ end()`, `start()`, `end()`, `range()` and
`step()`, superfluous parentheses around arguments. Parts whose value is the same at every step
because all their selectors carry `@` are wrapped in `StepInvariant` and evaluated once.

`selections` lists the selectors in the order of the tree with the time that each needs.

Source: Prometheus 3.14 `promql/engine.go` (`PreprocessExpr`, `getTimeRangesForSelector`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SelectHints, SelectRequest
from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from thanostack.lib.promql.engine.durations import DurationContext, resolve_duration, seconds_of
from thanostack.lib.promql.engine.labels import METRIC_NAME

STEP_DEPENDENT = frozenset(
    {
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "days_in_month",
        "end",
        "hour",
        "minute",
        "month",
        "predict_linear",
        "range",
        "start",
        "step",
        "time",
        "timestamp",
        "year",
    }
)
"""Functions whose result depends on the step although their arguments do not."""


@dataclass(frozen=True, kw_only=True)
class StepInvariant(Expr):
    """A part that has the same value at every step."""

    expr: Expr


@dataclass(frozen=True, slots=True)
class QueryWindow:
    """The steps and settings that a tree is prepared for, ms; step 0 is an instant query."""

    start: int
    end: int
    step: int
    lookback: int
    default_step: int = 60_000


def value_type(expr: Expr) -> ValueType:
    """Return the type of a node's value."""
    match expr:
        case NumberLiteral():
            return ValueType.SCALAR
        case StringLiteral():
            return ValueType.STRING
        case MatrixSelector() | SubqueryExpr():
            return ValueType.MATRIX
        case ParenExpr() | UnaryExpr() | StepInvariant():
            return value_type(expr.expr)
        case Call():
            return expr.function.return_type
        case BinaryExpr():
            both = {value_type(expr.lhs), value_type(expr.rhs)}
            return ValueType.SCALAR if both == {ValueType.SCALAR} else ValueType.VECTOR
    return ValueType.VECTOR


def unwrapped(expr: Expr) -> Expr:
    """Return what stands inside any number of parentheses."""
    while isinstance(expr, ParenExpr):
        expr = expr.expr
    return expr


def prepare(expr: Expr, window: QueryWindow) -> Expr:
    """Return the tree ready for evaluation over a window.

    Raises:
        InvalidInput: for a duration expression without a usable value.
    """
    prepared, invariant, wrap = _Preparation(window).visit(expr)
    return _wrapped(prepared) if invariant and wrap else prepared


def _wrapped(expr: Expr) -> Expr:
    return StepInvariant(expr=expr, position=expr.position)


_Visited = tuple[Expr, bool, bool]
"""A prepared node, whether it is step-invariant, and whether wrapping it is worth while."""


class _Preparation:
    def __init__(self, window: QueryWindow) -> None:
        self._window = window
        self._durations = DurationContext(window.step, window.end - window.start)

    def visit(self, expr: Expr) -> _Visited:
        """Return a prepared node."""
        match expr:
            case VectorSelector():
                return self._selector(expr)
            case MatrixSelector():
                return self._matrix(expr)
            case SubqueryExpr():
                return self._subquery(expr)
            case Call():
                return self._call(expr)
            case BinaryExpr():
                return self._binary(expr)
            case AggregateExpr():
                return self._aggregate(expr)
            case ParenExpr() | UnaryExpr():
                inner, invariant, wrap = self.visit(expr.expr)
                return replace(expr, expr=inner), invariant, wrap
        return expr, True, False

    def _at(self, expr: VectorSelector | SubqueryExpr) -> int | None:
        edges = {"start": self._window.start, "end": self._window.end}
        return edges.get(expr.start_or_end, expr.timestamp_ms)

    def _offset(self, expr: VectorSelector | SubqueryExpr) -> int:
        if expr.offset_expr is None:
            return expr.offset_ms
        return resolve_duration(expr.offset_expr, self._durations, negative=True)

    def _selector(self, expr: VectorSelector) -> _Visited:
        at = self._at(expr)
        resolved = replace(expr, timestamp_ms=at, offset_ms=self._offset(expr))
        return resolved, at is not None, at is not None

    def _matrix(self, expr: MatrixSelector) -> _Visited:
        selector, invariant, _ = self._selector(expr.selector)
        assert isinstance(selector, VectorSelector)
        range_ms = expr.range_ms
        if expr.range_expr is not None:
            range_ms = resolve_duration(expr.range_expr, self._durations, negative=False)
        return replace(expr, selector=selector, range_ms=range_ms), invariant, False

    def _subquery(self, expr: SubqueryExpr) -> _Visited:
        offset = self._offset(expr)
        step, range_ms = expr.step_ms, expr.range_ms
        if expr.step_expr is not None:
            step = resolve_duration(expr.step_expr, self._durations, negative=False)
        if expr.range_expr is not None:
            range_ms = resolve_duration(expr.range_expr, self._durations, negative=False)
        inner, inner_invariant, _ = self.visit(expr.expr)
        if inner_invariant:
            inner = _wrapped(inner)
        at = self._at(expr)
        resolved = replace(
            expr, expr=inner, step_ms=step, range_ms=range_ms, offset_ms=offset, timestamp_ms=at
        )
        return resolved, at is not None, at is not None

    def _binary(self, expr: BinaryExpr) -> _Visited:
        left, left_invariant, wrap_left = self.visit(expr.lhs)
        right, right_invariant, wrap_right = self.visit(expr.rhs)
        if left_invariant and right_invariant:
            return replace(expr, lhs=left, rhs=right), True, True
        left = _wrapped(left) if wrap_left else left
        right = _wrapped(right) if wrap_right else right
        return replace(expr, lhs=left, rhs=right), False, False

    def _aggregate(self, expr: AggregateExpr) -> _Visited:
        inner, invariant, wrap = self.visit(unwrapped(expr.expr))
        if expr.param is None:
            return replace(expr, expr=inner), invariant, wrap
        param, param_invariant, wrap_param = self.visit(unwrapped(expr.param))
        if invariant and param_invariant:
            return replace(expr, expr=inner, param=param), True, wrap
        inner = _wrapped(inner) if wrap else inner
        param = _wrapped(param) if wrap_param else param
        return replace(expr, expr=inner, param=param), False, False

    def _call(self, expr: Call) -> _Visited:
        name = expr.function.name
        folded = self._folded(name)
        if folded is not None:
            return NumberLiteral(value=folded, position=expr.position), True, False
        args = [unwrapped(arg) for arg in expr.args]
        if name == "info":
            args = _info_arguments(args)
        visited = [self.visit(arg) for arg in args]
        invariant = name not in STEP_DEPENDENT and all(visit[1] for visit in visited)
        # timestamp() of a selector with `@` is that of one sample, the same at every step.
        if name == "timestamp" and isinstance(visited[0][0], VectorSelector) and visited[0][1]:
            invariant = True
        if invariant:
            return replace(expr, args=tuple(visit[0] for visit in visited)), True, True
        ready = [_wrapped(arg) if wrap else arg for arg, _, wrap in visited]
        return replace(expr, args=tuple(ready)), False, False

    def _folded(self, name: str) -> float | None:
        window = self._window
        match name:
            case "start":
                return window.start / 1000
            case "end":
                return window.end / 1000
            case "range":
                return seconds_of(window.end - window.start)
            case "step":
                return seconds_of(window.step) if window.start != window.end else 0.0
        return None


def _info_arguments(args: list[Expr]) -> list[Expr]:
    """Return info()'s arguments with the selector of info metrics completed.

    Only negative name matchers, or none, leave the metric open: then it is `.+_info`, respectively
    `target_info`. The times are those of the first selector.
    """
    target = args[1] if len(args) > 1 else VectorSelector()
    assert isinstance(target, VectorSelector)
    names = [m for m in target.matchers if m.name == METRIC_NAME]
    matchers = target.matchers
    if not names:
        matchers += (Matcher(MatchType.EQ, METRIC_NAME, "target_info"),)
    elif not any(m.type in {MatchType.EQ, MatchType.RE} for m in names):
        matchers += (Matcher(MatchType.RE, METRIC_NAME, ".+_info"),)
    base = next((node for node in _walk(args[0]) if isinstance(node, VectorSelector)), None)
    times = base or VectorSelector()
    target = replace(
        target,
        matchers=matchers,
        offset_ms=times.offset_ms,
        offset_expr=times.offset_expr,
        timestamp_ms=times.timestamp_ms,
        start_or_end=times.start_or_end,
    )
    return [args[0], target]


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the nodes below a node, in the order of evaluation."""
    match expr:
        case MatrixSelector():
            return (expr.selector,)
        case SubqueryExpr() | ParenExpr() | UnaryExpr() | StepInvariant():
            return (expr.expr,)
        case BinaryExpr():
            return (expr.lhs, expr.rhs)
        case AggregateExpr():
            return (expr.expr,) if expr.param is None else (expr.expr, expr.param)
        case Call():
            return expr.args
    return ()


def _walk(expr: Expr) -> Iterator[Expr]:
    yield expr
    for child in children(expr):
        yield from _walk(child)


def selections(expr: Expr, window: QueryWindow) -> list[tuple[VectorSelector, SelectRequest]]:
    """Return every selector of a prepared tree with what must be fetched for it."""
    return list(_selections(expr, window, []))


def _selections(
    expr: Expr, window: QueryWindow, path: list[Expr]
) -> Iterator[tuple[VectorSelector, SelectRequest]]:
    if isinstance(expr, VectorSelector):
        yield expr, _request(expr, window, path)
    for child in children(expr):
        yield from _selections(child, window, [*path, expr])


def _request(expr: VectorSelector, window: QueryWindow, path: list[Expr]) -> SelectRequest:
    parent = path[-1] if path else None
    range_ms = parent.range_ms if isinstance(parent, MatrixSelector) else 0
    mint, maxt = _times(expr, window, path)
    lookback = window.lookback
    if not range_ms:
        mint -= lookback - 1
    else:
        mint -= range_ms - 1 + (lookback if expr.anchored or expr.smoothed else 0)
    if expr.smoothed:
        maxt += lookback
    step = next((_step_of(node, window) for node in reversed(path) if _is_subquery(node)), None)
    by = isinstance(parent, AggregateExpr) and not parent.without
    grouping = parent.grouping if isinstance(parent, AggregateExpr) else ()
    hints = SelectHints(
        step_ms=window.step if step is None else step,
        range_ms=range_ms,
        function=_function_above(path),
        grouping=grouping,
        by=by,
    )
    return SelectRequest(expr.matchers, mint - expr.offset_ms, maxt - expr.offset_ms, hints)


def _is_subquery(expr: Expr) -> bool:
    return isinstance(expr, SubqueryExpr)


def _step_of(expr: Expr, window: QueryWindow) -> int:
    assert isinstance(expr, SubqueryExpr)
    return expr.step_ms or window.default_step


def _times(expr: VectorSelector, window: QueryWindow, path: list[Expr]) -> tuple[int, int]:
    """Return the first and last evaluation time that reaches a selector."""
    if expr.timestamp_ms is not None:
        return expr.timestamp_ms, expr.timestamp_ms
    start, end, offset, range_ms = window.start, window.end, 0, 0
    for node in path:
        if not isinstance(node, SubqueryExpr):
            continue
        if node.timestamp_ms is not None:
            # `@` on a subquery starts anew: what lies outside of it no longer matters.
            start = end = node.timestamp_ms
            offset = range_ms = 0
        offset += node.offset_ms
        range_ms += node.range_ms
    return start - offset - range_ms, end - offset


def _function_above(path: list[Expr]) -> str:
    for node in reversed(path):
        match node:
            case AggregateExpr():
                return node.op
            case Call():
                return node.function.name
            case BinaryExpr():
                return ""
    return ""
