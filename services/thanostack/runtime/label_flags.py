r"""Labels on the command line: `--label 'replica="a"'`, with the value quoted as Go quotes.

The three forms of Go's `strconv.Unquote` are taken: "…" with escapes, `…` raw, and '…' for one
character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPE = re.compile(
    r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\"']))"""
)
_SIMPLE = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return labels by name, in ascending order of name.

    Raises:
        ValueError: if one is not name="value", or a name stands twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, quoted = text.partition("=")
        if not equals:
            raise ValueError(f"""unrecognized label {text!r}; write 'name="value"'""")
        if not name or "\x00" in name:
            raise ValueError(f"unsupported format for label {text!r}: the name is empty")
        if name in labels:
            raise ValueError(f"label {name!r} is given twice")
        labels[name] = unquote(quoted)
    return dict(sorted(labels.items()))


def unquote(text: str) -> str:
    """Return what a quoted Go string or character stands for.

    Raises:
        ValueError: if it is not quoted, or an escape is unknown.
    """
    quote = text[:1]
    body = text[1:-1]
    if len(text) < 2 or text[-1] != quote or quote not in {'"', "`", "'"}:
        raise ValueError(f"""label value {text} is not quoted; write 'name="value"'""")
    if quote == "`":
        if "`" in body:
            raise ValueError(f"label value {text} has a quote inside")
        return body
    decoded = _unescape(body, quote)
    if quote == "'" and len(decoded) != 1:
        raise ValueError(f"label value {text}: single quotes hold one character; use double quotes")
    return decoded


def _unescape(body: str, quote: str) -> str:
    out = bytearray()
    at = 0
    while at < len(body):
        if body[at] == "\\":
            match = _ESCAPE.match(body, at)
            if match is None:
                raise ValueError(f"label value: unknown escape in {body!r}")
            out += _escaped(match)
            at = match.end()
        elif body[at] in {quote, "\n"}:
            raise ValueError(f"label value: unescaped quote or line end in {body!r}")
        else:
            out += body[at].encode()
            at += 1
    # Upstream: \x and octal escapes are bytes; label values have to be UTF-8 all the same.
    try:
        return out.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"label value {body!r} is not UTF-8") from error


def _escaped(match: re.Match[str]) -> bytes:
    hexadecimal, short, long, octal, simple = match.groups()
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if octal:
        if int(octal, 8) > 255:
            raise ValueError(f"label value: octal escape {octal} is above a byte")
        return bytes([int(octal, 8)])
    if simple:
        return _SIMPLE[simple].encode()
    point = int(short or long, 16)
    if point > 0x10FFFF or 0xD800 <= point < 0xE000:
        raise ValueError(f"label value: {match.group()} is not a character")
    return chr(point).encode()
