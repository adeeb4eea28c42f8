"""PromQL trees for tests: as comparable facts, and at random.

Random trees are well-typed and in the parser's own normal form (operands that would bind wrongly
stand in parentheses, matchers are sorted), so that printing and parsing must give them back.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from hypothesis import strategies as st

from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.promql import ast
from thanostack.lib.promql.parser import FUNCTIONS, expr_type, format_matcher

_SCALAR, _VECTOR = ast.ValueType.SCALAR, ast.ValueType.VECTOR
_ARITHMETIC = ("+", "-", "*", "/", "%", "^", "atan2")
_COMPARISONS = ("==", "!=", "<", ">", "<=", ">=")
_AGGREGATORS = ("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar")


def tree_facts(value: Any) -> Any:
    """Return a tree as JSON-like lists: type, start, end, and the fields that are not default."""
    if isinstance(value, ast.Function):
        return value.name
    if isinstance(value, Matcher):
        return [value.name, value.type.text, value.value]
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, tuple):
        return [tree_facts(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {
        field.name: tree_facts(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.name != "position" and getattr(value, field.name) != field.default
    }
    if not isinstance(value, ast.Expr):
        return fields
    return [type(value).__name__, value.position.start, value.position.end, fields]


label_names = st.sampled_from(("job", "instance", "le", "a.b", "ünï", "by", "__name__x"))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=8)
metric_names = st.sampled_from(("up", "a:b", "rate", "sum", "offset", "and", "Start", "fill"))
# Up to here a duration survives its way through float seconds.
durations_ms = st.integers(1, 10**9)
offsets_ms = st.integers(-(10**9), 10**9)


@st.composite
def matchers(draw: st.DrawFn) -> Matcher:
    """Draw a matcher; regular expressions are drawn from a few."""
    match_type = draw(st.sampled_from(MatchType))
    if match_type in {MatchType.EQ, MatchType.NEQ}:
        return Matcher(match_type, draw(label_names), draw(texts))
    return Matcher(match_type, draw(label_names), draw(st.sampled_from((".*", "a|b", "[0-9]+"))))


@st.composite
def duration_exprs(draw: st.DrawFn, depth: int = 2) -> ast.DurationExpr:
    """Draw a duration expression in parentheses, as it stands behind `offset`."""
    kind = draw(st.sampled_from(("step", "range", "min_of", "max_of", "-", "+", "*", "%", "^")))
    if kind in {"step", "range"}:
        return ast.DurationExpr(op=kind)
    inner = st.builds(
        ast.NumberLiteral, value=st.integers(1, 10**6).map(float), duration=st.booleans()
    )
    operands = inner | duration_exprs(depth - 1) if depth else inner
    left = None if kind == "-" and draw(st.booleans()) else draw(operands)
    right = draw(duration_exprs(depth - 1) if left is None and depth else operands)
    if left is None and isinstance(right, ast.NumberLiteral):
        left = right
    wrapped = kind not in {"min_of", "max_of"}
    return ast.DurationExpr(op=kind, lhs=left, rhs=right, wrapped=wrapped)


@st.composite
def selectors(draw: st.DrawFn) -> ast.VectorSelector:
    """Draw a vector selector with any of its modifiers."""
    name = draw(metric_names | st.just(""))
    found = sorted(draw(st.lists(matchers(), max_size=3)), key=format_matcher)
    if name:
        found.append(Matcher(MatchType.EQ, "__name__", name))
    elif all(matcher.matches_empty for matcher in found):
        found = [Matcher(MatchType.EQ, "__name__", draw(metric_names))]
    extension = draw(st.sampled_from(("", "anchored", "smoothed")))
    return ast.VectorSelector(
        name=name,
        matchers=tuple(found),
        anchored=extension == "anchored",
        smoothed=extension == "smoothed",
        **draw(time_modifiers()),
    )


@st.composite
def time_modifiers(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the fields of `offset` and `@`."""
    fields: dict[str, Any] = {}
    offset = draw(st.none() | offsets_ms | duration_exprs())
    if isinstance(offset, ast.DurationExpr):
        fields["offset_expr"] = offset
    elif offset:
        fields["offset_ms"] = offset
    at = draw(st.none() | st.sampled_from(("start", "end")) | st.integers(-(2**40), 2**40))
    if isinstance(at, str):
        fields["start_or_end"] = at
    elif at is not None:
        fields["timestamp_ms"] = at
    return fields


@st.composite
def ranges(draw: st.DrawFn, depth: int) -> ast.Expr:
    """Draw a range selector or a subquery."""
    span: dict[str, Any] = {"range_ms": draw(durations_ms)}
    if draw(st.booleans()):
        span = {"range_expr": draw(duration_exprs())}
    if not depth or draw(st.booleans()):
        return ast.MatrixSelector(selector=draw(selectors()), **span)
    inner = _operand(draw(vectors(depth - 1)))
    if "range_expr" in span:
        # Upstream: without a number in front of it, the colon is refused.
        one = ast.NumberLiteral(value=1.0, duration=True)
        span["range_expr"] = ast.DurationExpr(op="+", lhs=one, rhs=span["range_expr"])
    step: dict[str, Any] = draw(
        st.just({})
        | st.builds(dict, step_ms=durations_ms)
        | st.builds(dict, step_expr=duration_exprs())
    )
    return ast.SubqueryExpr(expr=inner, **span, **step, **draw(time_modifiers()))


@st.composite
def vectors(draw: st.DrawFn, depth: int = 3) -> ast.Expr:
    """Draw an expression of type instant vector."""
    if not depth:
        return draw(selectors())
    kind = draw(st.sampled_from(("selector", "paren", "unary", "binary", "aggregate", "call")))
    if kind == "selector":
        return draw(selectors())
    if kind == "paren":
        return ast.ParenExpr(expr=draw(vectors(depth - 1)))
    if kind == "unary":
        return ast.UnaryExpr(
            op=draw(st.sampled_from("+-")), expr=_operand(draw(vectors(depth - 1)))
        )
    if kind == "binary":
        return draw(binaries(depth))
    return draw(aggregations(depth)) if kind == "aggregate" else draw(calls(_VECTOR, depth))


@st.composite
def scalars(draw: st.DrawFn, depth: int = 2) -> ast.Expr:
    """Draw an expression of type scalar."""
    literal = ast.NumberLiteral(value=draw(st.floats(allow_nan=False)))
    kind = draw(st.sampled_from(("literal", "literal", "binary", "call"))) if depth else "literal"
    if kind == "literal":
        return literal
    if kind == "call":
        return draw(calls(_SCALAR, depth))
    left, right = _operand(draw(scalars(depth - 1))), _operand(draw(scalars(depth - 1)))
    compares = draw(st.booleans())
    operator = draw(st.sampled_from(_COMPARISONS if compares else _ARITHMETIC))
    return ast.BinaryExpr(op=operator, lhs=left, rhs=right, return_bool=compares)


@st.composite
def binaries(draw: st.DrawFn, depth: int) -> ast.BinaryExpr:
    """Draw a binary expression with at least one instant vector."""
    left = _operand(draw(vectors(depth - 1)))
    right = _operand(draw(vectors(depth - 1) | scalars(depth - 1)))
    if expr_type(right) is _SCALAR:
        sides = (left, right) if draw(st.booleans()) else (right, left)
        operator = draw(st.sampled_from(_ARITHMETIC + _COMPARISONS))
        return ast.BinaryExpr(op=operator, lhs=sides[0], rhs=sides[1])
    operator = draw(st.sampled_from((*_ARITHMETIC, *_COMPARISONS, "and", "or", "unless")))
    on = draw(st.booleans())
    labels = tuple(draw(st.lists(label_names, max_size=2, unique=True)))
    matching = ast.VectorMatching(on=on, labels=labels)
    if operator in {"and", "or", "unless"}:
        matching = dataclasses.replace(matching, card=ast.Cardinality.MANY_TO_MANY)
    elif draw(st.booleans()):
        include = draw(st.lists(label_names.filter(lambda name: name not in labels), max_size=2))
        card = draw(st.sampled_from((ast.Cardinality.MANY_TO_ONE, ast.Cardinality.ONE_TO_MANY)))
        matching = dataclasses.replace(matching, card=card, include=tuple(include))
    if matching.card is not ast.Cardinality.MANY_TO_MANY:
        fills = st.none() | st.floats(allow_nan=False)
        matching = dataclasses.replace(matching, fill_left=draw(fills), fill_right=draw(fills))
    compares = operator in _COMPARISONS and draw(st.booleans())
    return ast.BinaryExpr(op=operator, lhs=left, rhs=right, matching=matching, return_bool=compares)


@st.composite
def aggregations(draw: st.DrawFn, depth: int) -> ast.AggregateExpr:
    """Draw an aggregation."""
    operator = draw(st.sampled_from((*_AGGREGATORS, "topk", "limit_ratio", "count_values")))
    param: ast.Expr | None = None
    if operator == "count_values":
        param = ast.StringLiteral(value=draw(texts))
    elif operator not in _AGGREGATORS:
        param = draw(scalars(depth - 1))
    return ast.AggregateExpr(
        op=operator,
        expr=draw(vectors(depth - 1)),
        param=param,
        grouping=tuple(draw(st.lists(label_names, max_size=2))),
        without=draw(st.booleans()),
    )


@st.composite
def calls(draw: st.DrawFn, returns: ast.ValueType, depth: int) -> ast.Call:
    """Draw a call of any function but `info`, whose second argument is special."""
    function = draw(st.sampled_from(_functions(returns)))
    count = len(function.arg_types)
    if function.variadic:
        count += draw(st.integers(-1, max(function.variadic, 1) - 1))
    arg_types = [function.arg_types[min(i, len(function.arg_types) - 1)] for i in range(count)]
    strategies = {
        _SCALAR: scalars(depth - 1),
        _VECTOR: vectors(depth - 1),
        ast.ValueType.MATRIX: ranges(depth - 1),
        ast.ValueType.STRING: st.builds(ast.StringLiteral, value=texts),
    }
    return ast.Call(function=function, args=tuple(draw(strategies[wanted]) for wanted in arg_types))


@functools.cache
def _functions(returns: ast.ValueType) -> list[ast.Function]:
    return [
        function
        for function in FUNCTIONS.values()
        if function.return_type is returns and function.name != "info"
    ]


def _operand(expr: ast.Expr) -> ast.Expr:
    """Put in parentheses what an operator next to it would tear apart."""
    if isinstance(expr, ast.NumberLiteral):
        plain = 0 < expr.value < float("inf")
        return expr if plain else ast.ParenExpr(expr=expr)
    if isinstance(expr, (ast.BinaryExpr, ast.UnaryExpr)):
        return ast.ParenExpr(expr=expr)
    return expr
