"""Bytes that end where memory ends: reading one byte beyond them kills the process.

    … | zeros | the bytes | a page that nobody may touch

No compiler checks a wide load; the processor checks these. What a kernel is handed in a fuzz test
goes through `guarded`, so that an over-read of compiled code is a crash, not a value that happens
to be right.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from thanostack.lib.model.label_runs import Uint8Array

_LIBC = ctypes.CDLL(None, use_errno=True)
_PROT_NONE = 0


def guarded(data: bytes | bytearray | memoryview) -> Uint8Array:
    """Return a copy of the bytes whose end is the last byte before an untouchable page.

    Returns:
        uint8[n], writable; its memory lives as long as the array and views of it.

    Raises:
        OSError: if the page cannot be protected.
    """
    pages = -(-len(data) // mmap.PAGESIZE)
    area = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    whole = np.frombuffer(area, np.uint8)
    guard = pages * mmap.PAGESIZE
    address = ctypes.c_void_p(whole.ctypes.data + guard)
    if _LIBC.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), _PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    array = whole[guard - len(data) : guard]
    array[:] = np.frombuffer(data, np.uint8)
    return array
