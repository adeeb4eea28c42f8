"""How many bytes a slice of a query may need: an upper bound, known before it is evaluated.

Rows are bounded from the number of series that selectors found; a streamed aggregation counts its
groups, not its input. Windows and batches in flight are small and constant.

Cost: O(nodes), except for grouping, which is O(series) and done once a node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from thanostack.lib.promql.engine.aggregation import STATE_BYTES, STREAMING, group_ids
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.matrix import POINT_BYTES, Steps
from thanostack.lib.promql.engine.plan import StepInvariant, value_type
from thanostack.lib.promql.engine.range_functions import RANGE_FUNCTIONS
from thanostack.lib.promql.engine.row_functions import ROW_FUNCTIONS
from thanostack.lib.promql.engine.selectors import Selection

_SAMPLE_BYTES = 16


@dataclass(frozen=True, slots=True)
class _Need:
    """Rows of a result, and bytes that live while it is made (the result included)."""

    rows: int
    peak: int


@dataclass(slots=True)
class Footprint:
    """The bound for the parts of one query."""

    context: QueryContext
    selections: dict[int, Selection]
    _groups: dict[int, int] = field(default_factory=dict)

    def peak(self, expr: Expr, steps: Steps) -> int:
        """Return the bytes that evaluating an expression over these steps may need at once."""
        return self._need(expr, steps.count, steps).peak

    def _need(self, expr: Expr, count: int, steps: Steps) -> _Need:
        match expr:
            case StepInvariant():
                inner = self._need(expr.expr, 1, Steps(steps.start, steps.step, 1))
                return _Need(inner.rows, inner.peak + inner.rows * count * POINT_BYTES)
            case ParenExpr() | UnaryExpr():
                return self._need(expr.expr, count, steps)
            case VectorSelector():
                return self._rows(len(self.selections[id(expr)].ids), count)
            case BinaryExpr():
                return self._binary(expr, count, steps)
            case AggregateExpr():
                return self._aggregate(expr, count, steps)
            case Call():
                return self._call(expr, count, steps)
        return _Need(1, 0)

    @staticmethod
    def _rows(rows: int, count: int, held: int = 0) -> _Need:
        return _Need(rows, rows * count * POINT_BYTES + held)

    def _binary(self, expr: BinaryExpr, count: int, steps: Steps) -> _Need:
        left, right = self._need(expr.lhs, count, steps), self._need(expr.rhs, count, steps)
        if value_type(expr) is ValueType.SCALAR:
            return _Need(1, max(left.peak, right.peak))
        if ValueType.SCALAR in {value_type(expr.lhs), value_type(expr.rhs)}:
            return _Need(max(left.rows, right.rows), max(left.peak, right.peak))
        # Every row of one side pairs with at most one of the other a step; `or` keeps both.
        rows = left.rows + right.rows
        held = left.rows * count * POINT_BYTES
        return _Need(rows, max(left.peak, held + right.peak) + rows * count * POINT_BYTES)

    def _aggregate(self, expr: AggregateExpr, count: int, steps: Steps) -> _Need:
        inner = self._need(expr.expr, count, steps)
        if expr.op not in STREAMING:
            return _Need(inner.rows, 2 * inner.peak)
        selection = self._streamed(expr.expr)
        if selection is None:
            return _Need(inner.rows, inner.peak + inner.rows * count * STATE_BYTES)
        groups = self._groups.get(id(expr))
        if groups is None:
            ids = group_ids(self.context, expr, self.context.unnamed(selection.ids))
            groups = self._groups[id(expr)] = len(np.unique(ids))
        return _Need(groups, groups * count * (STATE_BYTES + 2 * POINT_BYTES))

    def _streamed(self, expr: Expr) -> Selection | None:
        """Return the selection at the bottom of a row-wise chain."""
        match expr:
            case VectorSelector():
                return self.selections[id(expr)]
            case MatrixSelector():
                return self.selections[id(expr.selector)]
            case ParenExpr() | UnaryExpr():
                return self._streamed(expr.expr)
            case BinaryExpr():
                sides = [s for s in (expr.lhs, expr.rhs) if value_type(s) is ValueType.VECTOR]
                return self._streamed(sides[0]) if len(sides) == 1 else None
            case Call() if expr.function.name in {*RANGE_FUNCTIONS, *ROW_FUNCTIONS, "timestamp"}:
                vectors = [a for a in expr.args if value_type(a) is not ValueType.SCALAR]
                return self._streamed(vectors[0]) if len(vectors) == 1 else None
        return None

    def _call(self, expr: Call, count: int, steps: Steps) -> _Need:
        rows, peak = 1, 0
        for arg in expr.args:
            need = self._argument(arg, count, steps)
            rows, peak = max(rows, need.rows), max(peak, need.peak)
        return _Need(rows, peak + rows * count * POINT_BYTES)

    def _argument(self, expr: Expr, count: int, steps: Steps) -> _Need:
        while isinstance(expr, ParenExpr | StepInvariant):
            expr = expr.expr
        if isinstance(expr, MatrixSelector):
            return _Need(len(self.selections[id(expr.selector)].ids), 0)
        if not isinstance(expr, SubqueryExpr):
            return self._need(expr, count, steps)
        step = expr.step_ms or self.context.options.default_step_ms
        span = expr.range_ms + (0 if expr.timestamp_ms is not None else (count - 1) * steps.step)
        inner_count = span // step + 1
        inner = self._need(expr.expr, inner_count, Steps(steps.start, step, inner_count))
        return _Need(inner.rows, inner.peak + inner.rows * inner_count * _SAMPLE_BYTES)
