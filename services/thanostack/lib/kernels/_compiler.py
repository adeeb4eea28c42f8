"""The compiler: numba makes machine code of kernels and leaves it in the store.

It lives in a process of its own (`_compiling`), as importing it turns this package's decorators
into numba's.

Reference counting is off: a kernel owns nothing, and the atomic increments that numba would put
around every helper call made a scan seven times slower (420 against 60 ns a series).

What numba takes apart at each call, Python's arguments, is taken apart by code that checks an
array's type, dimensions, layout and whether it may be written: numba's own looks at the size of an
item only and leaves the rest to its dispatcher, which linked kernels do without.

An index is taken as it is: no kernel counts from an array's end, and looking at each index for its
sign made scans up to a third slower. The checked build refuses a negative one.

Source: numba `core/boxing.py`, `core/codegen.py`, `np/arrayobj.py`; numpy's C API, PyArrayObject.
"""

import os

from thanostack.lib.kernels import _jit, _store
from thanostack.lib.kernels._types import Array, Scalar, Tables

os.environ["NUMBA_CPU_NAME"] = _store.target()
os.environ.setdefault("NUMBA_CPU_FEATURES", "")

import importlib

import llvmlite.ir as ir
import numpy as np
from numba import from_dtype, njit, types
from numba.core import boxing, cgutils, pythonapi
from numba.np import arrayobj
from numba.np.numpy_support import as_dtype

_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": False}

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
# Of PyArrayObject: dimensions, descriptor, flags; of its descriptor: kind, byte order.
_NDIM_AT, _DESCRIPTOR_AT, _FLAGS_AT, _KIND_AT, _ORDER_AT = 24, 56, 64, 24, 26
_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400
_DIMENSIONS_MAX = 64
_ADAPTED_WORDS = 5 + 2 * _DIMENSIONS_MAX
_ITEM_SIZE = 3


class _Numba:
    """Compiles helpers and kernels; a kernel that another one calls is compiled with it."""

    def __init__(self) -> None:
        self._kernels: dict[str, object] = {}

    def helper(self, function, *, inline):
        """Return the dispatcher of a helper."""
        return (
            njit(forceinline=True, **_OPTIONS)(function) if inline else njit(**_OPTIONS)(function)
        )

    def kernel(self, kernel):
        """Return the dispatcher of a kernel, with its one signature compiled."""
        name = kernel.py_func.__name__
        if name not in self._kernels:
            self._kernels[name] = njit(_signature(kernel.signature), **_OPTIONS)(kernel.py_func)
        return self._kernels[name]

    def entry(self, kernel):
        """Return what the store keeps of a kernel."""
        dispatcher = self.kernel(kernel)
        (result,) = dispatcher.overloads.values()
        code = result.library._get_compiled_object()
        return _store.Entry(result.fndesc.llvm_cpython_wrapper_name, code)


def _signature(signature):
    return _numba_type(signature.result)(*map(_numba_type, signature.arguments))


def _numba_type(kind):
    """Translate a type of `_types`."""
    match kind:
        case Scalar():
            return getattr(types, kind.name)
        case Tables():
            return types.NamedTuple([_numba_type(field) for field in kind.fields], kind.factory)
        case np.dtype():
            return from_dtype(kind)
        case Array():
            item = _numba_type(kind.item)
            return types.Array(item, kind.ndim, "C", readonly=not kind.is_written)
    raise TypeError(f"a kernel's signature cannot have {kind!r}")


def _index_as_it_is(context, builder, kind, index, size):
    """Return an index in the width of a pointer; numba would add `size` to a negative one."""
    del size
    return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)


def _unbox_array(kind, array, c):
    """Take a numpy array apart after checking that it is what the kernel was compiled for."""
    builder = c.builder
    adapted = cgutils.alloca_once(builder, _WORD, size=_ADAPTED_WORDS)
    is_wrong = cgutils.alloca_once_value(builder, cgutils.true_bit)
    status = c.pyapi.numba_array_adaptor(array, builder.bitcast(adapted, c.pyapi.voidptr))
    with builder.if_then(cgutils.is_null(builder, status), likely=True):
        builder.store(_differs(kind, array, adapted, builder), is_wrong)
    failed = builder.load(is_wrong)
    with builder.if_then(failed, likely=False):
        c.pyapi.err_set_string("PyExc_TypeError", f"a kernel's argument must be {_wanted(kind)}")
    pointer = c.context.make_array(kind)(c.context, builder)._getpointer()
    value = builder.load(builder.bitcast(adapted, pointer.type))
    return pythonapi.NativeValue(value, is_error=failed)


def _differs(kind, array, adapted, builder):
    """Return the bit: the array is not of this type."""
    dtype = as_dtype(kind.dtype)
    flags = _CONTIGUOUS | _ALIGNED | (_WRITEABLE if kind.mutable else 0)
    base = builder.bitcast(array, _BYTE.as_pointer())
    descriptor = _field(builder, base, _DESCRIPTOR_AT, _BYTE.as_pointer())
    found_flags = builder.and_(
        _field(builder, base, _FLAGS_AT, ir.IntType(32)), ir.IntType(32)(flags)
    )
    item_size = builder.load(builder.gep(adapted, [_WORD(_ITEM_SIZE)]))
    claims = (
        builder.icmp_signed(
            "==", _field(builder, base, _NDIM_AT, ir.IntType(32)), ir.IntType(32)(kind.ndim)
        ),
        builder.icmp_signed("==", found_flags, ir.IntType(32)(flags)),
        builder.icmp_signed(
            "==", _field(builder, descriptor, _KIND_AT, _BYTE), _BYTE(ord(dtype.kind))
        ),
        builder.icmp_signed("!=", _field(builder, descriptor, _ORDER_AT, _BYTE), _BYTE(ord(">"))),
        builder.icmp_signed("==", item_size, _WORD(dtype.itemsize)),
    )
    holds = claims[0]
    for claim in claims[1:]:
        holds = builder.and_(holds, claim)
    return builder.not_(holds)


def _field(builder, base, at, kind):
    """Load what lies at an offset of a C structure."""
    return builder.load(builder.bitcast(builder.gep(base, [_WORD(at)]), kind.as_pointer()))


def _wanted(kind):
    written = "writable " if kind.mutable else ""
    return f"a C-contiguous {written}array of {as_dtype(kind.dtype)}, {kind.ndim}-dimensional"


def compiler():
    """Return what compiles kernels, by module and name; once, before any kernel is imported."""
    assert boxing.unbox_array is pythonapi._unboxers.functions[types.Array]
    pythonapi._unboxers.functions[types.Array] = _unbox_array
    assert callable(arrayobj.fix_integer_index)
    arrayobj.fix_integer_index = _index_as_it_is
    _jit.builder = numba = _Numba()
    importlib.import_module("thanostack.lib.kernels._intrinsics")

    def compile_kernel(module, name):
        kernel = getattr(importlib.import_module(module), name)
        _store.keep(module.rpartition(".")[2], name, numba.entry(kernel))

    return compile_kernel
