"""Arithmetic on step matrices: a row with scalars, a row with a row, and set membership.

A matrix is `values: float64[rows, steps]` with `present: bool[rows, steps]`; an absent value is
never read. Functions of one value work in place, so a chain of them needs one buffer.

Elementary functions have Go's bits (`promql_math.py`), as all else here.

Source: Prometheus 3.14 `promql/engine.go` (binary operators), `promql/functions.go`; Go `time`.
"""

import math

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BOOL_2D,
    BOOL_2D_OUT,
    F64,
    F64_2D,
    F64_2D_OUT,
    I64,
    i64,
)
from thanostack.lib.kernels.promql_math import (
    go_acos,
    go_acosh,
    go_asin,
    go_asinh,
    go_atan,
    go_atan2,
    go_atanh,
    go_cos,
    go_cosh,
    go_exp,
    go_log,
    go_log2,
    go_log10,
    go_pow,
    go_sin,
    go_sinh,
    go_tan,
    go_tanh,
)

# Operators. Comparisons lie between EQ and LE.
ADD, SUB, MUL, DIV, POW, MOD, ATAN2 = 1, 2, 3, 4, 5, 6, 7
EQ, NE, GT, LT, GE, LE = 11, 12, 13, 14, 15, 16
# Added to an operator: the scalar stands on the left; a comparison answers 0 or 1.
SWAPPED, AS_BOOL = 100, 200

NEGATE, ROUND, CLAMP = 31, 32, 33
ABS, CEIL, FLOOR, SQRT, SGN, DEG, RAD = 41, 42, 43, 44, 45, 46, 47
EXP, LN, LOG2, LOG10 = 51, 52, 53, 54
SIN, COS, TAN, ASIN, ACOS, ATAN = 61, 62, 63, 64, 65, 66
SINH, COSH, TANH, ASINH, ACOSH, ATANH = 71, 72, 73, 74, 75, 76
MINUTE, HOUR, WEEKDAY, DAY, YEARDAY, MONTH_DAYS, MONTH, YEAR = 81, 82, 83, 84, 85, 86, 87, 88

_NO_INT = np.int64(-0x8000000000000000)

# Go counts days in uint64 from 1 March of the year -292277022399; what lies before wraps around.
_ABSOLUTE_DAYS = np.int64(730692556 * 146097 + 306 + 719162)


@device
def _modulo(a, b):
    """Return C's fmod."""
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        return np.nan
    if math.isinf(b):
        return a
    return np.fmod(a, b)


@device
def binary_value(op, a, b):
    """Return (value, kept) of `a op b`; a comparison has the value a."""
    if op == ADD:
        return a + b, True
    if op == SUB:
        return a - b, True
    if op == MUL:
        return a * b, True
    if op == DIV:
        return a / b, True
    if op == MOD:
        return _modulo(a, b), True
    if op == POW:
        return go_pow(a, b), True
    if op == ATAN2:
        return go_atan2(a, b), True
    return a, _holds(op, a, b)


@device
def _holds(op, a, b):
    if op == EQ:
        return a == b
    if op == NE:
        return a != b
    if op == GT:
        return a > b
    if op == LT:
        return a < b
    if op == GE:
        return a >= b
    return a <= b


@device
def go_min(a, b):
    """Return Go's math.Min: -Inf before NaN, -0 before 0."""
    if a == -np.inf or b == -np.inf:
        return -np.inf
    if math.isnan(a) or math.isnan(b):
        return np.nan
    if a == 0 and b == 0:
        return a if math.copysign(1.0, a) < 0 else b
    return a if a < b else b


@device
def go_max(a, b):
    """Return Go's math.Max: +Inf before NaN, 0 before -0."""
    if a == np.inf or b == np.inf:
        return np.inf
    if math.isnan(a) or math.isnan(b):
        return np.nan
    if a == 0 and b == 0:
        return b if math.copysign(1.0, a) < 0 else a
    return a if a > b else b


@device
def _simple(op, x):
    if op == ABS:
        return abs(x)
    if op == CEIL:
        return np.ceil(x)
    if op == FLOOR:
        return np.floor(x)
    if op == SQRT:
        return math.sqrt(x)
    if op == SGN:
        return -1.0 if x < 0 else (1.0 if x > 0 else x)
    if op == DEG:
        return x * 180 / math.pi
    if op == RAD:
        return x * math.pi / 180
    return -x


@device
def _logarithm(op, x):
    if op == EXP:
        return go_exp(x)
    if op == LN:
        return go_log(x)
    if op == LOG2:
        return go_log2(x)
    return go_log10(x)


@device
def _circular(op, x):
    if op == SIN:
        return go_sin(x)
    if op == COS:
        return go_cos(x)
    if op == TAN:
        return go_tan(x)
    if op == ASIN:
        return go_asin(x)
    if op == ACOS:
        return go_acos(x)
    return go_atan(x)


@device
def _hyperbolic(op, x):
    if op == SINH:
        return go_sinh(x)
    if op == COSH:
        return go_cosh(x)
    if op == TANH:
        return go_tanh(x)
    if op == ASINH:
        return go_asinh(x)
    if op == ACOSH:
        return go_acosh(x)
    return go_atanh(x)


@device
def _civil(days):
    """Return (year, month, day, day of the year from 1) of a day counted from 1970-01-01."""
    z = days + 719468
    era = z // 146097
    doe = z - era * 146097
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    day = doy - (153 * mp + 2) // 5 + 1
    month = mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (1 if month <= 2 else 0)
    leap = _is_leap(year)
    if month > 2:
        ordinal = doy + 60 + (1 if leap else 0)
    else:
        ordinal = doy - 305
    return year, month, day, ordinal


@device
def _is_leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


@device
def _calendar(op, x):
    """Return a part of the UTC date at x seconds, cut to whole ones as Go does."""
    seconds = np.int64(x) if abs(x) < 9.2e18 else _NO_INT
    absolute = np.uint64(seconds) + np.uint64(_ABSOLUTE_DAYS) * np.uint64(86400)
    days = np.int64(absolute // np.uint64(86400)) - _ABSOLUTE_DAYS
    rest = np.int64(absolute % np.uint64(86400))
    if op == MINUTE:
        return np.float64(rest % 3600 // 60)
    if op == HOUR:
        return np.float64(rest // 3600)
    if op == WEEKDAY:
        return np.float64((days + 4) % 7)
    year, month, day, ordinal = _civil(days)
    if op == DAY:
        return np.float64(day)
    if op == YEARDAY:
        return np.float64(ordinal)
    if op == MONTH:
        return np.float64(month)
    if op == YEAR:
        return np.float64(year)
    if month == 2:
        return 29.0 if _is_leap(year) else 28.0
    return 30.0 if month == 4 or month == 6 or month == 9 or month == 11 else 31.0


@device
def _apply(op, x, a, b):
    """Return a function of one value with up to two parameters."""
    if op == ROUND:
        inverse = 1.0 / a
        return np.floor(x * inverse + 0.5) / inverse
    if op == CLAMP:
        return go_max(a, go_min(b, x))
    if op < EXP:
        return _simple(op, x)
    if op < SIN:
        return _logarithm(op, x)
    if op < SINH:
        return _circular(op, x)
    if op < MINUTE:
        return _hyperbolic(op, x)
    return _calendar(op, x)


@kernel(i64(F64_2D_OUT, BOOL_2D_OUT, i64, F64_2D))
def transform_rows(values, present, op, params):
    """Replace every present value by an operation on it; returns the number of points left.

    Args:
        op: an operator, plus SWAPPED or AS_BOOL, with the scalar in params[0]; or a function.
        params: float64[2, steps]; CLAMP drops a step where params[1] < params[0].
    """
    points = np.int64(0)
    as_bool = op >= AS_BOOL
    swapped = op % AS_BOOL >= SWAPPED
    op = op % 100
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            if not present[row, k]:
                continue
            x = values[row, k]
            a = params[0, k]
            if op <= LE:
                y, kept = binary_value(op, a, x) if swapped else binary_value(op, x, a)
                if op >= EQ:
                    y = x
                if as_bool:
                    y = 1.0 if kept else 0.0
                    kept = True
                present[row, k] = kept
                values[row, k] = y if kept else np.nan
                points += kept
            elif op == CLAMP and params[1, k] < a:
                present[row, k] = False
                values[row, k] = np.nan
            else:
                values[row, k] = _apply(op, x, a, params[1, k])
                points += 1
    return points


@kernel(i64(F64, F64, i64, F64_2D_OUT))
def combine_scalars(left, right, op, out):
    """Write `left op right` of two scalars at every step into out[0]; comparisons give 0 or 1."""
    for k in range(left.shape[0]):
        y, kept = binary_value(op, left[k], right[k])
        if op >= EQ:
            y = 1.0 if kept else 0.0
        out[0, k] = y
    return np.int64(left.shape[0])


@kernel(i64(F64_2D, BOOL_2D, F64_2D, BOOL_2D, I64, I64, i64, F64_2D_OUT, BOOL_2D_OUT))
def combine_rows(left, left_present, right, right_present, lefts, rights, op, out, present):
    """Write `left[lefts[p]] op right[rights[p]]` for each pair p of rows.

    `op` is an operator, plus AS_BOOL. A value is there where both sides are and, without AS_BOOL,
    where a comparison holds. Returns the number of points kept.
    """
    points = np.int64(0)
    as_bool = op >= AS_BOOL
    op = op % 100
    for p in range(lefts.shape[0]):
        i = lefts[p]
        j = rights[p]
        for k in range(left.shape[1]):
            both = left_present[i, k] and right_present[j, k]
            y = np.nan
            if both:
                y, kept = binary_value(op, left[i, k], right[j, k])
                if as_bool:
                    y = 1.0 if kept else 0.0
                elif not kept:
                    both = False
                    y = np.nan
            present[p, k] = both
            out[p, k] = y
            points += both
    return points


@kernel(i64(BOOL_2D, I64, BOOL_2D_OUT))
def mark_groups(present, groups, out):
    """Set out[groups[row], k] where row is present at step k; returns how many became set."""
    fresh = np.int64(0)
    for row in range(present.shape[0]):
        g = groups[row]
        for k in range(present.shape[1]):
            if present[row, k] and not out[g, k]:
                out[g, k] = True
                fresh += 1
    return fresh


@kernel(i64(BOOL_2D, I64, BOOL_2D, BOOL_2D_OUT))
def first_clash(present, groups, wanted, seen):
    """Return `row * steps + k` of the first present value, in step order, whose group has one.

    Only steps with `wanted[0, k]` are looked at; `seen` is bool[groups, steps], cleared. -1: none.
    """
    best = np.int64(-1)
    best_k = np.int64(present.shape[1])
    for row in range(present.shape[0]):
        g = groups[row]
        for k in range(best_k):
            if present[row, k] and wanted[0, k]:
                if seen[g, k]:
                    best = np.int64(row) * present.shape[1] + k
                    best_k = np.int64(k)
                    break
                seen[g, k] = True
    return best
