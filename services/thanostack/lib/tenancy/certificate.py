"""The tenant in one field of a client's certificate.

Source: Thanos `pkg/tenancy`, `getTenantFromCertificate`.
"""

from __future__ import annotations

from typing import Final, Literal

from thanostack.lib.foundation.errors import InvalidTenant

CertificateField = Literal["organization", "organizationalUnit", "commonName"]

# Source: X.520, the names that `cryptography` has too.
_FIELDS: Final[dict[CertificateField, str]] = {
    "organization": "2.5.4.10",
    "organizationalUnit": "2.5.4.11",
    "commonName": "2.5.4.3",
}


def certificate_field(certificate: bytes, field: CertificateField) -> str:
    """Return the first value of a field of a DER certificate's subject.

    Raises:
        InvalidTenant: if it is no certificate or lacks the field: with certificates asked for,
            there is no falling back to the default tenant.
    """
    from cryptography import x509  # 9 MiB, for those who look at certificates

    try:
        subject = x509.load_der_x509_certificate(certificate).subject
    except ValueError as error:
        raise InvalidTenant(f"the client's certificate cannot be read: {error}") from error
    found = subject.get_attributes_for_oid(x509.ObjectIdentifier(_FIELDS[field]))
    if not found or not found[0].value:
        raise InvalidTenant(f"could not get {field} field from client cert")
    value = found[0].value
    return value if isinstance(value, str) else value.decode(errors="replace")
