"""The tenants of a ring or of an override: by name, or by pattern."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from thanostack.lib.hashring.go_glob import Glob

MATCHERS: Final = ("exact", "glob")


class TenantSet:
    """Tenants by name or by pattern.

    Args:
        names: as written, one or more.
        is_glob: whether they are patterns.

    Raises:
        InvalidInput: for a malformed pattern.
    """

    def __init__(self, names: Iterable[str], *, is_glob: bool) -> None:
        self.names = tuple(names)
        self._exact = frozenset(() if is_glob else self.names)
        self._globs = tuple(map(Glob, self.names)) if is_glob else ()

    def has(self, tenant: str) -> bool:
        """Return whether a tenant is one of them."""
        return tenant in self._exact or any(glob.matches(tenant) for glob in self._globs)
