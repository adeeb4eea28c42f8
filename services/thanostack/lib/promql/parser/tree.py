"""Questions that any reader of a tree asks: a node's type, its children, all nodes.

Duration expressions are not children; they belong to the node whose range, step or offset they
are.

Source: Prometheus 3.14, `promql/parser/ast.go`: `Type`, `ChildrenIter`.
"""

from __future__ import annotations

from collections.abc import Iterator

from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)


def expr_type(expr: Expr) -> ValueType:
    """Return the type that a node evaluates to; it does not check the nodes below."""
    while True:
        match expr:
            case ParenExpr() | UnaryExpr():
                expr = expr.expr
            case BinaryExpr():
                if expr_type(expr.rhs) is not ValueType.SCALAR:
                    return ValueType.VECTOR
                if isinstance(expr.lhs, BinaryExpr):
                    expr = expr.lhs
                    continue
                scalar = expr_type(expr.lhs) is ValueType.SCALAR
                return ValueType.SCALAR if scalar else ValueType.VECTOR
            case VectorSelector() | AggregateExpr():
                return ValueType.VECTOR
            case Call():
                return expr.function.return_type
            case MatrixSelector() | SubqueryExpr():
                return ValueType.MATRIX
            case StringLiteral():
                return ValueType.STRING
            case _:
                return ValueType.SCALAR


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the operands of a node; an aggregation's parameter comes after its expression."""
    match expr:
        case AggregateExpr():
            return (expr.expr,) if expr.param is None else (expr.expr, expr.param)
        case BinaryExpr():
            return expr.lhs, expr.rhs
        case Call():
            return expr.args
        case SubqueryExpr() | ParenExpr() | UnaryExpr():
            return (expr.expr,)
        case MatrixSelector():
            return (expr.selector,)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield a node and all below it, parents first, left to right."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))
