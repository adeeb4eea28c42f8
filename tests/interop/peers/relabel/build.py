"""Build the program that relabels with the real Prometheus, and talk to it.

    python tests/interop/peers/relabel/build.py    # build it, print its path

Labels are built as slices (tag `slicelabels`), as Thanos is: the order of an unsorted set is kept.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from thanostack.testing import go_programs

_PROGRAM = go_programs.GoProgram(
    "relabel",
    "github.com/prometheus/prometheus",
    "v0.314.0",
    tags="slicelabels",
    source=Path(__file__).parent,
)


def version() -> str:
    """Return the program and version that vectors are made by."""
    return f"{_PROGRAM.module} {_PROGRAM.version}"


def build() -> Path:
    """Build the program unless the cache has it built from this source; return its path."""
    return go_programs.build(_PROGRAM)


def relabel(cases: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what Prometheus makes of each case; see `main.go`."""
    text = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run(
        [str(build())], input=text.encode(), capture_output=True, check=True, timeout=300
    )
    for line in done.stdout.splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    print(build())
