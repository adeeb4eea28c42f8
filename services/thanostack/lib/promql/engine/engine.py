"""The engine: one call a query.

    prepare -> select everything at once -> slices of steps -> evaluate each -> one result

A range query is cut into slices of consecutive steps so that what lives at one time fits the byte
budget; steps do not depend on each other, so the cut changes no bit. One thread a query.

Elsewhere: what an operator does (`evaluation.py` and below), how a text becomes a tree
(`promql/parser`), where series come from (`model/queryable.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from thanostack.lib.foundation.errors import InvalidTimeRange, LimitExceeded
from thanostack.lib.model.label_runs import Float64Array, Int64Array
from thanostack.lib.model.queryable import Queryable, SelectRequest
from thanostack.lib.promql.ast import (
    Expr,
    MatrixSelector,
    StringLiteral,
    SubqueryExpr,
    ValueType,
)
from thanostack.lib.promql.engine.aggregation import parameter_warnings
from thanostack.lib.promql.engine.annotations import INFO, WARNING
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.evaluation import Evaluation
from thanostack.lib.promql.engine.footprint import Footprint
from thanostack.lib.promql.engine.matrix import StepMatrix, Steps
from thanostack.lib.promql.engine.options import Deadline, EngineOptions
from thanostack.lib.promql.engine.plan import (
    QueryWindow,
    StepInvariant,
    prepare,
    selections,
    unwrapped,
    value_type,
)
from thanostack.lib.promql.engine.range_calls import evaluate_subquery
from thanostack.lib.promql.engine.result import (
    MatrixResult,
    QueryResult,
    ScalarResult,
    StringResult,
    Value,
    VectorResult,
)
from thanostack.lib.promql.engine.selectors import (
    BATCH_ROWS,
    SampleCache,
    Selection,
    samples_of,
    without_stale,
)


@dataclass(frozen=True, slots=True)
class Engine:
    """Evaluates queries; without state of its own, usable from any number of threads."""

    options: EngineOptions = field(default_factory=EngineOptions)

    def instant(
        self,
        expr: Expr,
        queryable: Queryable,
        time_ms: int,
        *,
        lookback_ms: int | None = None,
        deadline: Deadline | None = None,
        query: str = "",
    ) -> QueryResult:
        """Return the value of an expression at one time.

        Args:
            expr: of any type.
            queryable: where series come from.
            time_ms: the evaluation time.
            lookback_ms: in place of the engine's.
            deadline: when to give up.
            query: the text that was parsed; annotations need it to find their line.

        Raises:
            QueryFailed: when evaluation fails, takes too long or is cancelled.
            InvalidInput: for a duration expression without a usable value.
            LimitExceeded: when one step does not fit into memory.
        """
        lookback = lookback_ms or self.options.lookback_ms
        window = QueryWindow(time_ms, time_ms, 0, lookback, self.options.default_step_ms)
        return self._run(expr, queryable, window, deadline, query)

    def range(
        self,
        expr: Expr,
        queryable: Queryable,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int | None = None,
        deadline: Deadline | None = None,
        query: str = "",
    ) -> QueryResult:
        """Return the values of an expression at `start, start + step, …` up to at most `end`.

        Arguments and errors as of `instant`; the expression is a scalar or an instant vector.

        Raises:
            InvalidTimeRange: for an end before the start, or no positive step.
        """
        if step_ms <= 0:
            raise InvalidTimeRange(
                "zero or negative query resolution step widths are not accepted. "
                "Try a positive integer"
            )
        if end_ms < start_ms:
            raise InvalidTimeRange("end timestamp must not be before start time")
        kind = value_type(expr)
        if kind not in {ValueType.SCALAR, ValueType.VECTOR}:
            text = {"matrix": "range vector"}.get(str(kind), str(kind))
            raise InvalidTimeRange(
                f'invalid expression type "{text}" for range query, '
                "must be Scalar or instant Vector"
            )
        lookback = lookback_ms or self.options.lookback_ms
        window = QueryWindow(start_ms, end_ms, step_ms, lookback, self.options.default_step_ms)
        return self._run(expr, queryable, window, deadline, query)

    def selectors(
        self, expr: Expr, start_ms: int, end_ms: int, step_ms: int, lookback_ms: int | None = None
    ) -> list[SelectRequest]:
        """Return what a query will ask of its queryable; step 0 is an instant query."""
        lookback = lookback_ms or self.options.lookback_ms
        window = QueryWindow(start_ms, end_ms, step_ms, lookback, self.options.default_step_ms)
        return [request for _, request in selections(prepare(expr, window), window)]

    def _run(
        self,
        expr: Expr,
        queryable: Queryable,
        window: QueryWindow,
        deadline: Deadline | None,
        query: str,
    ) -> QueryResult:
        context = QueryContext(self.options, window, deadline or Deadline())
        run = _Run(context, prepare(expr, window), queryable)
        value = run.value()
        for known in context.parameter_ranges():
            assert known.node.param is not None
            for text in parameter_warnings(known.node, known.low, known.high, nan=known.nan):
                context.annotations.add(text, known.node.param.position)
        warnings = run.source_warnings + context.annotations.texts(WARNING, query)
        infos = context.annotations.texts(INFO, query)
        return QueryResult(value, tuple(sorted(set(warnings))), tuple(sorted(infos)), context.stats)


class _Run:
    """One query on its way."""

    def __init__(self, context: QueryContext, expr: Expr, queryable: Queryable) -> None:
        self._context = context
        self._expr = expr
        found = selections(expr, context.window)
        context.deadline.check()
        requests = [request for _, request in found]
        sources = queryable.select(requests) if requests else []
        context.deadline.check()
        self.source_warnings = [text for source in sources for text in source.warnings]
        self._selections = {
            id(node): Selection(
                source, request, context.table.add_runs(source.labels), None, context.stats
            )
            for (node, request), source in zip(found, sources, strict=True)
        }

    def value(self) -> Value:
        """Return the query's value in the form that its type has."""
        expr, window = self._expr, self._context.window
        kind = value_type(expr)
        if kind is ValueType.STRING:
            literal = unwrapped(expr)
            assert isinstance(literal, StringLiteral)
            return StringResult(window.start, literal.value)
        if kind is ValueType.MATRIX:
            return self._range_vector()
        if window.step == 0:
            return self._instant(kind)
        steps = Steps.between(window.start, window.end, window.step)
        if kind is ValueType.SCALAR:
            values = Evaluation(self._context, self._selections).scalar(expr, steps)
            times = steps.times()
            ids = np.array([self._context.table.empty], np.int64)
            return self._matrix(ids, np.array([0, steps.count], np.int64), times, values)
        return self._sliced(steps)

    def _instant(self, kind: ValueType) -> Value:
        evaluation = Evaluation(self._context, self._selections)
        steps = Steps(self._context.window.start, 1, 1)
        if kind is ValueType.SCALAR:
            return ScalarResult(steps.start, float(evaluation.scalar(self._expr, steps)[0]))
        self._slice_length(steps)
        matrix = self._context.finish_names(evaluation.vector(self._expr, steps).compact())
        times = np.full(len(matrix), steps.start, np.int64)
        labels = self._context.table.runs(matrix.ids)
        return VectorResult(labels, times, np.ascontiguousarray(matrix.values[:, 0]))

    def _range_vector(self) -> MatrixResult:
        expr = unwrapped(self._expr)
        while isinstance(expr, StepInvariant):
            expr = unwrapped(expr.expr)
        start = self._context.window.start
        evaluation = Evaluation(self._context, self._selections)
        if isinstance(expr, SubqueryExpr):
            matrix, grid = evaluate_subquery(evaluation, expr, Steps(start, 1, 1))
            matrix = self._context.finish_names(matrix)
            batch = samples_of(matrix.values, matrix.present, grid.times())
            return self._matrix(matrix.ids, batch.offsets, batch.timestamps, batch.values)
        assert isinstance(expr, MatrixSelector)
        selection = self._selections[id(expr.selector)]
        at = expr.selector.timestamp_ms
        last = (start if at is None else at) - expr.selector.offset_ms
        return self._raw_samples(selection, last - expr.range_ms, last)

    def _raw_samples(self, selection: Selection, after: int, last: int) -> MatrixResult:
        """Return the samples in (after, last] of a selection."""
        parts = []
        for first in range(0, len(selection.ids), BATCH_ROWS):
            self._context.deadline.check()
            stop = min(first + BATCH_ROWS, len(selection.ids))
            batch = without_stale(selection.batch(first, stop, after + 1, last))
            inside = (batch.timestamps > after) & (batch.timestamps <= last)
            counts = np.zeros(len(inside) + 1, np.int64)
            np.cumsum(inside, out=counts[1:])
            lengths = np.diff(counts[batch.offsets])
            self._context.hold(int(lengths.sum()))
            parts.append((lengths, batch.timestamps[inside], batch.values[inside]))
        if not parts:
            return self._matrix(selection.ids, np.zeros(1, np.int64), *_nothing())
        lengths, timestamps, values = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return self._matrix(selection.ids, offsets, timestamps, values)

    # Slices

    def _slice_length(self, steps: Steps) -> int:
        footprint = Footprint(self._context, self._selections)
        budget = self._context.options.bytes_max
        length = steps.count
        while footprint.peak(self._expr, steps.part(0, length)) > budget:
            if length == 1:
                need = footprint.peak(self._expr, steps.part(0, 1))
                raise LimitExceeded("query.bytes-max", budget, need)
            length = (length + 1) // 2
        return length

    def _slices(self, steps: Steps) -> Iterator[StepMatrix]:
        length = self._slice_length(steps)
        count = -(-steps.count // length)
        self._context.stats.slices = count
        if count > 1:
            cache = SampleCache(self._context.options.bytes_max // 4)
            for selection in self._selections.values():
                selection.cache = cache
        evaluation = Evaluation(self._context, self._selections)
        for first in range(0, steps.count, length):
            yield evaluation.vector(self._expr, steps.part(first, min(first + length, steps.count)))

    def _sliced(self, steps: Steps) -> MatrixResult:
        context = self._context
        ids, lengths, timestamps, values = [], [], [], []
        first = steps
        for matrix in self._slices(steps):
            matrix = context.finish_names(matrix)
            part = Steps(first.start, first.step, matrix.values.shape[1])
            batch = samples_of(matrix.values, matrix.present, part.times())
            ids.append(matrix.ids)
            lengths.append(np.diff(batch.offsets))
            timestamps.append(batch.timestamps)
            values.append(batch.values)
            first = Steps(part.last + part.step, part.step, 0)
        whole = np.concatenate(lengths)
        offsets = np.zeros(len(whole) + 1, np.int64)
        np.cumsum(whole, out=offsets[1:])
        return self._matrix(
            np.concatenate(ids), offsets, np.concatenate(timestamps), np.concatenate(values)
        )

    def _matrix(
        self, ids: Int64Array, offsets: Int64Array, timestamps: Int64Array, values: Float64Array
    ) -> MatrixResult:
        """Return series in label order; parts of one series follow each other in time."""
        table = self._context.table
        lengths = np.diff(offsets)
        order = table.order(ids)
        order = order[lengths[order] > 0]
        picked = lengths[order]
        starts = np.repeat(offsets[order] - (np.cumsum(picked) - picked), picked)
        source = starts + np.arange(len(starts))
        fresh = np.ones(len(order), np.bool_)
        fresh[1:] = ids[order[1:]] != ids[order[:-1]]
        heads = np.flatnonzero(fresh)
        ends = np.append(np.cumsum(picked) - picked, picked.sum())
        bounds = np.append(ends[heads], ends[-1]).astype(np.int64)
        return MatrixResult(
            table.runs(ids[order[heads]]), bounds, timestamps[source], values[source]
        )


def _nothing() -> tuple[Int64Array, Float64Array]:
    return np.empty(0, np.int64), np.empty(0)
