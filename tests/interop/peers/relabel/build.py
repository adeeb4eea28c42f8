"""Build the program that relabels with the real Prometheus, and talk to it.

    python tests/interop/peers/relabel/build.py    # build it, print its path

Labels are built as slices (tag `slicelabels`), as Thanos is: the order of an unsorted set is kept.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent


def _peers() -> ModuleType:
    """Return the module that builds the other peers; the folders here are no packages."""
    place = FOLDER.parent / "build.py"
    specification = importlib.util.spec_from_file_location("interop_peers_build", place)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def version() -> str:
    """Return the program and version that vectors are made by."""
    peer = _peers().PEERS[0]
    return f"{peer.module} {peer.version}"


def build() -> Path:
    """Build the program unless the cache has it built from this source; return its path."""
    peers = _peers()
    peer = peers.PEERS[0]
    work = peers.cache_folder() / f"relabel-{peer.version}"
    program, source = work / "relabel", work / "main.go"
    wanted = (FOLDER / "main.go").read_text(encoding="utf-8")
    if program.exists() and source.read_text(encoding="utf-8") == wanted:
        return program
    go = peers.find_go()
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "main.go", source)
    (work / "go.mod").write_text(peers.main_module_text(go, peer), encoding="utf-8")
    command = [go, "build", "-p", "2", "-trimpath", "-tags", "slicelabels", "-o", str(program), "."]
    subprocess.run(command, check=True, cwd=work, env=peers._go_environment())
    return program


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
