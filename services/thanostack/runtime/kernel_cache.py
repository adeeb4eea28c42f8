"""Compiling kernels before the first request, where the cache does not have them.

Compiled kernels are cached by content (`lib/kernels/_jit`). A fresh machine compiles once, which
takes a minute or two; done inside the server it would look like a hang. So before a component is
imported:

    sources of the component ──scan imports──> kernel modules it uses ──cold?──> child processes

Children compile by importing one module each, two at a time, the write path first, and say how far
they are. A failed child is not an error here: the component's own import will compile, or fail
with a proper traceback. An image ships its cache and never gets here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from thanostack.runtime.logs import Logger

CHILDREN_MAX: Final = 2
_KERNELS: Final = "thanostack.lib.kernels."
_PACKAGE = Path(__file__).parent.parent
_IMPORT = re.compile(
    r"^\s*(?:from|import) (thanostack[\w.]*)(?: import (?:\(([^)]*)\)|([^\n(#]*)))?", re.MULTILINE
)
_KERNEL = re.compile(r"^@kernel\(", re.MULTILINE)
_FIRST = ("remote_write", "head", "wal", "xor")


def kernel_modules_of(component: str) -> list[str]:
    """Return the kernel modules that a component's sources reach by imports, write path first."""
    seen: set[str] = set()
    waiting = [f"thanostack.{component}.wiring"]
    while waiting:
        name = waiting.pop()
        source = _source_of(name)
        if name in seen or source is None:
            continue
        seen.add(name)
        waiting += _imports(source.read_text(encoding="utf-8"))
    kernels = [name.removeprefix(_KERNELS) for name in seen if name.startswith(_KERNELS)]
    return sorted(kernels, key=lambda name: (_rank(name), name))


def _rank(module: str) -> int:
    ranks = (i for i, prefix in enumerate(_FIRST) if module.startswith(prefix))
    return next(ranks, len(_FIRST))


def _imports(text: str) -> Iterable[str]:
    for package, several, one in _IMPORT.findall(text):
        yield package
        # A trailing comma leaves an empty name.
        for name in filter(str.strip, (several or one).split(",")):
            yield f"{package}.{name.split(' as ')[0].strip()}"


def _source_of(module: str) -> Path | None:
    path = _PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def is_warm(module: str) -> bool:
    """Return whether every kernel of a module is in a cache that this process would read."""
    from thanostack.lib.kernels import _jit

    source = _PACKAGE / "lib" / "kernels" / f"{module}.py"
    wanted = len(_KERNEL.findall(source.read_text(encoding="utf-8")))
    folder = f"{module}-{_jit.module_stamp(module)}"
    held = max(len(list((root / folder).glob("*.nbi"))) for root in _jit.cache_roots())
    return held >= wanted


def warm_up(component: str, log: Logger) -> None:
    """Compile the cold kernels of a component in child processes, showing progress."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return
    cold = [module for module in kernel_modules_of(component) if not is_warm(module)]
    if not cold:
        return
    log.info("compiling kernels, once on this machine", modules=len(cold))
    started = time.monotonic()
    if sys.stderr.isatty():
        _compile_with_bar(cold)
    else:
        _compile_with_lines(cold, log)
    log.info("kernels are compiled", duration_s=time.monotonic() - started)


def _compile_with_bar(cold: Sequence[str]) -> None:
    columns = (
        TextColumn("compiling kernels"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(cold))
        for _ in _compiled(cold):
            progress.advance(bar)


def _compile_with_lines(cold: Sequence[str], log: Logger) -> None:
    for done, (module, failure) in enumerate(_compiled(cold), start=1):
        log.info("compiled", module=module, done=done, of=len(cold))
        if failure:
            log.warning("a child could not compile, this process will try", module=module)


def _compiled(cold: Sequence[str]) -> Iterable[tuple[str, bool]]:
    """Yield (module, failed) as each is done, in order."""
    with ThreadPoolExecutor(min(CHILDREN_MAX, os.cpu_count() or 1)) as pool:
        yield from zip(cold, pool.map(_compile, cold), strict=True)


def _compile(module: str) -> bool:
    environment = dict(os.environ, PYTHONPATH=str(_PACKAGE.parent), PYTHONSAFEPATH="1")
    done = subprocess.run(
        [sys.executable, "-c", f"import {_KERNELS}{module}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode != 0
