"""Calls of functions that need a whole instant vector, or its labels.

Source: Prometheus 3.14 `promql/functions.go`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thanostack.lib.model.label_runs import BoolArray
from thanostack.lib.model.matchers import MatchType
from thanostack.lib.promql.ast import Call, Expr, StringLiteral, VectorSelector
from thanostack.lib.promql.engine import histograms, label_functions
from thanostack.lib.promql.engine.annotations import sort_in_range_query
from thanostack.lib.promql.engine.chains import InstantRows, RowChain
from thanostack.lib.promql.engine.evaluator import (
    Evaluator,
    bare_argument,
    data_times,
    selector_of,
)
from thanostack.lib.promql.engine.info import add_info
from thanostack.lib.promql.engine.labels import METRIC_NAME
from thanostack.lib.promql.engine.matrix import StepMatrix, Steps
from thanostack.lib.promql.engine.plan import unwrapped
from thanostack.lib.promql.engine.range_calls import range_chain
from thanostack.lib.promql.engine.selectors import BATCH_ROWS


def _timestamp(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    matrix = evaluator.vector(expr.args[0], steps)
    times = np.broadcast_to(steps.times() / 1000.0, matrix.values.shape)
    matrix.values = np.where(matrix.present, times, np.nan)
    return evaluator.context.renamed(matrix)


def _nothing(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    """Evaluate the argument for its errors and annotations; floats have no such answer."""
    evaluator.vector(expr.args[0], steps)
    return StepMatrix.empty(steps.count)


def _vector(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    return evaluator.constant(evaluator.scalar(expr.args[0], steps))


def _absent(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    matrix = evaluator.vector(expr.args[0], steps)
    return _absence(evaluator, expr, np.asarray(matrix.present.any(axis=0)), steps)


def _absent_over_time(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    chain = range_chain(evaluator, expr, steps)
    seen = np.zeros(steps.count, np.bool_)
    for first in chain.batches():
        evaluator.context.deadline.check()
        _, present = chain.read(first, min(first + BATCH_ROWS, len(chain)))
        seen |= present.any(axis=0)
    return _absence(evaluator, expr, seen, steps)


def _absence(evaluator: Evaluator, expr: Call, seen: BoolArray, steps: Steps) -> StepMatrix:
    labels = evaluator.context.table.add_mapping(absent_labels(bare_argument(expr.args[0])))
    matrix = StepMatrix.of(np.array([labels], np.int64), steps.count)
    matrix.present[0] = ~seen
    matrix.values[matrix.present] = 1.0
    return matrix.compact()


def absent_labels(expr: Expr) -> dict[str, str]:
    """Return the labels of an absence: those that equality matchers fix, each used once."""
    selector = selector_of(expr)
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector.matchers if selector is not None else ():
        if matcher.name == METRIC_NAME:
            continue
        if matcher.type is MatchType.EQ and matcher.name not in seen:
            labels[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            labels.pop(matcher.name, None)
    return labels


def _texts(args: tuple[Expr, ...]) -> tuple[str, ...]:
    literals = [unwrapped(arg) for arg in args]
    return tuple(literal.value for literal in literals if isinstance(literal, StringLiteral))


def _label_replace(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    matrix = evaluator.vector(expr.args[0], steps)
    return label_functions.label_replace(evaluator.context, matrix, _texts(expr.args[1:]))


def _label_join(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    matrix = evaluator.vector(expr.args[0], steps)
    return label_functions.label_join(evaluator.context, matrix, _texts(expr.args[1:]))


def _sort(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    matrix = evaluator.vector(expr.args[0], steps)
    name, context = expr.function.name, evaluator.context
    if context.is_range:
        context.annotations.add(sort_in_range_query(), expr.position)
        return matrix
    if name.startswith("sort_by_label"):
        names = _texts(expr.args[1:])
        return label_functions.sort_by_label(
            context, matrix, names, descending=name.endswith("_desc")
        )
    # NaN sorts last either way, as numpy does and as upstream wants it.
    keys = matrix.values[:, 0] * (-1 if name == "sort_desc" else 1)
    return matrix.rows(np.argsort(keys, kind="stable"))


def _histogram_quantile(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    q = evaluator.scalar(expr.args[0], steps)
    matrix = evaluator.vector(expr.args[1], steps)
    call = histograms.QuantileCall(expr.args[0].position, expr.args[1].position, steps)
    return histograms.histogram_quantile(evaluator.context, q, matrix, call)


def _histogram_quantiles(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    matrix = evaluator.vector(expr.args[0], steps)
    (label,) = _texts(expr.args[1:2])
    quantiles = [(evaluator.scalar(arg, steps), arg.position) for arg in expr.args[2:]]
    call = histograms.QuantileCall(expr.position, expr.args[0].position, steps)
    return histograms.histogram_quantiles(evaluator.context, label, quantiles, matrix, call)


def _histogram_fraction(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    limits = evaluator.scalar(expr.args[0], steps), evaluator.scalar(expr.args[1], steps)
    matrix = evaluator.vector(expr.args[2], steps)
    position = expr.args[2].position
    return histograms.histogram_fraction(evaluator.context, limits, matrix, position)


def _info(evaluator: Evaluator, expr: Call, steps: Steps) -> StepMatrix:
    base = evaluator.vector(expr.args[0], steps)
    selector = bare_argument(expr.args[1])
    assert isinstance(selector, VectorSelector)
    selection = evaluator.selections[id(selector)]
    # Upstream: info series are looked up at the evaluation time; offset and `@` of the first
    # selector only bound which of their samples are fetched.
    times = data_times(selector, steps, ignore_modifiers=True)
    reader = InstantRows(selection, times, evaluator.context.window.lookback, want_time=True)
    chain = RowChain(reader, selection.ids, drop=False, steps=steps.count)
    return add_info(evaluator.context, base, evaluator.collect(expr, chain), selector)


VECTOR_CALLS: dict[str, Callable[[Evaluator, Call, Steps], StepMatrix]] = {
    "absent": _absent,
    "absent_over_time": _absent_over_time,
    "histogram_avg": _nothing,
    "histogram_count": _nothing,
    "histogram_fraction": _histogram_fraction,
    "histogram_quantile": _histogram_quantile,
    "histogram_quantiles": _histogram_quantiles,
    "histogram_stddev": _nothing,
    "histogram_stdvar": _nothing,
    "histogram_sum": _nothing,
    "info": _info,
    "label_join": _label_join,
    "label_replace": _label_replace,
    "sort": _sort,
    "sort_by_label": _sort,
    "sort_by_label_desc": _sort,
    "sort_desc": _sort,
    "start_timestamp": _nothing,
    "timestamp": _timestamp,
    "vector": _vector,
}
