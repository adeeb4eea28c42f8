"""Counting the answers of nodes to the series of a write.

Source: `receive/quorum`, which says what the counts mean.
"""

import numpy as np

from thanostack.lib.kernels._jit import kernel
from thanostack.lib.kernels._types import I32, I32_OUT, i64


@kernel(i64(I32, i64, i64, I32_OUT, I32_OUT))
def quorum_count(series, first, needed, waited, counts):
    """Count one answer to each of some series; return how many of them have `needed` now.

    Args:
        series: int32[k]; numbers of series, from `first` on counted as 0.
        first: added to each.
        needed: at least 1.
        waited: int32[n]; answers that are waited for, lowered.
        counts: int32[n]; answers of this kind, raised.
    """
    reached = np.int64(0)
    for k in range(series.shape[0]):
        s = first + np.int64(series[k])
        waited[s] -= 1
        counts[s] += 1
        reached += counts[s] == needed
    return reached
