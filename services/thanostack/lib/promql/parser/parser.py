"""Tokens to tree, by precedence climbing.

    or < and unless < comparisons </ >/ < + - < * / % atan2 < unary + - < ^ < postfix

`^` leans right, all others left. The postfixes are `[range]`, `[range:step]`, `offset`, `@`,
`anchored` and `smoothed`; each applies to the operand right before it. A sign before a number is
part of the number.

Whether the parts fit together (types, arities, matchers that select everything) is
`type_check.py`'s business, and only asked when the text is well-formed.

Source: Prometheus 3.14, `promql/parser/generated_parser.y`, `parse.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from thanostack.lib.model.matchers import Matcher
from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
    Expr,
    NumberLiteral,
    ParenExpr,
    Position,
    StringLiteral,
    UnaryExpr,
    ValueType,
    VectorMatching,
)
from thanostack.lib.promql.parser.cursor import Cursor
from thanostack.lib.promql.parser.durations import DurationParser, negated, number_literal
from thanostack.lib.promql.parser.functions import FUNCTIONS
from thanostack.lib.promql.parser.matching import parse_labels, parse_modifiers
from thanostack.lib.promql.parser.options import ParserOptions
from thanostack.lib.promql.parser.postfixes import POSTFIXES, PostfixParser
from thanostack.lib.promql.parser.quoting import quote, text_of, unquote
from thanostack.lib.promql.parser.selectors import parse_selector
from thanostack.lib.promql.parser.tokens import (
    AGGREGATORS,
    AGGREGATORS_WITH_PARAM,
    COMPARISONS,
    EXPERIMENTAL_AGGREGATORS,
    METRIC_NAMES,
    PREPROCESSORS,
    SET_OPERATORS,
    Kind,
    Token,
)
from thanostack.lib.promql.parser.tree import expr_type
from thanostack.lib.promql.parser.type_check import (
    MAX_HEIGHT,
    check_height,
    check_types,
    too_high,
)

_POWERS = (
    {Kind.LOR: 1, Kind.LAND: 2, Kind.LUNLESS: 2, Kind.TRIM_UPPER: 3, Kind.TRIM_LOWER: 3}
    | dict.fromkeys(COMPARISONS, 3)
    | {Kind.ADD: 4, Kind.SUB: 4, Kind.MUL: 5, Kind.DIV: 5, Kind.MOD: 5, Kind.ATAN2: 5}
    | {Kind.POW: 6}
)
_UNARY_POWER = 6
_DEFAULT_OPTIONS = ParserOptions()


def parse_expr(text: str, options: ParserOptions = _DEFAULT_OPTIONS) -> Expr:
    """Parse and check a query.

    Args:
        text: PromQL.
        options: the feature flags.

    Raises:
        ParseError: if it is malformed or ill-typed; text and position are Prometheus's.

    Cost: O(n); about 3 µs a token.
    """
    cursor = Cursor(text, options)
    if cursor.kind is Kind.EOF:
        raise cursor.fail(0, "no expression found in input")
    parser = _ExpressionParser(cursor)
    tree = parser.expression(0)
    if not cursor.at(Kind.EOF):
        raise cursor.unexpected()
    check_height(text, tree)
    check_types(text, tree, parser.written_matchings)
    return tree


def parse_metric_selector(text: str) -> tuple[Matcher, ...]:
    """Parse a selector as `match[]` parameters hold it.

    That one matcher must refuse the empty string is not asked here, as upstream asks it per use.

    Raises:
        ParseError: if it is malformed.
    """
    cursor = Cursor(text, _DEFAULT_OPTIONS)
    selector = parse_selector(cursor)
    if not cursor.at(Kind.EOF):
        raise cursor.unexpected()
    return selector.matchers


class _ExpressionParser:
    """Parses one query."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._postfixes = PostfixParser(cursor, DurationParser(cursor))
        # What was written about nodes whose `matching` says otherwise because of their operands'
        # types, by the node's id; the type check judges what was written.
        self.written_matchings: dict[int, VectorMatching] = {}

    def expression(self, power: int) -> Expr:
        """Parse operands and operators that bind at least as tightly as `power`."""
        cursor = self._cursor
        cursor.nest()
        left, length = self._operand(), 1
        while (own := _POWERS.get(cursor.kind, -1)) >= power:
            length += 1
            if length > MAX_HEIGHT:
                raise cursor.fail(left.position.start, too_high())
            left = self._binary(left, own)
        cursor.unnest()
        return left

    def _operand(self) -> Expr:
        parse = _OPERANDS.get(self._cursor.kind)
        if parse is None:
            raise self._cursor.unexpected()
        node = parse(self)
        while self._cursor.kind in POSTFIXES:
            node = self._postfixes.apply(node)
        return node

    def _binary(self, left: Expr, power: int) -> Expr:
        cursor = self._cursor
        operator = cursor.take().kind
        modifiers = parse_modifiers(cursor, _OPERANDS)
        right = self.expression(power if operator is Kind.POW else power + 1)
        written = modifiers.matching
        start = left.position.start
        if written.fill_left is not None or written.fill_right is not None:
            cursor.settle()
            if not cursor.options.enable_binop_fill_modifiers:
                message = "binop fill modifiers are experimental and not enabled"
                raise cursor.fail(start, message)
        matching: VectorMatching | None = written
        if expr_type(left) is not ValueType.VECTOR or expr_type(right) is not ValueType.VECTOR:
            matching = None
        elif operator in SET_OPERATORS and written.card is Cardinality.ONE_TO_ONE:
            matching = replace(written, card=Cardinality.MANY_TO_MANY)
        node = BinaryExpr(
            op=operator.value,
            lhs=left,
            rhs=right,
            matching=matching,
            return_bool=modifiers.return_bool,
            position=Position(start, right.position.end),
        )
        if matching is None:
            self.written_matchings[id(node)] = written
        return node

    def _unary(self) -> Expr:
        sign = self._cursor.take()
        operand = self.expression(_UNARY_POWER)
        if isinstance(operand, NumberLiteral):
            return negated(operand, sign)
        position = Position(sign.start, operand.position.end)
        return UnaryExpr(op=sign.kind.value, expr=operand, position=position)

    def _number(self) -> Expr:
        return number_literal(self._cursor)

    def _string(self) -> Expr:
        token = self._cursor.take()
        position = Position(token.start, token.end)
        return StringLiteral(value=text_of(unquote(token.text)), position=position)

    def _parentheses(self) -> Expr:
        opening = self._cursor.take()
        inner = self.expression(0)
        self._cursor.expect(Kind.RIGHT_PAREN)
        return ParenExpr(expr=inner, position=self._cursor.span(opening.start))

    def _selector(self) -> Expr:
        return parse_selector(self._cursor)

    def _name(self) -> Expr:
        """Parse a call or a selector; both begin with a name."""
        cursor = self._cursor
        if cursor.following is not Kind.LEFT_PAREN:
            return parse_selector(cursor)
        name = cursor.take()
        arguments = self._arguments()
        function = FUNCTIONS.get(name.text)
        if function is None:
            raise cursor.fail(name.start, f"unknown function with name {quote(name.text)}")
        if function.experimental and not cursor.options.enable_experimental_functions:
            raise cursor.fail(name.start, f"function {quote(name.text)} is not enabled")
        return Call(function=function, args=arguments, position=cursor.span(name.start))

    def _arguments(self) -> tuple[Expr, ...]:
        cursor = self._cursor
        cursor.expect(Kind.LEFT_PAREN)
        if cursor.accept(Kind.RIGHT_PAREN):
            return ()
        arguments = [self.expression(0)]
        while comma := cursor.accept(Kind.COMMA):
            if cursor.kind not in _OPERANDS:
                cursor.settle()
                message = "trailing commas not allowed in function call args"
                raise cursor.fail(comma.start, message)
            arguments.append(self.expression(0))
        cursor.expect(Kind.RIGHT_PAREN)
        return tuple(arguments)

    def _aggregator(self) -> Expr:
        """Parse an aggregation or a selector; aggregators may name metrics."""
        cursor = self._cursor
        if cursor.following not in {Kind.LEFT_PAREN, Kind.BY, Kind.WITHOUT}:
            return parse_selector(cursor)
        operator = cursor.take()
        cursor.enter_aggregation()
        grouping: tuple[str, ...] = ()
        without, has_modifier = False, cursor.kind is not Kind.LEFT_PAREN
        if has_modifier:
            without = cursor.take().kind is Kind.WITHOUT
            grouping = parse_labels(cursor)
        arguments = self._arguments()
        if not has_modifier and cursor.kind in {Kind.BY, Kind.WITHOUT}:
            has_modifier, without = True, cursor.take().kind is Kind.WITHOUT
            grouping = parse_labels(cursor)
        cursor.leave_aggregation()
        if has_modifier:
            position = cursor.span(operator.start)
        else:
            cursor.settle()
            position = Position(operator.start, cursor.aggregation_end())
        param, expr = self._aggregated(operator, arguments)
        return AggregateExpr(
            op=operator.kind.value,
            expr=expr,
            param=param,
            grouping=grouping,
            without=without,
            position=position,
        )

    def _aggregated(self, operator: Token, arguments: tuple[Expr, ...]) -> tuple[Expr | None, Expr]:
        cursor, kind = self._cursor, operator.kind
        if not arguments:
            message = "no arguments for aggregate expression provided"
            raise cursor.fail(operator.start, message)
        if kind in EXPERIMENTAL_AGGREGATORS and not cursor.options.enable_experimental_functions:
            message = (
                f"{kind.value}() is experimental and must be enabled with "
                "--enable-feature=promql-experimental-functions"
            )
            raise cursor.fail(operator.start, message)
        desired = 2 if kind in AGGREGATORS_WITH_PARAM else 1
        if len(arguments) != desired:
            message = (
                "wrong number of arguments for aggregate expression provided, "
                f"expected {desired}, got {len(arguments)}"
            )
            raise cursor.fail(operator.start, message)
        return (arguments[0] if desired == 2 else None), arguments[-1]


_OPERANDS: Mapping[Kind, Callable[[_ExpressionParser], Expr]] = (
    dict.fromkeys(METRIC_NAMES | {Kind.LEFT_BRACE}, _ExpressionParser._selector)
    | dict.fromkeys(PREPROCESSORS | {Kind.IDENTIFIER}, _ExpressionParser._name)
    | dict.fromkeys(AGGREGATORS, _ExpressionParser._aggregator)
    | dict.fromkeys((Kind.ADD, Kind.SUB), _ExpressionParser._unary)
    | dict.fromkeys((Kind.NUMBER, Kind.DURATION), _ExpressionParser._number)
    | {Kind.STRING: _ExpressionParser._string, Kind.LEFT_PAREN: _ExpressionParser._parentheses}
)
