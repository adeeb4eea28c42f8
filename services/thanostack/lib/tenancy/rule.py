"""Where a request says whose it is.

    certificate field, if configured (nothing else is looked at)
    else the configured header, else the header THANOS-TENANT, else the default tenant

Source: Thanos `pkg/tenancy`, `GetTenantFromHTTP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from thanostack.lib.foundation.errors import InvalidTenant
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.tenancy.certificate import CertificateField, certificate_field
from thanostack.lib.tenancy.names import checked_tenant, tenant_of_bytes

DEFAULT_HEADER: Final = "THANOS-TENANT"
DEFAULT_TENANT: Final = Tenant("default-tenant")
_KEPT_MAX: Final = 4096


@dataclass(frozen=True)
class TenantRule:
    """How the tenant of a request is found.

    Args:
        header: name of the header, any case.
        default: tenant of requests that say nothing.
        certificate_field: field of the client's certificate that decides instead; None is none.
    """

    header: str = DEFAULT_HEADER
    default: Tenant = DEFAULT_TENANT
    certificate_field: CertificateField | None = None
    _names: tuple[bytes, ...] = field(init=False, repr=False)
    _known: dict[bytes, Tenant] = field(init=False, repr=False, default_factory=dict)
    _certified: dict[bytes, Tenant] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = dict.fromkeys((self.header.lower().encode(), DEFAULT_HEADER.lower().encode()))
        object.__setattr__(self, "_names", tuple(names))

    def tenant_of(self, headers: Mapping[bytes, bytes], certificate: bytes | None = None) -> Tenant:
        """Return the tenant of one request.

        Args:
            headers: by lower-case name.
            certificate: the client's, DER.

        Raises:
            InvalidTenant: for a name that could leave its folder, or a certificate without one.
        """
        if self.certificate_field is not None:
            if certificate is None:
                raise InvalidTenant("could not get required certificate field from client cert")
            return self._certified.get(certificate) or self._read(certificate)
        for name in self._names:
            value = headers.get(name)
            if value:
                return self._known.get(value) or self._checked(value)
        return self.default

    def _read(self, certificate: bytes) -> Tenant:
        assert self.certificate_field is not None
        tenant = checked_tenant(certificate_field(certificate, self.certificate_field))
        # Bound: certificates come from clients.
        if len(self._certified) < _KEPT_MAX:
            self._certified[certificate] = tenant
        return tenant

    def _checked(self, value: bytes) -> Tenant:
        tenant = tenant_of_bytes(value)
        # Bound: names come from clients.
        if len(self._known) < _KEPT_MAX:
            self._known[value] = tenant
        return tenant
