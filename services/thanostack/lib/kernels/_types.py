"""The array types that kernel signatures are written with, and the records kernels share.

Byte inputs are read-only types: a writable array converts to one, so `bytes`, `bytearray` and
slices all reach the same compiled kernel.
"""

import numpy as np
from numba import config, from_dtype, types


def record_dtype(fields, *, align=False):
    """Return the dtype of rows whose fields a kernel reaches as attributes, with the JIT or not."""
    plain = np.dtype(fields, align=align)
    return np.dtype((np.record, plain)) if config.DISABLE_JIT else plain


CHUNK_DTYPE = record_dtype(
    [
        ("mint", np.int64),  # ms, inclusive
        ("maxt", np.int64),  # ms, inclusive
        ("start", np.int64),  # offset of the encoded bytes in the batch's `data`
        ("length", np.int32),  # of the encoded bytes
        ("encoding", np.int32),  # Prometheus's number: 1 XOR, 2 histogram, 3 float histogram
    ]
)


def array_in(item, ndim=1):
    """Return the type of a C-contiguous array that the kernel only reads."""
    return types.Array(item, ndim, "C", readonly=True)


def array_out(item, ndim=1):
    """Return the type of a C-contiguous array that the kernel writes."""
    return types.Array(item, ndim, "C")


i32, i64, u32, u64, f64, u8, boolean = (
    types.int32,
    types.int64,
    types.uint32,
    types.uint64,
    types.float64,
    types.uint8,
    types.boolean,
)
BYTES = array_in(u8)
BYTES_OUT = array_out(u8)
I32 = array_in(i32)
I32_OUT = array_out(i32)
I64 = array_in(i64)
I64_OUT = array_out(i64)
U64 = array_in(u64)
U64_OUT = array_out(u64)
F64 = array_in(f64)
F64_OUT = array_out(f64)
F64_2D = array_in(f64, 2)
F64_2D_OUT = array_out(f64, 2)
BOOL = array_in(boolean)
BOOL_OUT = array_out(boolean)
BOOL_2D = array_in(boolean, 2)
BOOL_2D_OUT = array_out(boolean, 2)
CHUNKS = array_in(from_dtype(CHUNK_DTYPE))
CHUNKS_OUT = array_out(from_dtype(CHUNK_DTYPE))
