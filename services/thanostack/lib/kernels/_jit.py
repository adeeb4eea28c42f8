"""The only permitted kernel decorators, and their registry.

`@kernel(signature)` stands for one explicit signature: no GIL, numpy's division, no fast-math, no
nested threads. `@device` and `@routine` mark helpers that only kernels call; they are compiled into
their callers.

Numba is a tool here, as a C compiler is elsewhere: it runs in a process of its own (`_compiler`),
leaves machine code in a folder (`_store`), and the processes that use kernels map that code without
it (`_linker`). A process so neither waits for the compiler's import nor carries it:

    first call ──in the store?──> linked ──> bound under the kernel's name
                 └─no──> _compiler, another process ──> the store

    NUMBA_BOUNDSCHECK=1       the checked build, kept apart from the other
    NUMBA_DISABLE_JIT=1       plain Python, for coverage and readable tracebacks

Source: docs/decisions/0003 and 0009.
"""

import atexit
import functools
import os
import threading
from typing import Protocol

from thanostack.lib.kernels import _store

DISABLED = os.environ.get("NUMBA_DISABLE_JIT") == "1"
CHECKED = os.environ.get("NUMBA_BOUNDSCHECK") == "1"

REGISTRY: dict[str, str] = {}
"""Kernel name -> signature text, of every kernel whose module was imported."""

BEFORE_FIRST_CALL: list = []
"""Called with module and name of a kernel to be loaded; may block while another compiles it."""


class Builder(Protocol):
    """What the compiling process puts in the place of this module's plain behaviour."""

    def helper(self, function, *, inline: bool):
        """Return the compiler's view of a helper."""

    def kernel(self, kernel: "Kernel"):
        """Return the compiler's view of a kernel."""


builder: Builder | None = None
"""Set by `_compiler` before it imports any kernel; None wherever kernels are only used."""


class Kernel:
    """A kernel that is linked, or else compiled first, when it is first called.

    A process so pays for the kernels it uses only. Once linked, whoever calls it through its module
    calls the machine code directly.

    Args:
        function: the kernel's source.
        signature: its types.
    """

    def __init__(self, function, signature) -> None:
        self.py_func, self.signature = function, signature
        self._lock = threading.Lock()
        self._linked = None

    def __call__(self, *arguments):
        """Call the kernel."""
        return self.ready()(*arguments)

    @property
    def _numba_type_(self):
        # How numba sees this kernel where another one calls it.
        assert builder is not None, "kernels are compiled by `_compiler` only"
        return builder.kernel(self)._numba_type_

    def ready(self):
        """Return the machine code's function, compiling it if no store has it.

        Raises:
            RuntimeError: if it cannot be compiled; why is on standard error.
        """
        if self._linked is None:
            with self._lock:
                if self._linked is None:
                    function = self.py_func
                    for hook in BEFORE_FIRST_CALL:
                        hook(function.__module__, function.__name__)
                    self._linked = _load(function)
                    function.__globals__[function.__name__] = self._linked
        return self._linked


def _load(function):
    module, name = function.__module__.rpartition(".")[2], function.__name__
    entry = _store.find(module, name)
    if entry is None:
        _compiler().compile(function.__module__, name)
        entry = _store.find(module, name)
        if entry is None:
            _compiler.cache_clear()
            raise RuntimeError(f"kernel {name} cannot be compiled; standard error says why")
    from thanostack.lib.kernels import _linker

    return _linker.link(entry, function)


@functools.cache
def _compiler():
    from thanostack.lib.kernels._compiling import CompilingProcess

    process = CompilingProcess()
    atexit.register(process.close)
    return process


def kernel(signature):
    """Return the decorator for one kernel of exactly this signature.

    Args:
        signature: in the terms of `_types`. Byte inputs are readonly uint8 arrays.
    """

    def decorate(function):
        assert function.__name__ not in REGISTRY, f"two kernels named {function.__name__}"
        REGISTRY[function.__name__] = str(signature)
        return function if DISABLED else Kernel(function, signature)

    return decorate


def device(function):
    """Mark a helper that only kernels call: inlined into each caller, never dispatched."""
    return function if builder is None else builder.helper(function, inline=True)


def routine(function):
    """Mark a big helper that only kernels call: a real call, so that it is compiled in once."""
    return function if builder is None else builder.helper(function, inline=False)
