"""Plain references of `lib/kernels/promql_windows.py`: one window at a time, from the definition.

A series is a list of (time, value); a result is a list of floats, None where there is none.
Source: Prometheus documentation, "Functions"; `promql/functions.go` for the order of additions.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence

Series = Sequence[tuple[int, float]]
Result = list[float | None]


def is_stale(value: float) -> bool:
    """Return whether a value is the stale marker."""
    return struct.pack("<d", value) == struct.pack("<Q", 0x7FF0000000000002)


def divide(a: float, b: float) -> float:
    """Return a / b as IEEE 754 has it."""
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def window(series: Series, t: int, range_ms: int) -> list[tuple[int, float]]:
    """Return the samples in (t - range, t]."""
    return [(at, value) for at, value in series if t - range_ms < at <= t]


def instant_rows(series: Series, times: Sequence[int], lookback: int, want_time: bool) -> Result:
    """Return the newest sample, or its time in seconds, at each time."""
    out: Result = []
    for t in times:
        inside = window(series, t, lookback)
        if not inside or is_stale(inside[-1][1]):
            out.append(None)
        else:
            out.append(inside[-1][0] / 1000 if want_time else inside[-1][1])
    return out


def rate_rows(
    series: Series, times: Sequence[int], range_ms: int, divisor: float, is_counter: bool
) -> Result:
    """Return the extrapolated increase or delta of each window."""
    return [_rate(window(series, t, range_ms), t, range_ms, divisor, is_counter) for t in times]


def _rate(
    samples: list[tuple[int, float]], t: int, range_ms: int, divisor: float, is_counter: bool
) -> float | None:
    if len(samples) < 2:
        return None
    (first_t, first), (last_t, last) = samples[0], samples[-1]
    result = last - first
    if is_counter:
        for (_, before), (_, after) in itertools.pairwise(samples):
            if after < before:
                result += before
    sampled = (last_t - first_t) / 1000
    average = sampled / (len(samples) - 1)
    start_gap, end_gap = (first_t - (t - range_ms)) / 1000, (t - last_t) / 1000
    if start_gap >= average * 1.1:
        start_gap = average / 2
    if is_counter and result > 0 and first >= 0:
        start_gap = min(start_gap, sampled * (first / result))
    if end_gap >= average * 1.1:
        end_gap = average / 2
    factor = (sampled + start_gap + end_gap) / sampled
    return result * (factor / divisor if divisor else factor)


def add(total: float, compensation: float, value: float) -> tuple[float, float]:
    """Return one step of Neumaier's summation."""
    new = total + value
    if math.isinf(new):
        return new, 0.0
    if abs(total) >= abs(value):
        return new, compensation + ((total - new) + value)
    return new, compensation + ((value - new) + total)


def compensated_sum(values: Sequence[float]) -> float:
    """Return the compensated sum of values in order."""
    total = c = 0.0
    for value in values:
        total, c = add(total, c, value)
    return total if math.isinf(total) else total + c


def compensated_average(values: Sequence[float]) -> float:
    """Return the average: of the sum, or incremental once the sum would be infinite."""
    total, c, mean = values[0], 0.0, math.nan
    incremental = False
    for n, value in enumerate(values[1:], 2):
        if not incremental:
            new, new_c = add(total, c, value)
            if not math.isinf(new):
                total, c = new, new_c
                continue
            incremental, mean, c = True, total / (n - 1), c / (n - 1)
        q = (n - 1) / n
        mean, c = add(q * mean, q * c, value / n)
    return mean + c if incremental else total / len(values) + c / len(values)


def variance(values: Sequence[float]) -> float:
    """Return the compensated population variance."""
    mean = c_mean = aux = c_aux = 0.0
    for n, value in enumerate(values, 1):
        delta = value - (mean + c_mean)
        mean, c_mean = add(mean, c_mean, delta / n)
        aux, c_aux = add(aux, c_aux, delta * (value - (mean + c_mean)))
    return (aux + c_aux) / len(values)


def root(value: float) -> float:
    """Return the square root, NaN for a negative value."""
    return math.sqrt(value) if value >= 0 else math.nan


def quantile(q: float, values: Sequence[float]) -> float:
    """Return the q-quantile between closest ranks; NaN values are the lowest."""
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return -math.inf if q < 0 else math.inf
    ordered = sorted(values, key=lambda v: (not math.isnan(v), v))
    rank = q * (len(values) - 1)
    lower = math.floor(rank)
    upper = min(len(values) - 1, lower + 1)
    weight = rank - lower
    return ordered[lower] * (1 - weight) + ordered[upper] * weight


def _regression(samples: Series, at: int) -> tuple[float, float]:
    values = [v for _, v in samples]
    if all(v == values[0] for v in values[1:]):
        return (math.nan, math.nan) if math.isinf(values[0]) else (0.0, values[0])
    xs = [(t - at) / 1000 for t, _ in samples]
    n = float(len(xs))

    def total(terms: list[float]) -> float:
        s = c = 0.0
        for term in terms:
            s, c = add(s, c, term)
        return s + c

    x, y = total(xs), total(values)
    xy = total([a * b for a, b in zip(xs, values, strict=True)])
    xx = total([a * a for a in xs])
    slope = divide(xy - x * y / n, xx - x * x / n)
    return slope, y / n - slope * x / n


def _extreme(samples: Series, better: Callable[[float, float], bool]) -> tuple[int, float]:
    best = samples[0]
    for sample in samples:
        if better(sample[1], best[1]) or math.isnan(best[1]):
            best = sample
    return best


def _smooth(values: Sequence[float], smoothing: float, trend: float) -> float:
    before, s, b = 0.0, values[0], values[1] - values[0]
    for i, value in enumerate(values[1:]):
        if i:
            b = trend * (s - before) + (1 - trend) * b
        before, s = s, smoothing * value + (1 - smoothing) * (s + b)
    return s


def _deviation(values: Sequence[float]) -> float:
    if any(math.isnan(v) for v in values):
        return math.nan
    median = quantile(0.5, values)
    return quantile(0.5, [abs(v - median) for v in values])


def _irate(samples: Series) -> float:
    (t0, a), (t1, b) = samples[-2:]
    return (b if b < a else b - a) / ((t1 - t0) / 1000)


def _pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(values))


def _differ(a: float, b: float) -> bool:
    return a != b and not (math.isnan(a) and math.isnan(b))


def _predict(samples: Series, at: int, ahead: float) -> float:
    slope, intercept = _regression(samples, at)
    return slope * ahead + intercept


_OF_VALUES: dict[str, Callable[[list[float]], float]] = {
    "sum": compensated_sum,
    "avg": compensated_average,
    "count": lambda v: float(len(v)),
    "stdvar": variance,
    "stddev": lambda v: root(variance(v)),
    "last": lambda v: v[-1],
    "first": lambda v: v[0],
    "present": lambda _: 1.0,
    "idelta": lambda v: v[-1] - v[-2],
    "resets": lambda v: float(sum(b < a for a, b in _pairs(v))),
    "changes": lambda v: float(sum(_differ(a, b) for a, b in _pairs(v))),
    "mad": _deviation,
}
_OF_SAMPLES: dict[str, Callable[[Series], float]] = {
    "irate": _irate,
    "deriv": lambda s: _regression(s, s[0][0])[0],
    "min": lambda s: _extreme(s, lambda v, b: v < b)[1],
    "max": lambda s: _extreme(s, lambda v, b: v > b)[1],
    "ts_first": lambda s: s[0][0] / 1000,
    "ts_last": lambda s: s[-1][0] / 1000,
    "ts_min": lambda s: _extreme(s, lambda v, b: v <= b)[0] / 1000,
    "ts_max": lambda s: _extreme(s, lambda v, b: v >= b)[0] / 1000,
}
_OF_PARAMETERS: dict[str, Callable[[Series, int, tuple[float, float]], float]] = {
    "quantile": lambda s, _, p: quantile(p[0], [v for _, v in s]),
    "predict": lambda s, at, p: _predict(s, at, p[0]),
    "smooth": lambda s, _, p: _smooth([v for _, v in s], *p),
}
FUNCTIONS = (*_OF_VALUES, *_OF_SAMPLES, *_OF_PARAMETERS)
_NEED_TWO = frozenset({"irate", "idelta", "deriv", "predict", "smooth"})


def window_rows(
    series: Series,
    times: Sequence[tuple[int, int]],
    range_ms: int,
    name: str,
    params: Sequence[tuple[float, float]],
) -> Result:
    """Return one function of every window; `times` are (data time, evaluation time)."""
    out: Result = []
    for (t, at), param in zip(times, params, strict=True):
        samples = window(series, t, range_ms)
        if len(samples) < (2 if name in _NEED_TWO else 1):
            out.append(None)
        elif name in _OF_VALUES:
            out.append(_OF_VALUES[name]([v for _, v in samples]))
        elif name in _OF_SAMPLES:
            out.append(_OF_SAMPLES[name](samples))
        else:
            out.append(_OF_PARAMETERS[name](samples, at, param))
    return out
