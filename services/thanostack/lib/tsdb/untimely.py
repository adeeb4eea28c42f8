"""New series whose samples are all out of the time that is taken, or that bring none.

They are not made: nothing of them would be stored. Otherwise a sender whose clock is wrong, or who
comes back after hours, would fill the head with series that hold nothing, and use up the tenant's
active series. The samples are counted as what they are.

Source: Prometheus `tsdb/head_append.go`, which looks at a sample's time before it makes a series.
"""

from __future__ import annotations

import numpy as np

from thanostack.lib.kernels import head_series
from thanostack.lib.kernels.head_append import OUT_OF_BOUNDS, TOO_FAR, UNKNOWN
from thanostack.lib.kernels.head_types import HeadTables
from thanostack.lib.model.label_runs import Int64Array, Uint8Array
from thanostack.lib.tsdb.write_columns import WriteColumns


def leave_out(
    tables: HeadTables, columns: WriteColumns, data: Uint8Array, bounds: Int64Array,
    times: tuple[int, int],
) -> None:  # fmt: skip
    """Leave out the runs that would be new series without a sample, and count theirs.

    Args:
        tables: of the head.
        columns: of the request; not staged yet. `untimely` is written.
        data: uint8[n].
        bounds: int64[2 S]; canonical runs; those left out become -1.
        times: the earliest and the latest that is accepted, ms inclusive.
    """
    n = columns.count
    offsets = columns.offsets[: n + 1]
    stamps = columns.timestamps[: columns.samples]
    is_timely = (stamps >= times[0]) & (stamps <= times[1]) & (stamps != head_series.NEVER)
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(is_timely)))
    is_without = (before[offsets[1:]] == before[offsets[:-1]]) & (bounds[0::2] >= 0)
    if not is_without.any():
        return
    known = np.empty(n, np.int64)
    head_series.head_resolve(tables, data, bounds, n, known)
    left_out = np.flatnonzero(is_without & (known < 0))
    bounds[2 * left_out] = bounds[2 * left_out + 1] = -1
    is_theirs = np.zeros(n, bool)
    is_theirs[left_out] = True
    theirs = stamps[np.repeat(is_theirs, np.diff(offsets))]
    ahead = int(np.count_nonzero(theirs > times[1]))
    columns.untimely = (len(theirs) - ahead, ahead)


def recount(columns: WriteColumns, outcome: Int64Array) -> None:
    """Count samples of series that were left out as what they are, in what staging has counted."""
    late, ahead = columns.untimely
    outcome[UNKNOWN] -= late + ahead
    outcome[OUT_OF_BOUNDS] += late
    outcome[TOO_FAR] += ahead
