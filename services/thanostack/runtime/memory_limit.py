"""How much memory this process may have: its control group's limit, or the machine's memory.

Source: Linux `Documentation/admin-guide/cgroup-v1/memory.rst`, `cgroup-v2.rst`, proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Return the least of all limits that hold.

    Args:
        root: under which `proc` and `sys` are.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _limit_files(root):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is none; version 1 says a number beyond all memory
            limits.append(int(text))
    return min(limits)


def _limit_files(root: Path) -> Iterator[Path]:
    """Yield where limits of this process may stand: in its group and in all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path)
        for above in (group, *group.parents):
            yield base / above.relative_to("/") / name
