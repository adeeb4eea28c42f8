"""The endpoint file: which endpoints there are, and how each is spoken to.

    default_client_config: {tls_config: {…}, server_name, compression}
    endpoints:
    - address: host:port             dns+, dnssrv+, dnssrvnoa+, dnsdualstack+ look it up
      strict: true                   always listed and queried; not with a prefix
      group: true                    interchangeable addresses behind one name
      service_config: '{…}'          gRPC's, groups only
      client_config: {tls_config: {enabled, cert_file, key_file, ca_file, insecure_skip_verify,
                                   min_version}, server_name, compression}

Whose TLS an endpoint gets is upstream's rule:

| its `client_config` | TLS |
|---|---|
| says nothing | the default's; that is `default_client_config`, or else the flags |
| `enabled` is not set | its own fields, the default's where it has none; on if a file is named |
| `enabled: true` | its own fields alone |
| `enabled: false` | plain text |

Unlike upstream, unknown keys are errors, and an address with a DNS prefix has its own
`client_config` too. A server name is never the default's where an endpoint sets anything, as there.

Source: Thanos v0.42.4 `cmd/thanos/endpointset.go`.
"""

from __future__ import annotations

import json
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from thanostack.query.discovery import PREFIXES, EndpointSpec
from thanostack.runtime.strict_yaml import StrictModel, parse_yaml
from thanostack.runtime.tls_options import PEM, ClientTLSOptions

_PREFIXES: Final = tuple(f"{name}+" for name in PREFIXES)


class _TLS(StrictModel):
    enabled: bool | None = None
    insecure_skip_verify: bool | None = None
    cert_file: str | None = None
    key_file: str | None = None
    ca_file: str | None = None
    min_version: Literal["1.0", "1.1", "1.2", "1.3"] | None = None

    @property
    def is_on(self) -> bool:
        """Return whether TLS is wanted: said so, or meant by naming what only TLS needs."""
        if self.enabled is not None:
            return self.enabled
        meant = (self.cert_file, self.key_file, self.ca_file, self.insecure_skip_verify)
        return any(value is not None for value in meant)

    def over(self, default: _TLS) -> _TLS:
        """Return these fields, with the default's where there are none."""
        enabled = self.is_on or (default.enabled if self.enabled is None else False)
        own = {name: value for name, value in self if value is not None}
        return default.model_copy(update={**own, "enabled": enabled})


class _Client(StrictModel):
    tls_config: _TLS = Field(default_factory=_TLS)
    server_name: str = ""
    compression: str = "none"

    @field_validator("compression")
    @classmethod
    def _is_not_compressed(cls, value: str) -> str:
        if value not in {"", "none", "snappy"}:
            raise ValueError(f"invalid compression: {value}, must be 'none' or 'snappy'")
        if value == "snappy":
            raise ValueError("only uncompressed calls are offered: leave it at none")
        return value

    @property
    def is_silent(self) -> bool:
        """Return whether nothing of TLS is said."""
        return self.tls_config == _TLS() and not self.server_name

    def options(self, place: str) -> ClientTLSOptions | None:
        """Return the TLS that is asked for; None for plain text."""
        tls = self.tls_config
        if not tls.is_on:
            return None
        if bool(tls.cert_file) != bool(tls.key_file):
            raise ValueError("both cert_file and key_file must be given")
        return ClientTLSOptions(
            ca=PEM(f"{place}: ca_file", tls.ca_file or ""),
            cert=PEM(f"{place}: cert_file", tls.cert_file or ""),
            key=PEM(f"{place}: key_file", tls.key_file or ""),
            server_name=self.server_name,
            skip_verify=bool(tls.insecure_skip_verify),
            min_version=tls.min_version or "1.3",
        )


class _Endpoint(StrictModel):
    address: str
    strict: bool = False
    group: bool = False
    service_config: str = ""
    client_config: _Client = Field(default_factory=_Client)

    @field_validator("service_config")
    @classmethod
    def _is_json(cls, value: str) -> str:
        if value:
            json.loads(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> _Endpoint:
        if self.strict and self.address.startswith(_PREFIXES):
            raise ValueError(f"{self.address}: a strict endpoint has no DNS prefix")
        if self.service_config and not self.group:
            raise ValueError(f"{self.address}: service_config is only valid for endpoint groups")
        self.client_config.options("")
        return self


class _Document(StrictModel):
    default_client_config: _Client = Field(default_factory=_Client)
    endpoints: tuple[_Endpoint, ...] = ()

    @model_validator(mode="after")
    def _default_is_complete(self) -> _Document:
        self.default_client_config.options("")
        return self


def parse_endpoints(
    text: str, place: str, flags: ClientTLSOptions | None = None
) -> tuple[ClientTLSOptions | None, tuple[EndpointSpec, ...]]:
    """Return (TLS where nothing else is said, the endpoints that a text lists).

    Args:
        text: YAML.
        place: flag and file, for error texts.
        flags: the TLS that flags ask for.

    Raises:
        SettingsInvalid: naming the place and the key, if the text is not as documented.
    """
    document = parse_yaml(text, place, _Document)
    client = document.default_client_config
    default, fields = flags, _fields_of(flags)
    if not client.is_silent:
        default, fields = client.options(f"{place}: default_client_config"), client.tls_config
    specs = (_spec(endpoint, place, default, fields) for endpoint in document.endpoints)
    return default, tuple(specs)


def _spec(
    endpoint: _Endpoint, place: str, default: ClientTLSOptions | None, fields: _TLS
) -> EndpointSpec:
    client = endpoint.client_config
    tls = default
    if not client.is_silent:
        own = client.tls_config
        chosen = own if own.enabled is not None else own.over(fields)
        tls = client.model_copy(update={"tls_config": chosen}).options(
            f"{place}: {endpoint.address}"
        )
    return EndpointSpec(
        endpoint.address,
        strict=endpoint.strict,
        group=endpoint.group,
        tls=tls,
        service_config=endpoint.service_config,
    )


def _fields_of(options: ClientTLSOptions | None) -> _TLS:
    if options is None:
        return _TLS(enabled=False)
    return _TLS(
        enabled=True,
        insecure_skip_verify=options.skip_verify,
        cert_file=options.cert.path or None,
        key_file=options.key.path or None,
        ca_file=options.ca.path or None,
        min_version=options.min_version,  # type: ignore[arg-type]
    )
