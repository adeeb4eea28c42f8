"""The signatures of all 90 PromQL functions, 73 stable and 17 experimental.

Grouped by shape, because most functions share one of a few. What they compute lives with the
engine.

Source: Prometheus 3.14, `promql/parser/functions.go`.
"""

from __future__ import annotations

from collections.abc import Iterator

from thanostack.lib.promql.ast import Function, ValueType

_SCALAR, _VECTOR, _MATRIX, _STRING = (
    ValueType.SCALAR,
    ValueType.VECTOR,
    ValueType.MATRIX,
    ValueType.STRING,
)

_OF_VECTOR = """
    abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor histogram_avg
    histogram_count histogram_stddev histogram_stdvar histogram_sum ln log10 log2 rad sgn sin sinh
    sort sort_desc sqrt tan tanh timestamp
"""
_OF_MATRIX = """
    absent_over_time avg_over_time changes count_over_time delta deriv first_over_time idelta
    increase irate last_over_time max_over_time min_over_time present_over_time rate resets
    stddev_over_time stdvar_over_time sum_over_time
"""
_OF_MATRIX_EXPERIMENTAL = """
    mad_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time
    ts_of_min_over_time
"""
_OF_DATE = "day_of_month day_of_week day_of_year days_in_month hour minute month year"


def _function(
    name: str,
    *arg_types: ValueType,
    variadic: int = 0,
    returns: ValueType = _VECTOR,
    experimental: bool = False,
) -> Function:
    return Function(
        name=name,
        arg_types=arg_types,
        variadic=variadic,
        return_type=returns,
        experimental=experimental,
    )


def _families() -> Iterator[Function]:
    for name in _OF_VECTOR.split():
        yield _function(name, _VECTOR)
    for name in _OF_MATRIX.split():
        yield _function(name, _MATRIX)
    for name in _OF_MATRIX_EXPERIMENTAL.split():
        yield _function(name, _MATRIX, experimental=True)
    for name in _OF_DATE.split():
        yield _function(name, _VECTOR, variadic=1)
    for name in ("start", "end", "step", "range"):
        yield _function(name, returns=_SCALAR, experimental=True)
    for name in ("min_of", "max_of"):
        yield _function(name, _SCALAR, _SCALAR, returns=_SCALAR, experimental=True)
    for name in ("sort_by_label", "sort_by_label_desc"):
        yield _function(name, _VECTOR, _STRING, variadic=-1, experimental=True)


_SINGULAR = (
    _function("clamp", _VECTOR, _SCALAR, _SCALAR),
    _function("clamp_max", _VECTOR, _SCALAR),
    _function("clamp_min", _VECTOR, _SCALAR),
    _function("double_exponential_smoothing", _MATRIX, _SCALAR, _SCALAR, experimental=True),
    _function("histogram_fraction", _SCALAR, _SCALAR, _VECTOR),
    _function("histogram_quantile", _SCALAR, _VECTOR),
    _function(
        "histogram_quantiles", _VECTOR, _STRING, _SCALAR, _SCALAR, variadic=9, experimental=True
    ),
    _function("info", _VECTOR, _VECTOR, variadic=1, experimental=True),
    _function("label_join", _VECTOR, _STRING, _STRING, _STRING, variadic=-1),
    _function("label_replace", _VECTOR, _STRING, _STRING, _STRING, _STRING),
    _function("pi", returns=_SCALAR),
    _function("predict_linear", _MATRIX, _SCALAR),
    _function("quantile_over_time", _SCALAR, _MATRIX),
    _function("round", _VECTOR, _SCALAR, variadic=1),
    _function("scalar", _VECTOR, returns=_SCALAR),
    _function("start_timestamp", _VECTOR, experimental=True),
    _function("time", returns=_SCALAR),
    _function("vector", _SCALAR),
)

FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in sorted((*_families(), *_SINGULAR), key=lambda function: function.name)
}
