"""Whether a well-formed tree makes sense: types, arities, matchers, and its height.

The tree is judged in upstream's order, because only the first error is shown.

Source: Prometheus 3.14, `promql/parser/parse.go: checkAST`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from thanostack.lib.foundation.errors import ParseError
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
    DurationExpr,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorMatching,
    VectorSelector,
)
from thanostack.lib.promql.parser.cursor import parse_error
from thanostack.lib.promql.parser.quoting import encode, quote
from thanostack.lib.promql.parser.selectors import METRIC_NAME
from thanostack.lib.promql.parser.tokens import AGGREGATORS_WITH_PARAM, COMPARISONS, SET_OPERATORS
from thanostack.lib.promql.parser.tree import children, expr_type

# Bound: a longer chain of operators is refused, so that a recursive walk with a few frames a
# level never exhausts the stack.
MAX_HEIGHT = 256

_OPERAND_TYPES = frozenset({ValueType.SCALAR, ValueType.VECTOR})
_DOCUMENTED = {ValueType.VECTOR: "instant vector", ValueType.MATRIX: "range vector"}


def check_height(text: str, tree: Expr) -> None:
    """Check that a tree is not too high for recursive readers.

    Raises:
        ParseError: if a path is longer than `MAX_HEIGHT`.

    Cost: O(1) for short texts, else O(n).
    """
    if len(text) <= MAX_HEIGHT:
        return
    level, height = [tree], 0
    while level:
        height += 1
        if height > MAX_HEIGHT:
            raise parse_error(text, level[0].position.start, too_high())
        level = [child for node in level for child in (*children(node), *_durations(node))]


def too_high() -> str:
    """Return the message for a tree that is higher than `MAX_HEIGHT`."""
    return (
        f"expression is more than {MAX_HEIGHT} operators high, which is the limit here: part a "
        "long chain by parentheses, as in (a or b) or (c or d)"
    )


def check_types(text: str, tree: Expr, written: Mapping[int, VectorMatching]) -> None:
    """Check types, arities and matchers.

    Args:
        text: the query, for positions.
        tree: as parsed from it.
        written: by node id, the matching written for binary nodes that do not keep it.

    Raises:
        ParseError: for the first thing that does not fit.
    """
    _TypeChecker(text, written).check(tree)


def documented(value_type: ValueType) -> str:
    """Return a type as documentation and messages call it."""
    return _DOCUMENTED.get(value_type, value_type.value)


def _durations(node: Expr) -> list[Expr]:
    match node:
        case DurationExpr():
            found = [node.lhs, node.rhs]
        case MatrixSelector():
            found = [node.range_expr]
        case SubqueryExpr():
            found = [node.range_expr, node.step_expr, node.offset_expr]
        case VectorSelector():
            found = [node.offset_expr]
        case _:
            return []
    return [duration for duration in found if duration is not None]


class _TypeChecker:
    def __init__(self, text: str, written: Mapping[int, VectorMatching]) -> None:
        self._text = text
        self._written = written

    def check(self, node: Expr) -> ValueType:
        """Check a node and all below; return its type."""
        check = _CHECKS.get(type(node))
        if check is not None:
            check(self, node)
        return expr_type(node)

    def _fail(self, node: Expr, message: str) -> ParseError:
        return parse_error(self._text, node.position.start, message)

    def _expect(self, node: Expr, wanted: ValueType, context: str) -> None:
        found = self.check(node)
        if found is not wanted:
            raise self._mismatch(node, wanted, context, found)

    def _mismatch(
        self, node: Expr, wanted: ValueType, context: str, found: ValueType
    ) -> ParseError:
        message = f"expected type {documented(wanted)} in {context}, got {documented(found)}"
        return self._fail(node, message)

    def _aggregate(self, node: AggregateExpr) -> None:
        self._expect(node.expr, ValueType.VECTOR, "aggregation expression")
        if node.op in AGGREGATORS_WITH_PARAM:
            assert node.param is not None, "the parser counts arguments"
            labelled = node.op == "count_values"
            wanted = ValueType.STRING if labelled else ValueType.SCALAR
            self._expect(node.param, wanted, "aggregation parameter")

    def _binary(self, node: BinaryExpr) -> None:
        left, right = self.check(node.lhs), self.check(node.rhs)
        matching = node.matching or self._written[id(node)]
        self._operator(node, matching, scalars=left is right is ValueType.SCALAR)
        for operand, found in ((node.lhs, left), (node.rhs, right)):
            if found not in _OPERAND_TYPES:
                message = "binary expression must contain only scalar and instant vector types"
                raise self._fail(operand, message)
        self._matching(node, matching)
        if node.op in SET_OPERATORS and ValueType.SCALAR in {left, right}:
            message = f"set operator {quote(node.op)} not allowed in binary scalar expression"
            raise self._fail(node, message)

    def _operator(self, node: BinaryExpr, matching: VectorMatching, *, scalars: bool) -> None:
        compares = node.op in COMPARISONS
        if node.return_bool and not compares:
            message = "bool modifier can only be used on comparison operators"
            raise self._fail_at_operator(node, message)
        if compares and scalars and not node.return_bool:
            message = "comparisons between scalars must use BOOL modifier"
            raise self._fail_at_operator(node, message)
        repeated = [label for label in matching.labels if label in matching.include]
        if matching.on and repeated:
            label = quote(repeated[0])
            message = f"label {label} must not occur in ON and GROUP clause at once"
            raise self._fail_at_operator(node, message)

    def _matching(self, node: BinaryExpr, matching: VectorMatching) -> None:
        fills = matching.fill_left is not None or matching.fill_right is not None
        if node.matching is None:
            if matching.labels:
                message = "vector matching only allowed between instant vectors"
                raise self._fail(node, message)
            if fills:
                message = "filling in missing series only allowed between instant vectors"
                raise self._fail(node, message)
        elif node.op in SET_OPERATORS:
            if matching.card is not Cardinality.MANY_TO_MANY:
                raise self._fail(node, f"no grouping allowed for {quote(node.op)} operation")
            if fills:
                message = "filling in missing series not allowed for set operators"
                raise self._fail(node, message)

    def _fail_at_operator(self, node: BinaryExpr, message: str) -> ParseError:
        data, start = encode(self._text), node.lhs.position.end
        while data[start : start + 1] in {b" ", b"\t", b"\r", b"\n"}:
            start += 1
        return parse_error(self._text, start, message)

    def _call(self, node: Call) -> None:
        self._arity(node)
        function = node.function
        is_info = function.name == "info" and len(node.args) > 1
        if is_info:
            self._info_selector(node)
        for index, argument in enumerate(node.args):
            if is_info and index == 1:
                # The label selector of `info` may match everything; the rest is checked above.
                continue
            wanted = function.arg_types[min(index, len(function.arg_types) - 1)]
            found = self.check(argument)
            if found is not wanted:
                context = f"call to function {quote(function.name)}"
                raise self._mismatch(argument, wanted, context, found)

    def _arity(self, node: Call) -> None:
        function, count = node.function, len(node.args)
        declared = len(function.arg_types)
        least = declared - 1 if function.variadic else declared
        most = least + function.variadic
        if not function.variadic:
            wanted = f"{declared}" if count != declared else ""
        elif count < least:
            wanted = f"at least {least}"
        else:
            wanted = f"at most {most}" if 0 < function.variadic < count - least else ""
        if wanted:
            name = quote(function.name)
            raise self._fail(node, f"expected {wanted} argument(s) in call to {name}, got {count}")

    def _info_selector(self, node: Call) -> None:
        selector = node.args[1]
        found = expr_type(selector)
        if found is not ValueType.VECTOR:
            context = f"call to function {quote(node.function.name)}"
            raise self._mismatch(node, ValueType.VECTOR, context, found)
        if not isinstance(selector, VectorSelector):
            raise self._fail(selector, "expected label selectors only")
        if selector.name:
            message = "expected label selectors only, got vector selector instead"
            raise self._fail(selector, message)

    def _inner(self, node: ParenExpr) -> None:
        self.check(node.expr)

    def _unary(self, node: UnaryExpr) -> None:
        found = self.check(node.expr)
        if found not in _OPERAND_TYPES:
            message = (
                "unary expression only allowed on expressions of type scalar or instant vector, "
                f"got {quote(documented(found))}"
            )
            raise self._fail(node, message)

    def _subquery(self, node: SubqueryExpr) -> None:
        found = self.check(node.expr)
        if found is not ValueType.VECTOR:
            message = f"subquery is only allowed on instant vector, got {found.value} instead"
            raise self._fail(node, message)

    def _matrix(self, node: MatrixSelector) -> None:
        self.check(node.selector)

    def _selector(self, node: VectorSelector) -> None:
        if not node.name:
            if all(_accepts_empty(matcher) for matcher in node.matchers):
                message = "vector selector must contain at least one non-empty matcher"
                raise self._fail(node, message)
            return
        for matcher in node.matchers[:-1]:
            if matcher.name == METRIC_NAME:
                names = f"{quote(node.name)} or {quote(matcher.value)}"
                raise self._fail(node, f"metric name must not be set twice: {names}")


def _accepts_empty(matcher: Matcher) -> bool:
    if matcher.type is MatchType.EQ:
        return not matcher.value
    return matcher.matches_empty


_CHECKS: dict[type[Expr], Callable[..., None]] = {
    AggregateExpr: _TypeChecker._aggregate,
    BinaryExpr: _TypeChecker._binary,
    Call: _TypeChecker._call,
    ParenExpr: _TypeChecker._inner,
    UnaryExpr: _TypeChecker._unary,
    SubqueryExpr: _TypeChecker._subquery,
    MatrixSelector: _TypeChecker._matrix,
    VectorSelector: _TypeChecker._selector,
}
