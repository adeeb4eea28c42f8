"""Tree to text, normalised, as Prometheus prints it.

Parsing what was printed gives the tree again, but for what printing does not show: the order of
matchers (they are sorted), and a few forms of duration arithmetic that upstream prints without
the parentheses or the plus sign that were written.

Source: Prometheus 3.14, `promql/parser/printer.go`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal

from thanostack.lib.foundation.units import format_duration
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorMatching,
    VectorSelector,
)
from thanostack.lib.promql.parser.numerals import seconds_to_ms
from thanostack.lib.promql.parser.quoting import quote
from thanostack.lib.promql.parser.selectors import METRIC_NAME
from thanostack.lib.promql.parser.tokens import AGGREGATORS_WITH_PARAM

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_GROUPS = {
    Cardinality.MANY_TO_ONE: "group_left",
    Cardinality.ONE_TO_MANY: "group_right",
}


def format_expr(expr: Expr) -> str:
    """Return a tree as one line of PromQL.

    Example:
        >>> from thanostack.lib.promql.parser import parse_expr
        >>> format_expr(parse_expr("sum(rate( foo [5m])) by(job)"))
        'sum by (job) (rate(foo[5m]))'
    """
    return _FORMATS[type(expr)](expr)


def aggregation_head(node: AggregateExpr) -> str:
    """Return an aggregation's operator and grouping, up to the parenthesis."""
    if node.without:
        return f"{node.op} without ({_labels(node.grouping)}) "
    return f"{node.op} by ({_labels(node.grouping)}) " if node.grouping else node.op


def operator_with_modifiers(node: BinaryExpr) -> str:
    """Return a binary operator with `bool`, matching and fill."""
    boolean = " bool" if node.return_bool else ""
    matching = _matching(node.matching) if node.matching is not None else ""
    return f"{node.op}{boolean}{matching}"


def subquery_suffix(node: SubqueryExpr) -> str:
    """Return a subquery's bracket, `@` and offset."""
    step = format_duration(node.step_ms) if node.step_ms else ""
    if not step and node.step_expr is not None:
        step = format_expr(node.step_expr)
    span = _duration(node.range_ms, node.range_expr)
    return f"[{span}:{step}]{_at(node)}{_offset(node)}"


def format_number(value: float) -> str:
    """Return a number with the fewest digits that identify it, without exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")


def format_matcher(matcher: Matcher) -> str:
    """Return a matcher as it stands in braces."""
    return f"{_label(matcher.name)}{matcher.type.text}{quote(matcher.value)}"


def _label(name: str) -> str:
    return name if _LABEL_NAME.fullmatch(name) else quote(name)


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(map(_label, names))


def _aggregate(node: AggregateExpr) -> str:
    param = ""
    if node.op in AGGREGATORS_WITH_PARAM and node.param is not None:
        param = f"{format_expr(node.param)}, "
    return f"{aggregation_head(node)}({param}{format_expr(node.expr)})"


def _binary(node: BinaryExpr) -> str:
    return f"{format_expr(node.lhs)} {operator_with_modifiers(node)} {format_expr(node.rhs)}"


def _matching(matching: VectorMatching) -> str:
    group = _GROUPS.get(matching.card)
    text = ""
    if matching.labels or matching.on or group:
        text += f" {'on' if matching.on else 'ignoring'} ({_labels(matching.labels)})"
    if group:
        text += f" {group} ({_labels(matching.include)})"
    left, right = matching.fill_left, matching.fill_right
    if left is not None and left == right:
        return f"{text} fill ({_general(left)})"
    text += f" fill_left ({_general(left)})" if left is not None else ""
    return text + (f" fill_right ({_general(right)})" if right is not None else "")


def _general(value: float) -> str:
    """Return a number as Go's `%v`: with an exponent below 1e-4 and from 1e6 on."""
    if not math.isfinite(value) or value == 0 or 1e-4 <= abs(value) < 1e6:
        return format_number(value)
    mantissa, exponent = f"{Decimal(repr(value)).normalize():e}".split("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].zfill(2)}"


def _call(node: Call) -> str:
    return f"{node.function.name}({', '.join(map(format_expr, node.args))})"


def _duration_expr(node: DurationExpr) -> str:
    text = _bare_duration(node)
    return f"({text})" if node.wrapped else text


def _bare_duration(node: DurationExpr) -> str:
    if node.rhs is None:
        return f"{node.op}()"
    right = format_expr(node.rhs)
    if node.lhs is None:
        # Upstream: a plus sign is dropped.
        return f"-{right}" if node.op == "-" else right
    left = format_expr(node.lhs)
    if node.op in {"min_of", "max_of"}:
        return f"{node.op}({left}, {right})"
    return f"{left} {node.op} {right}"


def _duration(value_ms: int, expr: DurationExpr | None) -> str:
    return format_duration(value_ms) if expr is None else format_expr(expr)


def _at(node: VectorSelector | SubqueryExpr) -> str:
    if node.timestamp_ms is not None:
        return f" @ {node.timestamp_ms / 1000:.3f}"
    return f" @ {node.start_or_end}()" if node.start_or_end else ""


def _offset(node: VectorSelector | SubqueryExpr) -> str:
    if node.offset_expr is None and not node.offset_ms:
        return ""
    return f" offset {_duration(node.offset_ms, node.offset_expr)}"


def _extension(node: VectorSelector) -> str:
    if node.anchored:
        return " anchored"
    return " smoothed" if node.smoothed else ""


def _matrix(node: MatrixSelector) -> str:
    selector = node.selector
    span = _duration(node.range_ms, node.range_expr)
    suffix = f"{_extension(selector)}{_at(selector)}{_offset(selector)}"
    return f"{_series(selector)}[{span}]{suffix}"


def _subquery(node: SubqueryExpr) -> str:
    return f"{format_expr(node.expr)}{subquery_suffix(node)}"


def _number(node: NumberLiteral) -> str:
    if node.duration:
        return format_duration(seconds_to_ms(node.value))
    return format_number(node.value)


def _string(node: StringLiteral) -> str:
    return quote(node.value)


def _parentheses(node: ParenExpr) -> str:
    return f"({format_expr(node.expr)})"


def _unary(node: UnaryExpr) -> str:
    return f"{node.op}{format_expr(node.expr)}"


def _vector(node: VectorSelector) -> str:
    return f"{_series(node)}{_at(node)}{_extension(node)}{_offset(node)}"


def _series(node: VectorSelector) -> str:
    shown = sorted(
        format_matcher(matcher) for matcher in node.matchers if not _is_name(matcher, node.name)
    )
    return f"{node.name}{{{','.join(shown)}}}" if shown else node.name


def _is_name(matcher: Matcher, name: str) -> bool:
    """Return whether the name in front of the braces already says it."""
    is_equality = matcher.type is MatchType.EQ and matcher.name == METRIC_NAME
    return is_equality and matcher.value == name != ""


_FORMATS: dict[type[Expr], Callable[..., str]] = {
    AggregateExpr: _aggregate,
    BinaryExpr: _binary,
    Call: _call,
    DurationExpr: _duration_expr,
    MatrixSelector: _matrix,
    NumberLiteral: _number,
    ParenExpr: _parentheses,
    StringLiteral: _string,
    SubqueryExpr: _subquery,
    UnaryExpr: _unary,
    VectorSelector: _vector,
}
