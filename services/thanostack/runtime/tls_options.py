"""What TLS is asked for: files, versions, suites and curves, under Go's names.

    PEM                 a file, or the text itself, and the setting that names it
    ServerTLSOptions    of a port
    ClientTLSOptions    of connections to others

Names are those of Go's `crypto/tls`, as upstream takes them, and are translated to OpenSSL's here.
As in Go, the suites of TLS 1.3 cannot be chosen: naming some leaves all of them on.

Curves: Python's `ssl` takes one curve or OpenSSL's own list. So one may be named, or all four that
both know; anything between would silently allow more than was asked for, and is refused.

Pure: no file is opened here (`tls_context` does).
Source: Thanos v0.42.4 `pkg/tls/options.go`; exporter-toolkit v0.17.1 `web/tls_config.go`.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

HTTP_ALPN: Final = "http/1.1"
GRPC_ALPN: Final = "h2"
VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_SUITES_OF_13: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
_SUITES: Final = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
_CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}


class ClientAuth(Enum):
    """What a port asks of clients; whatever certificate is shown is verified."""

    NONE = ssl.CERT_NONE
    IF_GIVEN = ssl.CERT_OPTIONAL
    REQUIRED = ssl.CERT_REQUIRED


@dataclass(frozen=True, slots=True)
class PEM:
    """A certificate, key or list of CAs.

    Args:
        setting: that names it, for error texts.
        path: of the file; empty if the text is given.
        text: itself; not shown, as it may be a key.
    """

    setting: str
    path: str = ""
    text: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.path or self.text)

    @property
    def place(self) -> str:
        """Return how error texts call it: the setting and the file."""
        return f"{self.setting}: {self.path}" if self.path else self.setting


@dataclass(frozen=True, slots=True)
class ServerTLSOptions:
    """TLS of one port.

    Args:
        cert: the port's own, with the chain up to the CA.
        key: of the first certificate.
        client_ca: that clients' certificates must come from; none is the system's.
        client_auth: what is asked of clients.
        min_version, max_version: of `VERSIONS`.
        ciphers: suites by Go's names; none leaves the library's choice.
        curves: by Go's names; none leaves the library's choice.
        allowed_sans: names of which a client's certificate must bear one; none is any.
    """

    cert: PEM
    key: PEM
    client_ca: PEM = field(default_factory=lambda: PEM(""))
    client_auth: ClientAuth = ClientAuth.NONE
    min_version: str = "1.3"
    max_version: str = "1.3"
    ciphers: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    allowed_sans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientTLSOptions:
    """TLS towards others.

    Args:
        ca: that their certificates must come from; none is the system's.
        cert, key: shown to them; none shows nothing.
        server_name: that their certificates must bear; empty for the host of the address.
        skip_verify: whether anybody is believed to be anybody.
        min_version: of `VERSIONS`.
    """

    ca: PEM = field(default_factory=lambda: PEM(""))
    cert: PEM = field(default_factory=lambda: PEM(""))
    key: PEM = field(default_factory=lambda: PEM(""))
    server_name: str = ""
    skip_verify: bool = False
    min_version: str = "1.3"


def openssl_suites(names: Sequence[str]) -> str | None:
    """Return OpenSSL's list of suites for TLS 1.2 and older; None if only those of 1.3 are named.

    Raises:
        ValueError: for a name that Go does not have, or counts as insecure.
    """
    known = _SUITES.keys() | _SUITES_OF_13
    for name in names:
        if name not in known:
            raise ValueError(
                f"invalid cipher suite: {name}, valid values are {', '.join(sorted(known))}"
            )
    return ":".join(_SUITES[name] for name in names if name in _SUITES) or None


def openssl_curve(names: Sequence[str]) -> str | None:
    """Return OpenSSL's name of the one curve; None for its own list.

    Raises:
        ValueError: for a curve that is not known here, or several but not all.
    """
    for name in names:
        if name not in _CURVES:
            raise ValueError(
                f"invalid curve: {name}, valid values are {', '.join(sorted(_CURVES))}"
            )
    wanted = set(names)
    if not wanted or wanted == _CURVES.keys():
        return None
    if len(wanted) > 1:
        raise ValueError(
            f"one curve can be named, or all of {', '.join(sorted(_CURVES))}; "
            "leave it out to allow all of them"
        )
    return _CURVES[wanted.pop()]
