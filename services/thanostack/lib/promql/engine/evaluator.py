"""What the parts of an evaluation need of the whole, so that none imports the other."""

from __future__ import annotations

from typing import Protocol

from thanostack.lib.model.label_runs import Float64Array
from thanostack.lib.promql.ast import Expr, MatrixSelector, ParenExpr, SubqueryExpr, VectorSelector
from thanostack.lib.promql.engine.chains import DataTimes, RowChain
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.matrix import StepMatrix, Steps
from thanostack.lib.promql.engine.plan import StepInvariant
from thanostack.lib.promql.engine.selectors import Selection


class Evaluator(Protocol):
    """An evaluation under way."""

    context: QueryContext
    selections: dict[int, Selection]

    def scalar(self, expr: Expr, steps: Steps) -> Float64Array:
        """Return the value of a scalar expression at every step."""
        ...

    def vector(self, expr: Expr, steps: Steps) -> StepMatrix:
        """Return the value of a vector expression at every step."""
        ...

    def collect(self, expr: Expr, chain: RowChain) -> StepMatrix:
        """Return the whole matrix of the chain that an expression is."""
        ...

    def constant(self, values: Float64Array) -> StepMatrix:
        """Return one series without labels."""
        ...


def data_times(
    expr: VectorSelector | SubqueryExpr, steps: Steps, *, ignore_modifiers: bool = False
) -> DataTimes:
    """Return the data time of every step, after `@` and offset."""
    if ignore_modifiers:
        return DataTimes(steps.start, steps.step, steps.count, steps.start, steps.step)
    at = expr.timestamp_ms
    first, step = (steps.start, steps.step) if at is None else (at, 0)
    return DataTimes(first - expr.offset_ms, step, steps.count, steps.start, steps.step)


def bare_argument(expr: Expr) -> Expr:
    """Return a range argument without parentheses and step-invariance."""
    while isinstance(expr, ParenExpr | StepInvariant):
        expr = expr.expr
    return expr


def selector_of(expr: Expr) -> VectorSelector | None:
    """Return the selector that an argument is, or is a range of; None for anything else."""
    selector = expr.selector if isinstance(expr, MatrixSelector) else expr
    return selector if isinstance(selector, VectorSelector) else None
