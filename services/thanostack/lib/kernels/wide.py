"""Unaligned wide loads and stores, prefetches, byte swaps, bit counts and CRC-32C.

Eight bytes at once make scans and compares five to ten times faster than byte loops. Numba never
checks the bounds of an intrinsic, so each wide access exists three times under one name:

    plain     pure Python with an assert (JIT off), here
    fast      one unaligned machine instruction, in `_intrinsics`
    checked   the same after a bounds test, in the build with NUMBA_BOUNDSCHECK=1

Invariant: callers have proved `0 <= i` and `i + 8 <= len(a)` before the call.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, routine


def load64(a, i):
    """Return the little-endian uint64 at byte `i` of a uint8 array; `0 <= i <= len(a) - 8`."""
    assert 0 <= i <= len(a) - 8, "load64 out of bounds"
    return np.uint64(int.from_bytes(a[i : i + 8].tobytes(), "little"))


def store64(a, i, value):
    """Write a uint64 little-endian at byte `i` of a uint8 array; `0 <= i <= len(a) - 8`."""
    assert 0 <= i <= len(a) - 8, "store64 out of bounds"
    a[i : i + 8] = np.frombuffer(int(value).to_bytes(8, "little"), np.uint8)


def prefetch(a, i):
    """Begin to load the cache line of item `i`; any `i` is allowed, as nothing is read."""


def bswap64(value):
    """Return a uint64 with its bytes reversed."""
    return np.uint64(int.from_bytes(int(value).to_bytes(8, "little"), "big"))


def clz64(value):
    """Return the number of leading zero bits of a uint64; 64 for zero."""
    return np.int64(64 - int(value).bit_length())


def ctz64(value):
    """Return the number of trailing zero bits of a uint64; 64 for zero."""
    value = int(value)
    return np.int64((value & -value).bit_length() - 1 if value else 64)


def float_bits(value):
    """Return the 64-bit pattern of a float64."""
    return np.float64(value).view(np.uint64)


def bits_float(bits):
    """Return the float64 with this 64-bit pattern."""
    return np.uint64(bits).view(np.float64)


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


CRC_TABLE = _crc_table()


def crc32c_update(crc, a, start, stop):
    """Return the raw CRC-32C state after the bytes `[start, stop)`."""
    for i in range(start, stop):
        crc = np.uint32(int(CRC_TABLE[(int(crc) ^ int(a[i])) & 0xFF]) ^ (int(crc) >> 8))
    return crc


@routine
def crc32c(a, start, stop):
    """Return the CRC-32C (Castagnoli) of the bytes `[start, stop)` as int64."""
    return np.int64(~np.uint32(crc32c_update(np.uint32(0xFFFFFFFF), a, start, stop))) & np.int64(
        0xFFFFFFFF
    )
