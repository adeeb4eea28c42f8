"""Flags about other receivers: hashrings, replication, forwards and their TLS."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from thanostack.lib.foundation.units import DurationMs
from thanostack.runtime.settings import (
    ByteSize,
    ModelDuration,
    Unsigned,
    accepted,
    flag,
    ours,
    refused,
)
from thanostack.runtime.shared_flags import (
    LogAndTracingFlags,
    TLSVersion,
    check_client_tls,
    client_tls,
)
from thanostack.runtime.tls_options import ClientTLSOptions

Role = Literal["RouterOnly", "RouterIngestor", "IngestorOnly"]


class RoutingFlags(LogAndTracingFlags):
    """Which role this is, and how a router writes to other receivers."""

    receive_hashrings_file: str = flag(
        "receive.hashrings-file",
        "",
        "File with the hashrings, JSON; watched, and read anew when it changes. With it or "
        "--receive.hashrings this is a router; with --receive.local-endpoint as well, it also "
        "stores its share.",
    )
    receive_hashrings: str = flag(
        "receive.hashrings", "", "Text of the hashrings; the file goes before it."
    )
    receive_hashrings_algorithm: Literal["hashmod", "ketama"] = flag(
        "receive.hashrings-algorithm",
        "hashmod",
        "How rings that name no algorithm place series. hashmod moves nearly all series when a "
        "ring changes, ketama 1/N of them; all receivers of a ring must agree.",
    )
    receive_hashrings_file_refresh_interval: ModelDuration = flag(
        "receive.hashrings-file-refresh-interval",
        "5m",
        "How often the file is read anew even if no change of it was noticed.",
    )
    receive_local_endpoint: str = flag(
        "receive.local-endpoint",
        "",
        "This node's address in the hashring: its share is stored here.",
    )
    receive_forward_async_workers: Unsigned = flag(
        "receive.forward.async-workers",
        "5",
        "Forwards to one peer at a time; the others wait. 0 is 1.",
    )
    receive_forward_queue_bytes_max: ByteSize = ours(
        "receive.forward.queue-bytes-max",
        "64MiB",
        "Most memory of forwards that are held for one peer, waiting or on their way; beyond it "
        "the peer counts as unavailable. All peers together hold twice "
        "--receive.inflight-bytes-max at most, and each as much as is left of that.",
    )
    receive_sloppy_quorum: bool = ours(
        "receive.sloppy-quorum",
        "false",
        "While a node is down, write its share to the next node of the ring, and count that as a "
        "replica. Only with nodes that are no routers themselves.",
    )
    receive_grpc_compression: Literal["snappy", "none"] = flag(
        "receive.grpc-compression",
        "snappy",
        "Compression of forwards. snappy is an eighth of the bytes between receivers, and saves "
        "receivers more CPU time than it costs a router.",
    )
    receive_replication_factor: Unsigned = flag(
        "receive.replication-factor",
        "1",
        "How many nodes get each series. One of two, or more than half of any other number, must "
        "have stored it before a write is acknowledged. 0 is 1.",
    )
    receive_replication_protocol: Literal["protobuf", "capnproto"] = refused(
        "receive.replication-protocol",
        "protobuf",
        "Protocol between receivers.",
        hint="only protobuf is offered; set the routers to protobuf as well",
    )
    receive_capnproto_address: str = accepted(
        "receive.capnproto-address",
        "0.0.0.0:19391",
        "Address for Cap'n Proto.",
        reason="Cap'n Proto is not offered; receivers talk protobuf over gRPC",
    )
    receive_grpc_service_config: str = accepted(
        "receive.grpc-service-config",
        "",
        "gRPC client settings.",
        reason="there is one connection a peer, and one repetition where it breaks",
    )
    receive_forward_timeout: ModelDuration = flag(
        "receive-forward-timeout",
        "5s",
        "How long a write waits for the nodes of its series, and forwards may go on after it.",
        hidden=True,
    )
    receive_forward_max_backoff: ModelDuration = flag(
        "receive-forward-max-backoff",
        "5s",
        "Longest time that a peer is not tried after it failed.",
        hidden=True,
    )
    receive_artificial_max_delay: ModelDuration = accepted(
        "receive.artificial-max-delay",
        "0s",
        "Delay of the second peer, for tests.",
        reason="upstream's own tests use it",
        hidden=True,
    )

    @field_validator("receive_forward_timeout")
    @classmethod
    def _timeout_is_some(cls, value: DurationMs) -> DurationMs:
        if value <= 0:
            raise ValueError("must be above 0")
        return value

    @property
    def role(self) -> Role:
        """Return upstream's name of what these flags make of the process."""
        if not (self.receive_hashrings or self.receive_hashrings_file):
            return "IngestorOnly"
        return "RouterIngestor" if self.receive_local_endpoint else "RouterOnly"

    @property
    def replication_factor(self) -> int:
        """Return how many nodes get each series, at least 1."""
        return max(1, self.receive_replication_factor)


class ForwardingTLSFlags(LogAndTracingFlags):
    """TLS towards other receivers."""

    remote_write_client_tls_cert: str = flag(
        "remote-write.client-tls-cert", "", "Certificate that other receivers are shown."
    )
    remote_write_client_tls_key: str = flag(
        "remote-write.client-tls-key", "", "Key of that certificate."
    )
    remote_write_client_tls_secure: bool = flag(
        "remote-write.client-tls-secure", "false", "Use TLS towards other receivers."
    )
    remote_write_client_tls_skip_verify: bool = flag(
        "remote-write.client-tls-skip-verify", "false", "Do not verify receivers' certificates."
    )
    remote_write_client_tls_ca: str = flag(
        "remote-write.client-tls-ca",
        "",
        "CA that receivers' certificates must come from; the system's by default.",
    )
    remote_write_client_server_name: str = flag(
        "remote-write.client-server-name",
        "",
        "Name that receivers' certificates must bear; the host of the address by default.",
    )
    remote_write_client_tls_min_version: TLSVersion = flag(
        "remote-write.client-tls-min-version", "1.3", "Least TLS version towards receivers."
    )

    @model_validator(mode="after")
    def _forward_tls_is_complete(self) -> Self:
        client_tls(self, "remote-write.client-tls", self.remote_write_client_server_name)
        return self

    @property
    def forward_tls(self) -> ClientTLSOptions | None:
        """Return the TLS towards other receivers; None for plain text."""
        return client_tls(self, "remote-write.client-tls", self.remote_write_client_server_name)

    def check(self) -> None:
        """Look at the files that flags name.

        Raises:
            SettingsInvalid: naming the flag, the file and what to do.
        """
        super().check()
        check_client_tls(self.forward_tls)
