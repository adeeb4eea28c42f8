"""The functions of range vectors: which kernel computes each, and what its arguments mean.

Source: Prometheus 3.14 `promql/functions.go`.
"""

from __future__ import annotations

from dataclasses import dataclass

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.kernels import promql_extended
from thanostack.lib.kernels import promql_windows as kernels


@dataclass(frozen=True, slots=True)
class RangeFunction:
    """How a function of a range vector is evaluated.

    Args:
        op: operation of `window_rows`; 0 for the family of `rate`.
        is_counter: falls are resets; it also decides whether a name is judged.
        is_rate: divide by the range.
        keeps_name: the result is still the metric that it was.
    """

    op: int
    is_counter: bool = False
    is_rate: bool = False
    keeps_name: bool = False


RANGE_FUNCTIONS = {
    "rate": RangeFunction(0, is_counter=True, is_rate=True),
    "increase": RangeFunction(0, is_counter=True),
    "delta": RangeFunction(0),
    "irate": RangeFunction(kernels.IRATE),
    "idelta": RangeFunction(kernels.IDELTA),
    "resets": RangeFunction(kernels.RESETS),
    "changes": RangeFunction(kernels.CHANGES),
    "deriv": RangeFunction(kernels.DERIV),
    "predict_linear": RangeFunction(kernels.PREDICT),
    "double_exponential_smoothing": RangeFunction(kernels.SMOOTH),
    "sum_over_time": RangeFunction(kernels.SUM),
    "avg_over_time": RangeFunction(kernels.AVG),
    "min_over_time": RangeFunction(kernels.MIN),
    "max_over_time": RangeFunction(kernels.MAX),
    "count_over_time": RangeFunction(kernels.COUNT),
    "stddev_over_time": RangeFunction(kernels.STDDEV),
    "stdvar_over_time": RangeFunction(kernels.STDVAR),
    "quantile_over_time": RangeFunction(kernels.QUANTILE),
    "mad_over_time": RangeFunction(kernels.MAD),
    "last_over_time": RangeFunction(kernels.LAST, keeps_name=True),
    "first_over_time": RangeFunction(kernels.FIRST, keeps_name=True),
    "present_over_time": RangeFunction(kernels.PRESENT),
    "absent_over_time": RangeFunction(kernels.PRESENT),
    "ts_of_first_over_time": RangeFunction(kernels.TS_FIRST),
    "ts_of_last_over_time": RangeFunction(kernels.TS_LAST),
    "ts_of_max_over_time": RangeFunction(kernels.TS_MAX),
    "ts_of_min_over_time": RangeFunction(kernels.TS_MIN),
}

COUNTER_SUFFIXES = (b"_total", b"_sum", b"_count", b"_bucket")
_ANCHORED = ("changes", "delta", "increase", "rate", "resets")
_SMOOTHED = ("delta", "increase", "rate")


def extended_operation(name: str, *, smoothed: bool) -> int:
    """Return the operation of `kernels/promql_extended.py` for a function.

    Raises:
        ExecutionFailed: for a function that such a selector cannot feed.
    """
    modifier, allowed = ("smoothed", _SMOOTHED) if smoothed else ("anchored", _ANCHORED)
    if name not in allowed:
        raise ExecutionFailed(
            f"{modifier} modifier can only be used with: {', '.join(allowed)} - not with {name}"
        )
    others = {"delta": promql_extended.DELTA, "resets": kernels.RESETS, "changes": kernels.CHANGES}
    return others.get(name, promql_extended.INCREASE)
