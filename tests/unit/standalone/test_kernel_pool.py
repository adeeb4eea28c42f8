"""Compiling beside a running server: what is first, who waits, and what a dead child costs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog

from thanostack.lib.kernels import _jit
from thanostack.runtime import kernel_pool
from thanostack.runtime.kernel_pool import KernelPool

KERNELS = Path(kernel_pool.__file__).parent.parent / "lib" / "kernels"
SERVICES = str(KERNELS.parents[2])


class Child:
    """Stands for a compiling process: compiles when let, and may die over one kernel."""

    def __init__(self, dies_over=()):
        self.compiled, self.gate, self.dies_over = [], threading.Semaphore(0), set(dies_over)

    def compile(self, module, name):
        assert self.gate.acquire(timeout=30)
        self.compiled.append(name)
        return name not in self.dies_over

    def close(self):
        pass


def pool_of(monkeypatch, child, names, n_urgent=0):
    monkeypatch.setattr(kernel_pool, "CHILDREN", 1)
    monkeypatch.setattr(kernel_pool, "CompilingProcess", lambda: child)
    silent = structlog.wrap_logger(structlog.ReturnLogger())
    return KernelPool([("m", name) for name in names], n_urgent, silent)


def wait_for(claim):
    ends = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < ends
        time.sleep(0.002)


def test_what_is_wanted_goes_before_all_but_the_write_path(monkeypatch):
    """A caller that waits overtakes other kernels, and never those that writing needs."""
    child = Child()
    pool = pool_of(monkeypatch, child, ["w1", "w2", "w3", "a", "b", "c"], n_urgent=3)
    wait_for(lambda: len(pool._waiting) == 5)  # the child has w1 in hand
    waiting = threading.Thread(target=pool.want, args=("m", "c"))
    waiting.start()
    wait_for(lambda: pool._waiting[2].name == "c")
    child.gate.release(3)
    pool.wait_for_urgent()
    assert waiting.is_alive()
    child.gate.release(3)
    waiting.join(30)
    wait_for(lambda: len(child.compiled) == 6)
    assert child.compiled == ["w1", "w2", "w3", "c", "a", "b"]


def test_a_child_that_dies_holds_nobody_up(monkeypatch):
    """Whoever waits goes on, to compile for itself, and the rest is compiled as before."""
    child = Child(dies_over=["a"])
    pool = pool_of(monkeypatch, child, ["a", "b"])
    child.gate.release(2)
    pool.want("m", "a")
    pool.want("m", "b")
    assert child.compiled == ["a", "b"]


def test_a_warm_kernel_is_not_waited_for(monkeypatch):
    """The pool knows only what was cold when it began."""
    pool_of(monkeypatch, Child(), []).want("m", "other")


def test_a_kernel_is_loaded_once_however_many_call_it(monkeypatch):
    """Threads that meet at the first call share one load, and all get its result."""
    loaded = []

    def doubled(x):
        return 2 * x

    def load(function):
        loaded.append(function)
        time.sleep(0.02)
        return function

    monkeypatch.setattr(_jit, "_load", load)
    kernel = _jit.Kernel(doubled, None)
    results = []
    threads = [threading.Thread(target=lambda: results.append(kernel(4))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (loaded, results) == ([doubled], [8] * 8)
    assert kernel.py_func is doubled


def test_importing_compiles_nothing_and_calling_does(tmp_path):
    """In a fresh process with an empty cache a module is there at once; its kernel on demand."""
    code = """
import pathlib, sys
from thanostack.lib.kernels import _jit, head_chunk_file as module
asked = []
_jit.BEFORE_FIRST_CALL.append(lambda module, name: asked.append(name))
kernels = [name for name, thing in vars(module).items() if isinstance(thing, _jit.Kernel)]
compiled = lambda: list(pathlib.Path(sys.argv[1]).rglob("*.kernel"))
assert kernels and not compiled(), "imported, not compiled"
kernel = getattr(module, kernels[0])
assert kernel.ready() is getattr(module, kernels[0]), "the module has the compiled one now"
assert asked == kernels[:1] and len(compiled()) == 1
assert "numba" not in sys.modules, "another process compiled"
"""
    names = ("THANOSTACK_KERNEL_CACHE", "XDG_CACHE_HOME", "TMPDIR")
    environment = {"PYTHONPATH": SERVICES, **dict.fromkeys(names, str(tmp_path))}
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
