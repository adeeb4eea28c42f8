"""A tenant's name is a folder and nothing else."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from thanostack.lib.foundation.errors import InvalidTenant
from thanostack.lib.tenancy.names import checked_tenant, tenant_of_bytes
from thanostack.lib.tenancy.rule import TenantRule


@pytest.mark.parametrize(
    "name", ["a", "default-tenant", "a b", "ä", "...", "a..b", "x" * 255, "\\"]
)
def test_a_name_of_a_folder_is_a_tenant(name):
    """Whatever is its own base name is taken, as upstream."""
    assert checked_tenant(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "../a",
        "a/",
        "/a",
        "lost+found",
        "thanostack-drain",
        "x" * 256,
        "ä" * 128,
        "a\n",
        "\0",
        "a\x7f",
    ],
)
def test_what_could_leave_its_folder_is_none(name):
    """Path separators, dots, reserved, overlong and unprintable names are refused."""
    with pytest.raises(InvalidTenant, match="tenant name not valid"):
        checked_tenant(name)


def test_a_tenant_off_the_wire_is_utf8():
    """Bytes that are no text are no tenant."""
    assert tenant_of_bytes("ä".encode()) == "ä"
    with pytest.raises(InvalidTenant, match="not UTF-8"):
        tenant_of_bytes(b"\xff")


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        ({}, "fallback"),
        ({b"x-team": b"a"}, "a"),
        ({b"x-team": b""}, "fallback"),
        ({b"thanos-tenant": b"b"}, "b"),
        ({b"x-team": b"a", b"thanos-tenant": b"b"}, "a"),
    ],
)
def test_headers_name_the_tenant(headers, tenant):
    """The configured header, then upstream's own, then the default."""
    rule = TenantRule("X-Team", "fallback")
    assert [rule.tenant_of(headers) for _ in range(2)] == [tenant, tenant]


def test_a_bad_name_is_refused_every_time():
    """A refused name is not remembered as a good one."""
    rule = TenantRule()
    for _ in range(2):
        with pytest.raises(InvalidTenant):
            rule.tenant_of({b"thanos-tenant": b"../x"})


@pytest.fixture(scope="module")
def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "first"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "second"),
            x509.NameAttribute(NameOID.COMMON_NAME, "../x"),
        ]
    )
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def test_a_certificate_decides_alone(certificate):
    """With a field configured the header counts for nothing; the first value is taken."""
    rule = TenantRule(certificate_field="organization")
    assert rule.tenant_of({b"thanos-tenant": b"b"}, certificate) == "first"


@pytest.mark.parametrize("field", ["organizationalUnit", "commonName"])
def test_a_certificate_without_a_good_name_is_refused(certificate, field):
    """A missing field or a name that is no folder never becomes the default tenant."""
    with pytest.raises(InvalidTenant):
        TenantRule(certificate_field=field).tenant_of({}, certificate)


@pytest.mark.parametrize("data", [None, b"", b"no certificate"])
def test_no_certificate_is_refused(data):
    """Without a readable certificate there is no tenant."""
    with pytest.raises(InvalidTenant):
        TenantRule(certificate_field="organization").tenant_of({b"thanos-tenant": b"b"}, data)
