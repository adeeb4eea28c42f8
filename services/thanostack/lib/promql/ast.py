"""The nodes of a PromQL tree: what the parser makes and the engine evaluates.

Names and fields follow Prometheus's `promql/parser/ast.go`, so that texts and behaviour can be
compared node by node. Positions are byte offsets into the query, end exclusive. Durations and
timestamps are integer ms. Nodes are frozen; a rewrite builds new ones (`dataclasses.replace`).

Source: Prometheus 3.14, `promql/parser/ast.go`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from thanostack.lib.model.matchers import Matcher


class ValueType(enum.StrEnum):
    """The types of PromQL values."""

    NONE = "none"
    SCALAR = "scalar"
    VECTOR = "vector"
    MATRIX = "matrix"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Position:
    """A half-open byte range of the query text."""

    start: int = 0
    end: int = 0


@dataclass(frozen=True, kw_only=True)
class Expr:
    """Any node; `position` does not take part in comparison."""

    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, kw_only=True)
class NumberLiteral(Expr):
    """A number; `duration` says that it was written as one (`1h30m` is 5400)."""

    value: float
    duration: bool = False


@dataclass(frozen=True, kw_only=True)
class StringLiteral(Expr):
    """A string, unescaped."""

    value: str


@dataclass(frozen=True, kw_only=True)
class DurationExpr(Expr):
    """Arithmetic inside a range, step or offset.

    `op` is one of + - * / % ^, or step, range, min_of, max_of; a unary sign has `lhs` None.
    `wrapped` says that it stood in parentheses.
    """

    op: str
    lhs: Expr | None = None
    rhs: Expr | None = None
    wrapped: bool = False


@dataclass(frozen=True, kw_only=True)
class VectorSelector(Expr):
    """`name{matchers} offset d @ t`.

    Args:
        name: the metric name written before the braces, "" if none.
        matchers: all predicates, the one on `__name__` included.
        offset_ms: as written, before `@` is resolved; positive looks back.
        offset_expr: when the offset is an expression; the engine resolves it.
        timestamp_ms: of `@ t`, None if absent.
        start_or_end: "start" or "end" for `@ start()` and `@ end()`, "" otherwise.
        anchored, smoothed: extended range modifiers.
    """

    name: str = ""
    matchers: tuple[Matcher, ...] = ()
    offset_ms: int = 0
    offset_expr: DurationExpr | None = None
    timestamp_ms: int | None = None
    start_or_end: str = ""
    anchored: bool = False
    smoothed: bool = False


@dataclass(frozen=True, kw_only=True)
class MatrixSelector(Expr):
    """`selector[range]`; `range_expr` when the range is an expression."""

    selector: VectorSelector
    range_ms: int = 0
    range_expr: DurationExpr | None = None


@dataclass(frozen=True, kw_only=True)
class SubqueryExpr(Expr):
    """`expr[range:step] offset d @ t`; step_ms 0 is the default interval."""

    expr: Expr
    range_ms: int = 0
    range_expr: DurationExpr | None = None
    step_ms: int = 0
    step_expr: DurationExpr | None = None
    offset_ms: int = 0
    offset_expr: DurationExpr | None = None
    timestamp_ms: int | None = None
    start_or_end: str = ""


@dataclass(frozen=True, kw_only=True)
class ParenExpr(Expr):
    """`( expr )`."""

    expr: Expr


@dataclass(frozen=True, kw_only=True)
class UnaryExpr(Expr):
    """`+expr` or `-expr`."""

    op: str
    expr: Expr


class Cardinality(enum.StrEnum):
    """How the two sides of a vector operation pair up."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorMatching:
    """`on(...)`, `ignoring(...)`, `group_left(...)`, `group_right(...)`, `fill…(x)`."""

    card: Cardinality = Cardinality.ONE_TO_ONE
    labels: tuple[str, ...] = ()
    on: bool = False
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(frozen=True, kw_only=True)
class BinaryExpr(Expr):
    """`lhs op rhs`; `matching` is None unless both sides are vectors."""

    op: str
    lhs: Expr
    rhs: Expr
    matching: VectorMatching | None = None
    return_bool: bool = False


@dataclass(frozen=True, kw_only=True)
class AggregateExpr(Expr):
    """`op by|without (grouping) (param, expr)`."""

    op: str
    expr: Expr
    param: Expr | None = None
    grouping: tuple[str, ...] = ()
    without: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function's signature.

    Args:
        name: as written in a query.
        arg_types: of the declared arguments.
        variadic: 0 fixed; n > 0: the last n may be left out; -1: the last repeats any number.
        return_type: of the call.
        experimental: needs `promql-experimental-functions`.
    """

    name: str
    arg_types: tuple[ValueType, ...]
    variadic: int = 0
    return_type: ValueType
    experimental: bool = False


@dataclass(frozen=True, kw_only=True)
class Call(Expr):
    """`function(args)`."""

    function: Function
    args: tuple[Expr, ...] = ()
