"""Windows that reach beyond their range: the `anchored` and `smoothed` selectors.

    anchored   the newest sample at or before the start stands for the value at the start
    smoothed   values at both edges are interpolated between the samples around them

`spec` is int64[6]: first data time, step, range, how far before the range and after the step to
look (ms), operation. There is no extrapolation.

Source: Prometheus 3.14 `promql/functions.go` (`extendedRate`), `promql/engine.go` (`smoothSeries`).
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BOOL_2D_OUT, F64, F64_2D_OUT, I64, boolean, i64
from thanostack.lib.kernels.promql_windows import CHANGES, RESETS, count_jumps

DELTA, INCREASE, INSTANT = 1, 2, 3


@device
def interpolate(timestamps, values, i, j, t, is_counter):
    """Return the value at t on the line from sample i to sample j; a reset starts from 0."""
    y1 = values[i]
    y2 = values[j]
    if is_counter and y2 < y1:
        y1 = 0.0
    gap = np.float64(timestamps[j] - timestamps[i])
    return y1 + (y2 - y1) * np.float64(t - timestamps[i]) / gap


@device
def _first_not_before(timestamps, low, high, t):
    """Return the first position in [low, high) with a time of t or later, else `high`."""
    i = low
    while i < high and timestamps[i] < t:
        i += 1
    return i


@device
def _edges(timestamps, low, high, start, end, smoothed):
    """Return the positions (first, last) that the window's ends are taken from."""
    last = high - 1
    first = max(low, _first_not_before(timestamps, low, last, start + 1) - 1)
    if smoothed:
        last = _first_not_before(timestamps, low, last, end)
    return first, last


@device
def _corrections(values, first, last, left, right):
    """Return what resets between the edges took away."""
    total = 0.0
    previous = left
    for i in range(first, last + 1):
        if values[i] < previous:
            total += previous
        previous = values[i]
    if right < previous:
        total += previous
    return total


@device
def _change(timestamps, values, low, high, start, end, smoothed, is_counter):
    """Return (change over the window, whether there is one)."""
    first, last = _edges(timestamps, low, high, start, end, smoothed)
    if timestamps[last] <= start or (smoothed and timestamps[first] > end):
        return np.nan, False
    left = values[first]
    if smoothed and timestamps[first] < start:
        left = interpolate(timestamps, values, first, first + 1, start, is_counter)
    right = values[last]
    if smoothed and last > low and timestamps[last] > end:
        right = interpolate(timestamps, values, last - 1, last, end, is_counter)
    result = right - left
    if is_counter:
        if timestamps[first] <= start:
            first += 1
        if timestamps[last] >= end:
            last -= 1
        result += _corrections(values, first, last, left, right)
    return result, True


@device
def _smoothed_instant(timestamps, values, low, high, t):
    """Return (value at t, whether there is one): exact, between neighbours, or carried on."""
    i = _first_not_before(timestamps, low, high, t)
    if i < high and timestamps[i] == t:
        return values[i], True
    if i == low:
        return np.nan, False
    if i < high:
        return interpolate(timestamps, values, i - 1, i, t, False), True
    return values[i - 1], True


@device
def _anchored_jumps(timestamps, values, low, high, start, op):
    first = _first_not_before(timestamps, low, high, start + 1)
    if first >= high:
        return np.nan, False
    return count_jumps(values, max(low, first - 1), high, op), True


@kernel(i64(I64, I64, F64, I64, F64, boolean, F64_2D_OUT, BOOL_2D_OUT))
def extended_rows(offsets, timestamps, values, spec, divisor, smoothed, out, present):
    """Write one function, `spec[5]`, of every extended window; returns the number of points.

    `divisor[0]` is the range in seconds for a rate; 0 divides nothing.
    """
    points = np.int64(0)
    op = spec[5]
    for row in range(offsets.shape[0] - 1):
        stop = offsets[row + 1]
        low = offsets[row]
        high = low
        for k in range(out.shape[1]):
            t = spec[0] + k * spec[1]
            start = t - spec[2]
            while high < stop and timestamps[high] <= t + spec[4]:
                high += 1
            while low < high and timestamps[low] <= start - spec[3]:
                low += 1
            result = np.nan
            ok = low < high
            if ok and op == INSTANT:
                result, ok = _smoothed_instant(timestamps, values, low, high, t)
            elif ok and (op == RESETS or op == CHANGES):
                result, ok = _anchored_jumps(timestamps, values, low, high, start, op)
            elif ok:
                result, ok = _change(
                    timestamps, values, low, high, start, t, smoothed, op == INCREASE
                )
                if divisor[0] != 0:
                    result /= divisor[0]
            present[row, k] = ok
            out[row, k] = result if ok else np.nan
            points += ok
    return points
