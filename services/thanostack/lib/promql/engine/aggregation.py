"""Aggregations over series.

Sums, extremes, counts and deviations take rows as they come and keep five numbers a group and
step. Quantiles and rankings need all rows of a step at once. `count_values` makes labels of values.

Within a group and step values are added in the order of the rows, which is label order for a
selector: Prometheus's order, and therefore its bits.

Source: Prometheus 3.14 `promql/engine.go` (`rangeEvalAgg`, `aggregation`, `aggregationK`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.kernels import promql_aggregates as kernels
from thanostack.lib.model.label_runs import BoolArray, Float64Array, Int64Array
from thanostack.lib.promql.ast import AggregateExpr, StringLiteral
from thanostack.lib.promql.engine.annotations import invalid_quantile, invalid_ratio
from thanostack.lib.promql.engine.chains import RowChain
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.label_functions import is_label_name
from thanostack.lib.promql.engine.labels import METRIC_NAME, group_numbers, members_by_group
from thanostack.lib.promql.engine.matrix import StepMatrix, merge_rows
from thanostack.lib.promql.engine.numbers_text import format_general, format_shortest, quote

STREAMING = {
    "sum": kernels.SUM,
    "avg": kernels.AVG,
    "min": kernels.MIN,
    "max": kernels.MAX,
    "count": kernels.COUNT,
    "group": kernels.GROUP,
    "stddev": kernels.STDDEV,
    "stdvar": kernels.STDVAR,
}
RANKING = {"topk": kernels.TOPK, "bottomk": kernels.BOTTOMK, "limitk": kernels.LIMITK}
STATE_BYTES = 5 * 8
_INT64_LIMIT = float(1 << 63)


def group_ids(context: QueryContext, node: AggregateExpr, ids: Int64Array) -> Int64Array:
    """Return the label set of the group that each series belongs to."""
    if node.without:
        return context.table.without(ids, (METRIC_NAME, *node.grouping))
    if not node.grouping:
        return np.full(len(ids), context.table.empty, np.int64)
    return context.table.keep(ids, node.grouping)


@dataclass(slots=True)
class _Accumulator:
    """The state of a streaming aggregation."""

    op: int
    groups: Int64Array
    ids: Int64Array
    state: Float64Array
    first_rows: Int64Array

    @staticmethod
    def of(context: QueryContext, node: AggregateExpr, ids: Int64Array, steps: int) -> _Accumulator:
        groups, unique = group_numbers(group_ids(context, node, ids))
        state = np.zeros((5, len(unique), steps))
        firsts = np.full(len(unique), len(ids), np.int64)
        return _Accumulator(STREAMING[node.op], groups, unique, state, firsts)

    def add(self, first: int, values: Float64Array, present: BoolArray) -> None:
        groups = self.groups[first : first + len(values)]
        kernels.accumulate_rows(values, present, groups, self.op, self.state)
        rows = np.flatnonzero(present.any(axis=1))
        np.minimum.at(self.first_rows, groups[rows], rows + first)

    def result(self) -> StepMatrix:
        matrix = StepMatrix.of(self.ids, self.state.shape[2])
        kernels.finish_groups(self.state, self.op, matrix.values, matrix.present)
        # Groups stand in the order of their first series that has a value.
        return matrix.rows(np.argsort(self.first_rows, kind="stable")).compact()


def aggregate_chain(context: QueryContext, node: AggregateExpr, chain: RowChain) -> StepMatrix:
    """Return a streaming aggregation over a chain, without the chain's matrix."""
    accumulator = _Accumulator.of(context, node, chain.ids, chain.steps)
    before = context.points
    for first in chain.batches():
        context.deadline.check()
        values, present = chain.read(first, min(first + 64, len(chain)))
        context.hold(int(np.count_nonzero(present)))
        accumulator.add(first, values, present)
    context.points = before
    result = accumulator.result()
    result.drop[:] = chain.drop
    return result


def aggregate(
    context: QueryContext, node: AggregateExpr, matrix: StepMatrix, param: Float64Array | None
) -> StepMatrix:
    """Return an aggregation over a matrix.

    Args:
        context: of the query.
        node: the aggregation.
        matrix: its argument; may be changed.
        param: float64[steps], where the aggregation has a number.

    Raises:
        ExecutionFailed: for a parameter that it cannot use.
    """
    if node.op == "count_values":
        return _count_values(context, node, matrix)
    if node.op in STREAMING:
        return _stream(context, node, matrix)
    assert param is not None, node.op
    if node.op == "quantile":
        return _quantile(context, node, matrix, param)
    if node.op == "limit_ratio":
        return _limit_ratio(context, node, matrix, param)
    return _rank(context, node, matrix, param)


def _stream(context: QueryContext, node: AggregateExpr, matrix: StepMatrix) -> StepMatrix:
    accumulator = _Accumulator.of(context, node, matrix.ids, matrix.values.shape[1])
    for first in range(0, len(matrix), 256):
        context.deadline.check()
        part = slice(first, first + 256)
        accumulator.add(first, matrix.values[part], matrix.present[part])
    result = accumulator.result()
    if matrix.drop.any():
        named = set(group_ids(context, node, matrix.ids[matrix.drop]).tolist())
        result.drop[:] = [i in named for i in result.ids.tolist()]
    return result


def _grouped(
    context: QueryContext, node: AggregateExpr, matrix: StepMatrix
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return (group ids, rows by group, bounds)."""
    groups, unique = group_numbers(group_ids(context, node, matrix.ids))
    members, bounds = members_by_group(groups, len(unique))
    return unique, members, bounds


def _quantile(
    context: QueryContext, node: AggregateExpr, matrix: StepMatrix, q: Float64Array
) -> StepMatrix:
    context.note_parameters(node, q)
    unique, members, bounds = _grouped(context, node, matrix)
    result = StepMatrix.of(unique, matrix.values.shape[1])
    scratch = np.empty(int(np.diff(bounds).max(initial=1)))
    kernels.quantile_groups(
        matrix.values, matrix.present, members, bounds, q, scratch, result.values, result.present
    )
    if matrix.drop.any():
        named = set(group_ids(context, node, matrix.ids[matrix.drop]).tolist())
        result.drop[:] = [i in named for i in result.ids.tolist()]
    return result.compact()


def _rank(
    context: QueryContext, node: AggregateExpr, matrix: StepMatrix, param: Float64Array
) -> StepMatrix:
    steps = matrix.values.shape[1]
    if param.max() < 1:
        return StepMatrix.empty(steps)
    if np.isnan(param).any():
        raise ExecutionFailed("Parameter value is NaN")
    if param.min() <= -_INT64_LIMIT:
        text = format_general(float(param.min()))
        raise ExecutionFailed(f"Scalar value {text} underflows int64")
    if param.max() >= _INT64_LIMIT:
        text = format_general(float(param.max()))
        raise ExecutionFailed(f"Scalar value {text} overflows int64")
    _, members, bounds = _grouped(context, node, matrix)
    wanted = np.minimum(param, len(matrix)).astype(np.int64)
    keep = np.zeros(matrix.present.shape, np.bool_)
    order = np.empty(len(matrix), np.int64)
    heap = np.empty(max(1, int(wanted.max())), np.int64)
    kernels.rank_rows(
        matrix.values, matrix.present, members, bounds, wanted, RANKING[node.op], heap, keep, order
    )
    if not context.is_range:
        return matrix.rows(order[order >= 0])
    return matrix.masked(keep)


def _limit_ratio(
    context: QueryContext, node: AggregateExpr, matrix: StepMatrix, ratio: Float64Array
) -> StepMatrix:
    if not ratio.any():
        return StepMatrix.empty(matrix.values.shape[1])
    if np.isnan(ratio).any():
        raise ExecutionFailed("Ratio value is NaN")
    context.note_parameters(node, ratio)
    capped = np.clip(ratio, -1.0, 1.0)
    offsets = np.array([_sample_offset(context, i) for i in matrix.ids.tolist()])[:, np.newaxis]
    keep = np.where(capped >= 0, offsets < capped, offsets >= 1.0 + capped)
    # A group's members stand together, in the order of its first member.
    members = _grouped(context, node, matrix)[1]
    return matrix.rows(members).masked((keep & (capped != 0))[members])


def _sample_offset(context: QueryContext, set_id: int) -> float:
    """Return the place of a label set in [0, 1): Prometheus's hash of its in-memory form."""
    data = bytearray()
    for pair in context.table.pairs(set_id):
        for text in pair:
            raw = text.encode(errors="surrogateescape")
            size = len(raw)
            data += bytes([size]) if size < 255 else b"\xff" + size.to_bytes(3, "little")
            data += raw
    return xxhash.xxh64_intdigest(bytes(data)) / float((1 << 64) - 1)


def _count_values(context: QueryContext, node: AggregateExpr, matrix: StepMatrix) -> StepMatrix:
    assert isinstance(node.param, StringLiteral)
    label = node.param.value
    if not is_label_name(label):
        raise ExecutionFailed(f"invalid label name {quote(label)}")
    table = context.table
    rows, steps = np.nonzero(matrix.present)
    bits, numbers = np.unique(matrix.values[rows, steps].view(np.uint64), return_inverse=True)
    texts = table.symbols(
        format_shortest(value).encode() for value in bits.view(np.float64).tolist()
    )
    kinds, which = np.unique(rows * max(1, len(bits)) + numbers, return_inverse=True)
    labelled = table.assign(
        matrix.ids[kinds // max(1, len(bits))], label, texts[kinds % max(1, len(bits))]
    )
    if node.without:
        grouped = table.without(labelled, (METRIC_NAME, *node.grouping))
    else:
        grouped = table.keep(labelled, (*node.grouping, label))
    groups, unique = group_numbers(grouped)
    result = StepMatrix.of(unique, matrix.values.shape[1])
    counts = np.zeros(result.values.shape)
    np.add.at(counts, (groups[which], steps), 1)
    result.present = counts > 0
    result.values = np.where(result.present, counts, np.nan)
    return merge_rows(result)


def parameter_warnings(node: AggregateExpr, low: float, high: float, *, nan: bool) -> list[str]:
    """Return the warnings on the parameter of quantile or limit_ratio over all steps."""
    if node.op == "limit_ratio":
        texts = [invalid_ratio(high, 1.0)] if high > 1 else []
        return texts + ([invalid_ratio(low, -1.0)] if low < -1 else [])
    if nan:
        return [invalid_quantile(float("nan"))]
    texts = [invalid_quantile(high)] if high > 1 else []
    return texts + ([invalid_quantile(low)] if low < 0 else [])
