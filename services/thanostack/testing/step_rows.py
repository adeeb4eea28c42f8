"""Between kernels and references: matrices as lists with None for an absent value, floats as bits.

Two NaNs that arithmetic made are equal here, whatever their sign; every other float is compared by
its bits, zeros by their sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thanostack.lib.model.label_runs import BoolArray, Float64Array
from thanostack.lib.model.series import SampleBatch

Rows = Sequence[Sequence[float | None]]


def bits(value: float | None) -> int | str | None:
    """Return what two floats must have in common to be equal."""
    if value is None:
        return None
    return "NaN" if value != value else int(np.float64(value).view(np.uint64))


def bit_rows(rows: Rows) -> list[list[int | str | None]]:
    """Return `bits` of every value."""
    return [[bits(value) for value in row] for row in rows]


def matrix_of(rows: Rows, steps: int) -> tuple[Float64Array, BoolArray]:
    """Return values and presence of rows."""
    values = np.full((len(rows), steps), np.nan)
    present = np.zeros((len(rows), steps), np.bool_)
    for i, row in enumerate(rows):
        for k, value in enumerate(row):
            if value is not None:
                values[i, k], present[i, k] = value, True
    return values, present


def rows_of(values: Float64Array, present: BoolArray) -> list[list[float | None]]:
    """Return a matrix as rows."""
    return [
        [value if there else None for value, there in zip(*pair, strict=True)]
        for pair in zip(values.tolist(), present.tolist(), strict=True)
    ]


def batch_of(series: Sequence[Sequence[tuple[int, float]]]) -> SampleBatch:
    """Return series of (time, value) pairs as a batch."""
    flat = [sample for one in series for sample in one]
    offsets = np.cumsum([0, *(len(one) for one in series)], dtype=np.int64)
    return SampleBatch(
        offsets,
        np.array([t for t, _ in flat], np.int64),
        np.array([v for _, v in flat], np.float64),
    )
