"""Functions of one series over time: lookback, rates, and everything over a range window.

A batch is `offsets, timestamps, values`; the result has one row a series and one column a step.
Windows move forward only, so two pointers walk each series once:

    data time of step k:  t = first + k * step          window: (t - range, t]

`spec` is int64[6]: first, step, range (ms), first and step of the evaluation time, operation. The
evaluation time differs from the data time by offset and `@`; the number of steps is that of the
output's columns. A step of 0 repeats one window.

Rates cost O(1) a window and one step for each counter reset in it: the position of the next reset
is known for every sample. All other functions read their windows from left to right, because
Prometheus's compensated sums depend on the order.

Stale markers have been removed, except for `instant_rows`, which they end.
Source: Prometheus 3.14 `promql/engine.go` (selectors), `promql/functions.go`.
"""

import math

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BOOL_2D_OUT,
    F64,
    F64_2D,
    F64_2D_OUT,
    F64_OUT,
    I64,
    I64_OUT,
    boolean,
    i64,
)
from thanostack.lib.kernels.wide import float_bits

STALE = np.uint64(0x7FF0000000000002)

# Operations of `window_rows`; the numbers are known to `engine/range_functions.py` only.
SUM, AVG, MIN, MAX, COUNT, STDDEV, STDVAR, LAST, FIRST, PRESENT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
IRATE, IDELTA, RESETS, CHANGES, DERIV, PREDICT = 11, 12, 13, 14, 15, 16
QUANTILE, MAD, SMOOTH = 17, 18, 19
TS_FIRST, TS_LAST, TS_MAX, TS_MIN = 20, 21, 22, 23


@device
def kahan(increment, total, compensation):
    """Return (sum, compensation) after one Neumaier step; an infinite sum drops compensation."""
    t = total + increment
    if math.isinf(t):
        return t, 0.0
    if abs(total) >= abs(increment):
        return t, compensation + ((total - t) + increment)
    return t, compensation + ((increment - t) + total)


@kernel(i64(I64, I64, F64, I64, i64, boolean, F64_2D_OUT, BOOL_2D_OUT))
def instant_rows(offsets, timestamps, values, spec, lookback, want_time, out, present):
    """Write the newest sample in (t - lookback, t] of each series and step; stale ends it.

    With `want_time` the sample's own time in seconds is written instead of its value. Returns the
    number of points.
    """
    points = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        at = offsets[row] - 1
        last = offsets[row + 1] - 1
        first = offsets[row]
        for k in range(out.shape[1]):
            t = spec[0] + k * spec[1]
            while at < last and timestamps[at + 1] <= t:
                at += 1
            ok = at >= first and timestamps[at] > t - lookback
            if ok and float_bits(values[at]) == STALE:
                ok = False
            present[row, k] = ok
            if ok:
                out[row, k] = timestamps[at] / 1000.0 if want_time else values[at]
                points += 1
            else:
                out[row, k] = np.nan
    return points


@device
def _next_resets(values, first, stop, following):
    """Write for each sample the position of the next reset after it (`stop` if none)."""
    after = stop
    for i in range(stop - 1, first, -1):
        following[i - first] = after
        if values[i] < values[i - 1]:
            after = i
    if stop > first:
        following[0] = after


@kernel(i64(I64, I64, F64, I64, F64, boolean, I64_OUT, F64_2D_OUT, BOOL_2D_OUT))
def rate_rows(offsets, timestamps, values, spec, divisor, is_counter, resets, out, present):
    """Write the extrapolated increase (counter) or delta of each window, by `divisor[0]`.

    Args:
        divisor: float64[1]; the range in seconds for a rate; 0 leaves the increase undivided.
        resets: int64[longest series], scratch.

    Returns the number of points. Windows with fewer than two samples have none.
    """
    points = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        base = offsets[row]
        end = offsets[row + 1]
        low = base
        high = base
        if is_counter:
            _next_resets(values, base, end, resets)
        for k in range(out.shape[1]):
            t = spec[0] + k * spec[1]
            start = t - spec[2]
            while high < end and timestamps[high] <= t:
                high += 1
            while low < high and timestamps[low] <= start:
                low += 1
            n = high - low
            present[row, k] = n >= 2
            if n < 2:
                out[row, k] = np.nan
                continue
            result = values[high - 1] - values[low]
            if is_counter:
                reset = resets[low - base]
                while reset < high:
                    result += values[reset - 1]
                    reset = resets[reset - base]
            sampled = (timestamps[high - 1] - timestamps[low]) / 1000.0
            to_start = (timestamps[low] - start) / 1000.0
            to_end = (t - timestamps[high - 1]) / 1000.0
            average = sampled / np.float64(n - 1)
            threshold = average * 1.1
            if to_start >= threshold:
                to_start = average / 2
            if is_counter and result > 0 and values[low] >= 0:
                to_zero = sampled * (values[low] / result)
                if to_zero < to_start:
                    to_start = to_zero
            if to_end >= threshold:
                to_end = average / 2
            factor = 1.0
            if sampled != 0:
                factor = (sampled + to_start + to_end) / sampled
            if divisor[0] != 0:
                factor /= divisor[0]
            out[row, k] = result * factor
            points += 1
    return points


@device
def _sum(values, low, high):
    total = 0.0
    c = 0.0
    for i in range(low, high):
        total, c = kahan(values[i], total, c)
    return total if math.isinf(total) else total + c


@device
def _average(values, low, high):
    total = values[low]
    c = 0.0
    mean = 0.0
    incremental = False
    count = 1.0
    for i in range(low + 1, high):
        count = np.float64(i - low + 1)
        if not incremental:
            new_total, new_c = kahan(values[i], total, c)
            if not math.isinf(new_total):
                total = new_total
                c = new_c
                continue
            incremental = True
            mean = total / (count - 1)
            c /= count - 1
        q = (count - 1) / count
        mean, c = kahan(values[i] / count, q * mean, q * c)
    if incremental:
        return mean + c
    return total / count + c / count


@device
def _variance(values, low, high):
    count = 0.0
    mean = 0.0
    c_mean = 0.0
    aux = 0.0
    c_aux = 0.0
    for i in range(low, high):
        count += 1
        delta = values[i] - (mean + c_mean)
        mean, c_mean = kahan(delta / count, mean, c_mean)
        aux, c_aux = kahan(delta * (values[i] - (mean + c_mean)), aux, c_aux)
    return (aux + c_aux) / count


@device
def _extreme(values, low, high, op):
    """Return the position of the extreme: the first for MIN and MAX, the last for TS_…."""
    best = low
    for i in range(low, high):
        v = values[i]
        b = values[best]
        if math.isnan(b):
            better = True
        elif op == MIN:
            better = v < b
        elif op == MAX:
            better = v > b
        elif op == TS_MIN:
            better = v <= b
        else:
            better = v >= b
        if better:
            best = np.int64(i)
    return best


@device
def count_jumps(values, low, high, op):
    """Return how many samples after `low` are resets, or differ from the one before."""
    n = 0.0
    for i in range(low + 1, high):
        a = values[i - 1]
        b = values[i]
        if op == RESETS:
            if b < a:
                n += 1
        elif a != b and not (math.isnan(a) and math.isnan(b)):
            n += 1
    return n


@device
def _regression(timestamps, values, low, high, at):
    """Return (slope, intercept at time `at`) of the least-squares line."""
    n = 0.0
    sum_x = 0.0
    c_x = 0.0
    sum_y = 0.0
    c_y = 0.0
    sum_xy = 0.0
    c_xy = 0.0
    sum_xx = 0.0
    c_xx = 0.0
    constant = True
    for i in range(low, high):
        if i > low and values[i] != values[low]:
            constant = False
        n += 1
        x = (timestamps[i] - at) / 1e3
        sum_x, c_x = kahan(x, sum_x, c_x)
        sum_y, c_y = kahan(values[i], sum_y, c_y)
        sum_xy, c_xy = kahan(x * values[i], sum_xy, c_xy)
        sum_xx, c_xx = kahan(x * x, sum_xx, c_xx)
    if constant:
        if math.isinf(values[low]):
            return np.nan, np.nan
        return 0.0, values[low]
    sum_x += c_x
    sum_y += c_y
    sum_xy += c_xy
    sum_xx += c_xx
    slope = (sum_xy - sum_x * sum_y / n) / (sum_xx - sum_x * sum_x / n)
    return slope, sum_y / n - slope * sum_x / n


@device
def _sift(a, i, n):
    """Let a[i] sink to its place in the max-heap a[:n]."""
    value = a[i]
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and a[child + 1] > a[child]:
            child += 1
        if a[child] <= value:
            break
        a[i] = a[child]
        i = child
    a[i] = value


@device
def sort_floats(a, n):
    """Sort a[:n], which has no NaN, ascending and in place."""
    if n <= 24:
        for i in range(1, n):
            value = a[i]
            j = i - 1
            while j >= 0 and a[j] > value:
                a[j + 1] = a[j]
                j -= 1
            a[j + 1] = value
        return
    for i in range(n // 2 - 1, -1, -1):
        _sift(a, i, n)
    for last in range(n - 1, 0, -1):
        value = a[last]
        a[last] = a[0]
        a[0] = value
        _sift(a, 0, last)


@device
def sorted_quantile(q, scratch, n):
    """Return the q-quantile of scratch[:n], which is sorted in place; NaN counts as lowest."""
    if math.isnan(q):
        return np.nan
    if q < 0:
        return -np.inf
    if q > 1:
        return np.inf
    nans = np.int64(0)
    kept = np.int64(0)
    for i in range(n):
        if math.isnan(scratch[i]):
            nans += 1
        else:
            scratch[kept] = scratch[i]
            kept += 1
    sort_floats(scratch, kept)
    rank = q * (np.float64(n) - 1)
    lower = max(0.0, math.floor(rank))
    upper = min(np.float64(n) - 1, lower + 1)
    weight = rank - math.floor(rank)
    i = np.int64(lower)
    j = np.int64(upper)
    a = np.nan if i < nans else scratch[i - nans]
    b = np.nan if j < nans else scratch[j - nans]
    return a * (1 - weight) + b * weight


@device
def _deviation(values, low, high, scratch):
    n = high - low
    for i in range(n):
        if math.isnan(values[low + i]):
            return np.nan
        scratch[i] = values[low + i]
    median = sorted_quantile(0.5, scratch, n)
    for i in range(n):
        scratch[i] = abs(values[low + i] - median)
    return sorted_quantile(0.5, scratch, n)


@device
def _smooth(values, low, high, smoothing, trend):
    before = 0.0
    s = values[low]
    b = values[low + 1] - values[low]
    for i in range(low + 1, high):
        x = smoothing * values[i]
        if i > low + 1:
            b = trend * (s - before) + (1 - trend) * b
        y = (1 - smoothing) * (s + b)
        before = s
        s = x + y
    return s


@device
def _order_statistic(values, low, high, op, scratch, q):
    if op == MAD:
        return _deviation(values, low, high, scratch)
    for i in range(high - low):
        scratch[i] = values[low + i]
    return sorted_quantile(q, scratch, high - low)


@device
def _pair_change(timestamps, values, high, op):
    """Return irate or idelta of the last two samples before `high`."""
    change = values[high - 1] - values[high - 2]
    if op == IDELTA:
        return change
    if values[high - 1] < values[high - 2]:
        change = values[high - 1]
    return change / ((timestamps[high - 1] - timestamps[high - 2]) / 1000.0)


@device
def _trend(timestamps, values, low, high, op, at, ahead):
    if op == DERIV:
        slope, _ = _regression(timestamps, values, low, high, timestamps[low])
        return slope
    slope, intercept = _regression(timestamps, values, low, high, at)
    return slope * ahead + intercept


@device
def _at_ends(timestamps, values, low, high, op):
    if op == LAST:
        return values[high - 1]
    if op == FIRST:
        return values[low]
    if op == COUNT:
        return np.float64(high - low)
    if op == TS_FIRST:
        return timestamps[low] / 1000.0
    if op == TS_LAST:
        return timestamps[high - 1] / 1000.0
    return 1.0


@device
def _fold(timestamps, values, low, high, op):
    """Return a function of all samples of one window that needs no parameter."""
    if op == SUM:
        return _sum(values, low, high)
    if op == AVG:
        return _average(values, low, high)
    if op == MIN or op == MAX:
        return values[_extreme(values, low, high, op)]
    if op == TS_MIN or op == TS_MAX:
        return timestamps[_extreme(values, low, high, op)] / 1000.0
    if op == STDVAR:
        return _variance(values, low, high)
    if op == STDDEV:
        return math.sqrt(_variance(values, low, high))
    if op == RESETS or op == CHANGES:
        return count_jumps(values, low, high, op)
    return _at_ends(timestamps, values, low, high, op)


@kernel(i64(I64, I64, F64, I64, F64_2D, F64_OUT, F64_2D_OUT, BOOL_2D_OUT))
def window_rows(offsets, timestamps, values, spec, params, scratch, out, present):
    """Write one function, `spec[5]`, of every window.

    Args:
        params: float64[2, steps]; per step: the quantile, seconds ahead, or both factors.
        scratch: float64[longest series].

    Returns the number of points. An empty window has none, nor has one with a single sample where
    the function needs two.
    """
    points = np.int64(0)
    op = spec[5]
    needed = np.int64(2) if (IRATE <= op <= IDELTA or DERIV <= op <= PREDICT or op == SMOOTH) else 1
    for row in range(offsets.shape[0] - 1):
        end = offsets[row + 1]
        low = offsets[row]
        high = low
        for k in range(out.shape[1]):
            t = spec[0] + k * spec[1]
            while high < end and timestamps[high] <= t:
                high += 1
            while low < high and timestamps[low] <= t - spec[2]:
                low += 1
            present[row, k] = high - low >= needed
            if high - low < needed:
                out[row, k] = np.nan
                continue
            points += 1
            if op == IRATE or op == IDELTA:
                result = _pair_change(timestamps, values, high, op)
            elif op == DERIV or op == PREDICT:
                at = spec[3] + k * spec[4]
                result = _trend(timestamps, values, low, high, op, at, params[0, k])
            elif op == QUANTILE or op == MAD:
                result = _order_statistic(values, low, high, op, scratch, params[0, k])
            elif op == SMOOTH:
                result = _smooth(values, low, high, params[0, k], params[1, k])
            else:
                result = _fold(timestamps, values, low, high, op)
            out[row, k] = result
    return points
