"""XXH64, seed 0: the series hash of head tables, hashrings and chunk frames.

Source: xxHash specification, XXH64.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, routine
from thanostack.lib.kernels.wide import load64

_P1 = np.uint64(11400714785074694791)
_P2 = np.uint64(14029467366897019727)
_P3 = np.uint64(1609587929392839161)
_P4 = np.uint64(9650029242287828579)
_P5 = np.uint64(2870177450012600261)


@device
def _rotate(x, bits):
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@device
def _round(state, x):
    return _rotate(state + x * _P2, 31) * _P1


@device
def _merge(state, lane):
    return (state ^ _round(np.uint64(0), lane)) * _P1 + _P4


@device
def _stripes(a, start, stop):
    v1 = _P1 + _P2
    v2 = _P2
    v3 = np.uint64(0)
    v4 = np.uint64(0) - _P1
    i = start
    while i + 32 <= stop:
        v1 = _round(v1, load64(a, i))
        v2 = _round(v2, load64(a, i + 8))
        v3 = _round(v3, load64(a, i + 16))
        v4 = _round(v4, load64(a, i + 24))
        i += 32
    state = _rotate(v1, 1) + _rotate(v2, 7) + _rotate(v3, 12) + _rotate(v4, 18)
    state = _merge(_merge(_merge(_merge(state, v1), v2), v3), v4)
    return state, i


@routine
def xxh64(a, start, stop):
    """Return the XXH64 of the bytes `[start, stop)` as uint64; the range lies inside `a`."""
    length = stop - start
    i = np.int64(start)
    if length >= 32:
        state, i = _stripes(a, i, stop)
    else:
        state = _P5
    state += np.uint64(length)
    while i + 8 <= stop:
        state = _rotate(state ^ _round(np.uint64(0), load64(a, i)), 27) * _P1 + _P4
        i += 8
    if i + 4 <= stop:
        word = np.uint64(a[i]) | np.uint64(a[i + 1]) << np.uint64(8)
        word |= np.uint64(a[i + 2]) << np.uint64(16) | np.uint64(a[i + 3]) << np.uint64(24)
        state = _rotate(state ^ (word * _P1), 23) * _P2 + _P3
        i += 4
    while i < stop:
        state = _rotate(state ^ (np.uint64(a[i]) * _P5), 11) * _P1
        i += 1
    state ^= state >> np.uint64(33)
    state *= _P2
    state ^= state >> np.uint64(29)
    state *= _P3
    return state ^ (state >> np.uint64(32))
