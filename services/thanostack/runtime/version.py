"""Which program this is."""

from __future__ import annotations

import importlib.metadata
import platform

SOURCE_VERSION = "0.1.0"
"""The version of a checkout that was never installed; a test compares it with pyproject.toml."""


def version() -> str:
    """Return the distribution's version."""
    try:
        return importlib.metadata.version("thanostack")
    except importlib.metadata.PackageNotFoundError:
        return SOURCE_VERSION


def describe() -> str:
    """Return the text of `--version`."""
    return (
        f"thanostack, version {version()}\n"
        f"  python: {platform.python_version()}\n"
        f"  platform: {platform.system().lower()}/{platform.machine()}"
    )
