"""What all operators of one query share: labels, annotations, limits, cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.model.label_runs import Float64Array, Int64Array
from thanostack.lib.promql.ast import AggregateExpr
from thanostack.lib.promql.engine.annotations import Annotations
from thanostack.lib.promql.engine.labels import METADATA_LABELS, LabelTable
from thanostack.lib.promql.engine.matrix import SAME_LABELSET, StepMatrix, merge_rows
from thanostack.lib.promql.engine.options import Deadline, EngineOptions
from thanostack.lib.promql.engine.plan import QueryWindow
from thanostack.lib.promql.engine.result import QueryStats


@dataclass(slots=True)
class ParameterRange:
    """The extremes of an aggregation's parameter over all slices."""

    node: AggregateExpr
    low: float = math.inf
    high: float = -math.inf
    nan: bool = False


@dataclass(slots=True)
class QueryContext:
    """The shared state of one query; never of two.

    Args:
        options: of the engine.
        window: the steps of the query.
        deadline: checked between batches.
        points: values held now, as `samples_max` counts them.
        is_range: whether what is evaluated now has more than one step: not so of what is the same
            at every step of a range query, but of a subquery in an instant one.
    """

    options: EngineOptions
    window: QueryWindow
    deadline: Deadline
    table: LabelTable = field(default_factory=LabelTable)
    annotations: Annotations = field(default_factory=Annotations)
    stats: QueryStats = field(default_factory=QueryStats)
    points: int = 0
    is_range: bool = field(init=False)
    _met: dict[int, dict[int, int]] = field(default_factory=dict)
    _parameters: dict[int, ParameterRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.is_range = self.window.start != self.window.end

    @contextmanager
    def steps_of_its_own(self, *, is_range: bool) -> Iterator[None]:
        """Evaluate a part of the query over other steps than those around it."""
        around, self.is_range = self.is_range, is_range
        try:
            yield
        finally:
            self.is_range = around

    def hold(self, points: int) -> None:
        """Count values that now exist.

        Raises:
            ExecutionFailed: when there are more than the engine allows.
        """
        self.points += points
        self.stats.points_peak = max(self.stats.points_peak, self.points)
        limit = self.options.samples_max
        if limit is not None and self.points > limit:
            raise ExecutionFailed(
                "query processing would load too many samples into memory in query execution"
            )

    def unnamed(self, ids: Int64Array) -> Int64Array:
        """Return label sets as they are after the metric's meaning changed."""
        if self.options.delayed_name_removal:
            return ids
        return self.table.without(ids, METADATA_LABELS)

    def drop_names(self, matrix: StepMatrix) -> StepMatrix:
        """Drop metadata labels now or mark them, in place."""
        matrix.ids = self.unnamed(matrix.ids)
        if self.options.delayed_name_removal:
            matrix.drop[:] = True
        return matrix

    def renamed(self, matrix: StepMatrix) -> StepMatrix:
        """Drop metadata labels and merge what became one series.

        Raises:
            ExecutionFailed: when two series of one label set have a value at the same step.
        """
        return merge_rows(self.drop_names(matrix))

    def refuse_collisions(self, node: int, before: Int64Array, after: Int64Array) -> None:
        """Note that rows `before` became `after` at a node, in any slice.

        Raises:
            ExecutionFailed: when two different series became one, even in different slices.
        """
        met = self._met.setdefault(node, {})
        for old, new in zip(before.tolist(), after.tolist(), strict=True):
            if met.setdefault(new, old) != old:
                raise ExecutionFailed(SAME_LABELSET)

    def note_parameters(self, node: AggregateExpr, values: Float64Array) -> None:
        """Remember an aggregation's parameter, to be judged over all steps at once."""
        known = self._parameters.setdefault(id(node), ParameterRange(node))
        known.low = min(known.low, float(np.nanmin(np.append(values, math.inf))))
        known.high = max(known.high, float(np.nanmax(np.append(values, -math.inf))))
        known.nan = known.nan or bool(np.isnan(values).any())

    def parameter_ranges(self) -> list[ParameterRange]:
        """Return what `note_parameters` collected."""
        return list(self._parameters.values())

    def finish_names(self, matrix: StepMatrix) -> StepMatrix:
        """Drop the metadata labels whose removal was delayed.

        Raises:
            ExecutionFailed: when two series of one label set have a value at the same step.
        """
        if not matrix.drop.any():
            return merge_rows(matrix) if self.options.delayed_name_removal else matrix
        rows = np.flatnonzero(matrix.drop)
        matrix.ids[rows] = self.table.without(matrix.ids[rows], METADATA_LABELS)
        return merge_rows(matrix)
