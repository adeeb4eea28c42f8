"""Compiling cold kernels in two children, the ones that are needed first.

Importing compiles nothing: a kernel is loaded, or else compiled, when it is first called. On a
fresh machine the children work through all that a component uses, one by one, and a call waits for
its kernel instead of compiling it:

    first call ──cold?──> moved forward, waited for ──> loaded from the cache

Order: what the first write needs, what a caller waits for, what plain selectors need, all else.
`receive` and `query` wait for all of it before they start; `standalone` serves meanwhile. A child
that dies is not an error here: the caller compiles for itself, or fails with a traceback. An image
ships its cache and never gets here.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from thanostack.lib.kernels._compiling import CompilingProcess
from thanostack.runtime import logs
from thanostack.runtime.kernel_cache import (
    KERNELS,
    WRITE_PATH,
    all_kernel_modules,
    cold_kernels,
    copy_kernels,
    kernel_modules_of,
    kernels_in,
)

CHILDREN: Final = 2


@dataclass(eq=False, slots=True)
class _Job:
    module: str
    name: str
    is_urgent: bool
    done: threading.Event = field(default_factory=threading.Event)


class KernelPool:
    """The children, and what is left to do.

    Args:
        cold: (module, kernel) to compile, the first ones first.
        n_urgent: how many of them make up the write path.
        log: told how far they are.
    """

    def __init__(self, cold: list[tuple[str, str]], n_urgent: int, log: logs.Logger) -> None:
        self._log, self._started_s = log, time.monotonic()
        jobs = [_Job(*kernel, is_urgent=i < n_urgent) for i, kernel in enumerate(cold)]
        self._jobs = {(job.module, job.name): job for job in jobs}
        self._waiting = jobs
        self._lock = threading.Lock()
        log.info("compiling kernels, once on this machine", kernels=len(jobs), first=n_urgent)
        for _ in range(min(CHILDREN, os.cpu_count() or 1)):
            threading.Thread(target=self._work, name="compile", daemon=True).start()

    def want(self, module: str, name: str) -> None:
        """Compile a kernel next if it is cold, and wait until it is compiled."""
        job = self._jobs.get((module, name))
        if job is None:
            return
        with self._lock:
            if job in self._waiting and not job.is_urgent:
                self._waiting.remove(job)
                # Behind the write path: until that is there, a query finds nothing anyway.
                self._waiting.insert(sum(other.is_urgent for other in self._waiting), job)
        job.done.wait()

    def wait_for_urgent(self) -> None:
        """Wait until the write path is compiled."""
        for job in self._jobs.values():
            if job.is_urgent:
                job.done.wait()

    def wait(self) -> None:
        """Wait until everything is compiled."""
        for job in self._jobs.values():
            job.done.wait()

    def _take(self) -> _Job | None:
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _work(self) -> None:
        child = CompilingProcess()
        while (job := self._take()) is not None:
            if not child.compile(job.module, job.name):
                self._log.warning("a child could not compile, trying here later", kernel=job.name)
                child.close()
                child = CompilingProcess()
            job.done.set()
            self._tell(job)
        child.close()

    def _tell(self, job: _Job) -> None:
        done = sum(other.done.is_set() for other in self._jobs.values())
        self._log.info("compiled", kernel=job.name, done=done, of=len(self._jobs))
        if done == len(self._jobs):
            duration_s = time.monotonic() - self._started_s
            self._log.info("kernels are compiled", duration_s=duration_s)


_pool: KernelPool | None = None


def start(component: str, log: logs.Logger) -> None:
    """Begin to compile what a component lacks; its calls wait for what they need."""
    global _pool
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return
    cold = cold_kernels(kernel_modules_of(component))
    if not cold:
        return
    from thanostack.lib.kernels import _jit

    n_urgent = sum(name in WRITE_PATH for _, name in cold)
    _pool = KernelPool(cold, n_urgent, log)
    _jit.BEFORE_FIRST_CALL.append(_pool.want)


def is_compiling() -> bool:
    """Return whether this process began with cold kernels."""
    return _pool is not None


def wait_for_write_path() -> None:
    """Wait until no kernel of the write path has to be compiled any more; may block for long."""
    if _pool is not None:
        _pool.wait_for_urgent()


def load(component: str, names: Iterable[str]) -> None:
    """Load what the first write needs; else that write would hold the event loop while it loads.

    Args:
        component: whose kernels they are.
        names: of kernels.
    """
    wanted = frozenset(names)
    for module in kernel_modules_of(component):
        for name in wanted.intersection(kernels_in(module)):
            kernel = getattr(importlib.import_module(KERNELS + module), name)
            if hasattr(kernel, "ready"):  # else it is linked already
                kernel.ready()


def wait_for_all() -> None:
    """Wait until nothing that the component uses has to be compiled any more."""
    if _pool is not None:
        _pool.wait()


def main(folder: str = "") -> None:
    """Compile every kernel that no cache has; for images, and before tests.

    Args:
        folder: that gets a copy of every compiled kernel, if any; an image ships it.
    """
    cold = cold_kernels(all_kernel_modules())
    if cold:
        KernelPool(cold, 0, logs.configure("kernels", level="info", form="logfmt")).wait()
    if folder:
        copy_kernels(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
