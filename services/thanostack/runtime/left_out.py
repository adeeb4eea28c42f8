"""Importing a library without parts that nothing here uses: a process keeps what it imports.

A part that was left out is still there for whoever imports it by its own name later.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def standing_in(name: str, module: ModuleType | None) -> Iterator[None]:
    """Let imports inside of the `with` block find something else under a module's name.

    Args:
        name: full name; nothing happens if it was imported before.
        module: what is found; None for as if it were not installed.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def hollow() -> ModuleType:
    """Return a module that has every name, and `Absent` under each."""
    module = ModuleType("left_out")
    module.__getattr__ = _absent  # type: ignore[method-assign]
    return module


class Absent:
    """Stands for a class that is derived from but never made, or a function never called."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("this part of a library was left out: see left_out")


def _absent(name: str) -> type[Absent]:
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent
