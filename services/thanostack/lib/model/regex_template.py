"""Replacement texts with `$1` and `${name}`, expanded as Go's `regexp.Expand`.

    $$          a dollar
    $1  ${1}    a group by number; nothing where there is none, or it took no part in the match
    $a  ${a}    the first group of that name that took part; nothing where there is none
    $           anything else after a dollar: the dollar itself

A name without braces is as long as it can be: `$1x` is `${1x}`, not `${1}x`. A number with a
leading zero, or of ten digits and more, is a name.

Source: Go `regexp`, `Regexp.Expand` and its `extract`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # for those who match only
    import re2

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)

Part = bytes | int | str
"""A literal, a group's number, or a group's name."""


@dataclass(frozen=True)
class Template:
    """One replacement text.

    Args:
        text: as written.
    """

    text: str
    parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(_parts(self.text)))

    def expand(self, match: re2._Match) -> bytes:
        """Return the text with the groups of a match of bytes put in."""
        parts = self.parts
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join(part if isinstance(part, bytes) else _group(match, part) for part in parts)


def _group(match: re2._Match, part: int | str) -> bytes:
    if isinstance(part, str):
        index = match.re.groupindex.get(part.encode())
    else:
        index = part if part <= match.re.groups else None
    return b"" if index is None else match.group(index) or b""


def _parts(text: str) -> list[Part]:
    parts: list[Part] = []
    literal, at = "", 0
    while (dollar := text.find("$", at)) >= 0:
        literal += text[at:dollar]
        name, at = _placeholder(text, dollar + 1)
        if name in {"", "$"}:
            literal += "$"
            continue
        parts += [_encoded(literal), int(name) if _NUMBER.fullmatch(name) else name]
        literal = ""
    parts.append(_encoded(literal + text[at:]))
    return [part for part in parts if part != b""] or [b""]


def _placeholder(text: str, at: int) -> tuple[str, int]:
    """Return what follows a dollar, and where it ends: a name, `$`, or nothing."""
    if text.startswith("$", at):
        return "$", at + 1
    start = at + 1 if text.startswith("{", at) else at
    stop = start
    while stop < len(text) and _is_word(text[stop]):
        stop += 1
    if start == at:
        return text[start:stop], stop
    if stop == start or not text.startswith("}", stop):
        return "", at
    return text[start:stop], stop + 1


def _is_word(character: str) -> bool:
    return character == "_" or character.isalpha() or character.isdecimal()


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
