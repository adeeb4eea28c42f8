"""The `lock` file that keeps a second process off a data directory.

Held by `flock`, as Prometheus holds it, so each program keeps the other away too. The kernel lets
go when a process ends however it ends; a file left behind means nothing.

Source: Prometheus `tsdb/tsdbutil/dir_locker.go`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from thanostack.lib.foundation.errors import DirectoryLocked, StorageUnwritable


class LockFile:
    """Holds `<folder>/lock` until released.

    Raises:
        DirectoryLocked: if another process holds it.
        StorageUnwritable: if the folder cannot be written.

    Attributes:
        was_left: whether the file was there: its last holder did not end by itself.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self.was_left = False
        self._fd = self._lock(folder)
        # Who holds it is a help for people; a full disk must not keep the tenant shut.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.write(self._fd, f"{os.getpid()}\n".encode())

    def _lock(self, folder: Path) -> int:
        while True:
            self.was_left = self._path.exists()
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise StorageUnwritable(f"{folder}: cannot be written: {error.strerror}") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
                os.close(fd)
                by = f" by process {holder}" if holder.isdigit() else ""
                raise DirectoryLocked(
                    f"{self._path} is locked{by}: another process uses this directory; "
                    "give each process its own"
                ) from error
            if self._is_current(fd):
                return fd
            # Its last holder removed the file between our open and our lock.
            os.close(fd)

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Remove the file and let others in."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
