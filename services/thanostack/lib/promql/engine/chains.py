"""Row-wise chains: what happens to one series without looking at another.

    selector or subquery -> window function -> arithmetic with scalars, functions of one value

A chain is read in batches of rows. An aggregation that needs each value once takes the batches as
they come, and the whole matrix never exists; every other consumer collects them.

Invariant: a batch is [rows, steps] in the order of the series; reading it twice gives equal bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from thanostack.lib.kernels import promql_extended, promql_rows, promql_windows
from thanostack.lib.model.label_runs import BoolArray, Float64Array, Int64Array
from thanostack.lib.model.series import SampleBatch
from thanostack.lib.promql.engine.selectors import BATCH_ROWS, Selection, without_stale

Rows = tuple[Float64Array, BoolArray]
"""Values and presence of a batch: float64[rows, steps], bool[rows, steps]."""


@dataclass(frozen=True, slots=True)
class DataTimes:
    """The data time of each step and the evaluation time that belongs to it, ms.

    `step` is 0 where `@` fixes the time; `count` is the number of steps.
    """

    first: int
    step: int
    count: int
    evaluation_first: int
    evaluation_step: int

    @property
    def last(self) -> int:
        """Return the last data time."""
        return self.first + (self.count - 1) * self.step

    def spec(self, range_ms: int, op: int) -> Int64Array:
        """Return what the window kernels call `spec`."""
        return np.array(
            [self.first, self.step, range_ms, self.evaluation_first, self.evaluation_step, op],
            np.int64,
        )


class SampleRows(Protocol):
    """Decoded samples by rows: a selection, or what a subquery made."""

    def batch(self, first: int, stop: int, mint: int, maxt: int) -> SampleBatch:
        """Return rows [first, stop), at least the samples in [mint, maxt]."""
        ...


@dataclass(frozen=True, slots=True)
class SubqueryRows:
    """The samples of a subquery, all in memory."""

    samples: SampleBatch

    def batch(self, first: int, stop: int, mint: int, maxt: int) -> SampleBatch:  # noqa: ARG002
        """Return rows [first, stop)."""
        offsets = self.samples.offsets[first : stop + 1]
        low, high = offsets[0], offsets[-1]
        return SampleBatch(
            offsets - low, self.samples.timestamps[low:high], self.samples.values[low:high]
        )


class RowReader(Protocol):
    """The bottom of a chain."""

    def read(self, first: int, stop: int) -> Rows:
        """Return fresh arrays for rows [first, stop)."""
        ...


def _blank(rows: int, steps: int) -> Rows:
    return np.empty((rows, steps)), np.empty((rows, steps), np.bool_)


@dataclass(frozen=True, slots=True)
class InstantRows:
    """The newest sample at each step, or its time in seconds."""

    selection: Selection
    times: DataTimes
    lookback_ms: int
    want_time: bool = False

    def read(self, first: int, stop: int) -> Rows:
        """Return fresh arrays for rows [first, stop)."""
        mint, maxt = self.times.first - self.lookback_ms + 1, self.times.last
        batch = self.selection.batch(first, stop, mint, maxt)
        out, present = _blank(stop - first, self.times.count)
        promql_windows.instant_rows(
            batch.offsets, batch.timestamps, batch.values, self.times.spec(0, 0),
            self.lookback_ms, self.want_time, out, present,
        )  # fmt: skip
        return out, present


@dataclass(frozen=True, slots=True)
class WindowRows:
    """A function of a range window at each step."""

    samples: SampleRows
    times: DataTimes
    range_ms: int
    op: int
    params: Float64Array

    def read(self, first: int, stop: int) -> Rows:
        """Return fresh arrays for rows [first, stop)."""
        mint, maxt = self.times.first - self.range_ms + 1, self.times.last
        batch = without_stale(self.samples.batch(first, stop, mint, maxt))
        out, present = _blank(stop - first, self.times.count)
        scratch = np.empty(longest_series(batch))
        promql_windows.window_rows(
            batch.offsets, batch.timestamps, batch.values,
            self.times.spec(self.range_ms, self.op), self.params, scratch, out, present,
        )  # fmt: skip
        return out, present


@dataclass(frozen=True, slots=True)
class RateRows:
    """rate, increase or delta of a range window at each step; a divisor of 0 divides nothing."""

    samples: SampleRows
    times: DataTimes
    range_ms: int
    divisor_s: float
    is_counter: bool

    def read(self, first: int, stop: int) -> Rows:
        """Return fresh arrays for rows [first, stop)."""
        mint, maxt = self.times.first - self.range_ms + 1, self.times.last
        batch = without_stale(self.samples.batch(first, stop, mint, maxt))
        out, present = _blank(stop - first, self.times.count)
        resets = np.empty(longest_series(batch), np.int64)
        promql_windows.rate_rows(
            batch.offsets, batch.timestamps, batch.values, self.times.spec(self.range_ms, 0),
            np.array([self.divisor_s]), self.is_counter, resets, out, present,
        )  # fmt: skip
        return out, present


@dataclass(frozen=True, slots=True)
class ExtendedRows:
    """A function of an anchored or smoothed selector at each step.

    `lookback_ms` is how far samples are looked for outside of the range; `op` is of
    `kernels/promql_extended.py`.
    """

    samples: SampleRows
    times: DataTimes
    range_ms: int
    lookback_ms: int
    op: int
    divisor_s: float
    smoothed: bool

    def read(self, first: int, stop: int) -> Rows:
        """Return fresh arrays for rows [first, stop)."""
        after = self.lookback_ms if self.smoothed else 0
        mint = self.times.first - self.range_ms - self.lookback_ms + 1
        batch = without_stale(self.samples.batch(first, stop, mint, self.times.last + after))
        out, present = _blank(stop - first, self.times.count)
        times = (self.times.first, self.times.step, self.range_ms)
        spec = np.array([*times, self.lookback_ms, after, self.op], np.int64)
        promql_extended.extended_rows(
            batch.offsets, batch.timestamps, batch.values, spec,
            np.array([self.divisor_s]), self.smoothed, out, present,
        )  # fmt: skip
        return out, present


def longest_series(batch: SampleBatch) -> int:
    """Return the samples of the longest series, at least 1."""
    return int(max(1, np.diff(batch.offsets).max(initial=0)))


@dataclass(frozen=True, slots=True)
class RowOperation:
    """One operation of `kernels/promql_rows.py` on every value, with scalars by step."""

    op: int
    params: Float64Array

    def apply(self, values: Float64Array, present: BoolArray) -> None:
        """Change a batch in place."""
        promql_rows.transform_rows(values, present, self.op, self.params)


RowObserver = Callable[[int, BoolArray], None]
"""Told the first row and the presence of each batch, before later operations."""


@dataclass(slots=True)
class RowChain:
    """A reader with operations on top.

    Args:
        reader: makes the rows.
        ids: int64[S]; the label set that each row has in the end.
        drop: whether metadata labels go at the end of the query.
        steps: the number of steps.
        collision: what to do where two rows have one label set: "" means that none have;
            "refuse" if both have a value anywhere, "merge" unless they have one at the same step.
        origin: int64[S]; with "refuse", the label sets before the names went.
    """

    reader: RowReader
    ids: Int64Array
    drop: bool
    steps: int
    collision: str = ""
    origin: Int64Array | None = None
    operations: list[RowOperation | RowObserver] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, first: int, stop: int) -> Rows:
        """Return rows [first, stop) with everything done to them."""
        values, present = self.reader.read(first, stop)
        for operation in self.operations:
            if isinstance(operation, RowOperation):
                operation.apply(values, present)
            else:
                operation(first, present)
        return values, present

    def batches(self) -> range:
        """Return the first rows of all batches."""
        return range(0, len(self.ids), BATCH_ROWS)
