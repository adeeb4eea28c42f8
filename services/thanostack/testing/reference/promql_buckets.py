"""Plain references of `lib/kernels/promql_buckets.py`: one classic histogram at one step.

Buckets are (upper bound, cumulative count) pairs in any order.
Source: Prometheus documentation, `histogram_quantile` and `histogram_fraction`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thanostack.testing.reference.promql_windows import divide

Buckets = Sequence[tuple[float, float]]


def _joined(buckets: Buckets) -> list[list[float]]:
    """Return the buckets by bound, counts of equal bounds added up."""
    joined: list[list[float]] = []
    for upper, count in sorted(buckets, key=lambda bucket: bucket[0]):
        if joined and joined[-1][0] == upper:
            joined[-1][1] += count
        else:
            joined.append([upper, count])
    return joined


def _noise(a: float, b: float) -> bool:
    total, difference = abs(a) + abs(b), abs(a - b)
    if a == 0 or b == 0 or total < 2.2250738585072014e-308:
        return difference < 1e-12 * 2.2250738585072014e-308
    return difference / total < 1e-12


def quantile_buckets(q: float, buckets: Buckets) -> tuple[float, tuple[float, float, float] | None]:
    """Return (quantile, what was forced monotonic: lowest bound, highest bound, largest fall)."""
    if math.isnan(q):
        return math.nan, None
    if q < 0 or q > 1:
        return (-math.inf if q < 0 else math.inf), None
    joined = _joined(buckets)
    if joined[-1][0] != math.inf:
        return math.nan, None
    forced: list[tuple[float, float]] = []
    previous = joined[0][1]
    for bucket in joined[1:]:
        if _noise(previous, bucket[1]):
            bucket[1] = previous
        elif bucket[1] < previous:
            forced.append((bucket[0], previous - bucket[1]))
            bucket[1] = previous
        previous = bucket[1]
    bounds = [upper for upper, _ in forced]
    report = (min(bounds), max(bounds), max(d for _, d in forced)) if forced else None
    return _interpolated(q, joined), report


def _interpolated(q: float, buckets: list[list[float]]) -> float:
    total = buckets[-1][1]
    if len(buckets) < 2 or total == 0:
        return math.nan
    rank = q * total
    found = next((i for i in range(len(buckets) - 1) if buckets[i][1] >= rank), len(buckets) - 1)
    if found == len(buckets) - 1:
        return buckets[-2][0]
    if found == 0 and buckets[0][0] <= 0:
        return buckets[0][0]
    start, before = (buckets[found - 1][0], buckets[found - 1][1]) if found else (0.0, 0.0)
    end, count = buckets[found]
    if found:
        count, rank = count - before, rank - before
    return start + (end - start) * divide(rank, count)


def fraction_buckets(low: float, high: float, buckets: Buckets) -> float:
    """Return the share of observations in (low, high]."""
    joined = _joined(buckets)
    total = joined[-1][1]
    if joined[-1][0] != math.inf or total == 0 or math.isnan(low) or math.isnan(high):
        return math.nan
    if low >= high:
        return 0.0
    below, above = min(_rank(low, joined), total), min(_rank(high, joined), total)
    return (above - below) / total


def _rank(x: float, buckets: list[list[float]]) -> float:
    rank = 0.0
    lower = 0.0 if buckets[0][0] > 0 else -math.inf
    for upper, count in buckets:
        if lower >= x:
            return rank
        if upper > x:
            if lower == -math.inf:
                return count
            return rank + (count - rank) * (x - lower) / (upper - lower)
        lower, rank = upper, count
    return buckets[-1][1]
