"""The types that kernel signatures are written with, and the records kernels share.

They only name types, so that whoever uses kernels needs no compiler; `_compiler` translates them.
Byte inputs are read-only types: a writable array converts to one, so `bytes`, `bytearray` and
slices all reach the same compiled kernel.
"""

from typing import NamedTuple

import numpy as np

from thanostack.lib.kernels._jit import DISABLED


def record_dtype(fields, *, align=False):
    """Return the dtype of rows whose fields a kernel reaches as attributes, with the JIT or not."""
    plain = np.dtype(fields, align=align)
    return np.dtype((np.record, plain)) if DISABLED else plain


CHUNK_DTYPE = record_dtype(
    [
        ("mint", np.int64),  # ms, inclusive
        ("maxt", np.int64),  # ms, inclusive
        ("start", np.int64),  # offset of the encoded bytes in the batch's `data`
        ("length", np.int32),  # of the encoded bytes
        ("encoding", np.int32),  # Prometheus's number: 1 XOR, 2 histogram, 3 float histogram
    ]
)


class Scalar(NamedTuple):
    """A number, by numpy's name; called with the types of arguments it is a signature."""

    name: str

    def __call__(self, *arguments):
        """Return the signature of a kernel that returns this type."""
        return Signature(self, arguments)


class Array(NamedTuple):
    """A C-contiguous array.

    Args:
        item: a Scalar, or a structured numpy dtype.
        ndim: dimensions.
        is_written: the kernel writes it.
    """

    item: object
    ndim: int
    is_written: bool


class Tables(NamedTuple):
    """A named tuple of arrays, taken as one argument."""

    factory: type
    fields: tuple


class Signature(NamedTuple):
    """What a kernel returns and takes."""

    result: Scalar
    arguments: tuple


def array_in(item, ndim=1):
    """Return the type of a C-contiguous array that the kernel only reads."""
    return Array(item, ndim, is_written=False)


def array_out(item, ndim=1):
    """Return the type of a C-contiguous array that the kernel writes."""
    return Array(item, ndim, is_written=True)


i32, i64, u32, u64, f64, u8, boolean = (
    Scalar(name) for name in ("int32", "int64", "uint32", "uint64", "float64", "uint8", "boolean")
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
CHUNKS = array_in(CHUNK_DTYPE)
CHUNKS_OUT = array_out(CHUNK_DTYPE)
