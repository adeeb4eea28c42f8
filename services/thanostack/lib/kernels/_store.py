r"""Where compiled kernels are kept: one folder for each *content* of a module, one file a kernel.

    <root>/<module>-<stamp>/<kernel>.kernel  =  wrapper's symbol \\n  SHA-256 of the code \\n  code

The stamp hashes the module, every kernel module it imports, the compiler's own modules, the
versions of numba and llvmlite, the target processor and the bounds-check flag: an edited helper in
another file is another content. A folder that cannot be written is still read, so an image ships
its store read-only.

    THANOSTACK_KERNEL_CACHE   a folder to read (and write, where allowed) before the user's cache
    NUMBA_CPU_NAME            the target; by default the newest portable level that this one has

Invariant: only folders are read that nobody but their owner can write, and that we or root own.
Invariant: a file appears whole or not at all; one that was damaged since is taken for missing.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PACKAGE = __name__.rpartition(".")[0]
_FOLDER = Path(__file__).parent
_IMPORT = re.compile(
    rf"^from {re.escape(_PACKAGE)}\.(\w+) import|^from {re.escape(_PACKAGE)} import (\w+)", re.M
)
_COMPILER = ("_compiler", "_intrinsics", "_types")
_VERSIONS = tuple(importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy"))
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

# What the levels of the x86-64 ABI add to the one before, as /proc/cpuinfo spells it.
_X86_LEVELS = (
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
)


class ProcessorUnsupported(RuntimeError):
    """Raised when this processor is below what kernels need; says what it lacks."""


class Entry(NamedTuple):
    """One compiled kernel.

    Args:
        symbol: of the function that Python calls.
        code: an object file.
    """

    symbol: str
    code: bytes


@functools.cache
def target() -> str:
    """Return the processor that kernels are compiled for, by LLVM's name.

    Raises:
        ProcessorUnsupported: if this one is below what kernels need, or below a pinned level.
    """
    pinned = os.environ.get("NUMBA_CPU_NAME", "")
    if platform.machine() not in ("x86_64", "AMD64"):
        return pinned or "generic"
    flags = _processor_flags()
    if flags is None:
        return pinned or _X86_LEVELS[-1][0]
    levels = [
        name
        for i, (name, _) in enumerate(_X86_LEVELS)
        if set().union(*(added for _, added in _X86_LEVELS[i:])) <= flags
    ]
    wanted = pinned if pinned in dict(_X86_LEVELS) else _X86_LEVELS[-1][0]
    if wanted not in levels:
        missing = sorted(set().union(*dict(_X86_LEVELS).values()) - flags)
        raise ProcessorUnsupported(
            f"this processor is below {wanted}, which the kernels need; it lacks some of "
            f"{', '.join(missing)}. Run on a newer one, or give the virtual machine its host's "
            "processor model"
        )
    return pinned or levels[0]


def _processor_flags() -> set[str] | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((set(line.split()) for line in lines if line.startswith("flags")), None)


@functools.cache
def module_stamp(module: str) -> str:
    """Return the content stamp of a kernel module and of all kernel modules below it."""
    seen, waiting = {}, [module, *_COMPILER]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen[name] = (_FOLDER / f"{name}.py").read_bytes()
        if name not in _COMPILER:
            found = (a or b for a, b in _IMPORT.findall(seen[name].decode()))
            # The decorators do not matter: what they come to is the compiler's.
            waiting += [kernels for kernels in found if kernels != "_jit"]
    checked = os.environ.get("NUMBA_BOUNDSCHECK", "0")
    digest = hashlib.sha256(repr((_VERSIONS, target(), checked)).encode())
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + seen[name])
    return digest.hexdigest()[:20]


def roots() -> Iterator[Path]:
    """Yield the folders that may hold compiled kernels, the preferred one first.

    The later ones are not looked for before they are needed: a container may have no home and
    nowhere to write.
    """
    if chosen := os.environ.get("THANOSTACK_KERNEL_CACHE"):
        yield Path(chosen)
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "thanostack/kernels")
    with contextlib.suppress(OSError):  # no folder for temporary files can be written
        yield Path(tempfile.gettempdir(), "thanostack-kernels")


def find(module: str, name: str) -> Entry | None:
    """Return a kernel from the first folder that has it, None if none has."""
    for root in roots():
        entry = _read(_path(root, module, name))
        if entry is not None:
            return entry
    return None


def has(module: str, name: str) -> bool:
    """Return whether a folder has a kernel, by its file's name alone."""
    paths = (_path(root, module, name) for root in roots())
    return any(path.is_file() and _is_trusted(path.parent) for path in paths)


def keep(module: str, name: str, entry: Entry) -> None:
    """Store a kernel in the first folder that can be written.

    Raises:
        OSError: if none can.
    """
    refusals = []
    for root in roots():
        try:
            return _write(_path(root, module, name), entry)
        except OSError as error:
            refusals.append(str(error))
    raise OSError(
        "no folder for compiled kernels can be written; set THANOSTACK_KERNEL_CACHE to one: "
        + "; ".join(refusals)
    )


def copy(module: str, name: str, root: Path) -> None:
    """Copy a kernel into a folder that becomes a store of its own.

    Raises:
        LookupError: if no folder has it.
    """
    entry = find(module, name)
    if entry is None:
        raise LookupError(f"kernel {name} is not compiled")
    _write(_path(root, module, name), entry)


def _path(root: Path, module: str, name: str) -> Path:
    return root / f"{module}-{module_stamp(module)}" / f"{name}.kernel"


def _write(path: Path, entry: Entry) -> None:
    digest = hashlib.sha256(entry.code).hexdigest()
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not _is_trusted(path.parent):
        raise PermissionError(f"{path.parent} is open to other users")
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(f"{entry.symbol}\n{digest}\n".encode() + entry.code)
    # An image's store is filled by root and read by whoever runs in it.
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _read(path: Path) -> Entry | None:
    try:
        content = path.read_bytes()
        if not _is_trusted(path.parent):
            return None
    except OSError:
        return None
    symbol, digest, code = (content.split(b"\n", 2) + [b"", b""])[:3]
    if hashlib.sha256(code).hexdigest().encode() != digest:
        return None
    return Entry(symbol.decode(), code)


def _is_trusted(folder: Path) -> bool:
    """Return whether what a folder holds can only be ours or root's: it is going to be run."""
    status = folder.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _WRITABLE_BY_OTHERS
