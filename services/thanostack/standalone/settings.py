"""The flags of `thanostack standalone`: those of `receive` and of `query`, in one process.

Every flag means what it means there. Defaults differ only where one process makes a better one
possible: an external label is given, and the usual replica labels are deduplicated.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from thanostack.lib.foundation.errors import InvalidTenant
from thanostack.lib.tenancy.names import checked_tenant
from thanostack.query.settings import QuerySettings
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.label_flags import parse_labels
from thanostack.runtime.settings import flag, ours, refused


class StandaloneSettings(QuerySettings, ReceiveSettings):
    """Everything `thanostack standalone` can be told."""

    label: tuple[str, ...] = flag(
        "label",
        # Not `replica`: an external label wins over the one that tells senders apart.
        ('receive_replica="standalone"',),
        'External label of all data stored here, name="value", repeatable. Only here there is a '
        'default, receive_replica="standalone"; deduplication removes it from results.',
        placeholder='key="value"',
    )
    query_replica_label: tuple[str, ...] = flag(
        "query.replica-label",
        ("replica", "prometheus_replica", "receive_replica"),
        "Label that tells replicas apart and is removed by deduplication; repeat, or divide by "
        "commas. Only here there is a default, replica, prometheus_replica and receive_replica: "
        "the names that people and the Prometheus operator give it, and that of --label.",
    )
    receive_hashrings_algorithm: Literal["hashmod", "ketama"] = flag(
        "receive.hashrings-algorithm",
        "ketama",
        "How rings that name no algorithm place series; only here ketama is the default, which "
        "moves few series when a ring changes. All receivers of a ring must agree.",
    )
    receive_enable_drain: bool = refused(
        "receive.enable-drain",
        "false",
        "Offer /-/drain on the HTTP port.",
        hint="no other receiver goes on while standalone drains: leave it out",
    )
    demo: bool = ours(
        "demo",
        "false",
        "Feed two replicas of a few series, each with gaps, for an hour back and on: the switch "
        "Use Deduplication then visibly heals the gaps.",
        hidden=True,
    )

    @model_validator(mode="after")
    def _demo_writes_plainly(self) -> Self:
        if self.demo and (self.remote_write_server_tls_cert or self.remote_write_http_config):
            raise ValueError(
                "--demo writes in plain text and without a password: leave out "
                "--remote-write.server-tls-cert and --remote-write.http-config"
            )
        return self

    @model_validator(mode="after")
    def _it_stores(self) -> Self:
        if self.role == "RouterOnly":
            raise ValueError(
                "standalone stores what it is sent: with hashrings give --receive.local-endpoint "
                "as well, this node's address in them, or run thanostack receive as a router"
            )
        return self

    # Both parents have validators of these names, of which only one would be inherited.

    @field_validator("label", "selector_label")
    @classmethod
    def _labels_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_labels(value)
        return value

    @field_validator("receive_default_tenant_id", "query_default_tenant_id")
    @classmethod
    def _default_tenant_is_a_name(cls, value: str) -> str:
        try:
            return checked_tenant(value)
        except InvalidTenant as error:
            raise ValueError(str(error)) from error
