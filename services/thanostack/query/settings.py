"""The flags of `thanostack query`, as Thanos has them.

Source: Thanos v0.42.4, `cmd/thanos/query.go`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from thanostack.lib.foundation.errors import InvalidTenant, SettingsInvalid
from thanostack.lib.tenancy.names import checked_tenant
from thanostack.runtime.label_flags import parse_labels
from thanostack.runtime.settings import (
    ByteSize,
    GoDuration,
    ModelDuration,
    Unsigned,
    accepted,
    flag,
    ours,
    refused,
)
from thanostack.runtime.shared_flags import (
    GRPCServerFlags,
    HTTPServerFlags,
    LogAndTracingFlags,
    RequestLoggingFlags,
    StoreLimitFlags,
    TLSVersion,
    check_client_tls,
    check_web_config,
    client_tls,
)
from thanostack.runtime.tls_options import ClientAuth, ClientTLSOptions

_NOT_PROXIED = "this API of endpoints is not proxied yet, so there is nothing to set"


class EngineFlags(LogAndTracingFlags):
    """How queries are evaluated."""

    query_timeout: ModelDuration = flag("query.timeout", "2m", "Longest time a query may take.")
    query_max_concurrent: int = flag("query.max-concurrent", "20", "Queries evaluated at once.")
    query_max_concurrent_select: int = accepted(
        "query.max-concurrent-select",
        "4",
        "Selects of one query at once.",
        reason="all selectors of a query are fetched in one round",
    )
    query_lookback_delta: GoDuration = flag(
        "query.lookback-delta", "0s", "How far a selector looks back; 0s is 5m."
    )
    query_dynamic_lookback_delta: bool = flag(
        "query.dynamic-lookback-delta",
        "true",
        "Look back at least as far as the resolution of downsampled data.",
        hidden=True,
    )
    query_default_evaluation_interval: ModelDuration = flag(
        "query.default-evaluation-interval", "1m", "Step of subqueries that name none."
    )
    query_default_step: ModelDuration = flag(
        "query.default-step", "1s", "Least step of range queries that name none."
    )
    query_promql_engine: Literal["prometheus", "thanos"] = accepted(
        "query.promql-engine",
        "prometheus",
        "Engine to use by default.",
        reason="one engine answers under either name",
    )
    query_mode: Literal["local", "distributed"] = refused(
        "query.mode",
        "local",
        "Where queries are evaluated.",
        hint="distributed evaluation is not offered yet: leave it out, answers are the same",
    )
    query_enable_x_functions: bool = refused(
        "query.enable-x-functions",
        "false",
        "Offer xrate, xincrease and xdelta.",
        hint="these functions are not offered: use `anchored` and `smoothed` selectors instead",
    )
    query_disable_fallback: bool = accepted(
        "query.disable-fallback",
        "false",
        "Fail rather than fall back to another engine.",
        reason="there is one engine and no fallback",
        hidden=True,
    )
    query_active_query_path: str = accepted(
        "query.active-query-path",
        "",
        "Folder of the file that lists running queries.",
        reason="running queries are a metric",
    )
    enable_feature: tuple[str, ...] = flag(
        "enable-feature", (), "Features, comma-separated: promql-experimental-functions."
    )
    query_bytes_max: ByteSize = ours(
        "query.bytes-max",
        "512MB",
        "Memory that one query may take for its matrices; it is evaluated in slices that fit, and "
        "refused if one step does not.",
    )
    query_fetched_bytes_max: ByteSize = ours(
        "query.fetched-bytes-max", "4GB", "Bytes that one query may fetch from endpoints."
    )
    query_samples_max: Unsigned = ours(
        "query.samples-max",
        "0",
        "Points that one query may hold at once, as Prometheus counts them; 0 is no limit, as "
        "upstream.",
    )

    @field_validator("query_max_concurrent")
    @classmethod
    def _some_queries(cls, value: int) -> int:
        if value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator("enable_feature")
    @classmethod
    def _features_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # Upstream: these two are always on, and the third is gone; all are still accepted.
        known = {"promql-at-modifier", "promql-negative-offset", "query-pushdown", ""}
        names = tuple(name for text in value for name in text.split(","))
        for name in names:
            if name not in known | {"promql-experimental-functions"}:
                raise ValueError(f"unknown feature {name}; there is promql-experimental-functions")
        return names

    @property
    def experimental_functions(self) -> bool:
        """Return whether PromQL's experimental functions are on."""
        return "promql-experimental-functions" in self.enable_feature


class SelectionFlags(LogAndTracingFlags):
    """Deduplication, partial response, downsampling, selection, tenants."""

    query_replica_label: tuple[str, ...] = flag(
        "query.replica-label",
        (),
        "Label that tells replicas apart and is removed by deduplication; repeat, or divide by "
        "commas.",
    )
    deduplication_func: Literal["penalty", "chain"] = flag(
        "deduplication.func",
        "penalty",
        "How replicas are merged: penalty stays with one, chain takes all samples.",
    )
    query_partition_label: tuple[str, ...] = accepted(
        "query.partition-label",
        (),
        "Labels that divide leaf queriers.",
        reason="only distributed evaluation reads it",
    )
    query_distributed_with_overlapping_interval: bool = accepted(
        "query.distributed-with-overlapping-interval",
        "false",
        "Query overlapping leaf queriers.",
        reason="only distributed evaluation reads it",
        hidden=True,
    )
    query_auto_downsampling: bool = flag(
        "query.auto-downsampling", "false", "Take data of up to a fifth of the step by default."
    )
    query_instant_default_max_source_resolution: ModelDuration = flag(
        "query.instant.default.max_source_resolution",
        "0s",
        "Coarsest data for instant queries where `auto` applies.",
        hidden=True,
    )
    query_partial_response: bool = flag(
        "query.partial-response", "true", "Answer with warnings when an endpoint fails."
    )
    rule_partial_response: bool = accepted(
        "rule.partial-response", "true", "The same for rules.", reason=_NOT_PROXIED, hidden=True
    )
    target_partial_response: bool = accepted(
        "target.partial-response", "true", "The same for targets.", reason=_NOT_PROXIED, hidden=True
    )
    metric_metadata_partial_response: bool = accepted(
        "metric-metadata.partial-response",
        "true",
        "The same for metadata.",
        reason=_NOT_PROXIED,
        hidden=True,
    )
    exemplar_partial_response: bool = accepted(
        "exemplar.partial-response",
        "true",
        "The same for exemplars.",
        reason=_NOT_PROXIED,
        hidden=True,
    )
    status_partial_response: bool = accepted(
        "status.partial-response", "true", "The same for status.", reason=_NOT_PROXIED, hidden=True
    )
    selector_label: tuple[str, ...] = flag(
        "selector-label",
        (),
        "Label that this querier announces; matchers on it are settled here (repeated).",
        placeholder='<name>="<value>"',
    )
    selector_relabel_config: str = refused(
        "selector.relabel-config",
        "",
        "Rules that choose TSDBs by external labels.",
        hint="choosing TSDBs by relabeling is not offered yet: leave it out",
    )
    selector_relabel_config_file: str = refused(
        "selector.relabel-config-file",
        "",
        "File with rules that choose TSDBs by external labels.",
        hint="choosing TSDBs by relabeling is not offered yet: leave it out",
    )
    query_metadata_default_time_range: GoDuration = flag(
        "query.metadata.default-time-range",
        "0s",
        "Time range of label and series requests that name none; 0s is all time.",
    )
    query_tenant_header: str = flag(
        "query.tenant-header", "THANOS-TENANT", "HTTP header that names the tenant."
    )
    query_default_tenant_id: str = flag(
        "query.default-tenant-id", "default-tenant", "Tenant of requests that name none."
    )
    query_tenant_certificate_field: Literal[
        "", "organization", "organizationalUnit", "commonName"
    ] = flag(
        "query.tenant-certificate-field",
        "",
        "Field of the client's certificate that names the tenant; headers are not looked at then. "
        "It needs client certificates, which --http.config asks for.",
    )
    query_enforce_tenancy: bool = flag(
        "query.enforce-tenancy", "false", "Answer only with series of the request's tenant."
    )
    query_tenant_label_name: str = flag(
        "query.tenant-label-name", "tenant_id", "Label that tenancy is enforced on."
    )
    stack_id: str = ours(
        "stack.id",
        "",
        "Name of this stack in the guard against query cycles; random by default.",
        hidden=True,
    )

    @field_validator("query_replica_label")
    @classmethod
    def _split_commas(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = (name.strip() for text in value for name in text.split(","))
        return tuple(dict.fromkeys(name for name in names if name))

    @field_validator("selector_label")
    @classmethod
    def _labels_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_labels(value)
        return value

    @field_validator("query_default_tenant_id")
    @classmethod
    def _default_tenant_is_a_name(cls, value: str) -> str:
        try:
            return checked_tenant(value)
        except InvalidTenant as error:
            raise ValueError(str(error)) from error

    @property
    def selector_labels(self) -> dict[str, str]:
        """Return the labels that this querier announces."""
        return parse_labels(self.selector_label)


class DiscoveryFlags(LogAndTracingFlags):
    """Which endpoints there are."""

    endpoint: tuple[str, ...] = flag(
        "endpoint",
        (),
        "Address of an endpoint, host:port (repeated); dns+, dnssrv+, dnssrvnoa+ and dnsdualstack+ "
        "before it look it up.",
        placeholder="<endpoint>",
    )
    store: tuple[str, ...] = ours(
        "store", (), "Old name of --endpoint.", placeholder="<endpoint>", hidden=True
    )
    endpoint_strict: tuple[str, ...] = flag(
        "endpoint-strict",
        (),
        "Address of an endpoint that is always queried, even when it does not answer.",
        placeholder="<endpoint>",
    )
    endpoint_group: tuple[str, ...] = flag(
        "endpoint-group",
        (),
        "DNS name whose addresses are interchangeable: each call goes to one of them.",
        placeholder="<endpoint>",
    )
    endpoint_group_strict: tuple[str, ...] = flag(
        "endpoint-group-strict",
        (),
        "Like --endpoint-group, and always queried.",
        placeholder="<endpoint>",
    )
    endpoint_sd_config: str = flag(
        "endpoint.sd-config", "", "YAML text that lists endpoints: address, strict, group."
    )
    endpoint_sd_config_file: str = flag(
        "endpoint.sd-config-file", "", "YAML file that lists endpoints; it is read again."
    )
    endpoint_sd_config_reload_interval: ModelDuration = flag(
        "endpoint.sd-config-reload-interval", "5m", "How often that file is read again."
    )
    endpoint_info_timeout: ModelDuration = flag(
        "endpoint.info-timeout", "5s", "Longest time of one Info call.", hidden=True
    )
    store_sd_dns_interval: ModelDuration = flag(
        "store.sd-dns-interval", "30s", "How often names are looked up again."
    )
    store_sd_dns_resolver: Literal["miekgdns", "golang"] = flag(
        "store.sd-dns-resolver",
        "miekgdns",
        "Who looks names up: miekgdns asks DNS, golang the system (hosts file included).",
        hidden=True,
    )
    store_unhealthy_timeout: ModelDuration = flag(
        "store.unhealthy-timeout", "5m", "How long an endpoint that does not answer stays listed."
    )
    store_response_timeout: ModelDuration = flag(
        "store.response-timeout",
        "0ms",
        "Longest wait for the next message of an endpoint; 0ms is no limit but the query's own.",
    )
    store_sd_files: tuple[str, ...] = refused(
        "store.sd-files",
        (),
        "Files with addresses in Prometheus's file format.",
        hint="write the addresses to --endpoint.sd-config-file instead",
    )
    store_sd_interval: ModelDuration = accepted(
        "store.sd-interval",
        "5m",
        "How often those files are read.",
        reason="--store.sd-files is not offered",
    )
    query_conn_metric_label: tuple[Literal["external_labels", "store_type", "ip_port"], ...] = flag(
        "query.conn-metric.label",
        ("external_labels", "store_type"),
        "Labels of the metric of connected endpoints: external_labels, store_type, ip_port.",
    )
    inject_test_addresses: tuple[str, ...] = refused(
        "inject-test-addresses",
        (),
        "Addresses for upstream's own tests.",
        hint="it is for upstream's tests only: leave it out",
        hidden=True,
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.endpoint_sd_config and self.endpoint_sd_config_file:
            raise ValueError(
                "give either --endpoint.sd-config or --endpoint.sd-config-file, not both"
            )
        for address in (*self.endpoint_strict, *self.endpoint_group_strict):
            if address.startswith(("dns+", "dnssrv+", "dnssrvnoa+", "dnsdualstack+")):
                raise ValueError(
                    f"{address}: a strict endpoint is one address; it cannot have a DNS prefix"
                )
        return self


class EndpointClientFlags(LogAndTracingFlags):
    """The gRPC client towards endpoints."""

    grpc_client_tls_secure: bool = flag(
        "grpc-client-tls-secure", "false", "Use TLS towards endpoints."
    )
    grpc_client_tls_skip_verify: bool = flag(
        "grpc-client-tls-skip-verify", "false", "Do not verify endpoints' certificates."
    )
    grpc_client_tls_cert: str = flag(
        "grpc-client-tls-cert", "", "Certificate that endpoints are shown, a PEM file."
    )
    grpc_client_tls_key: str = flag("grpc-client-tls-key", "", "Key of that certificate.")
    grpc_client_tls_ca: str = flag(
        "grpc-client-tls-ca",
        "",
        "CA that endpoints' certificates must come from; the system's by default.",
    )
    grpc_client_tls_min_version: TLSVersion = flag(
        "grpc-client-tls-min-version", "1.3", "Least TLS version towards endpoints."
    )
    grpc_client_server_name: str = flag(
        "grpc-client-server-name",
        "",
        "Name that endpoints' certificates must bear; the host of the address by default.",
    )
    grpc_compression: Literal["none", "snappy"] = refused(
        "grpc-compression",
        "none",
        "Compression towards endpoints.",
        hint="only uncompressed calls are offered: leave it at none",
    )
    grpc_proxy_strategy: Literal["eager", "lazy"] = accepted(
        "grpc.proxy-strategy",
        "eager",
        "Whether answers are merged while they come in.",
        reason="answers are fetched whole and merged by kernels",
        hidden=True,
    )
    query_lazy_retrieval_max_buffered_responses: Unsigned = accepted(
        "query.lazy-retrieval-max-buffered-responses",
        "20",
        "Messages buffered an endpoint under the lazy strategy.",
        reason="answers are fetched whole and merged by kernels",
        hidden=True,
    )
    query_response_batch_size: int = ours(
        "query.response-batch-size",
        "4096",
        "Series that endpoints may put into one message; real Thanos asks for 64.",
    )

    @model_validator(mode="after")
    def _endpoint_tls_is_complete(self) -> Self:
        client_tls(self, "grpc-client-tls", self.grpc_client_server_name)
        return self

    @property
    def endpoint_tls(self) -> ClientTLSOptions | None:
        """Return the TLS that flags ask for towards endpoints; None for plain text."""
        return client_tls(self, "grpc-client-tls", self.grpc_client_server_name)

    def check(self) -> None:
        """Look at the files that flags name.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """
        super().check()
        check_client_tls(self.endpoint_tls)


class WebFlags(LogAndTracingFlags):
    """HTTP routes and what they show."""

    alert_query_url: str = accepted(
        "alert.query-url", "", "External URL shown with alerts.", reason=_NOT_PROXIED
    )
    web_route_prefix: str = flag(
        "web.route-prefix",
        "",
        "Path before all routes of the API; --web.external-prefix by default.",
    )
    web_external_prefix: str = flag(
        "web.external-prefix", "", "Path under which a reverse proxy serves this querier."
    )
    web_prefix_header: str = accepted(
        "web.prefix-header",
        "",
        "Header from which links take their prefix.",
        reason="answers carry no links",
    )
    web_disable_cors: bool = flag("web.disable-cors", "false", "Send no CORS headers.")
    query_telemetry_request_duration_seconds_quantiles: tuple[float, ...] = flag(
        "query.telemetry.request-duration-seconds-quantiles",
        ("0.1", "0.25", "0.75", "1.25", "1.75", "2.5", "3", "5", "10"),
        "Buckets of request durations.",
    )
    query_telemetry_request_samples_quantiles: tuple[float, ...] = flag(
        "query.telemetry.request-samples-quantiles",
        ("100", "1000", "10000", "100000", "1000000"),
        "Buckets of samples a request.",
    )
    query_telemetry_request_series_seconds_quantiles: tuple[float, ...] = flag(
        "query.telemetry.request-series-seconds-quantiles",
        ("10", "100", "1000", "10000", "100000"),
        "Buckets of series a request.",
    )

    @property
    def route_prefix(self) -> str:
        """Return the path before all routes, without a slash at its end."""
        prefix = (self.web_route_prefix or self.web_external_prefix).strip("/")
        return f"/{prefix}" if prefix else ""


class QuerySettings(
    WebFlags,
    EndpointClientFlags,
    DiscoveryFlags,
    SelectionFlags,
    EngineFlags,
    RequestLoggingFlags,
    StoreLimitFlags,
    GRPCServerFlags,
    HTTPServerFlags,
    LogAndTracingFlags,
):
    """Everything `thanostack query` can be told."""

    def check(self) -> None:
        """Look at the files that flags name.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """
        super().check()
        if not self.query_tenant_certificate_field:
            return
        tls = check_web_config(self.http_config, "http.config").tls if self.http_config else None
        if tls is None or tls.client_auth is ClientAuth.NONE:
            raise SettingsInvalid(
                "--query.tenant-certificate-field: no certificates of clients are asked for; give "
                "--http.config a file with tls_server_config, client_ca_file and "
                "client_auth_type: RequireAndVerifyClientCert"
            )
