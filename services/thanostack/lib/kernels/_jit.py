"""The only permitted kernel decorators, their registry, and where compiled code is kept.

`@kernel(signature)` stands for one explicit signature, loaded or compiled at the first call: no
GIL, numpy's division, no fast-math, no nested threads. `@device` and `@routine` mark helpers that
only kernels call; they are compiled into their callers.

Compiled code is cached outside the checkout, one folder for each *content* of a module: the
stamp hashes the module, every kernel module it imports, the versions of numba and llvmlite, the
target CPU and the bounds-check flag. Numba's own stamp is a file time and does not notice an
edited callee in another file, nor a changed flag. A folder that cannot be written is still read,
so an image ships its cache read-only.

    THANOSTACK_KERNEL_CACHE   a folder to read (and write, where allowed) before the user's cache
    NUMBA_BOUNDSCHECK=1       the checked build, in folders of its own
    NUMBA_DISABLE_JIT=1       plain Python, for coverage and readable tracebacks

Source: numba, "Notes on caching"; `CACHE_LOCATOR_CLASSES`.
"""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import re
import tempfile
import threading

from numba import config, njit

_PACKAGE = __name__.rpartition(".")[0]
_FOLDER = pathlib.Path(__file__).parent
_IMPORT = re.compile(
    rf"^from {re.escape(_PACKAGE)}\.(\w+) import|^from {re.escape(_PACKAGE)} import (\w+)", re.M
)
_VERSIONS = tuple(importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy"))

config.CACHE_LOCATOR_CLASSES = f"{__name__}.ContentLocator"

REGISTRY: dict[str, str] = {}
"""Kernel name -> signature text, of every kernel whose module was imported."""


class Kernel:
    """A kernel that is loaded from the cache, or else compiled, when it is first called.

    A process so pays for the kernels it uses only. Once loaded, whoever calls it through its module
    calls the compiled function directly.

    Args:
        function: the kernel's source.
        compile_it: makes it callable.
    """

    def __init__(self, function, compile_it) -> None:
        self.py_func = function
        self._compile = compile_it
        self._lock = threading.Lock()
        self._compiled = None

    def __call__(self, *arguments):
        """Call the kernel."""
        return self.ready()(*arguments)

    @property
    def _numba_type_(self):
        # How numba sees this kernel where another one calls it.
        return self.ready()._numba_type_

    def ready(self):
        """Return the compiled kernel, compiling it if no cache has it."""
        if self._compiled is None:
            with self._lock:
                if self._compiled is None:
                    function = self.py_func
                    for hook in BEFORE_FIRST_CALL:
                        hook(function.__module__, function.__name__)
                    self._compiled = self._compile(function)
                    function.__globals__[function.__name__] = self._compiled
        return self._compiled


BEFORE_FIRST_CALL: list = []
"""Called with module and name of a kernel to be loaded; may block while another compiles it."""


def kernel(signature, *, sorts: bool = False):
    """Return the decorator that compiles one kernel for exactly this signature.

    Reference counting is off: a kernel owns nothing, and the atomic increments that numba would
    put around every helper call made a scan seven times slower (420 against 60 ns a series).

    Args:
        signature: a numba signature, or its text. Byte inputs are readonly uint8 arrays.
        sorts: the kernel calls `sort` or `argsort`, which need numba's allocator.
    """

    def compile_it(function):
        return njit(
            signature, nogil=True, cache=True, error_model="numpy", fastmath=False, parallel=False,
            _nrt=sorts,
        )(function)  # fmt: skip

    def decorate(function):
        assert function.__name__ not in REGISTRY, f"two kernels named {function.__name__}"
        REGISTRY[function.__name__] = str(signature)
        return Kernel(function, compile_it)

    return decorate


def device(function):
    """Mark a helper that only kernels call: inlined into each caller, never dispatched."""
    return njit(
        nogil=True, error_model="numpy", fastmath=False, forceinline=True, _nrt=False
    )(function)  # fmt: skip


def routine(function):
    """Mark a big helper that only kernels call: a real call, so that it is compiled in once."""
    return njit(nogil=True, error_model="numpy", fastmath=False, _nrt=False)(function)


def sorting_device(function):
    """Mark a helper that sorts; only kernels with `sorts=True` may call it."""
    return njit(nogil=True, error_model="numpy", fastmath=False)(function)


@functools.cache
def module_stamp(module: str) -> str:
    """Return the content stamp of a kernel module and of all kernel modules below it."""
    seen, waiting = {}, [module, "_jit"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen[name] = (_FOLDER / f"{name}.py").read_bytes()
        waiting += [a or b for a, b in _IMPORT.findall(seen[name].decode())]
    digest = hashlib.sha256(repr((_VERSIONS, _target(), bool(config.BOUNDSCHECK))).encode())
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + seen[name])
    return digest.hexdigest()[:20]


def _target() -> tuple:
    if config.CPU_NAME:
        return (config.CPU_NAME, config.CPU_FEATURES)
    from llvmlite import binding

    return (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())


def cache_roots() -> list[pathlib.Path]:
    """Return the folders that may hold compiled kernels, the preferred one first."""
    roots = [os.environ.get("THANOSTACK_KERNEL_CACHE")]
    home = os.environ.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    roots += [f"{home}/thanostack/kernels", f"{tempfile.gettempdir()}/thanostack-kernels"]
    return [pathlib.Path(root) for root in roots if root]


def _writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


class ContentLocator:
    """Where numba keeps one kernel: a folder named after the content it was compiled from."""

    def __init__(self, module: str, line: int) -> None:
        self._name = f"{module}-{module_stamp(module)}"
        self._line = line

    @classmethod
    def from_function(cls, function, file):
        """Return a locator for a kernel of this package, None for anything else."""
        path = pathlib.Path(file)
        return cls(path.stem, function.__code__.co_firstlineno) if path.parent == _FOLDER else None

    def get_cache_path(self) -> str:
        """Return the first folder that has this content, else the first that can be written."""
        folders = [root / self._name for root in cache_roots()]
        for folder in folders:
            if folder.is_dir() and any(folder.iterdir()):
                return str(folder)
        return str(next((f for f in folders if _writable(f)), folders[-1]))

    def ensure_cache_path(self) -> None:
        """Do nothing: the path was chosen writable, or is a complete read-only cache."""

    def get_source_stamp(self) -> str:
        """Return the content stamp."""
        return self._name

    def get_disambiguator(self) -> str:
        """Return the line, as two kernels of one module differ by it."""
        return str(self._line)
