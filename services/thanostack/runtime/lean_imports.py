"""Imports of two libraries without the parts of them that nothing here uses.

    structlog   its coloured console imports `rich` where that is installed      4 MiB
    uvicorn     its command line imports `click` and `multiprocessing`           4 MiB

A process keeps what it imports. Whoever needs these two takes them from here, so that they are
imported in this way the first time.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType


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


def _no_command_line() -> ModuleType:
    module = ModuleType("uvicorn.main")
    for name in ("Server", "main", "run"):
        setattr(module, name, None)
    return module


with standing_in("rich", None):
    import structlog

with standing_in("uvicorn.main", _no_command_line()):
    import uvicorn.config
    import uvicorn.server
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["STATUS_LINE", "HttpToolsProtocol", "structlog", "uvicorn"]
