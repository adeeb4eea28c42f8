"""Plain reference of `lib/kernels/promql_extended.py`: anchored and smoothed windows.

Source: Prometheus 3.14 `promql/functions.go` (`extendedRate`), `promql/engine.go`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from thanostack.testing.reference.promql_windows import Result, Series


def _line(a: tuple[int, float], b: tuple[int, float], t: int, is_counter: bool) -> float:
    y1 = 0.0 if is_counter and b[1] < a[1] else a[1]
    return y1 + (b[1] - y1) * float(t - a[0]) / float(b[0] - a[0])


def extended_rows(
    series: Series,
    times: Sequence[int],
    range_ms: int,
    lookback: int,
    name: str,
    divisor: float,
    smoothed: bool,
) -> Result:
    """Return a function (delta, increase, resets, changes, instant) of every extended window."""
    out: Result = []
    for t in times:
        start, after = t - range_ms, lookback if smoothed else 0
        samples = [s for s in series if start - lookback < s[0] <= t + after]
        value: float | None
        if not samples:
            value = None
        elif name == "instant":
            value = _instant(samples, t)
        elif name in {"resets", "changes"}:
            value = _jumps(samples, start, name)
        else:
            value = _change(samples, start, t, smoothed, name == "increase")
            if value is not None and divisor:
                value /= divisor
        out.append(value)
    return out


def _instant(samples: list[tuple[int, float]], t: int) -> float | None:
    before = [s for s in samples if s[0] < t]
    rest = [s for s in samples if s[0] >= t]
    if rest and rest[0][0] == t:
        return rest[0][1]
    if not before:
        return None
    return _line(before[-1], rest[0], t, is_counter=False) if rest else before[-1][1]


def _jumps(samples: list[tuple[int, float]], start: int, name: str) -> float | None:
    inside = [v for t, v in samples if t > start]
    anchor = [v for t, v in samples if t <= start][-1:]
    if not inside:
        return None
    values = anchor + inside
    pairs = itertools.pairwise(values)
    if name == "resets":
        return float(sum(b < a for a, b in pairs))
    return float(sum(a != b and not (a != a and b != b) for a, b in pairs))


def _change(
    samples: list[tuple[int, float]], start: int, end: int, smoothed: bool, is_counter: bool
) -> float | None:
    last = len(samples) - 1
    first = max(0, next((i for i in range(last) if samples[i][0] > start), last) - 1)
    if smoothed:
        last = next((i for i in range(last) if samples[i][0] >= end), last)
    if samples[last][0] <= start or (smoothed and samples[first][0] > end):
        return None
    left, right = samples[first][1], samples[last][1]
    if smoothed and samples[first][0] < start:
        left = _line(samples[first], samples[first + 1], start, is_counter)
    if smoothed and last > 0 and samples[last][0] > end:
        right = _line(samples[last - 1], samples[last], end, is_counter)
    result = right - left
    if is_counter:
        low = first + 1 if samples[first][0] <= start else first
        high = last - 1 if samples[last][0] >= end else last
        lost, previous = 0.0, left
        for value in [*(v for _, v in samples[low : max(high + 1, low)]), right]:
            if value < previous:
                lost += previous
            previous = value
        result += lost
    return result
