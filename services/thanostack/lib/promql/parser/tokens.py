"""The words of PromQL: token kinds, keywords, and how an error message names a token.

A kind's value is the text that stands for it in a tree (`sum`, `+`, `and`) or in a message
(`identifier`, `number`). Keywords are recognised in any letter case, and most of them may also
name a metric or a label; `METRIC_NAMES` and `LABEL_NAMES` say which.

Source: Prometheus 3.14, `promql/parser/lex.go` and the token lists of `generated_parser.y`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from thanostack.lib.promql.parser.quoting import byte_length, quote


class Kind(enum.StrEnum):
    """What a token is."""

    EOF = "end of input"
    ERROR = "error"
    IDENTIFIER = "identifier"
    METRIC_IDENTIFIER = "metric identifier"
    STRING = "string"
    NUMBER = "number"
    DURATION = "duration"

    LEFT_PAREN = "("
    RIGHT_PAREN = ")"
    LEFT_BRACE = "{"
    RIGHT_BRACE = "}"
    LEFT_BRACKET = "["
    RIGHT_BRACKET = "]"
    COMMA = ","
    COLON = ":"
    EQL = "="

    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    MOD = "%"
    POW = "^"
    ATAN2 = "atan2"
    EQLC = "=="
    NEQ = "!="
    LTE = "<="
    LSS = "<"
    GTE = ">="
    GTR = ">"
    TRIM_UPPER = "</"
    TRIM_LOWER = ">/"
    EQL_REGEX = "=~"
    NEQ_REGEX = "!~"
    LAND = "and"
    LOR = "or"
    LUNLESS = "unless"
    AT = "@"

    SUM = "sum"
    AVG = "avg"
    COUNT = "count"
    MIN = "min"
    MAX = "max"
    GROUP = "group"
    STDDEV = "stddev"
    STDVAR = "stdvar"
    TOPK = "topk"
    BOTTOMK = "bottomk"
    COUNT_VALUES = "count_values"
    QUANTILE = "quantile"
    LIMITK = "limitk"
    LIMIT_RATIO = "limit_ratio"

    OFFSET = "offset"
    SMOOTHED = "smoothed"
    ANCHORED = "anchored"
    BY = "by"
    WITHOUT = "without"
    ON = "on"
    IGNORING = "ignoring"
    GROUP_LEFT = "group_left"
    GROUP_RIGHT = "group_right"
    FILL = "fill"
    FILL_LEFT = "fill_left"
    FILL_RIGHT = "fill_right"
    BOOL = "bool"

    START = "start"
    END = "end"
    STEP = "step"
    RANGE = "range"
    MAX_OF = "max_of"
    MIN_OF = "min_of"


COMPARISONS = frozenset({Kind.EQLC, Kind.NEQ, Kind.LTE, Kind.LSS, Kind.GTE, Kind.GTR})
SET_OPERATORS = frozenset({Kind.LAND, Kind.LOR, Kind.LUNLESS})
OPERATORS = (
    COMPARISONS
    | SET_OPERATORS
    | {Kind.ADD, Kind.SUB, Kind.MUL, Kind.DIV, Kind.MOD, Kind.POW, Kind.ATAN2, Kind.AT}
    | {Kind.TRIM_UPPER, Kind.TRIM_LOWER, Kind.EQL_REGEX, Kind.NEQ_REGEX}
)
AGGREGATORS_WITH_PARAM = frozenset(
    {Kind.TOPK, Kind.BOTTOMK, Kind.COUNT_VALUES, Kind.QUANTILE, Kind.LIMITK, Kind.LIMIT_RATIO}
)
EXPERIMENTAL_AGGREGATORS = frozenset({Kind.LIMITK, Kind.LIMIT_RATIO})
AGGREGATORS = AGGREGATORS_WITH_PARAM | {
    Kind.SUM,
    Kind.AVG,
    Kind.COUNT,
    Kind.MIN,
    Kind.MAX,
    Kind.GROUP,
    Kind.STDDEV,
    Kind.STDVAR,
}
FILLS = frozenset({Kind.FILL, Kind.FILL_LEFT, Kind.FILL_RIGHT})
MODIFIERS = FILLS | {
    Kind.OFFSET,
    Kind.SMOOTHED,
    Kind.ANCHORED,
    Kind.BY,
    Kind.WITHOUT,
    Kind.ON,
    Kind.IGNORING,
    Kind.GROUP_LEFT,
    Kind.GROUP_RIGHT,
    Kind.BOOL,
}
DURATION_KEYWORDS = frozenset({Kind.STEP, Kind.RANGE, Kind.MAX_OF, Kind.MIN_OF})
PREPROCESSORS = DURATION_KEYWORDS | {Kind.START, Kind.END}

KEYWORDS: dict[str, Kind] = {
    kind.value: kind
    for kind in (*SET_OPERATORS, Kind.ATAN2, *AGGREGATORS, *MODIFIERS, *PREPROCESSORS)
} | {"inf": Kind.NUMBER, "nan": Kind.NUMBER}

METRIC_NAMES = (
    frozenset({Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER})
    | AGGREGATORS
    | SET_OPERATORS
    | FILLS
    | PREPROCESSORS
    | {Kind.BY, Kind.WITHOUT, Kind.OFFSET, Kind.ANCHORED, Kind.SMOOTHED}
)
# Upstream: `without` names a metric but no label, `bool`, `on`, `atan2`… the reverse.
LABEL_NAMES = (METRIC_NAMES - {Kind.WITHOUT}) | {
    Kind.BOOL,
    Kind.ON,
    Kind.IGNORING,
    Kind.GROUP_LEFT,
    Kind.GROUP_RIGHT,
    Kind.ATAN2,
}
CLOSINGS = frozenset(
    {Kind.RIGHT_BRACE, Kind.RIGHT_PAREN, Kind.RIGHT_BRACKET, Kind.DURATION, Kind.NUMBER}
)
_PROSE = frozenset(
    {Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER, Kind.STRING, Kind.NUMBER, Kind.DURATION}
)


class Token(NamedTuple):
    """A piece of the query.

    Args:
        kind: what it is.
        start: byte offset of its first byte.
        end: byte offset after its last byte.
        text: as written; of an ERROR, the message.
    """

    kind: Kind
    start: int
    end: int
    text: str

    def describe(self) -> str:
        """Return the token as an error message names it."""
        if self.kind is Kind.EOF:
            return self.kind.value
        if self.kind in _PROSE:
            return f"{self.kind.value} {self._quoted()}"
        return self._quoted()

    def _quoted(self) -> str:
        if self.kind in {Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER}:
            return quote(self.text)
        if self.kind in MODIFIERS:
            return f"<{self.text}>"
        if self.kind in OPERATORS:
            return f"<op:{self.text}>"
        if self.kind in AGGREGATORS:
            return f"<aggr:{self.text}>"
        if byte_length(self.text) > 10:
            return quote(self.text[:10]) + "..."
        return quote(self.text)
