"""From an object file to a Python function, without the compiler.

    object file ──sections──> one private mapping ──relocations──> read and execute only
                                                    wrapper ──numba's make_function──> a builtin

Kernels use no more of ELF than this: absolute 64-bit relocations (the code model of a JIT compiler
is the large one), functions of C, libm, CPython and numba's helper library, and common symbols, of
which each function has one for its environment. Anything else is refused, not guessed. Unwinding
tables are left out: nothing throws through a kernel.

    code, constants                | page | common symbols
    └─ r-x after linking ─────────────────┘ └─ rw-

The two extension modules of numba that a linked kernel needs are loaded by path: importing numba
itself would cost each process 100 MiB and a second. Where object files are not ELF for x86-64, the
compiler's own linker is used (`_llvm_linker`).

Sources: System V ABI, AMD64 supplement; numba `_dynfunc.c`, `_helperlib.c`.
"""

import builtins
import ctypes
import functools
import importlib.machinery
import importlib.util
import mmap
import platform
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

_PAGE = mmap.PAGESIZE
_PREFIX, _ENVIRONMENT = "_ZN7cpython", "_ZN08NumbaEnv"
_SHF_ALLOC, _SHT_RELA, _SHT_SYMTAB, _SHT_UNWIND = 2, 4, 2, 0x70000001
_SHN_UNDEF, _SHN_ABS, _SHN_COMMON = 0, 0xFFF1, 0xFFF2
_R_X86_64_64 = 1
_PROT_READ_EXEC = mmap.PROT_READ | mmap.PROT_EXEC

_images: list[mmap.mmap] = []
"""Every mapping of code; never released, as functions are never forgotten."""


class LinkError(RuntimeError):
    """Raised for an object file that this linker does not understand."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int
    size: int


def link(entry, function):
    """Return the function that calls a compiled kernel.

    Args:
        entry: of `_store`.
        function: the kernel's source, which lends name and module.

    Raises:
        LinkError: if the object file is not as the compiler leaves it.
    """
    environment = _ENVIRONMENT + entry.symbol.removeprefix(_PREFIX)
    if sys.platform == "linux" and platform.machine() == "x86_64":
        places = load(entry.code)
    else:
        from thanostack.lib.kernels import _llvm_linker

        places = _llvm_linker.load(entry.code, (entry.symbol, environment))
    owner = _extension("_dynfunc").Environment(function.__globals__)
    ctypes.c_void_p.from_address(places[environment]).value = id(owner)
    return _extension("_dynfunc").make_function(
        sys.modules[function.__module__],
        function.__name__,
        function.__doc__,
        places[entry.symbol],
        owner,
        (owner,),
    )


def load(code: bytes) -> dict[str, int]:
    """Map an object file and return the address of each symbol that it defines."""
    sections = _sections(code)
    symbols = _symbols(code, sections)
    offsets, data_at, size = _layout(sections, symbols)
    image = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(image))
    for i, offset in offsets.items():
        section = sections[i]
        image[offset : offset + section.size] = code[section.offset :][: section.size]
    addresses = _addresses(symbols, offsets, start, start + data_at)
    _relocate(code, sections, offsets, image, addresses)
    _protect(start, data_at)
    _images.append(image)
    placed = zip(symbols, addresses, strict=True)
    return {symbol.name: at for symbol, at in placed if symbol.section != _SHN_UNDEF}


def _sections(code: bytes) -> list[_Section]:
    if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", code, 16) != (1, 62):
        raise LinkError("not a relocatable object file for x86-64")
    (at,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    return [_Section(*struct.unpack_from("<IIQQQQIIQQ", code, at + i * size)) for i in range(count)]


def _symbols(code: bytes, sections: list[_Section]) -> list[_Symbol]:
    (table,) = (section for section in sections if section.kind == _SHT_SYMTAB)
    names = sections[table.link].offset
    symbols = []
    for at in range(table.offset, table.offset + table.size, 24):
        name, _, _, section, value, size = struct.unpack_from("<IBBHQQ", code, at)
        text = code[names + name : code.index(b"\0", names + name)].decode()
        symbols.append(_Symbol(text, section, value, size))
    return symbols


def _layout(sections: list[_Section], symbols: list[_Symbol]) -> tuple[dict[int, int], int, int]:
    """Return the offset of each section, of the common symbols, and the size of it all."""
    offsets, top = {}, 0
    for i, section in enumerate(sections):
        if section.flags & _SHF_ALLOC and section.size and section.kind != _SHT_UNWIND:
            if section.flags & 1:
                raise LinkError("kernels have no writable data")
            top = -(-top // section.align) * section.align
            offsets[i] = top
            top += section.size
    data_at = -(-top // _PAGE) * _PAGE
    common = sum(_room(symbol) for symbol in symbols if symbol.section == _SHN_COMMON)
    return offsets, data_at, data_at + max(common, 1)


def _room(symbol: _Symbol) -> int:
    return -(-symbol.size // 16) * 16


def _addresses(
    symbols: list[_Symbol], offsets: dict[int, int], start: int, common: int
) -> list[int]:
    """Return each symbol's address, 0 of those in sections that are not mapped."""
    addresses = []
    for symbol in symbols:
        if symbol.section == _SHN_COMMON:
            addresses.append(common)
            common += _room(symbol)
        elif symbol.section == _SHN_UNDEF:
            addresses.append(_external(symbol.name) if symbol.name else 0)
        elif symbol.section in offsets:
            addresses.append(start + offsets[symbol.section] + symbol.value)
        else:
            addresses.append(0)
    return addresses


def _relocate(
    code: bytes,
    sections: list[_Section],
    offsets: dict[int, int],
    image: mmap.mmap,
    addresses: list[int],
) -> None:
    for section in sections:
        if section.kind != _SHT_RELA or section.info not in offsets:
            continue
        for at in range(section.offset, section.offset + section.size, 24):
            place, info, addend = struct.unpack_from("<QQq", code, at)
            if info & 0xFFFFFFFF != _R_X86_64_64 or not addresses[info >> 32]:
                raise LinkError(f"relocation {info:#x} is not one that kernels use")
            target = offsets[section.info] + place
            struct.pack_into("<Q", image, target, addresses[info >> 32] + addend)


def _protect(start: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), _PROT_READ_EXEC) != 0:
        raise OSError(ctypes.get_errno(), "compiled kernels may not be run here (mprotect)")


def _external(name: str) -> int:
    """Return the address of what a kernel calls.

    Raises:
        LinkError: if nothing has that name.
    """
    helper = name.removeprefix("numba_")
    if helper != name:
        return int(_extension("_helperlib").c_helpers[helper])
    # Upstream: to numba an exception's symbol is the object itself, not a pointer to it.
    if name.startswith("PyExc_"):
        return id(getattr(builtins, name.removeprefix("PyExc_")))
    if name == "_Py_NoneStruct":
        return id(None)
    if name == "PyArray_Type":
        return id(np.ndarray)
    for library in _libraries():
        function = getattr(library, name, None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise LinkError(f"nothing here is called {name}")


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    return ctypes.pythonapi, ctypes.CDLL(None), ctypes.CDLL("libm.so.6")


@functools.cache
def _extension(name: str):
    """Return an extension module of numba's, loaded without its package."""
    found = importlib.util.find_spec("numba")
    assert found is not None
    assert found.origin is not None
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(found.origin).with_name(name + suffix)
        if path.exists():
            break
    full = f"numba.{name}"
    loader = importlib.machinery.ExtensionFileLoader(full, str(path))
    spec = importlib.util.spec_from_file_location(full, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
