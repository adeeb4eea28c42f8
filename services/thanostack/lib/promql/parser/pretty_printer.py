"""Tree to text over several lines, as Prometheus's `format_query` answers.

What fits in 100 characters stays on one line; anything longer puts its operands on lines of their
own, two spaces deeper.

Source: Prometheus 3.14, `promql/parser/prettier.go`, `prettier_rules.md`.
"""

from __future__ import annotations

from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
)
from thanostack.lib.promql.parser.printer import (
    aggregation_head,
    format_expr,
    operator_with_modifiers,
    subquery_suffix,
)
from thanostack.lib.promql.parser.quoting import byte_length

_LINE_BYTES = 100


def prettify_expr(expr: Expr) -> str:
    """Return a tree as PromQL with line breaks and indentation.

    Cost: O(n · height), because each node asks whether it fits on a line.
    """
    return _pretty(expr, 0)


def _pretty(node: Expr, level: int) -> str:
    indent = "  " * level
    if isinstance(node, UnaryExpr):
        return f"{indent}{node.op}{_pretty(node.expr, level).strip()}"
    line = format_expr(node)
    fits = byte_length(line) <= _LINE_BYTES
    if isinstance(node, SubqueryExpr):
        # Upstream: a subquery that fits loses its indentation.
        return line if fits else f"{_pretty(node.expr, level)}{subquery_suffix(node)}"
    return f"{indent}{line}" if fits else _split(node, line, level)


def _split(node: Expr, line: str, level: int) -> str:
    indent = "  " * level
    match node:
        case AggregateExpr():
            operands = [node.expr] if node.param is None else [node.param, node.expr]
            head = aggregation_head(node)
        case Call():
            operands, head = list(node.args), node.function.name
        case ParenExpr():
            operands, head = [node.expr], ""
        case BinaryExpr():
            left, right = _pretty(node.lhs, level + 1), _pretty(node.rhs, level + 1)
            return f"{left}\n{indent}{operator_with_modifiers(node)}\n{right}"
        case _:
            return f"{indent}{line}"
    body = ",\n".join(_pretty(operand, level + 1) for operand in operands)
    return f"{indent}{head}(\n{body}\n{indent})"
