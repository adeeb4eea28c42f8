r"""String literals, read and written as Go does.

PromQL has three quotes: `"…"` and `'…'` with Go's escapes, and raw backquotes. Escapes may spell
bytes that are not UTF-8 (`"\xff"`), hence `unquote` returns bytes. Query texts are `str`; a byte
of a request that was not UTF-8 arrives as a surrogate escape, counts one byte and is quoted as
`\xNN`.

Source: Go `strconv.Quote`, `strconv.QuoteRune`, `fmt` verb `%#U`; Prometheus
`util/strutil/quote.go`.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_NAMED = {code: f"\\{name}" for name, code in _SIMPLE.items()} | {0x5C: "\\\\"}
_PLAIN = re.compile(r"[ !#-\[\]-~]*")


def encode(text: str) -> bytes:
    """Return the bytes of a query text; surrogate escapes become the bytes they stand for."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def byte_length(text: str) -> int:
    """Return how many bytes a text takes in UTF-8."""
    return len(text) if text.isascii() else len(encode(text))


def quote(text: str) -> str:
    r"""Return a text in double quotes, escaped like Go's `%q`.

    Example:
        >>> quote('a"b')
        '"a\\"b"'
    """
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return f'"{"".join(_escaped(character, 0x22) for character in text)}"'


def quote_character(character: str) -> str:
    """Return one character in single quotes, like Go's `%q`; "" (end of input) is U+FFFD."""
    return f"'{_escaped(_rune(character), 0x27)}'"


def name_character(character: str) -> str:
    """Return a code point by number and, if it prints, by itself, like Go's `%#U`."""
    rune = _rune(character)
    shown = f" '{rune}'" if rune.isprintable() else ""
    return f"U+{ord(rune):04X}{shown}"


def unquote(literal: str) -> bytes:
    """Return the bytes that a well-formed literal stands for.

    Args:
        literal: with its quotes, as the lexer accepted it.
    """
    body = encode(literal[1:-1])
    if literal[0] == "`" or b"\\" not in body:
        return body
    return _ESCAPE.sub(_unescaped, body)


def text_of(value: bytes) -> str:
    """Return bytes as text; what is not UTF-8 stays as surrogate escapes."""
    return value.decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Return whether a text from a literal is UTF-8, thus free of surrogate escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unescaped(match: re.Match[bytes]) -> bytes:
    simple, octal, byte, *code_points = match.groups()
    if simple is not None:
        return bytes([_SIMPLE.get(simple.decode(), simple[0])])
    if octal is not None:
        return bytes([int(octal, 8)])
    if byte is not None:
        return bytes([int(byte, 16)])
    return chr(int(code_points[0] or code_points[1], 16)).encode()


def _rune(character: str) -> str:
    return "\ufffd" if not character or "\ud800" <= character <= "\udfff" else character


def _escaped(character: str, delimiter: int) -> str:
    code = ord(character)
    if code in _NAMED:
        return _NAMED[code]
    if code == delimiter:
        return f"\\{character}"
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
