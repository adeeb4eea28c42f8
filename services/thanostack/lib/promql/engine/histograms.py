"""Classic histograms: series that share all labels but `le` are the buckets of one histogram.

Source: Prometheus 3.14 `promql/engine.go` (`resetHistograms`), `promql/functions.go`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thanostack.lib.kernels import promql_buckets as kernels
from thanostack.lib.model.label_runs import Float64Array, Int64Array
from thanostack.lib.promql.ast import Position
from thanostack.lib.promql.engine.annotations import (
    ForcedMonotonicity,
    bad_bucket_label,
    invalid_quantile,
)
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.labels import METRIC_NAME, group_numbers
from thanostack.lib.promql.engine.matrix import StepMatrix, Steps, merge_rows
from thanostack.lib.promql.engine.numbers_text import format_general, parse_float

_BUCKET_LABEL = "le"


@dataclass(slots=True)
class _Buckets:
    """Bucket rows by histogram and bound.

    Args:
        ids: int64[H]; each histogram's labels, the name included.
        rows: BUCKET_DTYPE[B].
        bounds: int64[H + 1]; histogram h has rows[bounds[h]:bounds[h + 1]].
        largest: most buckets of one histogram, at least 1.
    """

    ids: Int64Array
    rows: npt.NDArray[np.void]
    bounds: Int64Array
    largest: int


def _buckets(context: QueryContext, matrix: StepMatrix, position: Position) -> _Buckets:
    """Return the buckets in a matrix; series without a usable `le` are warned of and left out."""
    labels = context.table.value_texts(matrix.ids, _BUCKET_LABEL)
    parsed = [parse_float(label) for label in labels]
    for row, (label, upper) in enumerate(zip(labels, parsed, strict=True)):
        if upper is None:
            context.annotations.add(
                bad_bucket_label(_metric(context, matrix, row), label), position
            )
    usable = np.array([upper is not None for upper in parsed], np.bool_)
    rows = np.flatnonzero(usable)
    uppers = np.array([upper for upper in parsed if upper is not None], np.float64)
    groups, ids = group_numbers(context.table.without(matrix.ids[rows], (_BUCKET_LABEL,)))
    order = np.lexsort((uppers, groups))
    buckets = np.zeros(len(rows), kernels.BUCKET_DTYPE)
    buckets["row"], buckets["upper"] = rows[order], uppers[order]
    sizes = np.bincount(groups, minlength=len(ids))
    bounds = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    return _Buckets(ids, buckets, bounds, int(sizes.max(initial=1)))


def _metric(context: QueryContext, matrix: StepMatrix, row: int) -> str:
    if not context.options.delayed_name_removal:
        return ""
    return dict(context.table.pairs(int(matrix.ids[row]))).get(METRIC_NAME, "")


def warn_of_quantiles(context: QueryContext, q: Float64Array, position: Position) -> None:
    """Add a warning for each distinct quantile outside of [0, 1]."""
    bad = np.isnan(q) | (q < 0) | (q > 1)
    for value in dict.fromkeys(q[bad].tolist()):
        context.annotations.add(invalid_quantile(value), position)


@dataclass(frozen=True, slots=True)
class QuantileCall:
    """Where the parts of a quantile call stand in the query: for its annotations."""

    quantile: Position
    vector: Position
    steps: Steps


def histogram_quantile(
    context: QueryContext, q: Float64Array, matrix: StepMatrix, call: QuantileCall
) -> StepMatrix:
    """Return the quantile q[k] of every classic histogram at every step k."""
    warn_of_quantiles(context, q, call.quantile)
    result = _quantiles(context, q, matrix, call)
    return context.renamed(result)


def histogram_quantiles(
    context: QueryContext,
    label: str,
    quantiles: list[tuple[Float64Array, Position]],
    matrix: StepMatrix,
    call: QuantileCall,
) -> StepMatrix:
    """Return several quantiles of every classic histogram, told apart by a label."""
    parts = []
    for q, position in quantiles:
        warn_of_quantiles(context, q, position)
        result = context.drop_names(_quantiles(context, q, matrix, call))
        bits = q.view(np.uint64)
        for pattern in np.unique(bits) if len(result) else ():
            value, steps = float(pattern.view(np.float64)), bits == pattern
            part = result.rows(np.arange(len(result))).masked(steps[np.newaxis, :])
            symbol = context.table.symbol(_open_metrics_float(value))
            part.ids = context.table.assign(part.ids, label, np.full(len(part), symbol, np.int64))
            parts.append(part)
    if not parts:
        return StepMatrix.empty(matrix.values.shape[1])
    whole = StepMatrix(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
        np.concatenate([part.drop for part in parts]),
    )
    return merge_rows(whole)


def _open_metrics_float(value: float) -> str:
    """Return a quantile as OpenMetrics writes it: a whole number has a fraction."""
    text = format_general(value)
    return f"{text}.0" if text.lstrip("-").isdigit() else text


def _quantiles(
    context: QueryContext, q: Float64Array, matrix: StepMatrix, call: QuantileCall
) -> StepMatrix:
    buckets = _buckets(context, matrix, call.vector)
    result = StepMatrix.of(buckets.ids, matrix.values.shape[1])
    report = np.zeros((len(buckets.ids), 6))
    kernels.quantile_buckets(
        matrix.values, matrix.present, buckets.rows, buckets.bounds, q[np.newaxis, :],
        np.empty((2, buckets.largest)), report, result.values, result.present,
    )  # fmt: skip
    for h in np.flatnonzero(report[:, kernels.FORCED_STEPS]).tolist():
        figures = ForcedMonotonicity(
            lowest=float(report[h, kernels.LOWEST]),
            highest=float(report[h, kernels.HIGHEST]),
            difference=float(report[h, kernels.DIFFERENCE]),
            first_ms=call.steps.start + int(report[h, kernels.FIRST_STEP]) * call.steps.step,
            last_ms=call.steps.start + int(report[h, kernels.LAST_STEP]) * call.steps.step,
            count=int(report[h, kernels.FORCED_STEPS]),
        )
        metric = _metric(context, result, h)
        context.annotations.add_forced(metric, call.vector, figures)
    return result.compact()


def histogram_fraction(
    context: QueryContext,
    limits: tuple[Float64Array, Float64Array],
    matrix: StepMatrix,
    position: Position,
) -> StepMatrix:
    """Return the share of observations between two limits of every classic histogram."""
    buckets = _buckets(context, matrix, position)
    result = StepMatrix.of(buckets.ids, matrix.values.shape[1])
    kernels.fraction_buckets(
        matrix.values, matrix.present, buckets.rows, buckets.bounds, np.stack(limits),
        np.empty((2, buckets.largest)), result.values, result.present,
    )  # fmt: skip
    return context.renamed(result.compact())
