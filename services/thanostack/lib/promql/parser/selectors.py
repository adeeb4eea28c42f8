"""Vector selectors: `name{label="value", "quoted.name"=~"…", "metric name"}`.

The matchers keep the order of the text; the one that the name in front of the braces implies
comes last, as upstream has it.

Source: Prometheus 3.14, `generated_parser.y: vector_selector, label_matchers`.
"""

from __future__ import annotations

from thanostack.lib.foundation.errors import InvalidMatcher
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.regexes import regex_error
from thanostack.lib.promql.ast import Position, VectorSelector
from thanostack.lib.promql.parser.cursor import Cursor
from thanostack.lib.promql.parser.quoting import unquote
from thanostack.lib.promql.parser.tokens import METRIC_NAMES, Kind, Token

METRIC_NAME = "__name__"

_CONTEXT = "label matching"
_MATCH_TYPES = {
    Kind.EQL: MatchType.EQ,
    Kind.NEQ: MatchType.NEQ,
    Kind.EQL_REGEX: MatchType.RE,
    Kind.NEQ_REGEX: MatchType.NRE,
}


def parse_selector(cursor: Cursor) -> VectorSelector:
    """Parse a selector without range, offset or `@`.

    Raises:
        ParseError: if it is malformed, or a regular expression in it is.
    """
    if cursor.kind not in METRIC_NAMES:
        if cursor.kind is not Kind.LEFT_BRACE:
            raise cursor.unexpected()
        brace = cursor.take()
        matchers = _matchers(cursor)
        return VectorSelector(matchers=tuple(matchers), position=cursor.span(brace.start))
    name = cursor.take()
    matchers = _matchers(cursor) if cursor.accept(Kind.LEFT_BRACE) else []
    matchers.append(Matcher(MatchType.EQ, METRIC_NAME, name.text))
    position: Position = cursor.span(name.start)
    return VectorSelector(name=name.text, matchers=tuple(matchers), position=position)


def _matchers(cursor: Cursor) -> list[Matcher]:
    """Parse up to the closing brace."""
    matchers: list[Matcher] = []
    while not cursor.accept(Kind.RIGHT_BRACE):
        matchers.append(_matcher(cursor))
        if cursor.accept(Kind.RIGHT_BRACE):
            break
        cursor.expect(Kind.COMMA, _CONTEXT, '"," or "}"')
    return matchers


def _matcher(cursor: Cursor) -> Matcher:
    if cursor.kind is Kind.IDENTIFIER:
        label = cursor.take()
        if cursor.kind not in _MATCH_TYPES:
            raise cursor.unexpected(_CONTEXT, "label matching operator")
        return _predicate(cursor, label, label.text)
    if cursor.kind is not Kind.STRING:
        raise cursor.unexpected(_CONTEXT, 'identifier or "}"')
    label = cursor.take()
    name = _utf8(unquote(label.text))
    if cursor.kind in _MATCH_TYPES:
        return _predicate(cursor, label, name)
    return Matcher(MatchType.EQ, METRIC_NAME, name)


def _predicate(cursor: Cursor, label: Token, name: str) -> Matcher:
    match_type = _MATCH_TYPES[cursor.take().kind]
    value = unquote(cursor.expect(Kind.STRING, _CONTEXT, "string").text)
    if match_type in {MatchType.RE, MatchType.NRE}:
        reason = regex_error(value)
        if reason is not None:
            raise cursor.fail(label.start, reason)
    try:
        return Matcher(match_type, name, _utf8(value))
    except InvalidMatcher as error:
        raise cursor.fail(label.start, str(error)) from error


def _utf8(value: bytes) -> str:
    """Return text that any protocol can carry; labels are UTF-8, other bytes never match."""
    return value.decode("utf-8", "replace")
