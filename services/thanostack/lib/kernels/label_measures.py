"""How many labels a canonical label run has, and how long they are.

Source: docs/formats/label-run.md.
"""

import numpy as np

from thanostack.lib.kernels._jit import kernel
from thanostack.lib.kernels._types import BYTES, I64, I64_OUT, i64
from thanostack.lib.kernels.varint import read_length


@kernel(i64(BYTES, I64, I64, I64_OUT))
def label_measures(data, bounds, chosen, measures):
    """Measure some of the label runs of a request.

    Args:
        data: uint8[n].
        bounds: int64[2 S]; canonical runs.
        chosen: int64[m]; which of them.
        measures: int64[3 m], written; labels, bytes of the longest name, of the longest value.

    Returns:
        m.
    """
    for k in range(chosen.shape[0]):
        i = bounds[2 * chosen[k]]
        stop = bounds[2 * chosen[k] + 1]
        count = np.int64(0)
        longest_name = np.int64(0)
        longest_value = np.int64(0)
        while i < stop:
            length, inner = read_length(data, i + 1, stop)
            name, at = read_length(data, inner + 1, stop)
            value, _ = read_length(data, at + name + 1, stop)
            count += 1
            longest_name = max(longest_name, name)
            longest_value = max(longest_value, value)
            i = inner + length
        measures[3 * k] = count
        measures[3 * k + 1] = longest_name
        measures[3 * k + 2] = longest_value
    return np.int64(chosen.shape[0])
