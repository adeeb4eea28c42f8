"""From options to an `ssl.SSLContext`, and what is wrong with a file in words.

    files ── read once ──> checked (PEM? expired? key of this certificate?) ──> loaded

The checks are ours because OpenSSL says `NO_START_LINE` and `KEY_VALUES_MISMATCH`, neither file nor
remedy. What was checked is what is loaded: the bytes go through a file in memory, since
`ssl` takes certificates from files only.

Trust is as in Go: every certificate of a CA file is an anchor, intermediates too, and the common
name is no host name. Tickets are off: a resumed session would outlive the CA that it was verified
against.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import ssl
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.tls_options import (
    PEM,
    VERSIONS,
    ClientAuth,
    ClientTLSOptions,
    ServerTLSOptions,
    openssl_curve,
    openssl_suites,
)

# OpenSSL's default level refuses TLS below 1.2 even where it is asked for.
_WEAK: Final = "@SECLEVEL=0"


def server_context(options: ServerTLSOptions, *, alpn: str) -> ssl.SSLContext:
    """Return the context of a port.

    Args:
        options: what is asked for.
        alpn: the one protocol that is spoken: h2 or http/1.1.

    Raises:
        SettingsInvalid: naming the setting and the file, and saying what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([alpn])
    suites = openssl_suites(options.ciphers) if options.ciphers else "DEFAULT"
    # Upstream: suites of 1.3 cannot be chosen, so whoever names no other gets no older version.
    _set_versions(context, options.min_version if suites else "1.3", options.max_version, suites)
    curve = openssl_curve(options.curves)
    if curve is not None:
        context.set_ecdh_curve(curve)
    _load_pair(context, options.cert, options.key)
    if options.client_auth is not ClientAuth.NONE:
        context.verify_mode = options.client_auth.value
        _load_ca(context, options.client_ca, ssl.Purpose.CLIENT_AUTH)
    return context


def client_context(options: ClientTLSOptions, *, alpn: str) -> ssl.SSLContext:
    """Return the context of connections to others.

    Raises:
        SettingsInvalid: naming the setting and the file, and saying what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([alpn])
    context.hostname_checks_common_name = False
    _set_versions(context, options.min_version, "1.3", "DEFAULT")
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _load_ca(context, options.ca, ssl.Purpose.SERVER_AUTH)
    if options.cert:
        _load_pair(context, options.cert, options.key)
    return context


def _set_versions(context: ssl.SSLContext, least: str, most: str, suites: str | None) -> None:
    with warnings.catch_warnings():  # 1.0 and 1.1 are deprecated, and asked for all the same
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = VERSIONS[least]
        context.maximum_version = VERSIONS[most]
    if suites is not None:
        context.set_ciphers(f"{suites}:{_WEAK}" if least in {"1.0", "1.1"} else suites)


def _load_pair(context: ssl.SSLContext, cert: PEM, key: PEM) -> None:
    certificates, secret = read_pem(cert), read_pem(key)
    _check_pair(cert, certificates, key, secret)
    with _as_file(certificates) as cert_path, _as_file(secret) as key_path:
        try:
            context.load_cert_chain(cert_path, key_path)
        except ssl.SSLError as error:
            raise SettingsInvalid(f"{cert.place}: OpenSSL refuses it: {error}") from error


def _load_ca(context: ssl.SSLContext, ca: PEM, purpose: ssl.Purpose) -> None:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not ca:
        context.load_default_certs(purpose)
        return
    found = _certificates(ca, read_pem(ca))
    now = dt.datetime.now(dt.UTC)
    if all(certificate.not_valid_after_utc < now for certificate in found):
        raise SettingsInvalid(f"{ca.place}: all its certificates have expired; give a current CA")
    context.load_verify_locations(
        cadata=b"".join(c.public_bytes(serialization.Encoding.DER) for c in found)
    )


def read_pem(pem: PEM) -> bytes:
    """Return the bytes of a file or text.

    Raises:
        SettingsInvalid: if the file cannot be read.
    """
    if pem.text:
        return pem.text.encode()
    try:
        return Path(pem.path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsInvalid(f"{pem.setting}: cannot read {pem.path}: {reason}") from error


def _certificates(pem: PEM, data: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in data:
        what = "a private key" if b"PRIVATE KEY-----" in data else "no certificate"
        raise SettingsInvalid(
            f"{pem.place}: holds {what}; a PEM file with -----BEGIN CERTIFICATE----- is needed"
        )
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise SettingsInvalid(f"{pem.place}: a certificate cannot be read: {error}") from error


def not_after(cert: PEM) -> float:
    """Return when a certificate expires, in seconds since the epoch.

    Raises:
        SettingsInvalid: if it cannot be read.
    """
    return _certificates(cert, read_pem(cert))[0].not_valid_after_utc.timestamp()


def _check_pair(cert: PEM, certificates: bytes, key: PEM, secret: bytes) -> None:
    own = _certificates(cert, certificates)[0]
    now = dt.datetime.now(dt.UTC)
    if own.not_valid_after_utc < now:
        raise SettingsInvalid(
            f"{cert.place}: the certificate expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M} "
            "UTC; issue a new one"
        )
    if own.not_valid_before_utc > now:
        raise SettingsInvalid(
            f"{cert.place}: the certificate is not valid before "
            f"{own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check the clock, or issue a new one"
        )
    if _public_bytes(own.public_key()) != _public_bytes(_private_key(key, secret).public_key()):
        raise SettingsInvalid(
            f"{key.place}: the key does not belong to the certificate of {cert.place}; "
            "give the key that it was issued for"
        )


def _private_key(key: PEM, secret: bytes) -> PrivateKeyTypes:
    if b"PRIVATE KEY-----" not in secret:
        raise SettingsInvalid(
            f"{key.place}: holds no private key; a PEM file with -----BEGIN PRIVATE KEY----- is "
            "needed"
        )
    try:
        return serialization.load_pem_private_key(secret, None)
    except TypeError as error:
        raise SettingsInvalid(
            f"{key.place}: the key is encrypted with a passphrase; decrypt it, there is nobody to "
            "type one"
        ) from error
    except ValueError as error:
        raise SettingsInvalid(f"{key.place}: the key cannot be read: {error}") from error


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Give bytes a path for a moment: in memory on Linux, else a file that only we can read."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name
