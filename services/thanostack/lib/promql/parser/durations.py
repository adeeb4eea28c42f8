"""Durations in ranges, subquery steps and offsets, and the arithmetic allowed there.

    duration = number | -duration | duration op duration | (duration)
             | step() | range() | min_of(duration, duration) | max_of(duration, duration)

A plain number or duration comes back as a `NumberLiteral` in seconds, anything else as a
`DurationExpr` for the engine to resolve, because `step()` and `range()` are known only there.

After `offset` an operator ends the duration, so that `foo offset 5m ^ 2` squares `foo`; only what
starts with a parenthesis goes on as arithmetic.

Source: Prometheus 3.14, `generated_parser.y: duration_expr, offset_duration_expr`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from thanostack.lib.foundation.errors import InvalidInput, ParseError
from thanostack.lib.promql.ast import DurationExpr, NumberLiteral, Position
from thanostack.lib.promql.parser.cursor import Cursor
from thanostack.lib.promql.parser.numerals import duration_value, number_value
from thanostack.lib.promql.parser.tokens import Kind, Token

Duration: TypeAlias = NumberLiteral | DurationExpr

_POWERS = {
    Kind.ADD: 1,
    Kind.SUB: 1,
    Kind.MUL: 2,
    Kind.DIV: 2,
    Kind.MOD: 2,
    Kind.POW: 3,
}
_UNARY_POWER = 3
_SIGNS = frozenset({Kind.ADD, Kind.SUB})
_NUMBERS = frozenset({Kind.NUMBER, Kind.DURATION})
_LARGEST_SECONDS = 2**63 / 1e9
_BY_ZERO = {Kind.DIV: "division by zero", Kind.MOD: "modulo by zero"}
_ANY = "number, duration, step(), or range()"


def number_literal(cursor: Cursor) -> NumberLiteral:
    """Parse the next token, a number or a duration.

    Raises:
        ParseError: if it is malformed or does not fit.
    """
    token = cursor.take()
    is_duration = token.kind is Kind.DURATION
    try:
        value = duration_value(token.text) if is_duration else number_value(token.text)
    except InvalidInput as error:
        raise cursor.fail(token.start, str(error)) from error
    position = Position(token.start, token.end)
    return NumberLiteral(value=value, duration=is_duration, position=position)


def negated(literal: NumberLiteral, sign: Token) -> NumberLiteral:
    """Return a literal with the sign before it taken in."""
    value = -literal.value if sign.kind is Kind.SUB else literal.value
    return replace(literal, value=value, position=Position(sign.start, literal.position.end))


class DurationParser:
    """Parses durations; one instance serves a whole query."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._context, self._expected = "", ""

    def positive(self, context: str, expected: str) -> Duration:
        """Parse a range or step.

        Args:
            context: the construct for messages.
            expected: what fits at its beginning.

        Raises:
            ParseError: if it is malformed or a number that is not above zero.
        """
        self._context, self._expected = context, expected
        node = self._expression(0)
        self._cursor.settle()
        if isinstance(node, NumberLiteral) and node.value <= 0:
            raise self._cursor.fail(node.position.start, "duration must be greater than 0")
        return node

    def offset(self) -> tuple[Duration, bool]:
        """Parse what follows `offset`.

        Returns:
            The duration, and whether the token behind it has been looked at.
        """
        self._context, self._expected = "offset", _ANY
        cursor = self._cursor
        if cursor.kind is Kind.LEFT_PAREN:
            return self._continued(self._operand(), 0), True
        if cursor.kind not in _SIGNS:
            return self._operand(), False
        sign = cursor.take()
        if cursor.kind in _SIGNS:
            inner = self._expression(_UNARY_POWER)
            return self._continued(_signed(sign, inner), 0), True
        if cursor.at(Kind.LEFT_PAREN):
            return _signed(sign, self._in_parentheses(judged=False)), False
        if cursor.kind in _NUMBERS:
            return self._in_range(negated(number_literal(cursor), sign)), False
        inner = self._operand(judged=False)
        position = Position(sign.start, inner.position.end)
        node = DurationExpr(op=sign.kind.value, rhs=inner, position=position)
        self._judge(node)
        return node, False

    def _expression(self, power: int) -> Duration:
        self._cursor.nest()
        node = self._continued(self._operand(), power)
        self._cursor.unnest()
        return node

    def _continued(self, left: Duration, power: int) -> Duration:
        cursor = self._cursor
        while (own := _POWERS.get(cursor.kind, -1)) >= power:
            operator = cursor.take()
            right = self._expression(own if operator.kind is Kind.POW else own + 1)
            cursor.settle()
            self._judge(left)
            if operator.kind in _BY_ZERO and isinstance(right, NumberLiteral) and not right.value:
                raise cursor.fail(operator.start, _BY_ZERO[operator.kind])
            position = Position(left.position.start, right.position.end)
            left = DurationExpr(op=operator.kind.value, lhs=left, rhs=right, position=position)
        return left

    def _operand(self, *, judged: bool = True) -> Duration:
        cursor = self._cursor
        if cursor.kind in _NUMBERS:
            return self._in_range(number_literal(cursor))
        if cursor.kind in _SIGNS:
            return _signed(cursor.take(), self._expression(_UNARY_POWER))
        if cursor.kind is Kind.LEFT_PAREN:
            return self._in_parentheses(judged=True)
        if cursor.kind in {Kind.STEP, Kind.RANGE}:
            return self._time_parameter(judged=judged)
        if cursor.kind in {Kind.MIN_OF, Kind.MAX_OF}:
            return self._extremum(judged=judged)
        raise self._unexpected()

    def _in_range(self, literal: NumberLiteral) -> NumberLiteral:
        if abs(literal.value) > _LARGEST_SECONDS:
            raise self._cursor.fail(literal.position.start, "duration out of range")
        return literal

    def _in_parentheses(self, *, judged: bool) -> Duration:
        self._cursor.take()
        node = self._expression(0)
        self._expect(Kind.RIGHT_PAREN)
        if judged:
            self._judge(node)
        return node if isinstance(node, NumberLiteral) else replace(node, wrapped=True)

    def _time_parameter(self, *, judged: bool) -> DurationExpr:
        name = self._cursor.take()
        self._expect(Kind.LEFT_PAREN)
        self._expect(Kind.RIGHT_PAREN)
        node = DurationExpr(op=name.kind.value, position=self._cursor.span(name.start))
        if judged:
            self._judge(node)
        return node

    def _extremum(self, *, judged: bool) -> DurationExpr:
        name = self._cursor.take()
        self._expect(Kind.LEFT_PAREN)
        left = self._expression(0)
        self._expect(Kind.COMMA)
        right = self._expression(0)
        self._expect(Kind.RIGHT_PAREN)
        # Upstream: the range of a node with operands is theirs, name and parentheses left out.
        position = Position(left.position.start, right.position.end)
        node = DurationExpr(op=name.kind.value, lhs=left, rhs=right, position=position)
        if judged:
            self._judge(node)
        return node

    def _judge(self, node: Duration) -> None:
        if not self._cursor.options.enable_duration_expressions:
            message = "experimental duration expression is not enabled"
            raise self._cursor.fail(node.position.start, message)

    def _expect(self, kind: Kind) -> None:
        self._cursor.expect(kind, self._context, self._expected)

    def _unexpected(self) -> ParseError:
        return self._cursor.unexpected(self._context, self._expected)


def _signed(sign: Token, node: Duration) -> Duration:
    if isinstance(node, NumberLiteral):
        return negated(node, sign)
    if sign.kind is Kind.ADD:
        return node
    position = Position(sign.start, node.position.end)
    return DurationExpr(op=sign.kind.value, rhs=node, position=position)
