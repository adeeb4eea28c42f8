r"""Query results as JSON: label sets, timestamps and Go's float texts, from orjson's numbers.

    {"metric":{"__name__":"up","job":"a"},"values":[[1700000000,"1"],[1700000015.5,"0.25"]]}

orjson prints the shortest digits that read back, as Go does; only their dress differs:

    orjson   1.0   0.5   1e16               1e-6      5e-324    null
    Go       1     0.5   10000000000000000  0.000001  5e-324    NaN, +Inf or -Inf

so numbers are printed by orjson in bulk and re-dressed here while they are copied into place.

Source: Prometheus `util/jsonutil/marshal.go`, `web/api/v1/json_codec.go`; Go `strconv.AppendFloat`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, F64, I64, I64_OUT, i64
from thanostack.lib.kernels.varint import read_length
from thanostack.lib.kernels.wide import copy_bytes

_METRIC = np.frombuffer(b'{"metric":{', np.uint8)
_VALUE = np.frombuffer(b'},"value":', np.uint8)
_VALUES = np.frombuffer(b'},"values":[', np.uint8)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_SPECIAL = np.frombuffer(b"NaN+Inf-Inf", np.uint8)

POINT_BYTES_MAX = 96
"""Upper bound of one point's text with its separators."""


@device
def _put(source, out, at):
    for k in range(source.shape[0]):
        out[at + k] = source[k]
    return at + source.shape[0]


@device
def _utf8_width(a, i, stop):
    """Return how many bytes the UTF-8 sequence at `i` takes, 0 if it is not one."""
    lead = np.int64(a[i])
    if lead < 0x80:
        return np.int64(1)
    if lead < 0xC2 or lead > 0xF4:
        return np.int64(0)
    width = np.int64(2) if lead < 0xE0 else (np.int64(3) if lead < 0xF0 else np.int64(4))
    if i + width > stop:
        return np.int64(0)
    for k in range(1, width):
        if a[i + k] & 0xC0 != 0x80:
            return np.int64(0)
    second = np.int64(a[i + 1])
    if (lead == 0xE0 and second < 0xA0) or (lead == 0xED and second > 0x9F):
        return np.int64(0)
    if (lead == 0xF0 and second < 0x90) or (lead == 0xF4 and second > 0x8F):
        return np.int64(0)
    return width


@device
def _put_text(a, i, stop, out, at):
    """Write bytes as a JSON string; what is not UTF-8 becomes U+FFFD. At most 6 bytes a byte."""
    out[at] = 34
    at += 1
    while i < stop:
        c = a[i]
        if c == 34 or c == 92:
            out[at] = 92
            out[at + 1] = c
            at += 2
        elif c < 32:
            out[at] = 92
            if c == 10 or c == 13 or c == 9:
                out[at + 1] = 110 if c == 10 else (114 if c == 13 else 116)
                at += 2
            else:
                out[at + 1] = 117
                out[at + 2] = 48
                out[at + 3] = 48
                out[at + 4] = _HEX[c >> 4]
                out[at + 5] = _HEX[c & 15]
                at += 6
        elif c < 128:
            out[at] = c
            at += 1
        else:
            width = _utf8_width(a, i, stop)
            if width == 0:
                out[at] = 0xEF
                out[at + 1] = 0xBF
                out[at + 2] = 0xBD
                at += 3
                i += 1
                continue
            for k in range(width):
                out[at + k] = a[i + k]
            at += width
            i += width
            continue
        i += 1
    out[at] = 34
    return at + 1


@device
def _put_labels(a, i, stop, out, at):
    """Write the members of a label run's JSON object; return the next offset or -1."""
    first = True
    while i < stop:
        _, i = read_length(a, i + 1, stop)
        if i < 0:
            return np.int64(-1)
        size, name = read_length(a, i + 1, stop)
        if name < 0 or name + size >= stop:
            return np.int64(-1)
        name_stop = name + size
        size, value = read_length(a, name_stop + 1, stop)
        if value < 0:
            return np.int64(-1)
        if not first:
            out[at] = 44
            at += 1
        first = False
        at = _put_text(a, name, name_stop, out, at)
        out[at] = 58
        at = _put_text(a, value, value + size, out, at + 1)
        i = value + size
    return at


@device
def _put_integer(value, digits, out, at):
    """Write a non-negative integer with at least `digits` digits; return the next offset."""
    width = np.int64(1)
    rest = value // 10
    while rest > 0:
        width += 1
        rest //= 10
    width = max(width, digits)
    for k in range(width):
        out[at + width - 1 - k] = np.uint8(48 + value % 10)
        value //= 10
    return at + width


@device
def _put_time(t, out, at):
    """Write ms as seconds, with three decimals unless they are zero."""
    if t < 0:
        out[at] = 45
        at += 1
        t = -t
    at = _put_integer(t // 1000, np.int64(1), out, at)
    if t % 1000 != 0:
        out[at] = 46
        at = _put_integer(t % 1000, np.int64(3), out, at + 1)
    return at


@device
def _put_exponent_form(text, i, mark, stop, out, at):
    """Write orjson's `d[.ddd]e[-]x` as Go writes it: plain from 1e-6 to below 1e21, else e-form."""
    if text[i] == 45:
        out[at] = 45
        at += 1
        i += 1
    negative = text[mark + 1] == 45
    exponent = np.int64(0)
    for k in range(mark + (2 if negative or text[mark + 1] == 43 else 1), stop):
        exponent = exponent * 10 + np.int64(text[k]) - 48
    if negative:
        exponent = -exponent
    digits = np.int64(1) if mark == i + 1 else mark - i - 1
    if digits == 2 and text[i + 2] == 48:
        digits = np.int64(1)
    if -7 < exponent < 21:
        # Digit k stands `exponent - k` places left of the point.
        if exponent < 0:
            out[at] = 48
            out[at + 1] = 46
            at += 2
            for _ in range(-exponent - 1):
                out[at] = 48
                at += 1
        for k in range(max(digits, exponent + 1)):
            if k == exponent + 1 and exponent >= 0:
                out[at] = 46
                at += 1
            out[at] = 48 if k >= digits else text[i if k == 0 else i + k + 1]
            at += 1
        return at
    out[at] = text[i]
    at += 1
    if digits > 1:
        for k in range(i + 1, mark):
            out[at] = text[k]
            at += 1
    out[at] = 101
    out[at + 1] = 45 if exponent < 0 else 43
    return _put_integer(abs(exponent), np.int64(2), out, at + 2)


@device
def _put_number(text, i, stop, value, out, at):
    """Write one of orjson's number texts as Go's shortest form."""
    if text[i] == 110:
        first = 0 if value != value else (3 if value > 0 else 7)
        for k in range(first, 3 if first == 0 else first + 4):
            out[at] = _SPECIAL[k]
            at += 1
        return at
    for k in range(i, stop):
        if text[k] == 101 or text[k] == 69:
            return _put_exponent_form(text, i, k, stop, out, at)
    if stop - i > 2 and text[stop - 1] == 48 and text[stop - 2] == 46:
        stop -= 2
    elif value != 0.0 and abs(value) < 1e-6:
        return _put_small(text, i, stop, out, at)
    copy_bytes(text, i, stop - i, out, at)
    return at + stop - i


@device
def _put_small(text, i, stop, out, at):
    """Write a plain `0.0000001234` below 1e-6 in e-form."""
    if text[i] == 45:
        out[at] = 45
        at += 1
        i += 1
    k = i + 2
    while text[k] == 48:
        k += 1
    out[at] = text[k]
    at += 1
    if k + 1 < stop:
        out[at] = 46
        at += 1
        for j in range(k + 1, stop):
            out[at] = text[j]
            at += 1
    out[at] = 101
    out[at + 1] = 45
    return _put_integer(k - i - 1, np.int64(2), out, at + 2)


@device
def _put_point(text, i, stop, t, value, out, at):
    out[at] = 91
    at = _put_time(t, out, at + 1)
    out[at] = 44
    out[at + 1] = 34
    at = _put_number(text, i, stop, value, out, at + 2)
    out[at] = 34
    out[at + 1] = 93
    return at + 2


@kernel(i64(BYTES, I64, I64, I64, F64, BYTES, I64, BYTES_OUT))
def write_json_series(label_data, label_offsets, offsets, timestamps, values, text, span, out):
    """Write points [span[1], span[2]) as members of a `result` array; return the bytes or -1.

    Series open and close as the points pass their bounds, so a long series may be written in
    several calls. Series without points are left out.

    Args:
        label_data, label_offsets: canonical runs of S series.
        offsets: int64[S + 1]; the points of series s.
        timestamps: int64[N], ms.
        values: float64[N].
        text: uint8[n]; orjson's array of values[span[1]:span[2]].
        span: int64[5]; the series of the first point, first point, stop point, 1 for a vector (one
            point a series), 1 if a series was written before (a comma is due).
        out: uint8[m]; POINT_BYTES_MAX a point, and 6 bytes a label byte plus 64 a series.
    """
    row, first, stop, vector, comma = span[0], span[1], span[2], span[3], span[4]
    at = np.int64(0)
    i = np.int64(1)
    for p in range(first, stop):
        while offsets[row + 1] <= p:
            row += 1
        if p == offsets[row]:
            if comma == 1:
                out[at] = 44
                at += 1
            comma = 1
            at = _put(_METRIC, out, at)
            at = _put_labels(label_data, label_offsets[row], label_offsets[row + 1], out, at)
            if at < 0:
                return -1
            at = _put(_VALUE if vector == 1 else _VALUES, out, at)
        elif p > offsets[row] and vector == 0:
            out[at] = 44
            at += 1
        end = i
        while end < text.shape[0] and text[end] != 44 and text[end] != 93:
            end += 1
        if end >= text.shape[0]:
            return -1
        at = _put_point(text, i, end, timestamps[p], values[p], out, at)
        i = end + 1
        if p + 1 == offsets[row + 1]:
            if vector == 0:
                out[at] = 93
                at += 1
            out[at] = 125
            at += 1
    return at


@kernel(i64(BYTES, I64, i64, i64, I64_OUT, BYTES_OUT))
def write_json_labels(label_data, label_offsets, first, stop, out_offsets, out):
    """Write label sets [first, stop) as JSON objects divided by commas; return the bytes or -1.

    Args:
        label_data, label_offsets: canonical runs.
        first, stop: rows.
        out_offsets: int64[stop - first + 1], out; where each object ends.
        out: uint8[m]; 6 bytes a label byte plus 4 a row.
    """
    at = np.int64(0)
    out_offsets[0] = 0
    for row in range(first, stop):
        if row > first:
            out[at] = 44
            at += 1
        out[at] = 123
        at = _put_labels(label_data, label_offsets[row], label_offsets[row + 1], out, at + 1)
        if at < 0:
            return -1
        out[at] = 125
        at += 1
        out_offsets[row - first + 1] = at
    return at
