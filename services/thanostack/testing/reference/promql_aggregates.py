"""Plain references of `lib/kernels/promql_aggregates.py`: one group and step at a time.

`accumulate_rows` and `finish_groups` are one function here: an aggregation of a list of values.
Source: Prometheus documentation, "Aggregation operators"; Go `container/heap` for equal values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thanostack.testing.reference.promql_windows import add, compensated_average, quantile, root


def aggregate_values(name: str, values: Sequence[float]) -> float | None:
    """Return an aggregation of values in the order of the rows; None of none."""
    if not values:
        return None
    match name:
        case "sum":
            total, c = values[0], 0.0
            for value in values[1:]:
                total, c = add(total, c, value)
            return total + c
        case "avg":
            return compensated_average(values)
        case "min" | "max":
            return _extreme(name, values)
        case "count":
            return float(len(values))
        case "group":
            return 1.0
        case "stdvar":
            return _variance(values)
    return root(_variance(values))


def _extreme(name: str, values: Sequence[float]) -> float:
    best = values[0]
    for value in values[1:]:
        if math.isnan(best) or (value < best if name == "min" else value > best):
            best = value
    return best


def _variance(values: Sequence[float]) -> float:
    mean = values[0]
    aux = 0.0 if math.isfinite(mean) else math.nan
    for n, value in enumerate(values[1:], 2):
        delta = value - mean
        mean += delta / n
        aux += delta * (value - mean)
    return aux / len(values)


def accumulate_rows(
    name: str, rows: Sequence[Sequence[float | None]], groups: Sequence[int], n: int
) -> list[list[float | None]]:
    """Return the aggregation of every group and step."""
    steps = range(len(rows[0]) if rows else 0)
    return [
        [
            aggregate_values(
                name,
                [
                    value
                    for row, g in zip(rows, groups, strict=True)
                    if g == group and (value := row[k]) is not None
                ],
            )
            for k in steps
        ]
        for group in range(n)
    ]


finish_groups = accumulate_rows


def quantile_groups(
    rows: Sequence[Sequence[float | None]], groups: Sequence[int], n: int, q: Sequence[float]
) -> list[list[float | None]]:
    """Return the quantile of every group and step."""
    out = []
    for group in range(n):
        result: list[float | None] = []
        for k, level in enumerate(q):
            column = [row[k] for row, g in zip(rows, groups, strict=True) if g == group]
            values = [value for value in column if value is not None]
            result.append(quantile(level, values) if values else None)
        out.append(result)
    return out


class _Heap:
    """Go's heap of (row, value), the worst on top."""

    def __init__(self, *, largest_on_top: bool) -> None:
        self.items: list[tuple[int, float]] = []
        self._largest = largest_on_top

    def less(self, i: int, j: int) -> bool:
        a, b = self.items[i][1], self.items[j][1]
        return math.isnan(a) or (a > b if self._largest else a < b)

    def push(self, item: tuple[int, float]) -> None:
        self.items.append(item)
        j = len(self.items) - 1
        while j and self.less(j, (j - 1) // 2):
            i = (j - 1) // 2
            self.items[i], self.items[j] = self.items[j], self.items[i]
            j = i

    def replace_top(self, item: tuple[int, float]) -> None:
        self.items[0] = item
        i = 0
        while (j := 2 * i + 1) < len(self.items):
            if j + 1 < len(self.items) and self.less(j + 1, j):
                j += 1
            if not self.less(j, i):
                return
            self.items[i], self.items[j] = self.items[j], self.items[i]
            i = j

    def best_first(self) -> list[int]:
        for i in range(1, len(self.items)):
            for j in range(i, 0, -1):
                if not self.less(j - 1, j):
                    break
                self.items[j - 1], self.items[j] = self.items[j], self.items[j - 1]
        return [row for row, _ in self.items]


def rank_rows(name: str, values: Sequence[tuple[int, float]], k: int) -> list[int]:
    """Return the rows that topk, bottomk or limitk keep of one group and step, in result order."""
    heap = _Heap(largest_on_top=name == "bottomk")
    for row, value in values:
        if k < 1:
            break
        if len(heap.items) < k:
            heap.push((row, value))
        elif name != "limitk":
            worst = heap.items[0][1]
            better = worst > value if name == "bottomk" else worst < value
            if better or (math.isnan(worst) and not math.isnan(value)):
                heap.replace_top((row, value))
    return [row for row, _ in heap.items] if name == "limitk" else heap.best_first()
