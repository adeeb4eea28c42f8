"""Which file system a data directory is on, as far as storage has to care.

Locks, `rename` and `fsync` promise less over a network or through a program: Prometheus's storage
is not supported there. Asked of the kernel by `statfs`, whatever the mount table calls it.

Source: Prometheus `util/runtime/statfs.go`; Linux `statfs(2)` and its `magic.h`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_NOT_POSIX_ENOUGH: Final = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x0BD00BD3: "lustre",
    0x47504653: "gpfs",
    0x73757245: "coda",
    0x786F4256: "vboxsf",
}
_STATFS_BYTES: Final = 512  # the structure is 120 bytes on 64-bit Linux; its first word is the type


def file_system_type(folder: Path) -> int | None:
    """Return the magic number of the file system, None where it cannot be asked for."""
    if not sys.platform.startswith("linux"):
        return None
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).statfs(os.fsencode(folder), answer):
        return None
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF


def doubtful_file_system(folder: Path) -> str | None:
    """Return the name of the file system if storage on it may not keep its promises, else None."""
    kind = file_system_type(folder)
    return None if kind is None else _NOT_POSIX_ENOUGH.get(kind)
