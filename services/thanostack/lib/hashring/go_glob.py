r"""Tenant patterns as Go's `filepath.Match` reads them.

    *  any bytes but /      ?  one character but /      [a-z] [^a-z]  a class      \c  c itself

A pattern is a sequence of chunks, each of single-character terms and perhaps led by a star. The
first place where a chunk fits is taken, and never reconsidered. Python's `fnmatch` differs in all
of it: `*` crosses `/`, `!` negates, nothing escapes.

Source: Go 1.26 `path/filepath/match.go`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from thanostack.lib.foundation.errors import InvalidInput

_SEPARATOR: Final = ord("/")
_BAD_RUNE: Final = 0xFFFD


class _Term(NamedTuple):
    """One term: a literal byte, any character, or a class of (low, high) code points."""

    literal: int | None = None
    ranges: tuple[tuple[int, int], ...] = ()
    is_negated: bool = False


class _Chunk(NamedTuple):
    is_starred: bool
    terms: tuple[_Term, ...]


class Glob:
    """A pattern, ready to match.

    Args:
        pattern: its text.

    Raises:
        InvalidInput: if it is malformed. Upstream finds out when a tenant gets that far in it,
            and fails the write.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._chunks = tuple(_Parser(pattern).chunks())

    def matches(self, name: str) -> bool:
        """Return whether the pattern matches all of a name."""
        rest = name.encode()
        for i, chunk in enumerate(self._chunks):
            is_last = i == len(self._chunks) - 1
            if is_last and chunk.is_starred and not chunk.terms:
                return _SEPARATOR not in rest
            found = _first_fit(chunk, rest, is_last)
            if found is None:
                return False
            rest = found
        return not rest


def _first_fit(chunk: _Chunk, name: bytes, is_last: bool) -> bytes | None:
    """Return what is left of a name after a chunk; the last chunk must leave nothing."""
    for skipped in range(len(name) + 1):
        rest = _after(chunk.terms, name[skipped:])
        if rest is not None and not (is_last and rest):
            return rest
        # Upstream: a star skips bytes, so what follows it may begin inside of a character.
        if not chunk.is_starred or name[skipped : skipped + 1] in {b"", b"/"}:
            break
    return None


def _after(terms: tuple[_Term, ...], name: bytes) -> bytes | None:
    for term in terms:
        if not name:
            return None
        if term.literal is not None:
            size, fits = 1, name[0] == term.literal
        elif not term.ranges:
            size, fits = _first_rune(name)[1], name[0] != _SEPARATOR
        else:
            rune, size = _first_rune(name)
            fits = term.is_negated != any(low <= rune <= high for low, high in term.ranges)
        if not fits:
            return None
        name = name[size:]
    return name


def _first_rune(text: bytes) -> tuple[int, int]:
    """Return the first code point and its size; a byte that begins none is U+FFFD and one byte."""
    for size in range(1, 5):
        try:
            return ord(text[:size].decode()), size
        except (UnicodeDecodeError, TypeError):
            continue
    return _BAD_RUNE, 1


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._rest = pattern.encode()

    def chunks(self) -> list[_Chunk]:
        chunks = []
        while self._rest:
            unstarred = self._rest.lstrip(b"*")
            is_starred, self._rest = unstarred != self._rest, unstarred
            terms = []
            while self._rest and self._rest[:1] != b"*":
                terms.append(self._term())
            chunks.append(_Chunk(is_starred, tuple(terms)))
        return chunks

    def _term(self) -> _Term:
        first = self._take()
        if first == b"[":
            return self._class()
        if first == b"?":
            return _Term()
        if first == b"\\":
            first = self._take()
        return _Term(literal=first[0])

    def _class(self) -> _Term:
        is_negated = self._rest[:1] == b"^"
        if is_negated:
            self._take()
        ranges: list[tuple[int, int]] = []
        while not (ranges and self._rest[:1] == b"]"):
            low = high = self._class_rune()
            if self._rest[:1] == b"-":
                self._take()
                high = self._class_rune()
            ranges.append((low, high))
        self._take()
        return _Term(ranges=tuple(ranges), is_negated=is_negated)

    def _class_rune(self) -> int:
        if self._rest[:1] in {b"-", b"]"}:
            raise self._bad()
        if self._rest[:1] == b"\\":
            self._take()
        rune, size = _first_rune(self._rest) if self._rest else (_BAD_RUNE, 1)
        if rune == _BAD_RUNE and size == 1:
            raise self._bad()
        self._rest = self._rest[size:]
        return rune

    def _take(self) -> bytes:
        if not self._rest:
            raise self._bad()
        first, self._rest = self._rest[:1], self._rest[1:]
        return first

    def _bad(self) -> InvalidInput:
        return InvalidInput(
            f"tenant pattern {self._pattern!r} is malformed: close each [ with ], and put a "
            "backslash before a literal *, ?, [, ], - or \\"
        )
