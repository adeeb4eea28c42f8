"""Classic histograms: quantiles and fractions of cumulative `le` buckets.

Rows are buckets, ordered by histogram and then by upper bound; at each step those present make
up the histogram. Equal bounds are added up; counts that fall are raised to the count before:
silently when the difference is noise, otherwise reported.

Source: Prometheus 3.14 `promql/quantile.go` (`BucketQuantile`, `BucketFraction`).
"""

import math

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BOOL_2D,
    BOOL_2D_OUT,
    F64_2D,
    F64_2D_OUT,
    I64,
    array_in,
    i64,
    record_dtype,
)

BUCKET_DTYPE = record_dtype([("row", np.int64), ("upper", np.float64)])
"""One bucket series: its row in the matrix and its upper bound."""

_BUCKETS = array_in(BUCKET_DTYPE)
_TOLERANCE = 1e-12
_MIN_NORMAL = 2.2250738585072014e-308

# Columns of the report on forced monotonicity, a row a histogram.
FORCED_STEPS, LOWEST, HIGHEST, DIFFERENCE, FIRST_STEP, LAST_STEP = 0, 1, 2, 3, 4, 5


@device
def _gather(values, present, buckets, start, stop, k, scratch):
    """Write the buckets of one step as (bound, count) rows of scratch; returns their number."""
    n = np.int64(0)
    for m in range(start, stop):
        row = buckets[m].row
        if not present[row, k]:
            continue
        if n > 0 and scratch[0, n - 1] == buckets[m].upper:
            scratch[1, n - 1] += values[row, k]
        else:
            scratch[0, n] = buckets[m].upper
            scratch[1, n] = values[row, k]
            n += 1
    return n


@device
def _almost_equal(a, b):
    if math.isnan(a) and math.isnan(b):
        return True
    total = abs(a) + abs(b)
    difference = abs(a - b)
    if a == 0 or b == 0 or total < _MIN_NORMAL:
        return difference < _TOLERANCE * _MIN_NORMAL
    return difference / min(total, 1.7976931348623157e308) < _TOLERANCE


@device
def _force_monotonic(scratch, n, report, h, k):
    previous = scratch[1, 0]
    forced = False
    for i in range(1, n):
        count = scratch[1, i]
        if count == previous:
            continue
        if _almost_equal(previous, count):
            scratch[1, i] = previous
        elif count < previous:
            scratch[1, i] = previous
            if report[h, FORCED_STEPS] == 0 and not forced:
                report[h, LOWEST] = np.inf
                report[h, HIGHEST] = -np.inf
                report[h, DIFFERENCE] = 0
                report[h, FIRST_STEP] = k
            forced = True
            report[h, LOWEST] = min(report[h, LOWEST], scratch[0, i])
            report[h, HIGHEST] = max(report[h, HIGHEST], scratch[0, i])
            report[h, DIFFERENCE] = max(report[h, DIFFERENCE], previous - count)
        else:
            previous = count
    if forced:
        report[h, FORCED_STEPS] += 1
        report[h, LAST_STEP] = k


@device
def _quantile(q, scratch, n):
    """Return the quantile of n monotonic buckets of which the last is unbounded."""
    if n < 2 or scratch[1, n - 1] == 0:
        return np.nan
    rank = q * scratch[1, n - 1]
    low = np.int64(0)
    high = n - 1
    while low < high:
        middle = (low + high) // 2
        if scratch[1, middle] >= rank:
            high = middle
        else:
            low = middle + 1
    if low == n - 1:
        return scratch[0, n - 2]
    if low == 0 and scratch[0, 0] <= 0:
        return scratch[0, 0]
    start = 0.0
    end = scratch[0, low]
    count = scratch[1, low]
    if low > 0:
        start = scratch[0, low - 1]
        count -= scratch[1, low - 1]
        rank -= scratch[1, low - 1]
    return start + (end - start) * (rank / count)


@kernel(
    i64(F64_2D, BOOL_2D, _BUCKETS, I64, F64_2D, F64_2D_OUT, F64_2D_OUT, F64_2D_OUT, BOOL_2D_OUT)
)
def quantile_buckets(values, present, buckets, bounds, q, scratch, report, out, seen):
    """Write the quantile q[0, k] of each histogram and step; returns the number of points.

    Args:
        buckets: BUCKET_DTYPE[rows]; by histogram, then by bound; histogram h has
            buckets[bounds[h]:bounds[h + 1]].
        scratch: float64[2, largest histogram].
        report: float64[histograms, 6]; zero before; what had to be forced monotonic.
    """
    points = np.int64(0)
    for h in range(bounds.shape[0] - 1):
        for k in range(values.shape[1]):
            n = _gather(values, present, buckets, bounds[h], bounds[h + 1], k, scratch)
            seen[h, k] = n > 0
            out[h, k] = np.nan
            points += n > 0
            if n == 0 or math.isnan(q[0, k]):
                continue
            if q[0, k] < 0:
                out[h, k] = -np.inf
            elif q[0, k] > 1:
                out[h, k] = np.inf
            elif scratch[0, n - 1] == np.inf:
                _force_monotonic(scratch, n, report, h, k)
                out[h, k] = _quantile(q[0, k], scratch, n)
    return points


@device
def _rank_at(x, scratch, n):
    """Return how many observations lie below x, by linear interpolation."""
    rank = 0.0
    lower = 0.0 if scratch[0, 0] > 0 else -np.inf
    for i in range(n):
        if i > 0:
            lower = scratch[0, i - 1]
        if lower >= x:
            return rank
        if scratch[0, i] > x:
            if lower == -np.inf:
                return scratch[1, i]
            return rank + (scratch[1, i] - rank) * (x - lower) / (scratch[0, i] - lower)
        rank = scratch[1, i]
    return scratch[1, n - 1]


@device
def _fraction(low, high, scratch, n):
    count = scratch[1, n - 1]
    if scratch[0, n - 1] != np.inf or count == 0 or math.isnan(low) or math.isnan(high):
        return np.nan
    if low >= high:
        return 0.0
    below = _rank_at(low, scratch, n)
    above = _rank_at(high, scratch, n)
    # A comparison with NaN is false: only larger ranks are cut.
    if below > count:
        below = count
    if above > count:
        above = count
    return (above - below) / count


@kernel(i64(F64_2D, BOOL_2D, _BUCKETS, I64, F64_2D, F64_2D_OUT, F64_2D_OUT, BOOL_2D_OUT))
def fraction_buckets(values, present, buckets, bounds, limits, scratch, out, seen):
    """Write the share of observations between limits[0, k] and limits[1, k]; returns the points.

    Arguments as of `quantile_buckets`; `scratch` is float64[2, largest histogram].
    """
    points = np.int64(0)
    for h in range(bounds.shape[0] - 1):
        for k in range(values.shape[1]):
            n = _gather(values, present, buckets, bounds[h], bounds[h + 1], k, scratch)
            seen[h, k] = n > 0
            out[h, k] = _fraction(limits[0, k], limits[1, k], scratch, n) if n > 0 else np.nan
            points += n > 0
    return points
