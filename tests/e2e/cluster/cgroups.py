"""A node's own cgroup, in each hierarchy that this machine has (version 1, 2 or both).

/sys/fs/cgroup/<controller>/<name>/system     the node's programs
                                  /kubepods   made by kubelet
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_EMPTYING_S = 10


def make(name: str) -> None:
    """Make a node's cgroup."""
    for folder in _folders(name):
        (folder / "system").mkdir(parents=True, exist_ok=True)
        for each in (folder, folder / "system"):
            _inherit_processors(each)


def enter(name: str) -> None:
    """Move this process into the part for the node's programs; its children begin there."""
    for folder in _folders(name):
        (folder / "system" / "cgroup.procs").write_text("0", encoding="ascii")


def remove(name: str) -> None:
    """Remove a node's cgroup; one empties a little later than its last process ends.

    Raises:
        TimeoutError: if processes are left in it.
    """
    deadline = time.monotonic() + _EMPTYING_S
    while any(_is_left(folder) for folder in _folders(name)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroup {name} does not empty")
        time.sleep(0.05)


def _folders(name: str) -> list[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    return [Path(mount[1]) / name for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def _inherit_processors(folder: Path) -> None:
    """Fill in what a new cpuset of version 1 lacks: until then it takes no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        path = folder / file
        if path.exists() and not path.read_text("ascii").strip():
            # In version 2 nothing is written: empty means the parent's.
            if (folder / "cgroup.controllers").exists():
                continue
            path.write_text((folder.parent / file).read_text("ascii"), encoding="ascii")


def _is_left(folder: Path) -> bool:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return folder.exists()
