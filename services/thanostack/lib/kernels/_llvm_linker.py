"""Linking by LLVM, where object files are not ELF for x86-64.

It costs what `_linker` saves, the import of the compiler, and works wherever numba does.
"""

import functools

from llvmlite import binding
from numba.core.registry import cpu_target


@functools.cache
def _engine():
    # The target's context tells LLVM of CPython's and numba's own functions.
    assert cpu_target.target_context is not None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)


def load(code: bytes, names: tuple[str, ...]) -> dict[str, int]:
    """Link an object file and return the addresses of some of its symbols."""
    engine = _engine()
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return {
        name: engine.get_function_address(name) or engine.get_global_value_address(name)
        for name in names
    }
