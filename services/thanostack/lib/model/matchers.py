"""Label predicates, with Prometheus's semantics.

A regular expression is RE2, anchored at both ends, and `.` matches line breaks: `^(?s:…)$`. A
label that a series lacks has the value "", so a matcher that accepts "" selects series without it.

Source: Prometheus `model/labels/matcher.go`, `regexp.go`.
"""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

import re2

from thanostack.lib.foundation.errors import InvalidMatcher


class MatchType(enum.IntEnum):
    """The four operators, numbered as on the wire."""

    EQ = 0
    NEQ = 1
    RE = 2
    NRE = 3

    @property
    def text(self) -> str:
        """Return the operator as PromQL writes it."""
        return ("=", "!=", "=~", "!~")[self]


@functools.lru_cache(maxsize=1024)
def _full_match(pattern: str) -> Callable[[bytes], bool]:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    try:
        compiled = re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise InvalidMatcher(f"error parsing regexp: {text}") from error
    return lambda value: compiled.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Matcher:
    """One predicate over one label.

    Args:
        type: the operator.
        name: the label's name.
        value: text, or RE2 pattern for RE and NRE.

    Raises:
        InvalidMatcher: on construction, if RE2 refuses the pattern.
    """

    type: MatchType
    name: str
    value: str

    def __post_init__(self) -> None:
        if self.type in {MatchType.RE, MatchType.NRE}:
            _full_match(self.value)

    def matches(self, value: bytes) -> bool:
        """Return whether a label value satisfies the predicate; b"" stands for an absent label."""
        if self.type is MatchType.EQ:
            return value == self.value.encode()
        if self.type is MatchType.NEQ:
            return value != self.value.encode()
        return _full_match(self.value)(value) is (self.type is MatchType.RE)

    @property
    def matches_empty(self) -> bool:
        """Return whether a series without the label is selected."""
        return self.matches(b"")

    def __str__(self) -> str:
        return f"{self.name}{self.type.text}{json.dumps(self.value, ensure_ascii=False)}"
