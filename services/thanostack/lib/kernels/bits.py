"""A bit stream, most significant bit first, as Prometheus's chunks use it.

Reads return up to 64 bits from any bit position and zeros beyond the end of the buffer: the caller
compares its position with the end once a sample instead of once a read. Writes touch at most nine
bytes and need the buffer to hold them.

Source: Prometheus `tsdb/chunkenc/bstream.go`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device
from thanostack.lib.kernels.wide import load_be64, store_be64


@device
def peek64(data, position):
    """Return the 64 bits at a bit position, zero bits beyond the end of `data`."""
    byte = position >> 3
    shift = np.uint64(position & 7)
    if byte + 9 <= data.shape[0]:
        word = load_be64(data, byte)
        return (word << shift) | (np.uint64(data[byte + 8]) >> (np.uint64(8) - shift))
    word = np.uint64(0)
    for i in range(byte, byte + 8):
        word <<= np.uint64(8)
        if i < data.shape[0]:
            word |= np.uint64(data[i])
    tail = np.uint64(0)
    if byte + 8 < data.shape[0]:
        tail = np.uint64(data[byte + 8])
    return (word << shift) | (tail >> (np.uint64(8) - shift))


@device
def put_bits(data, position, value, count):
    """Write the low `count` (1..64) bits of `value` at a bit position; return the next position.

    Bits from `position` on are overwritten up to the end of the ninth byte.
    Invariant: `(position >> 3) + 9 <= len(data)`.
    """
    byte = position >> 3
    shift = np.uint64(position & 7)
    bits = value << np.uint64(64 - count)
    kept = load_be64(data, byte) & ~(np.uint64(0xFFFFFFFFFFFFFFFF) >> shift)
    store_be64(data, byte, kept | (bits >> shift))
    data[byte + 8] = np.uint8((bits << (np.uint64(8) - shift)) & np.uint64(255))
    return position + count
