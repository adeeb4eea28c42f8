"""The evaluation of a prepared tree over steps.

    vector(node, steps) -> StepMatrix      scalar(node, steps) -> float64[steps]

What concerns one series at a time becomes a `RowChain`; aggregations that stream read it in
batches, everything else collects it. A subquery evaluates its inner expression on a grid of its
own and turns the result into samples. Step-invariant parts are evaluated once a query.

Every function that PromQL has is either here or refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.kernels import promql_extended, promql_rows
from thanostack.lib.model.label_runs import Float64Array
from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    NumberLiteral,
    ParenExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from thanostack.lib.promql.engine.aggregation import STREAMING, aggregate, aggregate_chain
from thanostack.lib.promql.engine.annotations import incompatible_types
from thanostack.lib.promql.engine.binary import combine_vectors
from thanostack.lib.promql.engine.chains import (
    ExtendedRows,
    InstantRows,
    RowChain,
    RowOperation,
    RowReader,
)
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.evaluator import data_times
from thanostack.lib.promql.engine.matrix import StepMatrix, Steps, merge_rows
from thanostack.lib.promql.engine.plan import StepInvariant, value_type
from thanostack.lib.promql.engine.range_calls import range_chain
from thanostack.lib.promql.engine.range_functions import RANGE_FUNCTIONS
from thanostack.lib.promql.engine.row_functions import (
    DATE_FUNCTIONS,
    OPERATORS,
    ROW_FUNCTIONS,
    SCHEMA_CHANGING,
    TRIM_OPERATORS,
)
from thanostack.lib.promql.engine.selectors import BATCH_ROWS, Selection
from thanostack.lib.promql.engine.vector_calls import VECTOR_CALLS

_NO_PARAMS = np.zeros((2, 0))


@dataclass(slots=True)
class Evaluation:
    """The evaluation of one query.

    Args:
        context: of the query.
        selections: what each selector found, by the identity of its node.
    """

    context: QueryContext
    selections: dict[int, Selection]
    _invariants: dict[int, StepMatrix] = field(default_factory=dict)
    _invariant_scalars: dict[int, float] = field(default_factory=dict)

    # Scalars

    def scalar(self, expr: Expr, steps: Steps) -> Float64Array:
        """Return the value of a scalar expression at every step."""
        match expr:
            case NumberLiteral():
                return np.full(steps.count, expr.value)
            case ParenExpr():
                return self.scalar(expr.expr, steps)
            case StepInvariant():
                known = self._invariant_scalars.get(id(expr))
                if known is None:
                    with self.context.steps_of_its_own(is_range=False):
                        known = float(self.scalar(expr.expr, self._one_step())[0])
                    self._invariant_scalars[id(expr)] = known
                return np.full(steps.count, known)
            case UnaryExpr():
                value = self.scalar(expr.expr, steps)
                return -value if expr.op == "-" else value
            case BinaryExpr():
                left, right = self.scalar(expr.lhs, steps), self.scalar(expr.rhs, steps)
                out = np.empty((1, steps.count))
                promql_rows.combine_scalars(left, right, OPERATORS[expr.op], out)
                return out.ravel()
            case Call():
                return self._scalar_call(expr, steps)
        raise ExecutionFailed(f"unhandled scalar expression {type(expr).__name__}")

    def _scalar_call(self, expr: Call, steps: Steps) -> Float64Array:
        name = expr.function.name
        if name == "time":
            return steps.times() / 1000.0
        if name == "pi":
            return np.full(steps.count, np.pi)
        if name == "scalar":
            matrix = self.vector(expr.args[0], steps)
            single = np.count_nonzero(matrix.present, axis=0) == 1
            if not len(matrix):
                return np.full(steps.count, np.nan)
            which = matrix.values[matrix.present.argmax(axis=0), np.arange(steps.count)]
            return np.where(single, which, np.nan)
        if name in {"min_of", "max_of"}:
            both = np.stack([self.scalar(arg, steps) for arg in expr.args])
            low, high = (both[1], both[0]) if name == "max_of" else (both[0], both[1])
            values: Float64Array = low[np.newaxis, :].copy()
            present = np.ones((1, steps.count), np.bool_)
            limits = np.stack([high, np.full(steps.count, np.inf)])
            if name == "min_of":
                limits = np.stack([np.full(steps.count, -np.inf), high])
            promql_rows.transform_rows(values, present, promql_rows.CLAMP, limits)
            return values.reshape(steps.count)
        raise ExecutionFailed(f"function {name}() is not implemented")

    def _one_step(self) -> Steps:
        return Steps(self.context.window.start, max(1, self.context.window.step), 1)

    # Vectors

    def vector(self, expr: Expr, steps: Steps) -> StepMatrix:
        """Return the value of a vector expression at every step."""
        self.context.deadline.check()
        if steps.count <= 0:
            return StepMatrix.empty(0)
        chain = self.chain(expr, steps)
        before = self.context.points
        matrix = self._dispatch(expr, steps) if chain is None else self.collect(expr, chain)
        self.context.points = before
        self.context.hold(matrix.points)
        return matrix

    def _dispatch(self, expr: Expr, steps: Steps) -> StepMatrix:
        match expr:
            case StepInvariant():
                return self._invariant(expr, steps)
            case ParenExpr():
                return self.vector(expr.expr, steps)
            case UnaryExpr():
                return self._negated(self.vector(expr.expr, steps), expr.op)
            case BinaryExpr():
                return self._binary(expr, steps)
            case AggregateExpr():
                return self._aggregate(expr, steps)
            case Call():
                return self._call(expr, steps)
        raise ExecutionFailed(f"unhandled expression {type(expr).__name__}")

    def collect(self, expr: Expr, chain: RowChain) -> StepMatrix:
        """Return the whole matrix of a chain."""
        matrix = StepMatrix.of(chain.ids, chain.steps)
        matrix.drop[:] = chain.drop
        for first in chain.batches():
            self.context.deadline.check()
            part = slice(first, min(first + BATCH_ROWS, len(chain)))
            matrix.values[part], matrix.present[part] = chain.read(part.start, part.stop)
            self.context.hold(int(np.count_nonzero(matrix.present[part])))
        if chain.collision == "refuse" and chain.origin is not None:
            rows = np.flatnonzero(matrix.present.any(axis=1))
            self.context.refuse_collisions(id(expr), chain.origin[rows], matrix.ids[rows])
        matrix = matrix.compact()
        return merge_rows(matrix) if chain.collision == "merge" else matrix

    def _invariant(self, expr: StepInvariant, steps: Steps) -> StepMatrix:
        known = self._invariants.get(id(expr))
        if known is None:
            with self.context.steps_of_its_own(is_range=False):
                known = self.vector(expr.expr, self._one_step())
            self._invariants[id(expr)] = known
        return known.widened(steps.count)

    def _negated(self, matrix: StepMatrix, op: str) -> StepMatrix:
        if op != "-":
            return matrix
        np.negative(matrix.values, out=matrix.values)
        return self.context.renamed(matrix)

    # Chains

    def chain(self, expr: Expr, steps: Steps) -> RowChain | None:
        """Return an expression as a row-wise chain, None where it is not one."""
        match expr:
            case ParenExpr():
                return self.chain(expr.expr, steps)
            case VectorSelector():
                return self._selector_chain(expr, steps)
            case UnaryExpr() if expr.op == "-":
                return self._extended(self.chain(expr.expr, steps), promql_rows.NEGATE, _NO_PARAMS)
            case UnaryExpr():
                return self.chain(expr.expr, steps)
            case BinaryExpr():
                return self._operator_chain(expr, steps)
            case Call():
                return self._call_chain(expr, steps)
        return None

    def _selector_chain(
        self, expr: VectorSelector, steps: Steps, *, want_time: bool = False
    ) -> RowChain:
        selection = self.selections[id(expr)]
        lookback = self.context.window.lookback
        times = data_times(expr, steps)
        reader: RowReader = InstantRows(selection, times, lookback, want_time)
        if expr.smoothed and not want_time:
            op = promql_extended.INSTANT
            reader = ExtendedRows(selection, times, 0, lookback, op, 0.0, smoothed=True)
        return RowChain(reader, selection.ids, drop=False, steps=steps.count)

    def _extended(
        self, chain: RowChain | None, op: int, params: Float64Array, *, keeps_name: bool = False
    ) -> RowChain | None:
        """Return a chain with one more operation on top; None if it cannot have one."""
        if chain is None or chain.collision:
            return None
        if params.shape[1] == 0:
            params = np.zeros((2, chain.steps))
        operations = [*chain.operations, RowOperation(op, params)]
        if keeps_name:
            return replace(chain, operations=operations)
        ids = self.context.unnamed(chain.ids)
        drop = chain.drop or self.context.options.delayed_name_removal
        collision = "merge" if len(np.unique(ids)) < len(ids) else ""
        return replace(chain, ids=ids, drop=drop, operations=operations, collision=collision)

    def _operator_chain(self, expr: BinaryExpr, steps: Steps) -> RowChain | None:
        left, right = value_type(expr.lhs), value_type(expr.rhs)
        if {left, right} != {ValueType.SCALAR, ValueType.VECTOR} or expr.op in TRIM_OPERATORS:
            return None
        swapped = left is ValueType.SCALAR
        inner, number = (expr.rhs, expr.lhs) if swapped else (expr.lhs, expr.rhs)
        chain = self.chain(inner, steps)
        if chain is None or chain.collision:
            return None
        op, params = self._operator(expr, number, steps, swapped=swapped)
        keeps_name = expr.op not in SCHEMA_CHANGING and not expr.return_bool
        return self._extended(chain, op, params, keeps_name=keeps_name)

    def _operator(
        self, expr: BinaryExpr, number: Expr, steps: Steps, *, swapped: bool
    ) -> tuple[int, Float64Array]:
        op = OPERATORS[expr.op] + (promql_rows.SWAPPED if swapped else 0)
        op += promql_rows.AS_BOOL if expr.return_bool else 0
        value = self.scalar(number, steps)
        return op, np.stack([value, value])

    def _call_chain(self, expr: Call, steps: Steps) -> RowChain | None:
        name = expr.function.name
        if name in RANGE_FUNCTIONS and name != "absent_over_time":
            return range_chain(self, expr, steps)
        if name == "timestamp" and isinstance(expr.args[0], VectorSelector):
            chain = self._selector_chain(expr.args[0], steps, want_time=True)
            # Multiplied by one: the time is in seconds already, only the name goes.
            return self._extended(chain, promql_rows.MUL, np.ones((2, steps.count)))
        if name in ROW_FUNCTIONS and expr.args:
            inner = self.chain(expr.args[0], steps)
            if inner is None or inner.collision:
                return None
            params = self._row_params(name, expr.args[1:], steps)
            return self._extended(inner, ROW_FUNCTIONS[name], params)
        return None

    def _row_params(self, name: str, args: tuple[Expr, ...], steps: Steps) -> Float64Array:
        numbers = [self.scalar(arg, steps) for arg in args]
        infinite = np.full(steps.count, np.inf)
        match name:
            case "round":
                return np.stack([*numbers, np.ones(steps.count)][:1] * 2)
            case "clamp_min":
                return np.stack([numbers[0], infinite])
            case "clamp_max":
                return np.stack([-infinite, numbers[0]])
            case "clamp":
                return np.stack(numbers)
        return np.zeros((2, steps.count))

    # Operators and aggregations

    def _binary(self, expr: BinaryExpr, steps: Steps) -> StepMatrix:
        left, right = value_type(expr.lhs), value_type(expr.rhs)
        if ValueType.SCALAR not in {left, right}:
            first, second = self.vector(expr.lhs, steps), self.vector(expr.rhs, steps)
            return combine_vectors(self.context, expr, first, second)
        swapped = left is ValueType.SCALAR
        inner, number = (expr.rhs, expr.lhs) if swapped else (expr.lhs, expr.rhs)
        matrix = self.vector(inner, steps)
        if expr.op in TRIM_OPERATORS:
            if len(matrix):
                text = incompatible_types("float", expr.op, "float")
                self.context.annotations.add(text, expr.position)
            return StepMatrix.empty(steps.count)
        op, params = self._operator(expr, number, steps, swapped=swapped)
        promql_rows.transform_rows(matrix.values, matrix.present, op, params)
        matrix = matrix.compact()
        if expr.op in SCHEMA_CHANGING or expr.return_bool:
            return self.context.renamed(matrix)
        return matrix

    def _aggregate(self, expr: AggregateExpr, steps: Steps) -> StepMatrix:
        param = None
        if expr.param is not None and value_type(expr.param) is ValueType.SCALAR:
            param = self.scalar(expr.param, steps)
        if expr.op in STREAMING:
            chain = self.chain(expr.expr, steps)
            if chain is not None and not chain.collision:
                return aggregate_chain(self.context, expr, chain)
        return aggregate(self.context, expr, self.vector(expr.expr, steps), param)

    # Calls that are no chains

    def _call(self, expr: Call, steps: Steps) -> StepMatrix:
        name = expr.function.name
        if name in ROW_FUNCTIONS:
            return self._row_call(expr, steps)
        call = VECTOR_CALLS.get(name)
        if call is not None:
            return call(self, expr, steps)
        raise ExecutionFailed(f"function {name}() is not implemented")

    def constant(self, values: Float64Array) -> StepMatrix:
        """Return one series without labels."""
        matrix = StepMatrix.of(np.array([self.context.table.empty], np.int64), len(values))
        matrix.values[0], matrix.present[0] = values, True
        return matrix

    def _row_call(self, expr: Call, steps: Steps) -> StepMatrix:
        name = expr.function.name
        if not expr.args:
            assert name in DATE_FUNCTIONS
            # Upstream: the evaluation time is cut to whole seconds towards zero.
            matrix = self.constant(np.trunc(steps.times() / 1000.0))
        else:
            matrix = self.vector(expr.args[0], steps)
        params = self._row_params(name, expr.args[1:], steps)
        promql_rows.transform_rows(matrix.values, matrix.present, ROW_FUNCTIONS[name], params)
        return self.context.renamed(matrix.compact()) if expr.args else matrix
