"""A control group of Linux for one process: how much memory and how much CPU it may have.

    version 1   /sys/fs/cgroup/memory/<name>, /sys/fs/cgroup/cpu/<name>
    version 2   /sys/fs/cgroup/<name>

It needs root and writable cgroups; where that is not given, making one fails and says so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 10_000
"""Short, so that a process beyond its share waits milliseconds at a time."""


@dataclass(frozen=True)
class ControlGroup:
    """A group that exists.

    Args:
        folders: of its controllers: two with version 1, one with version 2.
        is_v2: which version.
    """

    folders: tuple[Path, ...]
    is_v2: bool

    @property
    def prefix(self) -> tuple[str, ...]:
        """Return the words before a command line that make it run in here from the beginning."""
        moves = "".join(f"echo $$ > {folder}/cgroup.procs && " for folder in self.folders)
        return ("sh", "-c", f'{moves}exec "$@"', "sh")

    def oom_kills(self) -> int:
        """Return how often the kernel ended something in here for want of memory."""
        name = "memory.events" if self.is_v2 else "memory.oom_control"
        return self._field(name, "oom_kill")

    def anonymous_mib(self) -> float:
        """Return the memory now that the kernel could not take back: without the page cache."""
        return self._field("memory.stat", "anon" if self.is_v2 else "rss") / 2**20

    def _field(self, file: str, key: str) -> int:
        lines = (self.folders[0] / file).read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.split()[0] == key))


@contextlib.contextmanager
def control_group(name: str, *, memory_bytes: int, cpus: float) -> Iterator[ControlGroup]:
    """Make a group for the time of the block; what runs in it must have ended by then.

    Args:
        name: of the group; the process id is added.
        memory_bytes: most memory, page cache included.
        cpus: share of one CPU, such as 0.25.

    Raises:
        RuntimeError: if it cannot be made.
    """
    try:
        group = _made(f"{name}-{os.getpid()}", memory_bytes, cpus)
    except OSError as error:
        raise RuntimeError(
            f"cannot make a control group ({error}): this needs root and a writable {_ROOT}"
        ) from error
    try:
        yield group
    finally:
        for folder in group.folders:
            _removed(folder)


def _made(name: str, memory_bytes: int, cpus: float) -> ControlGroup:
    quota = round(cpus * _PERIOD_US)
    if (_ROOT / "cgroup.controllers").exists():
        (_ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
        folder = _ROOT / name
        folder.mkdir()
        (folder / "memory.max").write_text(str(memory_bytes))
        (folder / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        return ControlGroup((folder,), is_v2=True)
    memory, cpu = _ROOT / "memory" / name, _ROOT / "cpu" / name
    memory.mkdir()
    (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
    cpu.mkdir()
    (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
    (cpu / "cpu.cfs_quota_us").write_text(str(quota))
    return ControlGroup((memory, cpu), is_v2=False)


def _removed(folder: Path) -> None:
    # The kernel needs a moment after the last process has ended.
    for _ in range(50):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
