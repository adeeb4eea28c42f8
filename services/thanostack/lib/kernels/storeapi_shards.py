"""Which series belong to a shard of a vertically sharded query.

    XXH64( name 0xFF value 0xFF … ) mod total == index

over the labels that are named (`by`), or over those that are not. The bytes must be exactly these,
as stores and queriers of either make have to agree on who answers for a series.

Source: Thanos `pkg/store/storepb/shard_info.go`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.varint import read_length
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes


@device
def _is_named(data, start, length, names, name_offsets):
    for k in range(name_offsets.shape[0] - 1):
        at = name_offsets[k]
        if name_offsets[k + 1] - at == length and equal_bytes(data, start, names, at, length):
            return True
    return False


@device
def _append(data, start, length, out, at):
    copy_bytes(data, start, length, out, at)
    out[at + length] = 0xFF
    return at + length + 1


@kernel(i64(BYTES, I64, BYTES, I64, I64, BYTES_OUT, I64_OUT))
def shard_rows(label_data, label_offsets, names, name_offsets, options, scratch, rows):
    """Write the rows that belong to the shard; return how many, or -1 for a malformed run.

    Args:
        label_data, label_offsets: canonical runs of S series.
        names, name_offsets: the names of the shard's grouping.
        options: int64[3]; 1 if the named labels are hashed (0: all others), total, index.
        scratch: uint8[longest run].
        rows: int64[S], out.
    """
    by, total, index = options[0], np.uint64(options[1]), np.uint64(options[2])
    count = np.int64(0)
    for row in range(label_offsets.shape[0] - 1):
        i, stop = label_offsets[row], label_offsets[row + 1]
        at = np.int64(0)
        while i < stop:
            _, i = read_length(label_data, i + 1, stop)
            if i < 0:
                return -1
            size, name = read_length(label_data, i + 1, stop)
            if name < 0 or name + size >= stop:
                return -1
            value_size, value = read_length(label_data, name + size + 1, stop)
            if value < 0:
                return -1
            i = value + value_size
            named = _is_named(label_data, name, size, names, name_offsets)
            if named == (by == 1):
                # Bound: four framing bytes of the run at least pay for the two separators.
                at = _append(label_data, name, size, scratch, at)
                at = _append(label_data, value, value_size, scratch, at)
        if xxh64(scratch, np.int64(0), at) % total == index:
            rows[count] = row
            count += 1
    return count
