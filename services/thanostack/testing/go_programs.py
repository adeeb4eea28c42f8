"""Go programs that tests run against, built by module name from the Go module proxy.

``go install pkg@version`` refuses a module whose go.mod has ``replace`` lines, and most of these
have them. For each program a throw-away main module is written whose go.mod repeats the module's
own ``require``, ``replace`` and ``exclude`` lines; ``go build`` in it gives the program that
upstream releases. Programs land in a cache outside the checkout, one folder a module and version,
so that a second run finds them.

Needs only the standard library, so that programs can be built before anything is installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

_N_JOBS = 2
"""Packages compiled at a time, at the lowest priority: two cores are enough to wait for."""


@dataclass(frozen=True)
class GoProgram:
    """One program: the module it comes from, its package, and what the linker is told.

    Args:
        name: of the file.
        module: that has the package, or that a program of our own imports.
        version: of the module, as ``v1.2.3``.
        package: with the program's ``main``.
        tags: build tags, separated by commas.
        source: folder with the ``main.go`` of a program of our own; it takes the package's place.
        symbols: Go variables set by the linker, most often the version a program believes to be.
        main_module: name of the throw-away module; Go lets a module below ``x`` import
            ``x/internal``.
    """

    name: str
    module: str
    version: str
    package: str = "."
    tags: str = ""
    source: Path | None = None
    symbols: tuple[tuple[str, str], ...] = ()
    main_module: str = "peers.invalid/build"

    @property
    def file_name(self) -> str:
        """Return the file's name; a changed source is another program."""
        if self.source is None:
            return self.name
        return f"{self.name}-{sha256((self.source / 'main.go').read_bytes()).hexdigest()[:12]}"

    @property
    def path(self) -> Path:
        """Return where the built program is kept."""
        module = re.sub(r"/v\d+$", "", self.module).rsplit("/", 1)[1]
        return cache_folder() / f"{module}-{self.version}" / self.file_name


class GoUnavailable(RuntimeError):
    """Raised when there is no Go and no known package manager to get it from."""


def cache_folder() -> Path:
    """Return the folder that keeps built programs, ``~/.cache/thanostack/peers`` by default."""
    root = os.environ.get("THANOSTACK_PEER_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "thanostack" / "peers"


def find_go() -> str:
    """Return the path of a Go tool, installing Debian's package when none is there.

    Raises:
        GoUnavailable: if there is none and it cannot be installed.
    """
    go = shutil.which("go")
    if go:
        return go
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-q", "-y", "golang-go"], check=True)
        go = shutil.which("go")
    if not go:
        raise GoUnavailable("programs to test against need Go >= 1.26: install it and run again")
    return go


def build(program: GoProgram) -> Path:
    """Build one program unless the cache has it, and return its path.

    Raises:
        GoUnavailable: if there is no Go.
        subprocess.CalledProcessError: if it does not build.
    """
    path = program.path
    if path.exists():
        return path
    work = path.parent / ("build" if program.source is None else f"build-{program.file_name}")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another process may have built it while we waited.
        if not path.exists():
            _build(program, work)
    return path


def module_folder(module: str, version: str) -> Path:
    """Return the folder with a module's files, read-only, as the Go tool keeps them.

    Raises:
        GoUnavailable: if there is no Go.
        subprocess.CalledProcessError: if there is no such version.
    """
    downloaded = _go_json(find_go(), "mod", "download", "-json", f"{module}@{version}")
    return Path(downloaded["Dir"])


def _build(program: GoProgram, work: Path) -> None:
    go, path = find_go(), program.path
    if program.source:
        shutil.copy(program.source / "main.go", work)
    (work / "go.mod").write_text(main_module_text(go, program), encoding="utf-8")
    unfinished = path.with_name(f"{path.name}.unfinished")
    linked = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in program.symbols)])
    command = [go, "build", "-p", str(_N_JOBS), "-trimpath", f"-ldflags={linked}"]
    command += ["-tags", program.tags] if program.tags else []
    command += ["-o", str(unfinished), program.package]
    print(f"building {program.name} {program.version} (once)", file=sys.stderr, flush=True)
    subprocess.run(["nice", "-n", "19", *command], check=True, cwd=work, env=_environment())
    unfinished.rename(path)


def main_module_text(go: str, program: GoProgram) -> str:
    """Return a go.mod whose requirements, replacements and exclusions are the module's own."""
    wanted = f"{program.module}@{program.version}"
    downloaded = _go_json(go, "mod", "download", "-json", wanted)
    module = _go_json(go, "mod", "edit", "-json", downloaded["GoMod"])
    lines = [f"module {program.main_module}", f"go {module['Go']}"]
    lines.append(f"require {program.module} {program.version}")
    lines += [
        f"require {each['Path']} {_published(program, each['Version'])}"
        for each in module.get("Require") or []
    ]
    for replacement in module.get("Replace") or []:
        lines += _replace_lines(program, replacement)
    lines += [f"exclude {each['Path']} {each['Version']}" for each in module.get("Exclude") or []]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _replace_lines(program: GoProgram, replacement: dict[str, Any]) -> list[str]:
    """Return a replacement as go.mod says it; a folder of the same repository is in the proxy."""
    old, new = replacement["Old"], replacement["New"]
    if not new["Path"].startswith("."):
        source = f"{old['Path']} {old.get('Version', '')}".strip()
        return [f"replace {source} => {new['Path']} {new.get('Version', '')}".strip()]
    staged = _published(program, "v0.0.0")
    return [] if staged == "v0.0.0" else [f"replace {old['Path']} => {old['Path']} {staged}"]


def _published(program: GoProgram, version: str) -> str:
    """Return the version of a module in Kubernetes' own tree: v1.36.3 publishes it as v0.36.3."""
    if program.module == "k8s.io/kubernetes" and version == "v0.0.0":
        return program.version.replace("v1.", "v0.", 1)
    return version


def _go_json(go: str, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        subprocess.check_output([go, *arguments], env=_environment())
    )
    return answer


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
