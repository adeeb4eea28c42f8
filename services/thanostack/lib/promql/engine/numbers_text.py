"""Numbers and strings as Go writes and reads them, where the text is visible.

format_shortest   strconv 'f' -1   label values of count_values
format_general    %g               annotations
parse_float       strconv.ParseFloat   `le` labels
quote             strconv.Quote    labels in errors
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_FLOAT = re.compile(
    r"[+-]?(?:inf(?:inity)?|nan|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", re.IGNORECASE | re.ASCII
)
_HEX = re.compile(r"[+-]?0x(?:_?[0-9a-f])+(?:\.[0-9a-f]*)?(?:p[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_ESCAPES = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v",
    "\\": r"\\", '"': r"\"",
}  # fmt: skip


def _special(value: float) -> str | None:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return None


def format_shortest(value: float) -> str:
    """Return the shortest decimal that reads back as the value, without exponent.

    Example:
        >>> format_shortest(1e21)
        '1000000000000000000000'
    """
    special = _special(value)
    if special is not None:
        return special
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def format_general(value: float, digits: int | None = None) -> str:
    """Return Go's %g: shortest, or with this many significant digits.

    Example:
        >>> format_general(1e21), format_general(0.1), format_general(100000.0)
        ('1e+21', '0.1', '100000')
    """
    special = _special(value)
    if special is not None:
        return special
    if digits is not None:
        return f"{value:.{digits}g}"
    text = repr(value)
    mantissa, _, exponent = f"{value:.17e}".partition("e")
    power = int(exponent) if value else 0
    if -5 < power < 6:
        return format_shortest(value)
    mantissa = (text if "e" in text else f"{Decimal(text):e}").partition("e")[0]
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def parse_float(text: str) -> float | None:
    """Return a number as strconv.ParseFloat reads it, None where that fails."""
    if _FLOAT.fullmatch(text):
        value = float(text)
        overflow = math.isinf(value) and "inf" not in text.lower()
        return None if overflow else value
    if _HEX.fullmatch(text) and "p" in text.lower():
        return float.fromhex(text.replace("_", ""))
    return None


def quote(text: str) -> str:
    """Return a text in double quotes with Go's escapes.

    Example:
        >>> quote("a b")
        '"a b"'
    """
    return '"' + "".join(_quote_character(c) for c in text) + '"'


def _quote_character(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    if c.isprintable():
        return c
    code = ord(c)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
