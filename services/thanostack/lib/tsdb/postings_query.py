r"""Matchers -> series: which postings to intersect and which to subtract.

A label that a series lacks has the value "". So a matcher that does not accept "" names series to
keep, and one that accepts "" names values whose series go:

    {a="1", b=~"x|y", c!="2", d=~"|z"}

    keep in all of:  (a=1), (b=x or b=y)     then leave out:  (c=2), (d=v for every v but z)

With nothing to intersect, everything is the base. A pattern that is an alternation of literals is
a set and looked up; a literal prefix narrows the values that RE2 sees. Heads and blocks both offer
`PostingsSource`, so both select alike.

Source: Prometheus `tsdb/querier.go` (`PostingsForMatchers`), `model/labels/regexp.go`.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from thanostack.lib.index.postings import EMPTY, intersect, subtract, unite
from thanostack.lib.model.label_runs import Int64Array
from thanostack.lib.model.matchers import Matcher, MatchType

PostingsArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_SPECIAL = frozenset("\\.+*?()|[]{}^$")
_QUANTIFIERS = frozenset("*?{+")


class PostingsSource(Protocol):
    """Series by label pair; lists ascend strictly, all in one numbering."""

    def all_postings(self) -> PostingsArray:
        """Return all series."""
        ...

    def postings(self, name: bytes, value: bytes) -> PostingsArray:
        """Return the series that have a label pair; empty if none has."""
        ...

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return the values of a label name, ascending."""
        ...


def select_postings(source: PostingsSource, matchers: Sequence[Matcher]) -> Int64Array:
    """Return the series that satisfy all matchers, ascending; all series without matchers."""
    keeping = [matcher for matcher in matchers if not matcher.matches_empty]
    found: Int64Array | None = None
    # Single lists first: an empty or short one makes the rest cheap.
    for matcher in sorted(keeping, key=_cost):
        part = _select(source, matcher.name.encode(), _accepts(matcher))
        found = part if found is None else intersect(found, part)
        if not len(found):
            return EMPTY
    if found is None:
        found = _as_list(source.all_postings())
    for matcher in matchers:
        if matcher.matches_empty and len(found):
            part = _select(source, matcher.name.encode(), _refuses(matcher))
            found = subtract(found, part)
    return found


class _Choice:
    """Values of one label: a set, all but a set, or those with a prefix that pass a test."""

    def __init__(
        self,
        *,
        members: frozenset[bytes] | None = None,
        excluded: frozenset[bytes] = frozenset(),
        passes: Callable[[bytes], bool] | None = None,
        prefix: bytes = b"",
    ) -> None:
        self.members = members
        self.excluded = excluded
        self.passes = passes
        self.prefix = prefix


def _accepts(matcher: Matcher) -> _Choice:
    """Return the values that a matcher accepts."""
    if matcher.type is MatchType.EQ:
        return _Choice(members=frozenset([matcher.value.encode()]))
    if matcher.type is MatchType.NEQ:
        return _Choice(excluded=frozenset([matcher.value.encode()]))
    members = literal_set(matcher.value)
    if matcher.type is MatchType.RE:
        if members is not None:
            return _Choice(members=members)
        if matcher.value == ".+":
            return _Choice()
        return _Choice(passes=_test(matcher), prefix=literal_prefix(matcher.value))
    return _Choice(passes=_test(matcher)) if members is None else _Choice(excluded=members)


def _refuses(matcher: Matcher) -> _Choice:
    """Return the values that a matcher refuses."""
    return _accepts(Matcher(_INVERSE[matcher.type], matcher.name, matcher.value))


def _test(matcher: Matcher) -> Callable[[bytes], bool]:
    """Return a predicate over values; RE2 only where nothing cheaper decides the same."""
    simple = _between_wildcards(matcher.value)
    if simple is None:
        return matcher.matches
    positive = matcher.type is MatchType.RE
    return lambda value: simple(value) is positive


@functools.lru_cache(maxsize=1024)
def _between_wildcards(pattern: str) -> Callable[[bytes], bool] | None:
    """Return the test that `.*literal.*`, `.*literal` or `literal.*` stands for, else None."""
    head, tail = pattern.startswith(".*"), pattern.endswith(".*")
    literals = literal_set(pattern[2 * head : len(pattern) - 2 * tail])
    if literals is None or len(literals) != 1 or not (head or tail):
        return None
    (literal,) = literals
    if head and tail:
        return lambda value: literal in value
    return lambda value: value.endswith(literal) if head else value.startswith(literal)


_INVERSE = {
    MatchType.EQ: MatchType.NEQ,
    MatchType.NEQ: MatchType.EQ,
    MatchType.RE: MatchType.NRE,
    MatchType.NRE: MatchType.RE,
}


def _cost(matcher: Matcher) -> int:
    if matcher.type is MatchType.EQ:
        return 0
    if matcher.type is MatchType.RE and literal_set(matcher.value) is not None:
        return 1
    return 2


def _as_list(postings: PostingsArray) -> Int64Array:
    return postings.astype(np.int64, copy=False)


def _select(source: PostingsSource, name: bytes, choice: _Choice) -> Int64Array:
    """Return the series whose value of a label is among the choice; "" is no value."""
    if choice.members is not None:
        values: Sequence[bytes] = sorted(choice.members - {b""})
    else:
        values = source.values(name)
        if choice.prefix:
            first = bisect_left(values, choice.prefix)
            values = values[first : _after_prefix(values, choice.prefix, first)]
        if choice.passes is not None:
            values = [value for value in values if choice.passes(value)]
        elif choice.excluded:
            values = [value for value in values if value not in choice.excluded]
    return unite([_as_list(source.postings(name, value)) for value in values])


def _after_prefix(values: Sequence[bytes], prefix: bytes, first: int) -> int:
    """Return where values that begin with a prefix end."""
    size = len(prefix)
    return bisect_left(values, True, lo=first, key=lambda value: value[:size] > prefix)


@functools.lru_cache(maxsize=1024)
def literal_set(pattern: str) -> frozenset[bytes] | None:
    r"""Return the strings that an anchored pattern of literals matches, None for other patterns.

    Example:
        >>> sorted(literal_set(r"a\.b|c"))
        [b'a.b', b'c']
        >>> literal_set("a.b")
    """
    body = pattern
    for opening in ("(?:", "("):
        if body.startswith(opening) and body.endswith(")") and not body.endswith("\\)"):
            body = body[len(opening) : -1]
            break
    alternatives = [""]
    i = 0
    while i < len(body):
        character = body[i]
        if character == "|":
            alternatives.append("")
        elif character == "\\" and i + 1 < len(body) and body[i + 1] in _SPECIAL:
            i += 1
            alternatives[-1] += body[i]
        elif character in _SPECIAL:
            return None
        else:
            alternatives[-1] += character
        i += 1
    return frozenset(alternative.encode() for alternative in alternatives)


@functools.lru_cache(maxsize=1024)
def literal_prefix(pattern: str) -> bytes:
    """Return a text that every match of an anchored pattern begins with.

    Example:
        >>> literal_prefix("prod-.*")
        b'prod-'
        >>> literal_prefix("ab*"), literal_prefix("ab|c.")
        (b'a', b'')
    """
    # An alternation in a group ends the literal part at its parenthesis; one at the top leaves
    # none. Classes and quoted parts can hide it, so beside an alternation neither is looked into.
    if "|" in pattern and ("[" in pattern or "\\Q" in pattern or _has_outer_alternation(pattern)):
        return b""
    literal = ""
    i = 0
    while i < len(pattern):
        character = pattern[i]
        if character == "\\" and i + 1 < len(pattern) and pattern[i + 1] in _SPECIAL:
            i += 1
            literal += pattern[i]
        elif character in _QUANTIFIERS:
            return literal[:-1].encode()
        elif character in _SPECIAL:
            break
        else:
            literal += character
        i += 1
    return literal.encode()


def _has_outer_alternation(pattern: str) -> bool:
    depth = 0
    escaped = False
    for character in pattern:
        if escaped or character == "\\":
            escaped = not escaped
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            return True
    return False
