"""Build the real peers (Prometheus, promtool, Thanos) from the Go module proxy.

``go install pkg@version`` refuses a module whose go.mod has ``replace`` lines, and both peers
have them. For each peer a throw-away main module is written whose go.mod repeats the peer's own
``require``, ``replace`` and ``exclude`` lines; ``go build`` in it gives exactly the program that
upstream releases. The programs land in a cache outside the checkout, one folder a version, so
that a second run finds them.

    python tests/interop/peers/build.py            # build what is missing, print the folder

This module uses the standard library only: `make interop` runs it before anything is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """One program: the Go module it comes from, its package and its build tags.

    A program of our own that imports the module has a folder of source instead of a package.
    """

    name: str
    module: str
    version: str
    package: str = "."
    tags: str = ""
    source: Path | None = None

    @property
    def program(self) -> str:
        """Return the file's name; a changed source is another program."""
        if self.source is None:
            return self.name
        return f"{self.name}-{sha256((self.source / 'main.go').read_bytes()).hexdigest()[:12]}"


PEERS = (
    Peer(
        "prometheus",
        "github.com/prometheus/prometheus",
        "v0.314.0",
        "github.com/prometheus/prometheus/cmd/prometheus",
    ),
    Peer(
        "promtool",
        "github.com/prometheus/prometheus",
        "v0.314.0",
        "github.com/prometheus/prometheus/cmd/promtool",
    ),
    # Without slicelabels Thanos v0.42.4 starts but panics on the first write.
    Peer(
        "thanos",
        "github.com/thanos-io/thanos",
        "v0.42.4",
        "github.com/thanos-io/thanos/cmd/thanos",
        tags="slicelabels",
    ),
    Peer(
        "hashring-vectors",
        "github.com/thanos-io/thanos",
        "v0.42.4",
        tags="slicelabels",
        source=Path(__file__).parent / "vectors",
    ),
)


class PeerUnavailable(RuntimeError):
    """Raised when a peer cannot be built here; the message says what is missing."""


def cache_folder() -> Path:
    """Return the folder that keeps built peers, ``~/.cache/thanostack/peers`` by default."""
    root = os.environ.get("THANOSTACK_PEER_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "thanostack" / "peers"


def find_go() -> str:
    """Return the path of a Go tool, installing Debian's or PyPI's package when none is there.

    Raises:
        PeerUnavailable: if there is no Go and no known package manager to get it from.
    """
    go = shutil.which("go")
    if go:
        return go
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-q", "-y", "golang-go"], check=True)
        go = shutil.which("go")
    if not go:
        raise PeerUnavailable("the interop suite needs Go >= 1.26: install it and run again")
    return go


def _go_json(go: str, *arguments: str) -> dict:
    return json.loads(subprocess.check_output([go, *arguments], env=_go_environment()))


def _go_environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}


def main_module_text(go: str, peer: Peer) -> str:
    """Return a go.mod whose requirements, replacements and exclusions are the peer's own."""
    downloaded = _go_json(go, "mod", "download", "-json", f"{peer.module}@{peer.version}")
    module = _go_json(go, "mod", "edit", "-json", downloaded["GoMod"])
    lines = ["module peers.invalid/build", f"go {module['Go']}"]
    lines.append(f"require {peer.module} {peer.version}")
    lines += [f"require {r['Path']} {r['Version']}" for r in module.get("Require") or []]
    for replacement in module.get("Replace") or []:
        old, new = replacement["Old"], replacement["New"]
        if new["Path"].startswith("."):  # a module of the same repository: the proxy has it
            continue
        source = f"{old['Path']} {old.get('Version', '')}".strip()
        lines.append(f"replace {source} => {new['Path']} {new.get('Version', '')}".strip())
    lines += [f"exclude {e['Path']} {e['Version']}" for e in module.get("Exclude") or []]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def build_peer(peer: Peer) -> Path:
    """Build one peer unless the cache has it, and return the program's path."""
    folder = cache_folder() / f"{peer.module.rsplit('/', 1)[1]}-{peer.version}"
    program = folder / peer.program
    if program.exists():
        return program
    go = find_go()
    work = folder / ("build" if peer.source is None else f"build-{peer.program}")
    work.mkdir(parents=True, exist_ok=True)
    if peer.source:
        shutil.copy(peer.source / "main.go", work)
    (work / "go.mod").write_text(main_module_text(go, peer))
    unfinished = folder / f"{peer.program}.unfinished"
    command = [go, "build", "-p", "2", "-trimpath", "-ldflags=-s -w"]
    command += ["-tags", peer.tags] if peer.tags else []
    command += ["-o", str(unfinished), peer.package]
    print(f"building {peer.name} {peer.version} (once; minutes)", file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=work, env=_go_environment())
    unfinished.rename(program)
    return program


def main() -> None:
    """Build every missing peer and print where each is."""
    for peer in PEERS:
        print(build_peer(peer))


if __name__ == "__main__":
    main()
