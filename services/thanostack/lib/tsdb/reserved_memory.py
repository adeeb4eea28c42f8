"""Arrays in reserved address space: they grow by being touched and never move.

A kernel holds plain pointers, so an array under a reader or a writer must not be reallocated. An
anonymous mapping without reserve costs nothing until a page is touched, and freed pages go back to
the system by `madvise`.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import Unavailable

_MAP_NORESERVE = 0x4000
_PAGE = mmap.PAGESIZE


def reserve(dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
    """Return a zeroed array whose pages are taken only when touched.

    Raises:
        Unavailable: if the system refuses the address space (`vm.overcommit_memory=2`, RLIMIT_AS).
    """
    kind = np.dtype(dtype)
    try:
        area = mmap.mmap(
            -1,
            max(kind.itemsize * count, _PAGE),
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE,
        )
    except OSError as error:
        raise Unavailable(
            f"cannot reserve {kind.itemsize * count} bytes of address space ({error}); "
            "set vm.overcommit_memory to 0 or 1, or raise the address-space limit"
        ) from error
    return np.frombuffer(area, kind, count)


def prefer_huge_pages(array: npt.NDArray[Any]) -> None:
    """Ask for 2 MiB pages where the array is touched from now on.

    For arenas that are filled from the front and read at random: with small pages most of a random
    access is the walk of the page table. A system that has none ignores it.
    """
    with contextlib.suppress(OSError):
        _area(array).madvise(mmap.MADV_HUGEPAGE)


def release(array: npt.NDArray[Any], first: int, stop: int) -> None:
    """Give the pages wholly inside items [first, stop) back; they read as zeros afterwards."""
    start = -(-first * array.itemsize // _PAGE) * _PAGE
    end = stop * array.itemsize // _PAGE * _PAGE
    if end > start:
        _area(array).madvise(mmap.MADV_DONTNEED, start, end - start)


def _area(array: npt.NDArray[Any]) -> mmap.mmap:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    area = base.obj if isinstance(base, memoryview) else base
    assert isinstance(area, mmap.mmap), "a reserved array"
    return area
