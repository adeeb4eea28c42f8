"""What a tenant may be called.

A tenant's name is the name of its folder, so it must not lead anywhere else. Upstream asks that a
name equals its own path base name; that still lets `.`, `..` and `/` through, which we refuse, as
well as what no file system or metric label could hold.

Source: Thanos `pkg/tenancy`, `IsTenantValid`; `pkg/receive/multitsdb.go` (lost+found is skipped).
"""

from __future__ import annotations

from typing import Final

from thanostack.lib.foundation.errors import InvalidTenant
from thanostack.lib.foundation.ids import Tenant

TENANT_BYTES_MAX: Final = 255
DRAIN_NOTE: Final = "thanostack-drain"
"""The file beside the folders of tenants that says that this receiver is to be drained."""

# A tenant of the note's name would make the next start believe that it is drained.
RESERVED: Final = frozenset({"", ".", "..", "lost+found", DRAIN_NOTE})


def checked_tenant(name: str) -> Tenant:
    """Return a name as a tenant.

    Raises:
        InvalidTenant: if it could leave its folder, is reserved, too long, or not printable.
    """
    if name in RESERVED or "/" in name:
        raise InvalidTenant(f"tenant name not valid: {name!r} is not the name of a folder")
    if len(name.encode(errors="replace")) > TENANT_BYTES_MAX:
        raise InvalidTenant(f"tenant name not valid: it is longer than {TENANT_BYTES_MAX} bytes")
    if not name.isprintable():
        raise InvalidTenant(f"tenant name not valid: {name!r} has unprintable characters")
    return Tenant(name)


def tenant_of_bytes(name: bytes) -> Tenant:
    """Return a name off the wire as a tenant.

    Raises:
        InvalidTenant: as `checked_tenant`, and if it is not UTF-8.
    """
    try:
        return checked_tenant(name.decode())
    except UnicodeDecodeError as error:
        raise InvalidTenant(f"tenant name not valid: {name!r} is not UTF-8") from error
