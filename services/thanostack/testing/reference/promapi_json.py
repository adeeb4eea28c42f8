"""Result JSON in plain Python: Go's float format from Python's shortest digits."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

_LONG = {r"\b": r"\u0008", r"\f": r"\u000c"}


def format_go_float(value: Any) -> Any:
    """Return a float as Go's strconv writes it with format 'f' or 'e', precision -1."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign = "-" if math.copysign(1, value) < 0 else ""
    _, digits, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    text = "".join(map(str, digits))
    assert isinstance(exponent, int)
    point = len(text) + exponent
    if value != 0 and (abs(value) < 1e-6 or abs(value) >= 1e21):
        tail = "." + text[1:] if len(text) > 1 else ""
        return f"{sign}{text[0]}{tail}e{'-' if point < 1 else '+'}{abs(point - 1):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{text}" if value else f"{sign}0"
    if point >= len(text):
        return sign + text + "0" * (point - len(text))
    return f"{sign}{text[:point]}.{text[point:]}"


def format_time(t: Any) -> Any:
    """Return ms as seconds with three decimals unless they are zero."""
    sign, t = ("-", -int(t)) if t < 0 else ("", int(t))
    return f"{sign}{t // 1000}" + (f".{t % 1000:03d}" if t % 1000 else "")


def _quoted(text: Any) -> Any:
    # Go has no short form of backspace and form feed.
    body = json.dumps(text, ensure_ascii=False)
    return re.sub(r"\\\\|\\[bf]", lambda m: _LONG.get(m[0], m[0]), body)


def _labels(label_data: Any, label_offsets: Any, row: Any) -> Any:
    data, i = bytes(label_data[label_offsets[row] : label_offsets[row + 1]]), 0
    pairs = []

    def length(i: Any) -> Any:
        value = shift = 0
        while True:
            byte = data[i]
            value |= (byte & 127) << shift
            shift, i = shift + 7, i + 1
            if byte < 128:
                return value, i

    while i < len(data):
        _, i = length(i + 1)
        texts = []
        for _ in range(2):
            size, i = length(i + 1)
            texts.append(data[i : i + size].decode(errors="replace"))
            i += size
        pairs.append(":".join(_quoted(text) for text in texts))
    return "{" + ",".join(pairs) + "}"


def write_json_series(
    label_data: Any,
    label_offsets: Any,
    offsets: Any,
    timestamps: Any,
    values: Any,
    text: Any,  # noqa: ARG001 - as the kernel
    span: Any,
    out: Any,
) -> Any:
    """Write points as members of a `result` array; `text` is not looked at."""
    row, first, stop, vector, comma = map(int, span)
    parts = []
    for p in range(first, stop):
        while offsets[row + 1] <= p:
            row += 1
        if p == offsets[row]:
            head = '{"metric":' + _labels(label_data, label_offsets, row)
            parts.append(("," if comma else "") + head + (',"value":' if vector else ',"values":['))
            comma = 1
        elif not vector:
            parts.append(",")
        parts.append(f'[{format_time(timestamps[p])},"{format_go_float(values[p])}"]')
        if p + 1 == offsets[row + 1]:
            parts.append("}" if vector else "]}")
    data = "".join(parts).encode()
    out[: len(data)] = list(data)
    return len(data)


def write_json_labels(
    label_data: Any, label_offsets: Any, first: Any, stop: Any, out_offsets: Any, out: Any
) -> Any:
    """Write label sets as JSON objects divided by commas."""
    data, out_offsets[0] = b"", 0
    for row in range(first, stop):
        data += (b"," if row > first else b"") + _labels(label_data, label_offsets, row).encode()
        out_offsets[row - first + 1] = len(data)
    out[: len(data)] = list(data)
    return len(data)
