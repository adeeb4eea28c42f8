"""What some helpers are in machine code: the compiler's twins of plain functions.

    wide          unaligned loads and stores, prefetches, bit counts and patterns, CRC-32C
    promql_math   fused multiply-add

Only `_compiler` imports this. A wide access is one instruction, or in the checked build the same
after a bounds test; numba itself checks no intrinsic.

Source: numba, "High-level extension API"; LLVM language reference.
"""

import platform

import llvmlite.ir as ir
import numpy as np
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from thanostack.lib.kernels import promql_math, wide
from thanostack.lib.kernels.wide import CRC_TABLE, load64

_WORD = ir.IntType(64)


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _WORD.as_pointer())


@intrinsic
def _load64(typing_context, array, index):
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load(pointer, align=1)

    return types.uint64(array, types.int64), codegen


@intrinsic
def _store64(typing_context, array, index, value):
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), codegen


@intrinsic
def _prefetch(typing_context, array, index):
    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        # To read, into all caches, data.
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@overload(wide.prefetch)
def _prefetch_overload(a, i):
    return lambda a, i: _prefetch(a, np.int64(i))


@overload(wide.load64)
def _load64_overload(a, i):
    if config.BOUNDSCHECK:

        def checked(a, i):
            if i < 0 or i + 8 > a.shape[0]:
                raise IndexError("load64 out of bounds")
            return _load64(a, np.int64(i))

        return checked

    def fast(a, i):
        return _load64(a, np.int64(i))

    return fast


@overload(wide.store64)
def _store64_overload(a, i, value):
    if config.BOUNDSCHECK:

        def checked(a, i, value):
            if i < 0 or i + 8 > a.shape[0]:
                raise IndexError("store64 out of bounds")
            _store64(a, np.int64(i), np.uint64(value))

        return checked

    def fast(a, i, value):
        _store64(a, np.int64(i), np.uint64(value))

    return fast


def _instruction(name, result, arguments, emit):
    """Return an intrinsic of these types whose code is what `emit` makes of (builder, args)."""

    def codegen(context, builder, signature, args):
        return emit(builder, args)

    typed = result(*arguments), codegen
    # Numba reads the number of arguments off the function.
    function = (
        lambda typing_context, a: typed,
        lambda typing_context, a, b: typed,
        lambda typing_context, a, b, c: typed,
    )[len(arguments) - 1]
    function.__name__ = name
    return intrinsic(function)


_u64, _f64 = types.uint64, types.float64
_bswap = _instruction("_bswap", _u64, (_u64,), lambda b, args: b.bswap(args[0]))
_ctlz = _instruction("_ctlz", _u64, (_u64,), lambda b, args: b.ctlz(args[0], ir.IntType(1)(0)))
_cttz = _instruction("_cttz", _u64, (_u64,), lambda b, args: b.cttz(args[0], ir.IntType(1)(0)))
_float_bits = _instruction("_float_bits", _u64, (_f64,), lambda b, args: b.bitcast(args[0], _WORD))
_bits_float = _instruction(
    "_bits_float", _f64, (_u64,), lambda b, args: b.bitcast(args[0], ir.DoubleType())
)
_fma = _instruction("_fma", _f64, (_f64, _f64, _f64), lambda b, args: b.fma(*args))


@overload(wide.bswap64)
def _bswap_overload(value):
    return lambda value: _bswap(np.uint64(value))


@overload(wide.clz64)
def _clz_overload(value):
    return lambda value: np.int64(_ctlz(np.uint64(value)))


@overload(wide.ctz64)
def _ctz_overload(value):
    return lambda value: np.int64(_cttz(np.uint64(value)))


@overload(wide.float_bits)
def _float_bits_overload(value):
    return lambda value: _float_bits(np.float64(value))


@overload(wide.bits_float)
def _bits_float_overload(bits):
    return lambda bits: _bits_float(np.uint64(bits))


@overload(promql_math.fma)
def _fma_overload(a, b, c):
    return lambda a, b, c: _fma(np.float64(a), np.float64(b), np.float64(c))


def _crc_step(name, state, data):
    """Return an intrinsic that is the processor's CRC instruction of one width."""

    def emit(builder, args):
        function = builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(args[0].type, [arg.type for arg in args])
            function = ir.Function(builder.module, kind, name)
        return builder.call(function, args)

    return _instruction("crc_step", state, (state, data), emit)


_crc_step64 = _crc_step("llvm.x86.sse42.crc32.64.64", types.uint64, types.uint64)
_crc_step8 = _crc_step("llvm.x86.sse42.crc32.32.8", types.uint32, types.uint8)


@overload(wide.crc32c_update)
def _crc32c_update_overload(crc, a, start, stop):
    if platform.machine() in ("x86_64", "AMD64"):

        def hardware(crc, a, start, stop):
            state = np.uint64(crc)
            i = start
            while i + 8 <= stop:
                state = _crc_step64(state, load64(a, i))
                i += 8
            narrow = np.uint32(state)
            while i < stop:
                narrow = _crc_step8(narrow, a[i])
                i += 1
            return narrow

        return hardware

    def table(crc, a, start, stop):
        state = np.uint32(crc)
        for i in range(start, stop):
            state = CRC_TABLE[(state ^ np.uint32(a[i])) & np.uint32(255)] ^ (state >> np.uint32(8))
        return state

    return table
