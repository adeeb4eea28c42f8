"""Compiling kernels beside a server that already runs, the ones it needs first.

`kernel_cache` compiles everything before a component is imported: two minutes on a fresh machine.
Here importing compiles nothing, and two children work through the cold kernels, one by one:

    @kernel ──> Deferred ──first call──> compiled in the cache? ──yes──> loaded
                                              └──no──> moved forward, waited for, loaded

Order: what the first write needs, what a caller waits for, what plain selectors need, all else. On
two idle cores the first write is taken and `up` is answered within the first minute. A child that
dies is not an error here: the caller compiles for itself, or fails with a traceback.

Invariants: kernel modules are imported after `start`; what is warm is never deferred.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from thanostack.runtime.kernel_cache import kernel_modules_of
from thanostack.runtime.logs import Logger

CHILDREN: Final = 2
_PACKAGE: Final = Path(__file__).parent.parent
_KERNELS: Final = "thanostack.lib.kernels."
_NAME = re.compile(r"^@kernel\([^\n]*(?:\n(?!def ).*)*\ndef (\w+)", re.MULTILINE)
WRITE_PATH: Final = (
    "head_create", "head_resolve", "head_apply", "label_canonicalise", "remote_write_scan",
    "wal_encode_series", "head_stage", "wal_frame", "message_runs", "head_labels",
)  # fmt: skip
"""What the first write needs, the slowest to compile first."""
PLAIN_SELECTOR: Final = (
    "write_json_series", "sort_label_runs", "xor_decode", "instant_rows", "intern_pairs",
    "head_snapshot", "intern_sets", "edit_label_runs", "head_find_pair", "split_lanes",
    "encode_sets", "take_label_runs", "xor_sample_counts",
)  # fmt: skip
"""What a query such as `up` needs besides."""
_RANK: Final = {name: rank for rank, name in enumerate((*WRITE_PATH, *PLAIN_SELECTOR))}
_CHILD: Final = """
import importlib, sys
from thanostack.runtime.kernel_pool import defer
defer()
for line in sys.stdin:
    module, name = line.split()
    getattr(importlib.import_module(module), name).ready()
    print(flush=True)
"""


class Deferred:
    """A kernel that is loaded, or else compiled, when it is first needed.

    Args:
        function: the kernel's source.
        compile_it: makes it callable.
        before: called with the module and name of a kernel that is not there yet.
    """

    def __init__(
        self,
        function: Any,
        compile_it: Callable[[Any], Any],
        before: Callable[[str, str], None] | None,
    ) -> None:
        self.py_func = function
        self._compile, self._before = compile_it, before
        self._lock = threading.Lock()
        self._kernel: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the kernel."""
        return self.ready()(*arguments)

    @property
    def _numba_type_(self) -> Any:
        # How numba sees this kernel where another one calls it.
        return self.ready()._numba_type_

    def ready(self) -> Any:
        """Return the compiled kernel, waiting for it if need be."""
        if self._kernel is None:
            with self._lock:
                if self._kernel is None:
                    function = self.py_func
                    if self._before is not None:
                        self._before(function.__module__, function.__name__)
                    self._kernel = self._compile(function)
                    # Whoever reaches it through its module calls it directly from now on.
                    function.__globals__[function.__name__] = self._kernel
        return self._kernel


def defer(before: Callable[[str, str], None] | None = None) -> None:
    """Let kernel modules that are imported from now on compile nothing."""
    from thanostack.lib.kernels import _jit

    original = _jit.kernel

    def kernel(signature: Any, **options: Any) -> Callable[[Any], Deferred]:
        compile_it = original(signature, **options)
        return lambda function: Deferred(function, compile_it, before)

    _jit.kernel = kernel


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

    def __init__(self, cold: list[tuple[str, str]], n_urgent: int, log: Logger) -> None:
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

    def _take(self) -> _Job | None:
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _work(self) -> None:
        child = _Child()
        while (job := self._take()) is not None:
            if not child.compile(job):
                self._log.warning("a child could not compile, trying here later", kernel=job.name)
                child.close()
                child = _Child()
            job.done.set()
            self._tell(job)
        child.close()

    def _tell(self, job: _Job) -> None:
        done = sum(other.done.is_set() for other in self._jobs.values())
        self._log.info("compiled", kernel=job.name, done=done, of=len(self._jobs))
        if done == len(self._jobs):
            duration_s = time.monotonic() - self._started_s
            self._log.info("kernels are compiled", duration_s=duration_s)


class _Child:
    """A process that compiles what it is told, and answers with a line when it is done."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            env=dict(os.environ, PYTHONPATH=str(_PACKAGE.parent), PYTHONSAFEPATH="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def compile(self, job: _Job) -> bool:
        """Compile one kernel; return whether it did."""
        try:
            self._asked.write(f"{job.module} {job.name}\n")
            self._asked.flush()
            return bool(self._answers.readline())
        except OSError:
            return False

    def close(self) -> None:
        """Let the process end and wait for it."""
        with contextlib.suppress(OSError):
            self._asked.close()
        self._answers.close()
        self._process.wait()


_pool: KernelPool | None = None


def start(component: str, log: Logger) -> None:
    """Begin to compile what a component lacks, and let its import go on meanwhile."""
    global _pool
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return
    cold = cold_kernels(component)
    if not cold:
        return
    n_urgent = sum(name in WRITE_PATH for _, name in cold)
    _pool = KernelPool(cold, n_urgent, log)
    defer(_pool.want)


def is_compiling() -> bool:
    """Return whether this process began with cold kernels."""
    return _pool is not None


def wait_for_write_path() -> None:
    """Wait until no kernel of the write path has to be compiled any more; may block for long."""
    if _pool is not None:
        _pool.wait_for_urgent()


def cold_kernels(component: str) -> list[tuple[str, str]]:
    """Return (module, kernel) of what no cache has, in the order in which it should be compiled."""
    from thanostack.lib.kernels import _jit

    cold = []
    for module in kernel_modules_of(component):
        folder = f"{module}-{_jit.module_stamp(module)}"
        text = (_PACKAGE / "lib" / "kernels" / f"{module}.py").read_text(encoding="utf-8")
        for name in _NAME.findall(text):
            pattern = f"{module}.{name}-*.nbi"
            if not any(list((root / folder).glob(pattern)) for root in _jit.cache_roots()):
                cold.append((_KERNELS + module, name))
    return sorted(cold, key=lambda kernel: _RANK.get(kernel[1], len(_RANK)))
