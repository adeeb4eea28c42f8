"""What a query answers: columns rather than objects, so that an encoder can stream them.

    ScalarResult   StringResult   one value
    VectorResult   S series with one sample each
    MatrixResult   S series in CSR form

Order is part of the answer: a matrix ascends by labels; a vector is in the order that the
expression gave it (`sort`, `topk`).
"""

from __future__ import annotations

from dataclasses import dataclass

from thanostack.lib.model.label_runs import Float64Array, Int64Array, LabelRuns


@dataclass(frozen=True, slots=True)
class ScalarResult:
    """A number at a time, ms."""

    time: int
    value: float


@dataclass(frozen=True, slots=True)
class StringResult:
    """A text at a time, ms."""

    time: int
    value: str


@dataclass(frozen=True, slots=True)
class VectorResult:
    """Series with one sample each.

    Args:
        labels: S label sets, unique.
        timestamps: int64[S], ms; all the evaluation time.
        values: float64[S].
    """

    labels: LabelRuns
    timestamps: Int64Array
    values: Float64Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """Series with samples.

    Args:
        labels: S label sets, unique, ascending.
        offsets: int64[S + 1]; rising, from 0; no series is empty.
        timestamps: int64[N], ms; rising within a series.
        values: float64[N].
    """

    labels: LabelRuns
    offsets: Int64Array
    timestamps: Int64Array
    values: Float64Array

    def __len__(self) -> int:
        return len(self.labels)

    def series(self, i: int) -> tuple[Int64Array, Float64Array]:
        """Return timestamps and values of series i, as views."""
        start, stop = self.offsets[i], self.offsets[i + 1]
        return self.timestamps[start:stop], self.values[start:stop]


Value = ScalarResult | StringResult | VectorResult | MatrixResult


@dataclass(slots=True)
class QueryStats:
    """What a query cost.

    Args:
        samples_read: decoded samples, each as often as it was decoded.
        points_peak: most points held at once, as `samples_max` counts them.
        slices: into how many pieces the steps were cut.
    """

    samples_read: int = 0
    points_peak: int = 0
    slices: int = 1


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A value with what there is to say about it.

    Args:
        value: the answer.
        warnings: texts, of PromQL and of sources with missing data; sorted.
        infos: texts; sorted.
        stats: the cost.
    """

    value: Value
    warnings: tuple[str, ...]
    infos: tuple[str, ...]
    stats: QueryStats
