"""Aggregation over series: one row of groups by steps.

Rows arrive in label order, in batches; the state of a group and step is five numbers:

    0 value (sum, minimum, squared deviations…)   1 mean   2 compensation   3 count   4 incremental

so that the additions of one group and step happen one after another in that order, whatever the
batches. The average is a plain compensated sum until that would overflow, then an incremental
mean. Order statistics see all rows of a group at once; `rank_rows` reproduces Go's heap, since
which of several equal values stays is visible.

Source: Prometheus 3.14 `promql/engine.go` (`aggregation`, `aggregationK`); Go `container/heap`.
"""

import math

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BOOL_2D,
    BOOL_2D_OUT,
    F64,
    F64_2D,
    F64_2D_OUT,
    F64_OUT,
    I64,
    I64_OUT,
    array_in,
    array_out,
    f64,
    i64,
)
from thanostack.lib.kernels.promql_windows import kahan, sorted_quantile

# Operations; the numbers are known to `engine/aggregation.py` only.
SUM, AVG, MIN, MAX, COUNT, GROUP, STDDEV, STDVAR = 1, 2, 3, 4, 5, 6, 7, 8
TOPK, BOTTOMK, LIMITK = 9, 10, 11

VALUE, MEAN, COMPENSATION, N, INCREMENTAL = 0, 1, 2, 3, 4

_STATE = array_in(f64, 3)
_STATE_OUT = array_out(f64, 3)


@device
def _average_step(state, g, k, x):
    n = state[N, g, k]
    if state[INCREMENTAL, g, k] == 0:
        total, c = kahan(x, state[VALUE, g, k], state[COMPENSATION, g, k])
        if not math.isinf(total):
            state[VALUE, g, k] = total
            state[COMPENSATION, g, k] = c
            return
        state[INCREMENTAL, g, k] = 1
        state[MEAN, g, k] = state[VALUE, g, k] / (n - 1)
        state[COMPENSATION, g, k] /= n - 1
    q = (n - 1) / n
    mean, c = kahan(x / n, q * state[MEAN, g, k], q * state[COMPENSATION, g, k])
    state[MEAN, g, k] = mean
    state[COMPENSATION, g, k] = c


@device
def _start(state, g, k, x, op):
    state[N, g, k] = 1
    state[VALUE, g, k] = x
    state[MEAN, g, k] = x
    state[COMPENSATION, g, k] = 0
    state[INCREMENTAL, g, k] = 0
    if op == STDDEV or op == STDVAR:
        state[VALUE, g, k] = np.nan if math.isnan(x) or math.isinf(x) else 0.0


@device
def _deviation_step(state, g, k, x):
    delta = x - state[MEAN, g, k]
    state[MEAN, g, k] += delta / state[N, g, k]
    state[VALUE, g, k] += delta * (x - state[MEAN, g, k])


@kernel(i64(F64_2D, BOOL_2D, I64, i64, _STATE_OUT))
def accumulate_rows(values, present, groups, op, state):
    """Add rows to the groups they belong to; returns the number of values added.

    Args:
        groups: int64[rows]; of each row.
        state: float64[5, groups, steps]; zero before the first batch.
    """
    added = np.int64(0)
    for row in range(values.shape[0]):
        g = groups[row]
        for k in range(values.shape[1]):
            if not present[row, k]:
                continue
            added += 1
            x = values[row, k]
            if state[N, g, k] == 0:
                _start(state, g, k, x, op)
                continue
            state[N, g, k] += 1
            if op == SUM:
                total, c = kahan(x, state[VALUE, g, k], state[COMPENSATION, g, k])
                state[VALUE, g, k] = total
                state[COMPENSATION, g, k] = c
            elif op == AVG:
                _average_step(state, g, k, x)
            elif op == MIN:
                if state[VALUE, g, k] > x or math.isnan(state[VALUE, g, k]):
                    state[VALUE, g, k] = x
            elif op == MAX:
                if state[VALUE, g, k] < x or math.isnan(state[VALUE, g, k]):
                    state[VALUE, g, k] = x
            elif op == STDDEV or op == STDVAR:
                _deviation_step(state, g, k, x)
    return added


@device
def _result(state, g, k, op):
    n = state[N, g, k]
    if op == SUM:
        return state[VALUE, g, k] + state[COMPENSATION, g, k]
    if op == AVG:
        if state[INCREMENTAL, g, k] != 0:
            return state[MEAN, g, k] + state[COMPENSATION, g, k]
        return state[VALUE, g, k] / n + state[COMPENSATION, g, k] / n
    if op == COUNT:
        return n
    if op == GROUP:
        return 1.0
    if op == STDVAR:
        return state[VALUE, g, k] / n
    if op == STDDEV:
        return math.sqrt(state[VALUE, g, k] / n)
    return state[VALUE, g, k]


@kernel(i64(_STATE, i64, F64_2D_OUT, BOOL_2D_OUT))
def finish_groups(state, op, out, present):
    """Write the result of every group and step that saw a value; returns their number."""
    points = np.int64(0)
    for g in range(out.shape[0]):
        for k in range(out.shape[1]):
            seen = state[N, g, k] > 0
            present[g, k] = seen
            out[g, k] = _result(state, g, k, op) if seen else np.nan
            points += seen
    return points


@kernel(i64(F64_2D, BOOL_2D, I64, I64, F64, F64_OUT, F64_2D_OUT, BOOL_2D_OUT))
def quantile_groups(values, present, members, bounds, q, scratch, out, seen):
    """Write the q[k]-quantile of each group and step; returns the number of points.

    Args:
        members: int64[rows]; rows ordered by group; group g has members[bounds[g]:bounds[g + 1]].
        scratch: float64[largest group].
    """
    points = np.int64(0)
    for g in range(bounds.shape[0] - 1):
        for k in range(values.shape[1]):
            n = np.int64(0)
            for m in range(bounds[g], bounds[g + 1]):
                row = members[m]
                if present[row, k]:
                    scratch[n] = values[row, k]
                    n += 1
            seen[g, k] = n > 0
            out[g, k] = sorted_quantile(q[k], scratch, n) if n > 0 else np.nan
            points += n > 0
    return points


@device
def _before(a, b, op):
    """Return whether value a lies nearer to the top of the heap than b: the worst is on top."""
    if math.isnan(a):
        return True
    return a > b if op == BOTTOMK else a < b


@device
def _rise(values, k, heap, j, op):
    while j > 0:
        i = (j - 1) // 2
        if not _before(values[heap[j], k], values[heap[i], k], op):
            break
        heap[i], heap[j] = heap[j], heap[i]
        j = i


@device
def _sink(values, k, heap, n, op):
    i = np.int64(0)
    while True:
        j = 2 * i + 1
        if j >= n:
            break
        if j + 1 < n and _before(values[heap[j + 1], k], values[heap[j], k], op):
            j += 1
        if not _before(values[heap[j], k], values[heap[i], k], op):
            break
        heap[i], heap[j] = heap[j], heap[i]
        i = j


@device
def _insertion_sort(values, k, heap, n, op):
    """Sort heap[:n] best first, as Go's sort does for few elements."""
    for i in range(1, n):
        j = np.int64(i)
        while j > 0 and _before(values[heap[j - 1], k], values[heap[j], k], op):
            heap[j - 1], heap[j] = heap[j], heap[j - 1]
            j -= 1


@kernel(i64(F64_2D, BOOL_2D, I64, I64, I64, i64, I64_OUT, BOOL_2D_OUT, I64_OUT))
def rank_rows(values, present, members, bounds, wanted, op, heap, keep, order):
    """Mark the values that topk, bottomk or limitk keep; returns how many there are.

    Args:
        members, bounds: rows ordered by group, as for `quantile_groups`.
        wanted: int64[steps]; k at each step, below 1 keeps nothing.
        heap: int64[largest k], scratch.
        order: int64[rows]; the rows kept at the last step, group by group in result order; its
            unused end is -1.
    """
    kept = np.int64(0)
    written = np.int64(0)
    order[:] = -1
    for g in range(bounds.shape[0] - 1):
        for k in range(values.shape[1]):
            n = np.int64(0)
            limit = wanted[k]
            for m in range(bounds[g], bounds[g + 1]):
                row = members[m]
                keep[row, k] = False
                if not present[row, k] or limit < 1:
                    continue
                x = values[row, k]
                if n < limit:
                    heap[n] = row
                    n += 1
                    _rise(values, k, heap, n - 1, op)
                elif op != LIMITK:
                    worst = values[heap[0], k]
                    better = worst > x if op == BOTTOMK else worst < x
                    if better or (math.isnan(worst) and not math.isnan(x)):
                        heap[0] = row
                        _sink(values, k, heap, n, op)
            for i in range(n):
                keep[heap[i], k] = True
            kept += n
            if k == values.shape[1] - 1:
                if op != LIMITK:
                    _insertion_sort(values, k, heap, n, op)
                for i in range(n):
                    order[written] = heap[i]
                    written += 1
    return kept
