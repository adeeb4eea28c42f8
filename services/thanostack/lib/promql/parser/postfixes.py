"""What may follow an operand: `[range]`, `[range:step]`, `offset`, `@`, `anchored`, `smoothed`.

Nodes are frozen, so a postfix returns the operand rebuilt. `offset` and `@` behind a range belong
to the selector inside; its own position stays, the range's end moves.

Source: Prometheus 3.14, `generated_parser.y: matrix_selector, subquery_expr, offset_expr,
step_invariant_expr`; `parse.go: addOffset, setTimestamp, setAnchored`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from thanostack.lib.promql.ast import (
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Position,
    SubqueryExpr,
    VectorSelector,
)
from thanostack.lib.promql.parser.cursor import Cursor
from thanostack.lib.promql.parser.durations import (
    Duration,
    DurationParser,
    negated,
    number_literal,
)
from thanostack.lib.promql.parser.numerals import seconds_to_ms, to_int64
from thanostack.lib.promql.parser.tokens import Kind

_STARTS = "number, duration, step(), or range()"
_STEP_STARTS = 'number, duration, step(), range(), or "]"'
_TIMED = (VectorSelector, MatrixSelector, SubqueryExpr)


class PostfixParser:
    """Parses postfixes; one instance serves a whole query."""

    def __init__(self, cursor: Cursor, durations: DurationParser) -> None:
        self._cursor = cursor
        self._durations = durations

    def apply(self, node: Expr) -> Expr:
        """Parse the next postfix, whose kind is in `POSTFIXES`, and apply it to an operand.

        Raises:
            ParseError: if it is malformed or does not fit the operand.
        """
        return POSTFIXES[self._cursor.kind](self, node)

    def _bracket(self, node: Expr) -> Expr:
        cursor = self._cursor
        opening = cursor.take()
        span = self._durations.positive("subquery or range selector", _STARTS)
        if cursor.accept(Kind.COLON):
            return self._subquery(node, span)
        cursor.expect(Kind.RIGHT_BRACKET, "subquery or range", '":" or "]"')
        if not isinstance(node, VectorSelector):
            raise cursor.fail(opening.start, "ranges only allowed for vector selectors")
        if node.offset_ms:
            raise cursor.fail(opening.start, "no offset modifiers allowed before range")
        if node.timestamp_ms is not None:
            raise cursor.fail(opening.start, "no @ modifiers allowed before range")
        range_ms, range_expr = _resolved(span)
        position = cursor.span(node.position.start)
        return MatrixSelector(
            selector=node, range_ms=range_ms, range_expr=range_expr, position=position
        )

    def _subquery(self, node: Expr, span: Duration) -> Expr:
        cursor = self._cursor
        step_ms, step_expr = 0, None
        if cursor.kind is not Kind.RIGHT_BRACKET:
            step = self._durations.positive("subquery selector", _STEP_STARTS)
            step_ms, step_expr = _resolved(step)
        cursor.expect(Kind.RIGHT_BRACKET, "subquery selector", '"]"')
        range_ms, range_expr = _resolved(span)
        return SubqueryExpr(
            expr=node,
            range_ms=range_ms,
            range_expr=range_expr,
            step_ms=step_ms,
            step_expr=step_expr,
            position=cursor.span(node.position.start),
        )

    def _offset(self, node: Expr) -> Expr:
        cursor = self._cursor
        cursor.take()
        offset, ahead = self._durations.offset()
        if ahead:
            cursor.settle()
        start = node.position.start
        if not isinstance(node, _TIMED):
            message = (
                "offset modifier must be preceded by an instant vector selector or "
                "range vector selector or a subquery"
            )
            raise cursor.fail(start, message)
        timed = _timed(node)
        if timed.offset_ms or timed.offset_expr is not None:
            raise cursor.fail(start, "offset may not be set multiple times")
        offset_ms, offset_expr = _resolved(offset)
        changed = replace(timed, offset_ms=offset_ms, offset_expr=offset_expr)
        return _changed(node, changed, cursor.last_closing(ahead=ahead))

    def _at(self, node: Expr) -> Expr:
        cursor = self._cursor
        cursor.take()
        if cursor.kind in {Kind.START, Kind.END}:
            start_or_end = cursor.take().kind.value
            cursor.expect(Kind.LEFT_PAREN, "@", "timestamp")
            cursor.expect(Kind.RIGHT_PAREN, "@", "timestamp")
            timestamp_ms = None
        else:
            start_or_end, timestamp_ms = "", self._timestamp(node)
        start = node.position.start
        if not isinstance(node, _TIMED):
            message = (
                "@ modifier must be preceded by an instant vector selector or "
                "range vector selector or a subquery"
            )
            raise cursor.fail(start, message)
        timed = _timed(node)
        if timed.timestamp_ms is not None or timed.start_or_end:
            raise cursor.fail(start, "@ <timestamp> may not be set multiple times")
        changed = replace(timed, timestamp_ms=timestamp_ms, start_or_end=start_or_end)
        return _changed(node, changed, cursor.last_closing(ahead=False))

    def _timestamp(self, node: Expr) -> int:
        cursor = self._cursor
        sign = cursor.take() if cursor.kind in {Kind.ADD, Kind.SUB} else None
        if cursor.kind not in {Kind.NUMBER, Kind.DURATION}:
            raise cursor.unexpected("@", "timestamp")
        literal = number_literal(cursor)
        seconds = (negated(literal, sign) if sign else literal).value
        if not -(2.0**63) < seconds < 2.0**63:
            shown = _six_decimals(seconds)
            message = f"timestamp out of bounds for @ modifier: {shown}"
            raise cursor.fail(node.position.start, message)
        return to_int64(seconds * 1000)

    def _anchored(self, node: Expr) -> Expr:
        return self._extended(node, "anchored")

    def _smoothed(self, node: Expr) -> Expr:
        return self._extended(node, "smoothed")

    def _extended(self, node: Expr, modifier: str) -> Expr:
        cursor = self._cursor
        cursor.take()
        start = node.position.start
        if not cursor.options.enable_extended_range_selectors:
            raise cursor.fail(start, f"{modifier} modifier is experimental and not enabled")
        if isinstance(node, SubqueryExpr):
            raise cursor.fail(start, f"{modifier} modifier is not supported for subqueries")
        if not isinstance(node, (VectorSelector, MatrixSelector)):
            raise cursor.fail(start, f"{modifier} modifier not implemented")
        selector = node.selector if isinstance(node, MatrixSelector) else node
        anchored = selector.anchored or modifier == "anchored"
        smoothed = selector.smoothed or modifier == "smoothed"
        if anchored and smoothed:
            message = "anchored and smoothed modifiers cannot be used together"
            raise cursor.fail(start, message)
        selector = replace(selector, anchored=anchored, smoothed=smoothed)
        return replace(node, selector=selector) if isinstance(node, MatrixSelector) else selector


def _timed(node: VectorSelector | MatrixSelector | SubqueryExpr) -> VectorSelector | SubqueryExpr:
    """Return the part of a node that carries offset and timestamp."""
    return node.selector if isinstance(node, MatrixSelector) else node


def _changed(node: Expr, timed: VectorSelector | SubqueryExpr, end: int) -> Expr:
    """Return the node with its timed part exchanged and its end moved."""
    position = Position(node.position.start, end)
    if isinstance(node, MatrixSelector):
        assert isinstance(timed, VectorSelector)
        return replace(node, selector=timed, position=position)
    return replace(timed, position=position)


def _resolved(duration: Duration) -> tuple[int, DurationExpr | None]:
    if isinstance(duration, NumberLiteral):
        return seconds_to_ms(duration.value), None
    return 0, duration


def _six_decimals(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else f"{value:f}"


POSTFIXES: dict[Kind, Callable[[PostfixParser, Expr], Expr]] = {
    Kind.LEFT_BRACKET: PostfixParser._bracket,
    Kind.OFFSET: PostfixParser._offset,
    Kind.AT: PostfixParser._at,
    Kind.ANCHORED: PostfixParser._anchored,
    Kind.SMOOTHED: PostfixParser._smoothed,
}
