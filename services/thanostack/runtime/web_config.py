"""Prometheus's web configuration file: TLS, headers, rate limit and users of an HTTP port.

    tls_server_config:    cert_file key_file cert key client_auth_type client_ca_file client_ca
                          client_allowed_sans min_version max_version cipher_suites
                          curve_preferences
    http_server_config:   headers; http2, which changes nothing: ports speak HTTP/1.1
    rate_limit:           burst interval
    basic_auth_users:     name → bcrypt hash

Paths in it are relative to its folder. Whether there is TLS is settled at the start; everything
else follows the file.

A client's certificate is always verified here: Python's `ssl` knows none that is asked for and
believed unseen. So `RequestClientCert`, which upstream asks for and never looks at, asks for
nothing, and `RequireAnyClientCert` is refused.

Source: Prometheus exporter-toolkit v0.17.1, `web/tls_config.go`, `web/handler.go`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.settings import GoDuration
from thanostack.runtime.strict_yaml import StrictModel, parse_yaml
from thanostack.runtime.tls_options import (
    PEM,
    ClientAuth,
    ServerTLSOptions,
    openssl_curve,
    openssl_suites,
)

Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_AUTH: Final = {
    "": ClientAuth.NONE,
    "NoClientCert": ClientAuth.NONE,
    "RequestClientCert": ClientAuth.NONE,
    "VerifyClientCertIfGiven": ClientAuth.IF_GIVEN,
    "RequireAndVerifyClientCert": ClientAuth.REQUIRED,
}
_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


class _TLS(StrictModel):
    cert: str = ""
    key: SecretStr = SecretStr("")
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: str = ""
    client_ca_file: str = ""
    cipher_suites: tuple[str, ...] = ()
    curve_preferences: tuple[str, ...] = ()
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    prefer_server_cipher_suites: bool = True
    client_allowed_sans: tuple[str, ...] = ()

    @field_validator("cipher_suites")
    @classmethod
    def _suites_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        openssl_suites(value)
        return value

    @field_validator("curve_preferences")
    @classmethod
    def _curves_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        openssl_curve(value)
        return value

    @field_validator("client_auth_type")
    @classmethod
    def _clients_are_verified(cls, value: str) -> str:
        if value in {"RequireAnyClientCert", "RequireClientCert"}:
            raise ValueError(
                f"{value} takes certificates that nobody verifies, which is not offered; write "
                "RequireAndVerifyClientCert, with client_ca_file"
            )
        if value not in _AUTH:
            raise ValueError(f"invalid ClientAuth: {value}; there are {', '.join(_AUTH)}"[:200])
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> _TLS:
        if not self.is_used:
            return self
        if not self.cert_file and not self.cert:
            raise ValueError("missing one of cert or cert_file")
        if not self.key_file and not self.key.get_secret_value():
            raise ValueError("missing one of key or key_file")
        if (self.client_ca or self.client_ca_file) and self.client_auth_type in {
            "",
            "NoClientCert",
        }:
            raise ValueError("client CA's have been configured without a Client Auth Policy")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        return self

    @property
    def is_used(self) -> bool:
        """Return whether the section asks for TLS at all."""
        given = (
            self.cert, self.cert_file, self.key.get_secret_value(), self.key_file, self.client_ca,
            self.client_ca_file, self.client_auth_type,
        )  # fmt: skip
        return any(given)

    def options(self, folder: Path, place: str) -> ServerTLSOptions | None:
        """Return the section as options; None for plain text."""
        if not self.is_used:
            return None

        def pem(name: str, path: str, text: str) -> PEM:
            setting = f"{place}: {name}"
            return PEM(setting, str(folder / path)) if path else PEM(setting, text=text)

        return ServerTLSOptions(
            pem("cert", self.cert_file, self.cert),
            pem("key", self.key_file, self.key.get_secret_value()),
            client_ca=pem("client_ca", self.client_ca_file, self.client_ca),
            client_auth=_AUTH[self.client_auth_type],
            min_version=_number(self.min_version),
            max_version=_number(self.max_version),
            ciphers=self.cipher_suites,
            curves=self.curve_preferences,
            allowed_sans=self.client_allowed_sans,
        )


class _HTTP(StrictModel):
    http2: bool = True
    headers: dict[str, str] = Field(default_factory=dict)

    @field_validator("headers")
    @classmethod
    def _headers_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name not in _HEADERS:
                raise ValueError(
                    f'HTTP header "{name}" can not be configured; there are {", ".join(_HEADERS)}'
                )
            allowed = _HEADERS[name]
            if (allowed and text not in allowed) or not text.isprintable() or not text.isascii():
                raise ValueError(f"invalid value for {name}: {text!r}; {' or '.join(allowed)}")
        return value


class _RateLimit(StrictModel):
    burst: Annotated[int, Field(ge=0)] = 0
    interval: GoDuration = 0  # type: ignore[assignment]


class _Document(StrictModel):
    tls_server_config: _TLS = Field(default_factory=_TLS)
    http_server_config: _HTTP = Field(default_factory=_HTTP)
    rate_limit: _RateLimit = Field(default_factory=_RateLimit)
    basic_auth_users: dict[str, SecretStr] = Field(default_factory=dict)

    @field_validator("basic_auth_users")
    @classmethod
    def _passwords_are_hashed(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, hashed in value.items():
            if not _BCRYPT.fullmatch(hashed.get_secret_value()):
                raise ValueError(
                    f"the password of {name!r} is no bcrypt hash ($2y$…); make one with "
                    "htpasswd -nBC 10 NAME"
                )
        return value


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What a web configuration file says.

    Args:
        tls: of the port; None for plain text.
        headers: sent with every answer.
        users: bcrypt hashes by name; none lets everybody in.
        burst, interval_s: requests at once, and time until one more may come; 0 s is no limit.
    """

    tls: ServerTLSOptions | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    users: dict[str, bytes] = field(default_factory=dict, repr=False)
    burst: int = 0
    interval_s: float = 0.0


def read_web_config(path: str, flag: str) -> WebConfig:
    """Return what a file says.

    Raises:
        SettingsInvalid: naming the flag, the file and the key.
    """
    place = f"--{flag}: {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"--{flag}: cannot read {path}: {error}") from error
    document = parse_yaml(text, place, _Document)
    return WebConfig(
        document.tls_server_config.options(Path(path).parent, place),
        tuple(
            (name.lower().encode(), value.encode())
            for name, value in document.http_server_config.headers.items()
        ),
        {
            name: hashed.get_secret_value().encode()
            for name, hashed in document.basic_auth_users.items()
        },
        document.rate_limit.burst,
        document.rate_limit.interval / 1000,
    )


def _number(version: str) -> str:
    return f"1.{version[-1]}"
