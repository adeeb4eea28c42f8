"""The file of write limits, as Thanos has it, read strictly.

    write:
      global: {max_concurrency, meta_monitoring_url, meta_monitoring_http_client,
               meta_monitoring_limit_query}
      default:                          for tenants that are not named
        request: {size_bytes_limit, series_limit, samples_limit}
        head_series_limit:
      tenants:
        <tenant>: {request: …, head_series_limit: …}

0 is unlimited. What a tenant does not say is the default.

Source: Thanos `pkg/receive/limiter_config.go`, `pkg/clientconfig/http.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.foundation.strict_yaml import Node, parse_yaml

DEFAULT_QUERY: Final = "sum(prometheus_tsdb_head_series) by (tenant)"
REQUEST_LIMITS: Final = ("size_bytes_limit", "series_limit", "samples_limit")
_GLOBAL: Final = (
    "max_concurrency", "meta_monitoring_url", "meta_monitoring_http_client",
    "meta_monitoring_limit_query",
)  # fmt: skip
_TRANSPORT: Final = (
    "max_idle_conns", "max_idle_conns_per_host", "idle_conn_timeout", "response_header_timeout",
    "expect_continue_timeout", "max_conns_per_host", "disable_compression", "tls_handshake_timeout",
    "dialer_timeout",
)  # fmt: skip

Layer = Mapping[str, int]
"""Limits by name, as far as one place says something."""


@dataclass(frozen=True)
class HTTPClient:
    """How the meta-monitoring is talked to.

    Args:
        username, password, password_file: of basic authentication.
        bearer_token, bearer_token_file: instead of it.
        proxy_url: of a proxy.
        ca_file, cert_file, key_file: of TLS.
        server_name: to verify, instead of the URL's.
        insecure_skip_verify: do not verify.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    bearer_token: str = field(default="", repr=False)
    bearer_token_file: str = ""
    proxy_url: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    insecure_skip_verify: bool = False


@dataclass(frozen=True)
class MetaMonitoring:
    """Where series of all receivers together are counted.

    Args:
        url: of a Prometheus query API.
        query: gives the series by label `tenant`.
        client: how it is talked to.
    """

    url: str
    query: str = DEFAULT_QUERY
    client: HTTPClient = HTTPClient()


@dataclass(frozen=True)
class LimitsFile:
    """What the file says.

    Args:
        max_concurrency: most writes at once; 0 is unlimited.
        meta_monitoring: None where no URL is given.
        default: limits of tenants that say nothing.
        tenants: limits by tenant.
    """

    max_concurrency: int = 0
    meta_monitoring: MetaMonitoring | None = None
    default: Layer = field(default_factory=dict)
    tenants: Mapping[str, Layer] = field(default_factory=dict)


def parse_limits(data: bytes) -> LimitsFile:
    """Return the limits of a file.

    Raises:
        InvalidInput: if it is no such file; the text names the line.
    """
    root = parse_yaml(data).fields("receive.RootLimitsConfig", ("write",))
    write = _fields(root, "write", "receive.WriteLimitsConfig", ("global", "default", "tenants"))
    settings = _fields(write, "global", "receive.GlobalLimitsConfig", _GLOBAL)
    tenants = (
        write["tenants"].entries("receive.TenantsWriteLimitsConfig") if "tenants" in write else {}
    )
    concurrency = settings.get("max_concurrency")
    return LimitsFile(
        max_concurrency=max(concurrency.integer(), 0) if concurrency else 0,
        meta_monitoring=_meta_monitoring(settings),
        default=_layer(write.get("default"), "receive.DefaultLimitsConfig"),
        tenants={name: _layer(node, "receive.WriteLimitConfig") for name, node in tenants.items()},
    )


def _fields(
    parent: Mapping[str, Node], name: str, kind: str, known: tuple[str, ...]
) -> dict[str, Node]:
    return parent[name].fields(kind, known) if name in parent else {}


def _layer(node: Node | None, kind: str) -> Layer:
    if node is None:
        return {}
    fields = node.fields(kind, ("request", "head_series_limit"))
    layer = request_layer(fields)
    head = fields.get("head_series_limit")
    if head is not None and not head.is_null:
        layer["head_series_limit"] = head.integer("uint64")
    return layer


def request_layer(fields: Mapping[str, Node]) -> dict[str, int]:
    """Return what the structure `request` among some fields says."""
    limits = _fields(fields, "request", "receive.requestLimitsConfig", REQUEST_LIMITS)
    # Upstream: below 0 is unlimited too.
    return {name: max(node.integer(), 0) for name, node in limits.items() if not node.is_null}


def _meta_monitoring(settings: Mapping[str, Node]) -> MetaMonitoring | None:
    def text(name: str) -> str:
        return settings[name].text() if name in settings else ""

    client = _client(settings)
    url = text("meta_monitoring_url")
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"parsing meta-monitoring URL: {error}") from error
    if not parts.netloc or not parts.scheme:
        found = f"(scheme: {parts.scheme},host: {parts.netloc})"
        raise InvalidInput(f"{url} is not a valid meta-monitoring URL {found}")
    if parts.scheme not in {"http", "https"}:
        raise InvalidInput(f"{url} is not a valid meta-monitoring URL: it must be http or https")
    return MetaMonitoring(url, text("meta_monitoring_limit_query") or DEFAULT_QUERY, client)


def _client(settings: Mapping[str, Node]) -> HTTPClient:
    known = (
        "basic_auth", "bearer_token", "bearer_token_file", "proxy_url", "tls_config",
        "transport_config",
    )  # fmt: skip
    fields = _fields(
        settings, "meta_monitoring_http_client", "clientconfig.HTTPClientConfig", known
    )
    basic = ("username", "password", "password_file")
    texts = _fields(fields, "basic_auth", "clientconfig.BasicAuth", basic)
    names = ("ca_file", "cert_file", "key_file", "server_name", "insecure_skip_verify")
    tls = _fields(fields, "tls_config", "clientconfig.TLSConfig", names)
    skip = tls.pop("insecure_skip_verify", None)
    # Read to refuse what it does not have; the sizes of a connection pool mean nothing to one poll.
    _fields(fields, "transport_config", "clientconfig.TransportConfig", _TRANSPORT)
    plain: tuple[str, ...] = ("bearer_token", "bearer_token_file", "proxy_url")
    nodes = {**texts, **tls, **{name: fields[name] for name in plain if name in fields}}
    values: dict[str, Any] = {name: node.text() for name, node in nodes.items()}
    return HTTPClient(**values, insecure_skip_verify=skip.boolean() if skip else False)
