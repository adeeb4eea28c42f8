"""What stands between a binary operator and its right side, and lists of label names.

    [bool] [on|ignoring (labels) [group_left|group_right [(labels)]]] [fill…(number)]

Source: Prometheus 3.14, `generated_parser.y: bin_modifier, grouping_labels`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from thanostack.lib.promql.ast import Cardinality, VectorMatching
from thanostack.lib.promql.parser.cursor import Cursor
from thanostack.lib.promql.parser.durations import negated, number_literal
from thanostack.lib.promql.parser.quoting import is_utf8, quote, text_of, unquote
from thanostack.lib.promql.parser.tokens import FILLS, LABEL_NAMES, Kind

_CONTEXT = "grouping opts"
_CARDINALITIES = {
    Kind.GROUP_LEFT: Cardinality.MANY_TO_ONE,
    Kind.GROUP_RIGHT: Cardinality.ONE_TO_MANY,
}
_OTHER_SIDE = {Kind.FILL_LEFT: Kind.FILL_RIGHT, Kind.FILL_RIGHT: Kind.FILL_LEFT}
_PLAIN = VectorMatching()


@dataclass(frozen=True, slots=True)
class Modifiers:
    """The modifiers of one binary operator, as written."""

    return_bool: bool
    matching: VectorMatching


_NONE = Modifiers(return_bool=False, matching=_PLAIN)
_FIRST = frozenset({Kind.BOOL, Kind.ON, Kind.IGNORING}) | FILLS


def parse_modifiers(cursor: Cursor, operand_starts: Container[Kind]) -> Modifiers:
    """Parse the modifiers behind an operator; there may be none.

    Args:
        cursor: behind the operator.
        operand_starts: the kinds of token that can start the right side.

    Raises:
        ParseError: if they are malformed.
    """
    if cursor.kind not in _FIRST:
        return _NONE
    return_bool = cursor.accept(Kind.BOOL) is not None
    matching = _PLAIN
    if cursor.kind in {Kind.ON, Kind.IGNORING}:
        on = cursor.take().kind is Kind.ON
        matching = VectorMatching(on=on, labels=parse_labels(cursor))
        matching = _grouped(cursor, matching, operand_starts)
    if cursor.kind in FILLS:
        matching = _filled(cursor, matching)
    return Modifiers(return_bool, matching)


def parse_labels(cursor: Cursor) -> tuple[str, ...]:
    """Parse `(label, "quoted label", …)`.

    Raises:
        ParseError: if it is malformed, or a label name is empty or not UTF-8.
    """
    cursor.expect(Kind.LEFT_PAREN, _CONTEXT, '"("')
    labels: list[str] = []
    while not cursor.accept(Kind.RIGHT_PAREN):
        labels.append(_label(cursor))
        if cursor.accept(Kind.RIGHT_PAREN):
            break
        cursor.expect(Kind.COMMA, _CONTEXT, '"," or ")"')
    return tuple(labels)


def _label(cursor: Cursor) -> str:
    if cursor.kind in LABEL_NAMES:
        return cursor.take().text
    token = cursor.expect(Kind.STRING, _CONTEXT, "label")
    text = text_of(unquote(token.text))
    if not is_utf8(text) or not text:
        raise cursor.fail(token.start, f"invalid label name for grouping: {quote(text)}")
    return text


def _grouped(
    cursor: Cursor, matching: VectorMatching, operand_starts: Container[Kind]
) -> VectorMatching:
    cardinality = _CARDINALITIES.get(cursor.kind)
    if cardinality is None:
        return matching
    cursor.take()
    include: tuple[str, ...] = ()
    if cursor.kind is Kind.LEFT_PAREN:
        include = parse_labels(cursor)
    elif cursor.kind not in operand_starts:
        raise cursor.unexpected(_CONTEXT, '"("')
    return replace(matching, card=cardinality, include=include)


def _filled(cursor: Cursor, matching: VectorMatching) -> VectorMatching:
    side = cursor.take().kind
    value = _fill_value(cursor)
    if side is Kind.FILL:
        return replace(matching, fill_left=value, fill_right=value)
    other = _fill_value(cursor) if cursor.accept(_OTHER_SIDE[side]) else None
    if side is Kind.FILL_LEFT:
        return replace(matching, fill_left=value, fill_right=other)
    return replace(matching, fill_left=other, fill_right=value)


def _fill_value(cursor: Cursor) -> float:
    cursor.expect(Kind.LEFT_PAREN)
    sign = cursor.take() if cursor.kind in {Kind.ADD, Kind.SUB} else None
    if cursor.kind not in {Kind.NUMBER, Kind.DURATION}:
        raise cursor.unexpected()
    literal = number_literal(cursor)
    cursor.expect(Kind.RIGHT_PAREN)
    return (negated(literal, sign) if sign else literal).value
