r"""Numbers and durations: where they end in the text, and what they are worth.

A number is decimal, `0x…`, octal (`0…`, `0o…`) or binary (`0b…`), with `_` between digits, or a
decimal or hexadecimal float, or `Inf`/`NaN`. A duration is whole numbers with falling units,
`1h30m`. As a value it is seconds, and wherever a duration is expected a number of seconds will do.

The scanner takes a run of characters that *may* be a number; whether it is one is found when its
value is computed, so that `1e5e5` and `0x_` fail with Prometheus's words at its position.

Source: Prometheus 3.14, `lex.go: scanNumber`; `prometheus/common` `model.ParseDuration`; Go
`strconv.ParseInt` with base 0, `strconv.ParseFloat`.
"""

from __future__ import annotations

import math
import re

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.promql.parser.quoting import quote
from thanostack.lib.promql.parser.tokens import Kind

_NANOSECOND = 1_000_000_000
_UNITS_NS = {
    "y": 365 * 24 * 3600 * _NANOSECOND,
    "w": 7 * 24 * 3600 * _NANOSECOND,
    "d": 24 * 3600 * _NANOSECOND,
    "h": 3600 * _NANOSECOND,
    "m": 60 * _NANOSECOND,
    "s": _NANOSECOND,
    "ms": _NANOSECOND // 1000,
}
_UNIT_ORDER = list(_UNITS_NS)
_DURATION_PART = re.compile(r"([0-9]+)([^0-9]+)")
_DURATION_TAIL = re.compile(r"([smhdwy]s?(?:[0-9]+[smhdw]s?)*)([0-9]*)(.?)", re.DOTALL)
_WORD_CHARACTER = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DECIMAL = re.compile(r"[0-9]*")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]*")

_DIGITS = {"b": "[01]", "o": "[0-7]", "x": "[0-9a-fA-F]"}
_PREFIXED = {
    prefix: re.compile(f"0[{prefix}{prefix.upper()}](?:_?{digit})+")
    for prefix, digit in _DIGITS.items()
}
_PLAIN_INTEGER = re.compile(r"0|[1-9](?:_?[0-9])*")
_OCTAL_INTEGER = re.compile(r"0(?:_?[0-7])+")
_RUN = "[0-9](?:_?[0-9])*"
_DECIMAL_FLOAT = re.compile(rf"(?:{_RUN}\.?(?:{_RUN})?|\.{_RUN})(?:[eE][+-]?{_RUN})?")
_INT64_MAX = 2**63 - 1
# Bound: Python refuses to convert thousands of digits; nothing that long fits 64 bits.
_LONGEST = 1000


def scan_numeral(text: str, start: int) -> tuple[Kind, int]:
    """Find the end of the number or duration at `start`.

    Returns:
        NUMBER or DURATION and its end; or ERROR and the end of what the message shows.
    """
    accepted, position = _scan_number(text, start)
    if accepted:
        return Kind.NUMBER, position
    tail = _DURATION_TAIL.match(text, position)
    if tail is None:
        return Kind.ERROR, position
    units_end, stray_digits, following = tail.end(1), tail.group(2), tail.group(3)
    if stray_digits:
        return Kind.ERROR, tail.end(2)
    if following and following in _WORD_CHARACTER:
        return Kind.ERROR, tail.end(3)
    return Kind.DURATION, units_end


def _scan_number(text: str, start: int) -> tuple[bool, int]:
    position, digits = start, _DECIMAL
    if text.startswith(("0x", "0X"), start):
        position, digits = start + 2, _HEXADECIMAL
        position += text.startswith("_", position)
    elif text.startswith("0", start):
        position += 1
    # Upstream: a dot in front does not count as the dot, nor a first `e` of a hexadecimal number
    # as the exponent.
    position += text.startswith(".", position)
    position += bool(digits.match(text[position : position + 1]).end())  # type: ignore[union-attr]
    seen: set[str] = set()
    while character := text[position : position + 1].lower():
        if character in ".e_":
            position += 1
            if character != "_" and character in seen:
                return False, position
            seen.add(character)
            accepted, position = _after_mark(text, position, character, digits)
            if not accepted:
                return False, position
        else:
            end = digits.match(text, position).end()  # type: ignore[union-attr]
            if end == position:
                break
            position = end
    return text[position : position + 1] not in _WORD_CHARACTER, position


def _after_mark(text: str, position: int, mark: str, digits: re.Pattern[str]) -> tuple[bool, int]:
    """Check what may not follow a dot, an exponent or an underscore."""
    forbidden = "_." if mark == "." else "._eE"
    if mark == "e":
        position += text[position : position + 1] in {"+", "-"}
    following = text[position : position + 1]
    if following and following in forbidden:
        return False, position + 1
    if mark == ".":
        return digits is _DECIMAL, position
    return bool(following), position


def number_value(text: str) -> float:
    """Return what a number is worth.

    Raises:
        InvalidInput: if it is none; the message is Go's.
    """
    if text.isdigit() and text[0] != "0" and len(text) < 19:
        return float(int(text))
    parsed = _integer_value(text)
    return _float_value(text) if parsed is None or parsed > _INT64_MAX else float(parsed)


def _integer_value(text: str) -> int | None:
    prefixed = _PREFIXED.get(text[1:2].lower())
    if prefixed is not None:
        return int(text, 0) if prefixed.fullmatch(text) else None
    if len(text) > _LONGEST:
        return None
    if _PLAIN_INTEGER.fullmatch(text):
        return int(text)
    return int(text.replace("_", ""), 8) if _OCTAL_INTEGER.fullmatch(text) else None


def _float_value(text: str) -> float:
    lowered = text.lower()
    if lowered in {"inf", "nan"}:
        return float(lowered)
    if not _DECIMAL_FLOAT.fullmatch(text):
        raise InvalidInput(_parse_float_error(text, "invalid syntax"))
    value = float(text)
    if math.isinf(value):
        raise InvalidInput(_parse_float_error(text, "value out of range"))
    return value


def _parse_float_error(text: str, reason: str) -> str:
    return f"error parsing number: strconv.ParseFloat: parsing {quote(text)}: {reason}"


def duration_value(text: str) -> float:
    """Return what a duration is worth in seconds.

    Raises:
        InvalidInput: if a unit is unknown or out of order, or the sum exceeds 292 years.
    """
    total_ns, last, position = 0, -1, 0
    while position < len(text):
        part = _DURATION_PART.match(text, position)
        digits = part[1].lstrip("0") if part else ""
        if part is None or len(digits) > 20 or int(digits or "0") >= 2**64:
            raise _invalid_duration(text)
        amount, unit = int(digits or "0"), part[2]
        if unit not in _UNITS_NS:
            raise InvalidInput(f"unknown unit {quote(unit)} in duration {quote(text)}")
        order = _UNIT_ORDER.index(unit)
        if order <= last:
            raise _invalid_duration(text)
        if amount > 2**63 // _UNITS_NS[unit]:
            raise InvalidInput("duration out of range")
        total_ns += amount * _UNITS_NS[unit]
        if total_ns > _INT64_MAX:
            raise InvalidInput("duration out of range")
        last, position = order, part.end()
    seconds, rest_ns = divmod(total_ns, _NANOSECOND)
    return float(seconds) + rest_ns / 1e9


def _invalid_duration(text: str) -> InvalidInput:
    return InvalidInput(f"not a valid duration string: {quote(text)}")


def to_int64(value: float) -> int:
    """Return a float rounded half away from zero, as Go converts it.

    Upstream: what does not fit becomes the smallest integer, as amd64 does it.
    """
    if not math.isfinite(value):
        return -(2**63)
    rounded = math.floor(abs(value))
    rounded += abs(value) - rounded >= 0.5
    signed = rounded if value >= 0 else -rounded
    return signed if -(2**63) <= signed <= _INT64_MAX else -(2**63)


def seconds_to_ms(value: float) -> int:
    """Return seconds as ms: rounded to nanoseconds, then cut off towards zero."""
    nanoseconds = to_int64(value * 1e9)
    milliseconds = abs(nanoseconds) // 1_000_000
    return milliseconds if nanoseconds >= 0 else -milliseconds
