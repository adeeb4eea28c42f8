"""Calls of functions over range vectors, as row-wise chains; and subqueries.

A range selector reads the samples of its selection; a subquery evaluates its inner expression on
its own grid and hands the result on as samples.

Source: Prometheus 3.14 `promql/engine.go` (`eval` of Call, `runSubquery`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.model.label_runs import BoolArray, Float64Array, Int64Array
from thanostack.lib.promql.ast import (
    Call,
    Expr,
    MatrixSelector,
    Position,
    SubqueryExpr,
    ValueType,
)
from thanostack.lib.promql.engine.annotations import (
    invalid_quantile,
    possible_non_counter,
    possible_non_counter_type,
)
from thanostack.lib.promql.engine.chains import (
    DataTimes,
    ExtendedRows,
    RateRows,
    RowChain,
    RowReader,
    SampleRows,
    SubqueryRows,
    WindowRows,
)
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.durations import seconds_of
from thanostack.lib.promql.engine.evaluator import Evaluator, bare_argument, data_times
from thanostack.lib.promql.engine.labels import METRIC_NAME
from thanostack.lib.promql.engine.matrix import StepMatrix, Steps
from thanostack.lib.promql.engine.plan import unwrapped, value_type
from thanostack.lib.promql.engine.range_functions import (
    COUNTER_SUFFIXES,
    RANGE_FUNCTIONS,
    RangeFunction,
    extended_operation,
)
from thanostack.lib.promql.engine.selectors import samples_of


@dataclass(frozen=True, slots=True)
class _RangeVector:
    """The range argument of a call: rows of samples, and the windows over them."""

    ids: Int64Array
    drop: bool
    samples: SampleRows
    times: DataTimes
    range_ms: int
    anchored: bool = False
    smoothed: bool = False


def range_chain(evaluator: Evaluator, expr: Call, steps: Steps) -> RowChain:
    """Return a call of a range function as a chain."""
    function = RANGE_FUNCTIONS[expr.function.name]
    types = [value_type(arg) for arg in expr.args]
    place = types.index(ValueType.MATRIX)
    vector = _range_vector(evaluator, bare_argument(expr.args[place]), steps)
    numbers = [evaluator.scalar(a, steps) for i, a in enumerate(expr.args) if i != place]
    reader = _reader(evaluator.context, expr.function.name, vector, numbers)
    chain = RowChain(reader, vector.ids, drop=vector.drop, steps=steps.count)
    delayed = evaluator.context.options.delayed_name_removal
    if not function.keeps_name:
        chain.ids = evaluator.context.unnamed(vector.ids)
        chain.drop = delayed
    if len(np.unique(chain.ids)) < len(chain) and not delayed:
        chain.collision, chain.origin = "refuse", vector.ids
    _observe(evaluator.context, chain, expr, vector.ids, numbers)
    return chain


def _range_vector(evaluator: Evaluator, argument: Expr, steps: Steps) -> _RangeVector:
    if isinstance(argument, SubqueryExpr):
        matrix, grid = evaluate_subquery(evaluator, argument, steps)
        samples = SubqueryRows(samples_of(matrix.values, matrix.present, grid.times()))
        drop, times = bool(matrix.drop.any()), data_times(argument, steps)
        return _RangeVector(matrix.ids, drop, samples, times, argument.range_ms)
    assert isinstance(argument, MatrixSelector)
    selector = argument.selector
    selection = evaluator.selections[id(selector)]
    return _RangeVector(
        selection.ids,
        drop=False,
        samples=selection,
        times=data_times(selector, steps),
        range_ms=argument.range_ms,
        anchored=selector.anchored,
        smoothed=selector.smoothed,
    )


def _reader(
    context: QueryContext, name: str, vector: _RangeVector, numbers: list[Float64Array]
) -> RowReader:
    function = RANGE_FUNCTIONS[name]
    divisor = seconds_of(vector.range_ms) if function.is_rate else 0.0
    if vector.anchored or vector.smoothed:
        op = extended_operation(name, smoothed=vector.smoothed)
        return ExtendedRows(
            vector.samples,
            vector.times,
            vector.range_ms,
            context.window.lookback,
            op,
            divisor,
            vector.smoothed,
        )
    if function.op == 0:
        return RateRows(
            vector.samples, vector.times, vector.range_ms, divisor, function.is_counter
        )  # fmt: skip
    params = np.zeros((2, vector.times.count))
    for i, number in enumerate(numbers):
        params[i] = number
    return WindowRows(vector.samples, vector.times, vector.range_ms, function.op, params)


def evaluate_subquery(
    evaluator: Evaluator, expr: SubqueryExpr, steps: Steps
) -> tuple[StepMatrix, Steps]:
    """Return the inner expression of a subquery on the subquery's own grid."""
    times = data_times(expr, steps)
    step = expr.step_ms or evaluator.context.options.default_step_ms
    low = times.first - expr.range_ms
    # Upstream: integer division cuts towards zero, which for negative times is upwards.
    start = step * (low // step if low >= 0 else -(-low // step))
    if start <= low:
        start += step
    grid = Steps.between(start, times.last, step)
    if grid.count <= 0:
        return StepMatrix.empty(0), grid
    inner = unwrapped(expr.expr)
    # Upstream: the grid's bounds count, not how many of its steps lie between them.
    with evaluator.context.steps_of_its_own(is_range=start != times.last):
        if value_type(inner) is ValueType.SCALAR:
            return evaluator.constant(evaluator.scalar(inner, grid)), grid
        return evaluator.vector(inner, grid), grid


# What must be said about rows, once it is known which of them have values.


def _observe(
    context: QueryContext,
    chain: RowChain,
    expr: Call,
    ids: Int64Array,
    numbers: list[Float64Array],
) -> None:
    function: RangeFunction = RANGE_FUNCTIONS[expr.function.name]
    if function.is_counter:
        suspects = _suspects(context, ids)
        if suspects:
            chain.operations.append(_counter_observer(context, expr, suspects))
    if expr.function.name == "quantile_over_time":
        bad = np.isnan(numbers[0]) | (numbers[0] < 0) | (numbers[0] > 1)
        if bad.any():
            chain.operations.append(_quantile_observer(context, expr, numbers[0], bad))
    if expr.function.name == "double_exponential_smoothing" and len(ids):
        _refuse_factors(*numbers)


def _suspects(context: QueryContext, ids: Int64Array) -> dict[int, str]:
    """Return the info on each row whose name or type is not that of a counter."""
    typed = context.options.type_and_unit_labels
    symbols = context.table.values(ids, METRIC_NAME)
    kinds = context.table.values(ids, "__type__") if typed else symbols
    pairs = list(zip(symbols.tolist(), kinds.tolist(), strict=True))
    texts = {pair: _suspicion(context, *pair) for pair in set(pairs)}
    if not any(texts.values()):
        return {}
    return {row: texts[pair] for row, pair in enumerate(pairs) if texts[pair]}


def _suspicion(context: QueryContext, symbol: int, kind: int) -> str:
    name = context.table.text(symbol) if symbol >= 0 else b""
    if not name:
        return ""
    readable = name.decode(errors="replace")
    if not context.options.type_and_unit_labels:
        return "" if name.endswith(COUNTER_SUFFIXES) else possible_non_counter(readable)
    label = context.table.text(kind).decode(errors="replace") if kind >= 0 else ""
    if label in {"counter", "histogram"}:
        return ""
    return possible_non_counter_type(readable, label)


def _counter_observer(
    context: QueryContext, expr: Call, suspects: dict[int, str]
) -> Callable[[int, BoolArray], None]:
    said: set[str] = set()
    argument = expr.args[0]
    # Upstream: what a subquery found is a selector without a position.
    over_subquery = isinstance(bare_argument(argument), SubqueryExpr)
    position = Position(0, 0) if over_subquery else argument.position

    def observe(first: int, present: BoolArray) -> None:
        for row in (np.flatnonzero(present.any(axis=1)) + first).tolist():
            text = suspects.get(row, "")
            if text and text not in said:
                said.add(text)
                context.annotations.add(text, position)

    return observe


def _quantile_observer(
    context: QueryContext, expr: Call, q: Float64Array, bad: BoolArray
) -> Callable[[int, BoolArray], None]:
    position = expr.args[0].position

    def observe(_: int, present: BoolArray) -> None:
        for value in q[bad & present.any(axis=0)].tolist():
            context.annotations.add(invalid_quantile(value), position)

    return observe


def _refuse_factors(smoothing: Float64Array, trend: Float64Array) -> None:
    for name, short, values in (("smoothing", "sf", smoothing), ("trend", "tf", trend)):
        bad = values[(values <= 0) | (values >= 1)]
        if len(bad):
            raise ExecutionFailed(
                f"invalid {name} factor. Expected: 0 < {short} < 1, got: {bad[0]:f}"
            )
