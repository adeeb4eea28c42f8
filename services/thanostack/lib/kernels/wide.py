"""Unaligned wide loads and stores, byte swaps, bit counts and CRC-32C.

Eight bytes at once make scans and compares five to ten times faster than byte loops. Numba never
checks the bounds of an intrinsic, so each wide access exists three times under one name:

    plain     pure Python with an assert (JIT off)
    fast      one unaligned machine instruction
    checked   the same after a bounds test, in the build with NUMBA_BOUNDSCHECK=1

Invariant: callers have proved `0 <= i` and `i + 8 <= len(a)` before the call.
"""

import llvmlite.ir as ir
import numpy as np
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from thanostack.lib.kernels._jit import device, routine

_MASK64 = 0xFFFFFFFFFFFFFFFF


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.IntType(64).as_pointer())


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


def load64(a, i):
    """Return the little-endian uint64 at byte `i` of a uint8 array; `0 <= i <= len(a) - 8`."""
    assert 0 <= i <= len(a) - 8, "load64 out of bounds"
    return np.uint64(int.from_bytes(a[i : i + 8].tobytes(), "little"))


@overload(load64)
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


def store64(a, i, value):
    """Write a uint64 little-endian at byte `i` of a uint8 array; `0 <= i <= len(a) - 8`."""
    assert 0 <= i <= len(a) - 8, "store64 out of bounds"
    a[i : i + 8] = np.frombuffer(int(value).to_bytes(8, "little"), np.uint8)


@overload(store64)
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


def prefetch(a, i):
    """Begin to load the cache line of item `i`; any `i` is allowed, as nothing is read."""


@overload(prefetch)
def _prefetch_overload(a, i):
    return lambda a, i: _prefetch(a, np.int64(i))


def _unary(name, emit):
    @intrinsic
    def operation(typing_context, value):
        def codegen(context, builder, signature, args):
            return emit(builder, args[0])

        return types.uint64(types.uint64), codegen

    operation.__name__ = name
    return operation


_bswap = _unary("_bswap", lambda builder, x: builder.bswap(x))
_ctlz = _unary("_ctlz", lambda builder, x: builder.ctlz(x, ir.IntType(1)(0)))
_cttz = _unary("_cttz", lambda builder, x: builder.cttz(x, ir.IntType(1)(0)))


def bswap64(value):
    """Return a uint64 with its bytes reversed."""
    return np.uint64(int.from_bytes(int(value).to_bytes(8, "little"), "big"))


@overload(bswap64)
def _bswap_overload(value):
    return lambda value: _bswap(np.uint64(value))


def clz64(value):
    """Return the number of leading zero bits of a uint64; 64 for zero."""
    return np.int64(64 - int(value).bit_length())


@overload(clz64)
def _clz_overload(value):
    return lambda value: np.int64(_ctlz(np.uint64(value)))


def ctz64(value):
    """Return the number of trailing zero bits of a uint64; 64 for zero."""
    value = int(value)
    return np.int64((value & -value).bit_length() - 1 if value else 64)


@overload(ctz64)
def _ctz_overload(value):
    return lambda value: np.int64(_cttz(np.uint64(value)))


@intrinsic
def _float_bits(typing_context, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), codegen


@intrinsic
def _bits_float(typing_context, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), codegen


def float_bits(value):
    """Return the 64-bit pattern of a float64."""
    return np.float64(value).view(np.uint64)


@overload(float_bits)
def _float_bits_overload(value):
    return lambda value: _float_bits(np.float64(value))


def bits_float(bits):
    """Return the float64 with this 64-bit pattern."""
    return np.uint64(bits).view(np.float64)


@overload(bits_float)
def _bits_float_overload(bits):
    return lambda bits: _bits_float(np.uint64(bits))


@device
def load_be64(a, i):
    """Return the big-endian uint64 at byte `i`; bounds as `load64`."""
    return bswap64(load64(a, i))


@device
def store_be64(a, i, value):
    """Write a uint64 big-endian at byte `i`; bounds as `store64`."""
    store64(a, i, bswap64(value))


@device
def load_be32(a, i):
    """Return the big-endian uint32 at byte `i` as int64; `0 <= i <= len(a) - 4`."""
    return (
        (np.int64(a[i]) << 24)
        | (np.int64(a[i + 1]) << 16)
        | (np.int64(a[i + 2]) << 8)
        | np.int64(a[i + 3])
    )


@device
def store_be32(a, i, value):
    """Write the low 32 bits of an int64 big-endian at byte `i`; `0 <= i <= len(a) - 4`."""
    a[i] = np.uint8((value >> 24) & 255)
    a[i + 1] = np.uint8((value >> 16) & 255)
    a[i + 2] = np.uint8((value >> 8) & 255)
    a[i + 3] = np.uint8(value & 255)


@device
def copy_bytes(source, start, length, target, at):
    """Copy `length` bytes of `source` from `start` to `target` at `at`; never beyond either.

    Invariant: both ranges lie inside their arrays; they do not overlap.
    """
    done = np.int64(0)
    while done + 8 <= length:
        store64(target, at + done, load64(source, start + done))
        done += 8
    while done < length:
        target[at + done] = source[start + done]
        done += 1


@device
def equal_bytes(a, i, b, j, length):
    """Return whether two byte ranges of one length are equal; both lie inside their arrays."""
    done = np.int64(0)
    while done + 8 <= length:
        if load64(a, i + done) != load64(b, j + done):
            return False
        done += 8
    while done < length:
        if a[i + done] != b[j + done]:
            return False
        done += 1
    return True


def _crc_table():
    table = np.zeros(256, np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table[byte] = crc
    return table


_CRC_TABLE = _crc_table()
_HARDWARE_CRC = "x86" in __import__("platform").machine()


def _crc_intrinsic(llvm_name, state_bits, data_bits):
    @intrinsic
    def step(typing_context, crc, data):
        def codegen(context, builder, signature, args):
            function = builder.module.globals.get(llvm_name)
            if function is None:
                kind = ir.FunctionType(
                    ir.IntType(state_bits), [ir.IntType(state_bits), ir.IntType(data_bits)]
                )
                function = ir.Function(builder.module, kind, llvm_name)
            return builder.call(function, args)

        state = types.uint64 if state_bits == 64 else types.uint32
        data_type = types.uint64 if data_bits == 64 else types.uint8
        return state(state, data_type), codegen

    return step


_crc_step64 = _crc_intrinsic("llvm.x86.sse42.crc32.64.64", 64, 64)
_crc_step8 = _crc_intrinsic("llvm.x86.sse42.crc32.32.8", 32, 8)


def _crc32c_update(crc, a, start, stop):
    """Return the raw CRC-32C state after the bytes `[start, stop)`."""
    for i in range(start, stop):
        crc = np.uint32(int(_CRC_TABLE[(int(crc) ^ int(a[i])) & 0xFF]) ^ (int(crc) >> 8))
    return crc


@overload(_crc32c_update)
def _crc32c_update_overload(crc, a, start, stop):
    if _HARDWARE_CRC:

        def hardware(crc, a, start, stop):
            wide = np.uint64(crc)
            i = start
            while i + 8 <= stop:
                wide = _crc_step64(wide, load64(a, i))
                i += 8
            state = np.uint32(wide)
            while i < stop:
                state = _crc_step8(state, a[i])
                i += 1
            return state

        return hardware

    def table(crc, a, start, stop):
        state = np.uint32(crc)
        for i in range(start, stop):
            state = _CRC_TABLE[(state ^ np.uint32(a[i])) & np.uint32(255)] ^ (state >> np.uint32(8))
        return state

    return table


@routine
def crc32c(a, start, stop):
    """Return the CRC-32C (Castagnoli) of the bytes `[start, stop)` as int64."""
    return np.int64(~np.uint32(_crc32c_update(np.uint32(0xFFFFFFFF), a, start, stop))) & np.int64(
        0xFFFFFFFF
    )
