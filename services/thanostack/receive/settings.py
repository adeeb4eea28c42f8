"""Every flag of `thanos receive` v0.42.4, and what it does here.

One class is split by subject into mixins; `ReceiveSettings` is all of them. Where upstream lets one
bad client hurt the others, flags of ours bound it: decoded size of a request, bytes of requests in
flight, and timestamps far in the future.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import field_validator, model_validator

from thanostack.lib.foundation.errors import InvalidTenant
from thanostack.lib.foundation.units import DurationMs
from thanostack.lib.tenancy.names import checked_tenant
from thanostack.receive.routing_settings import ForwardingTLSFlags, RoutingFlags
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
    ObjectStoreFlags,
    RequestLoggingFlags,
    StoreLimitFlags,
    TLSVersion,
    check_server_tls,
    check_web_config,
    curves_exist,
    server_tls,
    suites_exist,
)
from thanostack.runtime.tls_options import ServerTLSOptions

_NO_UPLOAD = "blocks are not uploaded yet"
_NO_OTLP = "OTLP is not offered yet; /api/v1/otlp answers 404"


class RemoteWriteServerFlags(LogAndTracingFlags):
    """The port that senders write to."""

    remote_write_address: str = flag(
        "remote-write.address", "0.0.0.0:19291", "Address for remote write: host:port or :port."
    )
    remote_write_server_tls_cert: str = flag(
        "remote-write.server-tls-cert",
        "",
        "Certificate of the write port, a PEM file; none is plain text.",
    )
    remote_write_server_tls_key: str = flag(
        "remote-write.server-tls-key", "", "Key of that certificate."
    )
    remote_write_server_tls_client_ca: str = flag(
        "remote-write.server-tls-client-ca",
        "",
        "CA that senders' certificates must come from; without it none is asked for.",
    )
    remote_write_server_tls_min_version: TLSVersion = flag(
        "remote-write.server-tls-min-version", "1.3", "Least TLS version of the write port."
    )
    remote_write_server_tls_ciphers: tuple[str, ...] = flag(
        "remote-write.server-tls-ciphers",
        (),
        "TLS cipher suites of the write port, by Go's names (repeated); those of 1.3 are always "
        "on.",
    )
    remote_write_server_tls_curves: tuple[str, ...] = flag(
        "remote-write.server-tls-curves",
        (),
        "TLS curve of the write port: CurveP256, CurveP384, CurveP521 or X25519; one, or all four.",
    )
    remote_write_http_config: str = ours(
        "remote-write.http-config",
        "",
        "File in Prometheus's web configuration format for the write port, as --http.config is for "
        "the HTTP port: basic authentication of senders, headers, rate limit. TLS of the flags "
        "above goes before the file's.",
    )
    receive_request_bytes_max: ByteSize = ours(
        "receive.request-bytes-max",
        "32MiB",
        "Largest write request once decompressed; larger ones are answered 413. The length that a "
        "body declares is checked before memory is taken. 0 is no limit of ours.",
    )
    receive_inflight_bytes_max: ByteSize = ours(
        "receive.inflight-bytes-max",
        "0",
        "Most bytes of write requests held at once; beyond it writers are told to come back (503). "
        "0 is an eighth of the memory that the process may have, by its control group or the "
        "machine, from 32MiB to 512MiB.",
    )

    _write_suites = field_validator("remote_write_server_tls_ciphers")(suites_exist)
    _write_curves = field_validator("remote_write_server_tls_curves")(curves_exist)

    @model_validator(mode="after")
    def _write_tls_is_complete(self) -> Self:
        server_tls(self, "remote-write.server-tls")
        return self

    @property
    def write_tls(self) -> ServerTLSOptions | None:
        """Return the TLS that flags ask for on the write port; None for plain text."""
        return server_tls(self, "remote-write.server-tls")

    def check(self) -> None:
        """Look at the files that flags name.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """
        super().check()
        check_server_tls(self.write_tls)
        if self.remote_write_http_config:
            check_web_config(self.remote_write_http_config, "remote-write.http-config")


class AdmissionFlags(LogAndTracingFlags):
    """What a write passes before it is distributed: relabeling, limits, its turn."""

    receive_relabel_config_file: str = flag(
        "receive.relabel-config-file",
        "",
        "File with relabel rules, as Prometheus's, that every write over HTTP goes through.",
    )
    receive_relabel_config: str = flag(
        "receive.relabel-config", "", "Text of relabel rules, instead of a file."
    )
    receive_relabel_cache_bytes: ByteSize = ours(
        "receive.relabel-cache-bytes",
        "256MiB",
        "Most memory for what relabel rules made of series before, taken as it is needed: about "
        "300 bytes a series. Series beyond it go through the rules again each time.",
    )
    receive_limits_config_file: str = flag(
        "receive.limits-config-file",
        "",
        "File with write limits, as Thanos's; read again when it changes.",
        hidden=True,
    )
    receive_limits_config: str = flag(
        "receive.limits-config", "", "Text of write limits, instead of a file.", hidden=True
    )
    receive_limits_config_reload_timer: GoDuration = flag(
        "receive.limits-config-reload-timer",
        "1s",
        "How often the limits file and the overrides file are looked at.",
        hidden=True,
    )
    receive_overrides_file: str = ours(
        "receive.overrides-file",
        "",
        "File with what differs from tenant to tenant: limits, retention. Read again when it "
        "changes; see docs/components/receive.md.",
    )
    receive_write_queue_max: Unsigned = ours(
        "receive.write-queue-max",
        "1000",
        "Most writes that wait for the event loop, and for others while the limits file bounds how "
        "many are worked on at once (max_concurrency); beyond it writers are told to come back "
        "(503). As many from other receivers wait for a thread; beyond it these are told "
        "Unavailable.",
    )
    receive_write_queue_wait: GoDuration = ours(
        "receive.write-queue-wait",
        "5s",
        "Longest wait of such a write; then its writer is told to come back (503).",
    )


class TenancyFlags(LogAndTracingFlags):
    """Whose data a request is."""

    label: tuple[str, ...] = flag(
        "label",
        (),
        'External label announced with all data, name="value"; at least one, repeatable, and '
        "unique for each replica.",
        placeholder='key="value"',
    )
    receive_tenant_header: str = flag(
        "receive.tenant-header", "THANOS-TENANT", "HTTP header that names the tenant."
    )
    receive_tenant_certificate_field: Literal[
        "", "organization", "organizationalUnit", "commonName"
    ] = flag(
        "receive.tenant-certificate-field",
        "",
        "Field of the sender's certificate that names the tenant; headers are not looked at then. "
        "It needs --remote-write.server-tls-client-ca.",
    )
    receive_default_tenant_id: str = flag(
        "receive.default-tenant-id", "default-tenant", "Tenant of requests that name none."
    )
    receive_split_tenant_label_name: str = flag(
        "receive.split-tenant-label-name",
        "",
        "Label whose value is the tenant of a series; it is removed, and goes before the header.",
    )
    receive_tenant_label_name: str = flag(
        "receive.tenant-label-name", "tenant_id", "External label that announces the tenant."
    )
    receive_replica_header: str = flag(
        "receive.replica-header",
        "THANOS-REPLICA",
        "HTTP header with the number, from 1, of the replica that a request is already; a router "
        "that stores its share itself heeds it.",
    )

    @field_validator("label")
    @classmethod
    def _labels_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_labels(value)
        return value

    @field_validator("receive_default_tenant_id")
    @classmethod
    def _default_tenant_is_a_name(cls, value: str) -> str:
        try:
            return checked_tenant(value)
        except InvalidTenant as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _labels_identify(self) -> Self:
        if not self.label:
            raise ValueError(
                "no external labels configured for receive: give at least one --label that is "
                "unique for each replica, such as --label 'receive_replica=\"0\"'"
            )
        if self.receive_tenant_label_name in self.external_labels:
            raise ValueError(
                f"--label {self.receive_tenant_label_name} is also the label that announces "
                "tenants; choose another name with --receive.tenant-label-name"
            )
        return self

    @property
    def external_labels(self) -> dict[str, str]:
        """Return the external labels by name."""
        return parse_labels(self.label)


class TSDBFlags(LogAndTracingFlags):
    """Storage; every value holds for each tenant by itself."""

    tsdb_path: Path = flag("tsdb.path", "./data", "Data folder, with one folder a tenant.")
    tsdb_retention: ModelDuration = flag(
        "tsdb.retention", "15d", "How long samples are kept here; 0d is for ever."
    )
    tsdb_max_retention_bytes: ByteSize = flag(
        "tsdb.max-retention-bytes",
        "0",
        "Most bytes of blocks kept a tenant, such as 512MB (powers of 1024); 0 is no limit.",
    )
    tsdb_min_block_duration: ModelDuration = flag(
        "tsdb.min-block-duration", "2h", "Shortest block.", hidden=True
    )
    tsdb_max_block_duration: ModelDuration = flag(
        "tsdb.max-block-duration", "2h", "Longest block.", hidden=True
    )
    tsdb_too_far_in_future_time_window: ModelDuration = flag(
        "tsdb.too-far-in-future.time-window",
        "0s",
        "Samples further ahead of this node's clock are out of bounds; 0s leaves the bound to "
        "--receive.future-bound.",
    )
    receive_future_bound: ModelDuration = ours(
        "receive.future-bound",
        "1d",
        "Bound that holds while --tsdb.too-far-in-future.time-window is 0s: one sample in the far "
        "future would shut out all later ones of its series. 0s is no bound.",
    )
    tsdb_out_of_order_time_window: ModelDuration = refused(
        "tsdb.out-of-order.time-window",
        "0s",
        "How late samples may come.",
        hint="out-of-order ingestion is not offered yet: leave it out; late samples get 409",
    )
    tsdb_out_of_order_cap_max: int = accepted(
        "tsdb.out-of-order.cap-max",
        "0",
        "Samples of an out-of-order chunk.",
        reason="out-of-order ingestion is not offered yet",
    )
    tsdb_allow_overlapping_blocks: bool = accepted(
        "tsdb.allow-overlapping-blocks",
        "false",
        "Allow overlapping blocks.",
        reason="overlapping blocks are always read, as upstream",
    )
    tsdb_wal_compression: bool = flag("tsdb.wal-compression", "true", "Compress the WAL (snappy).")
    tsdb_wal_fsync: Literal["segment", "interval", "always"] = ours(
        "tsdb.wal-fsync",
        "segment",
        "When the WAL is forced to disk: at the end of a segment (as upstream; survives a killed "
        "process), at intervals, or before every acknowledgement (survives power loss).",
    )
    receive_enable_drain: bool = ours(
        "receive.enable-drain",
        "false",
        "Offer /-/drain on the HTTP port, by which all data goes into blocks and no write is taken "
        "until told otherwise; see docs/components/receive.md. Protect it by --http.config.",
    )
    tsdb_no_lockfile: bool = flag(
        "tsdb.no-lockfile", "false", "Do not take the lock file of a tenant's folder."
    )
    tsdb_head_expanded_postings_cache_size: Unsigned = accepted(
        "tsdb.head.expanded-postings-cache-size",
        "0",
        "Bytes of a cache of postings of the head.",
        reason="postings are kept ready to read; there is no such cache",
    )
    tsdb_block_expanded_postings_cache_size: Unsigned = accepted(
        "tsdb.block.expanded-postings-cache-size",
        "0",
        "Bytes of a cache of postings of blocks.",
        reason="postings are kept ready to read; there is no such cache",
    )
    tsdb_max_exemplars: int = refused(
        "tsdb.max-exemplars",
        "0",
        "Exemplars kept a tenant.",
        hint="exemplars are not stored yet: leave it at 0; they are accepted and dropped",
    )
    tsdb_enable_native_histograms: bool = accepted(
        "tsdb.enable-native-histograms",
        "true",
        "Take native histograms.",
        reason="the flag does nothing, as upstream",
    )
    tsdb_write_queue_size: int = accepted(
        "tsdb.write-queue-size",
        "0",
        "Queue before chunk files.",
        reason="chunks are written by the head itself, without a queue",
        hidden=True,
    )
    tsdb_memory_snapshot_on_shutdown: bool = accepted(
        "tsdb.memory-snapshot-on-shutdown",
        "false",
        "Write a snapshot of the head when stopping.",
        reason="the WAL is replayed instead",
        hidden=True,
    )
    writer_intern: bool = accepted(
        "writer.intern",
        "false",
        "Intern strings.",
        reason="labels are stored once as bytes",
        hidden=True,
    )

    @model_validator(mode="after")
    def _block_durations(self) -> Self:
        if not 0 < self.tsdb_min_block_duration <= self.tsdb_max_block_duration:
            raise ValueError(
                "--tsdb.min-block-duration must be above 0 and not above --tsdb.max-block-duration"
            )
        return self

    @property
    def too_far_in_future_ms(self) -> DurationMs:
        """Return the bound that is in force, ms; 0 is none."""
        return DurationMs(self.tsdb_too_far_in_future_time_window or self.receive_future_bound)


class UploadAndReadFlags(LogAndTracingFlags):
    """Uploading blocks, OTLP and the read side."""

    hash_func: Literal["", "SHA256"] = accepted(
        "hash-func", "", "Hash function for uploaded files.", reason=_NO_UPLOAD
    )
    shipper_upload_concurrency: Unsigned = accepted(
        "shipper.upload-concurrency", "0", "Concurrent uploads.", reason=_NO_UPLOAD
    )
    shipper_allow_out_of_order_uploads: bool = accepted(
        "shipper.allow-out-of-order-uploads",
        "false",
        "Go on after a failed upload.",
        reason=_NO_UPLOAD,
        hidden=True,
    )
    shipper_skip_corrupted_blocks: bool = accepted(
        "shipper.skip-corrupted-blocks",
        "false",
        "Go on after a corrupt block.",
        reason=_NO_UPLOAD,
        hidden=True,
    )
    matcher_cache_size: Unsigned = accepted(
        "matcher-cache-size",
        "0",
        "Parsed matchers kept.",
        reason="matchers are compiled once a request and are not kept",
    )
    receive_otlp_enable_target_info: bool = accepted(
        "receive.otlp-enable-target-info", "true", "Write target_info.", reason=_NO_OTLP
    )
    receive_otlp_promote_resource_attributes: tuple[str, ...] = accepted(
        "receive.otlp-promote-resource-attributes",
        (),
        "Resource attributes that become labels.",
        reason=_NO_OTLP,
    )
    enable_feature: tuple[str, ...] = accepted(
        "enable-feature",
        (),
        "Experimental features, comma-separated: metric-names-filter.",
        reason="metric-names-filter only saves work in a querier that asks for it",
    )
    receive_lazy_retrieval_max_buffered_responses: Unsigned = accepted(
        "receive.lazy-retrieval-max-buffered-responses",
        "20",
        "Responses buffered a store.",
        reason="answers are streamed, one frame ahead",
    )

    @field_validator("enable_feature")
    @classmethod
    def _features_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = {name for text in value for name in text.split(",")} - {"", "metric-names-filter"}
        if unknown:
            raise ValueError(f"unknown feature {min(unknown)}; there is metric-names-filter")
        return value


class ReceiveSettings(  # noqa: D101 - the module's docstring speaks
    UploadAndReadFlags,
    TSDBFlags,
    TenancyFlags,
    ForwardingTLSFlags,
    AdmissionFlags,
    RoutingFlags,
    RemoteWriteServerFlags,
    RequestLoggingFlags,
    ObjectStoreFlags,
    StoreLimitFlags,
    GRPCServerFlags,
    HTTPServerFlags,
    LogAndTracingFlags,
):
    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> Self:
        if self.receive_tenant_certificate_field and not self.remote_write_server_tls_client_ca:
            raise ValueError(
                "--receive.tenant-certificate-field needs certificates of senders: give "
                "--remote-write.server-tls-cert, -key and -client-ca"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_drain(self) -> Self:
        if self.receive_enable_drain and self.role == "RouterOnly":
            raise ValueError("a router stores nothing: leave --receive.enable-drain out")
        return self
