"""Which new series of a request a tenant may not have.

    canonical runs of a request ──known?──► stay ──labels within limits?──► stay
                                                 └─ room left? ──► stay, until there is none

Series that the head has go on whatever the limits say now, so lowering one loses no sample of them.
The number of series is exact: each new label set counts once, and never one more than the limit is
made. Costs nothing where every series of a request was known by its bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from thanostack.lib.kernels import head_series, label_measures
from thanostack.lib.kernels.head_types import ALIVE, HeadTables
from thanostack.lib.model.label_runs import Int64Array, Uint8Array
from thanostack.lib.tsdb.options import SeriesLimits

SERIES, LABEL_NAMES, LABEL_NAME, LABEL_VALUE = -101, -102, -103, -104
STATUSES: Final = (SERIES, LABEL_NAMES, LABEL_NAME, LABEL_VALUE)
REASONS: Final = {
    "series_limit": (SERIES,),
    "label_limit": (LABEL_NAMES, LABEL_NAME, LABEL_VALUE),
}
"""Why samples are refused, and the statuses of their series."""


def refuse(
    tables: HeadTables, limits: SeriesLimits, data: Uint8Array, bounds: Int64Array,
    statuses: Int64Array,
) -> None:  # fmt: skip
    """Leave out the runs that would be new series beyond limits.

    Args:
        tables: of the head.
        limits: which.
        data: uint8[n].
        bounds: int64[2 S]; canonical runs; those refused become -1.
        statuses: int64[S]; those refused get one of `STATUSES`.
    """
    known = np.empty(len(statuses), np.int64)
    head_series.head_resolve(tables, data, bounds, len(statuses), known)
    fresh = np.flatnonzero((bounds[0::2] >= 0) & (known < 0))
    _refuse_labels(limits, data, bounds, fresh, statuses)
    room = limits.series - int(tables.meta[ALIVE])
    if limits.series and len(fresh) > room:
        _refuse_series(room, data, bounds, fresh[statuses[fresh] == 0], statuses)
    refused = fresh[statuses[fresh] != 0]
    bounds[2 * refused] = bounds[2 * refused + 1] = -1


def _refuse_labels(
    limits: SeriesLimits, data: Uint8Array, bounds: Int64Array, fresh: Int64Array,
    statuses: Int64Array,
) -> None:  # fmt: skip
    allowed = (limits.label_names, limits.label_name_bytes, limits.label_value_bytes)
    if not any(allowed):
        return
    measures = np.empty(3 * len(fresh), np.int64)
    label_measures.label_measures(data, bounds, fresh, measures)
    columns = zip(allowed, STATUSES[1:], measures.reshape(-1, 3).T, strict=True)
    for limit, status, measured in columns:
        if limit:
            statuses[fresh[measured > limit]] = status


def _refuse_series(
    room: int, data: Uint8Array, bounds: Int64Array, fresh: Int64Array, statuses: Int64Array
) -> None:
    taken: set[bytes] = set()
    for s in fresh.tolist():
        run = data[bounds[2 * s] : bounds[2 * s + 1]].tobytes()
        # A request may bring one new series twice.
        if run not in taken and len(taken) >= room:
            statuses[s] = SERIES
        else:
            taken.add(run)
