"""Values at steps: the grid, and the matrix of rows by steps that operators exchange.

            t0   t1   t2                      present
    row 0    1    1    -      ids[0]           1 1 0
    row 1    -    2    3      ids[1]           0 1 1

Histograms will be one more sparse column, rows and steps with an index each; until then every
value is a float.

Invariants: at one step no two present values have the same label set; an absent value is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.model.label_runs import BoolArray, Float64Array, Int64Array
from thanostack.lib.promql.engine.labels import group_numbers

SAME_LABELSET = "vector cannot contain metrics with the same labelset"
POINT_BYTES = 9
"""A value and whether it is there."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Evaluation times `start, start + step, …`, ms; `count` of them."""

    start: int
    step: int
    count: int

    @staticmethod
    def between(start: int, end: int, step: int) -> Steps:
        """Return the steps from start to at most end; none if end lies before."""
        return Steps(start, step, max(0, (end - start) // step + 1))

    @property
    def last(self) -> int:
        """Return the last evaluation time."""
        return self.start + (self.count - 1) * self.step

    @property
    def is_instant(self) -> bool:
        """Return whether there is one step only."""
        return self.count == 1

    def part(self, first: int, stop: int) -> Steps:
        """Return the steps [first, stop)."""
        return Steps(self.start + first * self.step, self.step, stop - first)

    def times(self) -> Int64Array:
        """Return all evaluation times."""
        return self.start + self.step * np.arange(self.count, dtype=np.int64)


@dataclass(slots=True)
class StepMatrix:
    """An instant vector at every step.

    Args:
        ids: int64[S]; label set of each row.
        values: float64[S, T].
        present: bool[S, T].
        drop: bool[S]; rows whose metadata labels go at the end of the query; all False unless
            name removal is delayed.
    """

    ids: Int64Array
    values: Float64Array
    present: BoolArray
    drop: BoolArray

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def empty(steps: int) -> StepMatrix:
        """Return a matrix without rows."""
        return StepMatrix.of(np.empty(0, np.int64), steps)

    @staticmethod
    def of(ids: Int64Array, steps: int) -> StepMatrix:
        """Return a matrix with rows that are absent everywhere."""
        shape = (len(ids), steps)
        return StepMatrix(
            ids, np.full(shape, np.nan), np.zeros(shape, np.bool_), np.zeros(len(ids), np.bool_)
        )

    @property
    def points(self) -> int:
        """Return how many values are present."""
        return int(np.count_nonzero(self.present))

    def rows(self, rows: Int64Array | BoolArray) -> StepMatrix:
        """Return some rows, by position or mask, as copies."""
        return StepMatrix(
            self.ids[rows], self.values[rows], self.present[rows], self.drop[rows]
        )  # fmt: skip

    def masked(self, keep: BoolArray) -> StepMatrix:
        """Return the values where `keep` holds, without rows that are left empty."""
        self.present &= keep
        self.values[~self.present] = np.nan
        return self.compact()

    def compact(self) -> StepMatrix:
        """Return the matrix without rows that have no value."""
        seen = np.flatnonzero(self.present.any(axis=1))
        return self if len(seen) == len(self) else self.rows(seen)

    def widened(self, steps: int) -> StepMatrix:
        """Return a matrix of one step repeated at every step."""
        return StepMatrix(
            self.ids.copy(),
            np.repeat(self.values, steps, axis=1),
            np.repeat(self.present, steps, axis=1),
            self.drop.copy(),
        )


def stacked(first: StepMatrix, second: StepMatrix) -> StepMatrix:
    """Return the rows of both, the first's before the second's."""
    return StepMatrix(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.values, second.values]),
        np.concatenate([first.present, second.present]),
        np.concatenate([first.drop, second.drop]),
    )


def merge_rows(matrix: StepMatrix) -> StepMatrix:
    """Return one row a label set, in order of first appearance.

    Raises:
        ExecutionFailed: when two rows of one label set are present at the same step.
    """
    numbers, ids = group_numbers(matrix.ids)
    if len(ids) == len(matrix.ids):
        return matrix
    firsts = np.full(len(ids), -1, np.int64)
    extra = []
    for row, number in enumerate(numbers.tolist()):
        if firsts[number] < 0:
            firsts[number] = row
        else:
            extra.append(row)
    merged = matrix.rows(firsts)
    for row in extra:
        target, there = numbers[row], matrix.present[row]
        if (merged.present[target] & there).any():
            raise ExecutionFailed(SAME_LABELSET)
        merged.values[target, there] = matrix.values[row, there]
        merged.present[target] |= there
    return merged
