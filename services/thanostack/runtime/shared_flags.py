"""Flags that several containers share, as mixins of a container's settings class.

    LogAndTracingFlags      every container
    HTTPServerFlags         every container
    GRPCServerFlags         containers that serve gRPC
    StoreLimitFlags         containers that serve the StoreAPI
    ObjectStoreFlags        containers that talk to a bucket
    RequestLoggingFlags     containers with request logs upstream

Source: Thanos v0.42.4, `cmd/thanos/config.go`, `pkg/extkingpin/flags.go`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from thanostack.runtime.settings import (
    GoDuration,
    ModelDuration,
    Settings,
    Unsigned,
    accepted,
    flag,
    refused,
)

TLSVersion = Literal["1.0", "1.1", "1.2", "1.3"]

NO_TLS = (
    "TLS is not offered yet: leave it out and let a sidecar or the mesh terminate TLS "
    "in front of this port"
)
_TLS_OFF = "TLS is not offered yet, so its parameters have nothing to act on"


class LogAndTracingFlags(Settings):
    """Logs, tracing and what only concerns the Go runtime."""

    log_level: Literal["error", "warn", "info", "debug"] = flag(
        "log.level", "info", "Least level that is logged."
    )
    log_format: Literal["logfmt", "json", "journald"] = flag(
        "log.format", "logfmt", "Form of log lines: logfmt or json."
    )
    debug_name: str = flag(
        "debug.name", "", "Name added to every log line, as the field `name`.", hidden=True
    )
    tracing_config_file: str = refused(
        "tracing.config-file",
        "",
        "YAML file with the tracing configuration.",
        hint="tracing is not offered yet: leave it out",
    )
    tracing_config: str = refused(
        "tracing.config",
        "",
        "YAML text of the tracing configuration.",
        hint="tracing is not offered yet: leave it out",
        secret=True,
    )
    enable_auto_gomemlimit: bool = accepted(
        "enable-auto-gomemlimit",
        "false",
        "Let the Go runtime limit its memory.",
        reason="there is no Go runtime here; bounds are settings of their own",
    )
    auto_gomemlimit_ratio: float = accepted(
        "auto-gomemlimit.ratio",
        "0.9",
        "Part of the container's memory that the Go runtime may use.",
        reason="there is no Go runtime here",
    )

    @field_validator("log_format")
    @classmethod
    def _no_journal(cls, value: str) -> str:
        if value == "journald":
            raise ValueError("journald is not offered: write logfmt or json to standard error")
        return value


class HTTPServerFlags(Settings):
    """The HTTP port for metrics, probes and APIs."""

    http_address: str = flag(
        "http-address", "0.0.0.0:10902", "Address of the HTTP port: host:port or :port."
    )
    http_grace_period: ModelDuration = flag(
        "http-grace-period", "2m", "How long running HTTP requests may take once asked to stop."
    )
    http_config: str = refused(
        "http.config", "", "File that sets up TLS and basic authentication.", hint=NO_TLS
    )


class GRPCServerFlags(Settings):
    """The gRPC port."""

    grpc_address: str = flag(
        "grpc-address", "0.0.0.0:10901", "Address of the gRPC port: host:port or :port."
    )
    grpc_server_tls_cert: str = refused(
        "grpc-server-tls-cert", "", "Certificate of the gRPC port.", hint=NO_TLS
    )
    grpc_server_tls_key: str = refused(
        "grpc-server-tls-key", "", "Key of the gRPC port.", hint=NO_TLS
    )
    grpc_server_tls_client_ca: str = refused(
        "grpc-server-tls-client-ca",
        "",
        "CA that clients' certificates must come from.",
        hint=NO_TLS,
    )
    grpc_server_tls_min_version: TLSVersion = accepted(
        "grpc-server-tls-min-version", "1.3", "Least TLS version of the gRPC port.", reason=_TLS_OFF
    )
    grpc_server_tls_ciphers: tuple[str, ...] = accepted(
        "grpc-server-tls-ciphers", (), "TLS cipher suites of the gRPC port.", reason=_TLS_OFF
    )
    grpc_server_tls_curves: tuple[str, ...] = accepted(
        "grpc-server-tls-curves", (), "TLS curves of the gRPC port.", reason=_TLS_OFF
    )
    grpc_server_max_connection_age: GoDuration = flag(
        "grpc-server-max-connection-age",
        "60m",
        "Age at which a client is asked to connect anew; 0 never.",
    )
    grpc_grace_period: GoDuration = flag(
        "grpc-grace-period", "2m", "How long running gRPC calls may take once asked to stop."
    )


class StoreLimitFlags(Settings):
    """What one StoreAPI call may return."""

    store_limits_request_series: Unsigned = flag(
        "store.limits.request-series", "0", "Most series of one Series call; 0 is no limit."
    )
    store_limits_request_samples: Unsigned = flag(
        "store.limits.request-samples",
        "0",
        "Most samples of one Series call, counted as chunks of 120; 0 is no limit.",
    )


_NO_BUCKET = (
    "object storage is not offered yet: leave it out, blocks stay in the data folder "
    "for the time of --tsdb.retention"
)


class ObjectStoreFlags(Settings):
    """The bucket."""

    objstore_config_file: str = refused(
        "objstore.config-file", "", "YAML file that describes the bucket.", hint=_NO_BUCKET
    )
    objstore_config: str = refused(
        "objstore.config", "", "YAML text that describes the bucket.", hint=_NO_BUCKET, secret=True
    )


class RequestLoggingFlags(Settings):
    """Logs of single requests."""

    request_logging_config_file: str = refused(
        "request.logging-config-file",
        "",
        "YAML file that says which requests are logged.",
        hint="request logs are not offered yet: leave it out, request metrics exist",
    )
    request_logging_config: str = refused(
        "request.logging-config",
        "",
        "YAML text that says which requests are logged.",
        hint="request logs are not offered yet: leave it out, request metrics exist",
    )
