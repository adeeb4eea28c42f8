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

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import field_validator, model_validator

from thanostack.runtime.settings import (
    GoDuration,
    ModelDuration,
    Settings,
    Unsigned,
    accepted,
    flag,
    refused,
)
from thanostack.runtime.tls_options import (
    GRPC_ALPN,
    HTTP_ALPN,
    PEM,
    ClientAuth,
    ClientTLSOptions,
    ServerTLSOptions,
    openssl_curve,
    openssl_suites,
)

if TYPE_CHECKING:  # for ports that have such a file only
    from thanostack.runtime.web_config import WebConfig

TLSVersion = Literal["1.0", "1.1", "1.2", "1.3"]


def suites_exist(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return cipher suites; a validator."""
    openssl_suites(value)
    return value


def curves_exist(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return curves; a validator."""
    openssl_curve(value)
    return value


def server_tls(settings: Settings, prefix: str) -> ServerTLSOptions | None:
    """Return the TLS that six flags of one prefix ask for; None for plain text.

    Args:
        settings: with `--<prefix>-cert` and `-key`, `-client-ca`, `-min-version`, `-ciphers`,
            `-curves`.
        prefix: such as grpc-server-tls.

    Raises:
        ValueError: if they are not complete.
    """
    cert, key, client_ca = (_pem(settings, prefix, part) for part in ("cert", "key", "client-ca"))
    if not cert and not key:
        if client_ca:
            raise ValueError(
                f"--{prefix}-client-ca: when a client CA is used --{prefix}-cert and "
                f"--{prefix}-key must be given too"
            )
        return None
    if not (cert and key):
        raise ValueError(f"both --{prefix}-cert and --{prefix}-key must be given")
    return ServerTLSOptions(
        cert,
        key,
        client_ca=client_ca,
        client_auth=ClientAuth.REQUIRED if client_ca else ClientAuth.NONE,
        min_version=_value(settings, prefix, "min-version"),
        ciphers=_value(settings, prefix, "ciphers"),
        curves=_value(settings, prefix, "curves"),
    )


def client_tls(settings: Settings, prefix: str, server_name: str) -> ClientTLSOptions | None:
    """Return the TLS that six flags of one prefix ask for; None for plain text.

    Args:
        settings: with `--<prefix>-secure`, `-skip-verify`, `-cert`, `-key`, `-ca`, `-min-version`.
        prefix: such as grpc-client-tls.
        server_name: that certificates must bear; empty for the host of the address.

    Raises:
        ValueError: if they are not complete.
    """
    cert, key, ca = (_pem(settings, prefix, part) for part in ("cert", "key", "ca"))
    if bool(cert) != bool(key):
        raise ValueError(f"both --{prefix}-cert and --{prefix}-key must be given")
    if not _value(settings, prefix, "secure"):
        return None
    return ClientTLSOptions(
        ca=ca,
        cert=cert,
        key=key,
        server_name=server_name,
        skip_verify=_value(settings, prefix, "skip-verify"),
        min_version=_value(settings, prefix, "min-version"),
    )


def check_web_config(path: str, flag: str) -> WebConfig:
    """Return what a web configuration file says, its certificates tried.

    Raises:
        SettingsInvalid: naming the file and what is wrong.
    """
    from thanostack.runtime.web_config import read_web_config

    config = read_web_config(path, flag)
    check_server_tls(config.tls)
    return config


def check_server_tls(options: ServerTLSOptions | None) -> None:
    """Try the files of a port's TLS.

    Raises:
        SettingsInvalid: naming the file and what is wrong.
    """
    if options is not None:
        from thanostack.runtime.tls_context import server_context  # heavy, and rarely needed

        server_context(options, alpn=HTTP_ALPN)


def check_client_tls(options: ClientTLSOptions | None) -> None:
    """Try the files of TLS towards others.

    Raises:
        SettingsInvalid: naming the file and what is wrong.
    """
    if options is not None:
        from thanostack.runtime.tls_context import client_context  # heavy, and rarely needed

        client_context(options, alpn=GRPC_ALPN)


def _pem(settings: Settings, prefix: str, part: str) -> PEM:
    return PEM(f"--{prefix}-{part}", _value(settings, prefix, part))


def _value(settings: Settings, prefix: str, part: str) -> Any:
    return getattr(settings, f"{prefix}-{part}".replace("-", "_").replace(".", "_"))


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
    http_config: str = flag(
        "http.config",
        "",
        "File in Prometheus's web configuration format: TLS, headers, rate limit and basic "
        "authentication of the HTTP port, probes and metrics included. It is followed when it "
        "changes.",
    )

    def check(self) -> None:
        """Look at the files that flags name.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """
        super().check()
        if self.http_config:
            check_web_config(self.http_config, "http.config")


class GRPCServerFlags(Settings):
    """The gRPC port."""

    grpc_address: str = flag(
        "grpc-address", "0.0.0.0:10901", "Address of the gRPC port: host:port or :port."
    )
    grpc_server_tls_cert: str = flag(
        "grpc-server-tls-cert", "", "Certificate of the gRPC port, a PEM file; none is plain text."
    )
    grpc_server_tls_key: str = flag("grpc-server-tls-key", "", "Key of that certificate.")
    grpc_server_tls_client_ca: str = flag(
        "grpc-server-tls-client-ca",
        "",
        "CA that clients' certificates must come from; without it none is asked for.",
    )
    grpc_server_tls_min_version: TLSVersion = flag(
        "grpc-server-tls-min-version", "1.3", "Least TLS version of the gRPC port."
    )
    grpc_server_tls_ciphers: tuple[str, ...] = flag(
        "grpc-server-tls-ciphers",
        (),
        "TLS cipher suites of the gRPC port, by Go's names (repeated); those of 1.3 are always on.",
    )
    grpc_server_tls_curves: tuple[str, ...] = flag(
        "grpc-server-tls-curves",
        (),
        "TLS curve of the gRPC port: CurveP256, CurveP384, CurveP521 or X25519; one, or all four.",
    )
    grpc_server_max_connection_age: GoDuration = flag(
        "grpc-server-max-connection-age",
        "60m",
        "Age at which a client is asked to connect anew; 0 never.",
    )
    grpc_grace_period: GoDuration = flag(
        "grpc-grace-period", "2m", "How long running gRPC calls may take once asked to stop."
    )

    _grpc_suites = field_validator("grpc_server_tls_ciphers")(suites_exist)
    _grpc_curves = field_validator("grpc_server_tls_curves")(curves_exist)

    @model_validator(mode="after")
    def _grpc_tls_is_complete(self) -> Self:
        server_tls(self, "grpc-server-tls")
        return self

    @property
    def grpc_tls(self) -> ServerTLSOptions | None:
        """Return the TLS of the gRPC port; None for plain text."""
        return server_tls(self, "grpc-server-tls")

    def check(self) -> None:
        """Look at the files that flags name.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """
        super().check()
        check_server_tls(self.grpc_tls)


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
