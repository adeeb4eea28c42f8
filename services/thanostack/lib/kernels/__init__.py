"""Compiled kernels: arrays and scalars in, arrays out; nothing is allocated, nothing is raised.

Each module holds the kernels of one format or operation. A kernel returns a count (>= 0) or a
negative status whose meaning its docstring gives; whoever owns the meaning wraps it.

    _jit.py       the only permitted decorators, and the registry
    _compiler.py  the process that compiles, with _intrinsics.py
    _store.py     where machine code is kept
    _linker.py    machine code to functions, without the compiler
    wide.py       unaligned eight-byte loads and stores, prefetches, byte swaps, CRC-32C
    varint.py     LEB128 and zig-zag, bounds-checked
    hashing.py    XXH64

Import the module you need: packages load (and, on a cold machine, compile) only what they use.
"""
