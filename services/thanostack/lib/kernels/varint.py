"""LEB128 (`uvarint`) and zig-zag (`varint`) integers, bounds-checked on every byte.

A read returns `(value, next)`; `next` is -1 when the bytes end inside the number or when it is
longer than ten bytes, and the caller must look before it goes on.

Source: Go `encoding/binary`; Protocol Buffers, "Encoding".
"""

import numpy as np

from thanostack.lib.kernels._jit import device


@device
def read_uvarint(a, i, stop):
    """Return (uint64 value, next offset) of the uvarint at `i`, before `stop`; next -1 = bad."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while i < stop:
        byte = np.uint64(a[i])
        i += 1
        if byte < np.uint64(128):
            # Bound: the tenth byte may carry one bit only.
            if shift == np.uint64(63) and byte > np.uint64(1):
                return np.uint64(0), np.int64(-1)
            return value | (byte << shift), np.int64(i)
        value |= (byte & np.uint64(127)) << shift
        shift += np.uint64(7)
        if shift > np.uint64(63):
            break
    return np.uint64(0), np.int64(-1)


@device
def read_length(a, i, stop):
    """Return (length, offset of the first byte) of a length-prefixed field; offset -1 = bad.

    The length is proved to end at or before `stop`.
    """
    if i < stop and a[i] < 128:
        length = np.int64(a[i])
        i += 1
    else:
        value, i = read_uvarint(a, i, stop)
        if i < 0 or value > np.uint64(0x7FFFFFFFFFFFFFF):
            return np.int64(0), np.int64(-1)
        length = np.int64(value)
    if length > stop - i:
        return np.int64(0), np.int64(-1)
    return length, np.int64(i)


@device
def zigzag(value):
    """Return the int64 that a zig-zag uint64 stands for."""
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))


@device
def unzigzag(value):
    """Return the zig-zag uint64 of an int64."""
    return (np.uint64(value) << np.uint64(1)) ^ np.uint64(np.int64(value) >> np.int64(63))


@device
def write_uvarint(a, i, value):
    """Write a uint64 as uvarint at `i` and return the next offset; at most ten bytes."""
    while value >= np.uint64(128):
        a[i] = np.uint8(value & np.uint64(127)) | np.uint8(128)
        i += 1
        value >>= np.uint64(7)
    a[i] = np.uint8(value)
    return i + 1


@device
def write_varint(a, i, value):
    """Write an int64 as zig-zag varint at `i` and return the next offset; at most ten bytes."""
    return write_uvarint(a, i, unzigzag(value))


@device
def uvarint_size(value):
    """Return how many bytes a uint64 takes as uvarint, 1..10."""
    size = np.int64(1)
    while value >= np.uint64(128):
        value >>= np.uint64(7)
        size += 1
    return size
