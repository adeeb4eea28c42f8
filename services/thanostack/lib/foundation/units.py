"""Units as types, and Prometheus's and Go's duration and size texts.

Inside the program time is integer milliseconds. Two texts exist in the field: Prometheus's *model
duration* (`1h30m`, also `d`, `w`, `y`, whole numbers, units in falling order) and Go's
(`1.5h`, `300ms`, no days). Thanos uses either, flag by flag.

Source: Prometheus `model.ParseDuration`; Go `time.ParseDuration`.
"""

from __future__ import annotations

import re
from typing import NewType

from thanostack.lib.foundation.errors import InvalidInput

TimestampMs = NewType("TimestampMs", int)
DurationMs = NewType("DurationMs", int)

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_MODEL_UNITS_MS = {
    "y": 365 * DAY_MS,
    "w": 7 * DAY_MS,
    "d": DAY_MS,
    "h": HOUR_MS,
    "m": MINUTE_MS,
    "s": SECOND_MS,
    "ms": 1,
}
_MODEL_DURATION = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?"
)
_GO_UNITS_MS = {
    "h": HOUR_MS,
    "m": MINUTE_MS,
    "s": SECOND_MS,
    "ms": 1,
    "us": 1e-3,
    "µs": 1e-3,
    "ns": 1e-6,
}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]i?)?B?")
_SIZE_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def parse_model_duration(text: str) -> DurationMs:
    """Return a Prometheus duration in ms.

    Raises:
        InvalidInput: for anything but whole numbers with falling units, or `0`, and for more than
            an int64 holds in nanoseconds, some 292 years.

    Example:
        >>> parse_model_duration("1h30m")
        5400000
    """
    if text == "0":
        return DurationMs(0)
    match = _MODEL_DURATION.fullmatch(text)
    if not text or match is None:
        raise InvalidInput(f'not a valid duration string: "{text}"')
    amounts = zip(match.groups(), _MODEL_UNITS_MS.values(), strict=True)
    duration_ms = sum(int(amount) * unit for amount, unit in amounts if amount)
    if duration_ms * 1_000_000 >= 1 << 63:
        raise InvalidInput("duration out of range")
    return DurationMs(duration_ms)


def parse_go_duration(text: str) -> DurationMs:
    """Return a Go duration in ms, rounded down; days are accepted as Thanos's flags do not.

    Raises:
        InvalidInput: if a part is not a number with a unit.

    Example:
        >>> parse_go_duration("1.5s")
        1500
    """
    if text == "0":
        return DurationMs(0)
    body = text.lstrip("+-")
    parts = _GO_PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise InvalidInput(f'time: invalid duration "{text}"')
    total = sum(float(number) * _GO_UNITS_MS[unit] for number, unit in parts)
    return DurationMs(int(-total if text.startswith("-") else total))


def format_duration(duration: int) -> str:
    """Return ms as a Prometheus duration text.

    Example:
        >>> format_duration(5400000)
        '1h30m'
    """
    if duration == 0:
        return "0s"
    rest, text = abs(duration), "-" if duration < 0 else ""
    for unit, size in _MODEL_UNITS_MS.items():
        # Years and weeks are only used when they divide exactly, as upstream prints them.
        if unit in {"y", "w"} and rest % size:
            continue
        if rest >= size:
            text += f"{rest // size}{unit}"
            rest %= size
    return text


def parse_size(text: str) -> int:
    """Return a size text such as `512MB` or `1GiB` in bytes; both forms are powers of 1024.

    Raises:
        InvalidInput: if it is not a number with an optional unit.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f'not a valid size: "{text}"; write for instance 512MB or 2GiB')
    number, prefix = match.groups()
    return int(float(number) * 1024 ** _SIZE_POWER[(prefix or "").removesuffix("i")])
