"""`spec.receive`: the routers, and the rings of ingestors behind them.

    senders ──► Service x-receive ──► routers ──► x-ingestor-<ring>-0, -1, … by hashring

Rings are tried in the order they are written: the first one that lists a tenant takes it, and a
ring that lists none takes every tenant, so it stands last.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import (
    SET,
    Duration,
    HeaderName,
    LabelName,
    Model,
    ObjectName,
    Quantity,
    RingName,
    ShortText,
    Tenant,
    map_keys,
)
from .files import Limits, Overrides, RelabelConfig
from .pod import PodSettings
from .rules import CATCH_ALL_IS_LAST, CLASS_IS_KEPT, RINGS_HOLD_ALL_COPIES, SIZE_ONLY_GROWS, rules


class Tenancy(Model):
    """Where a write's tenant comes from, and the label that carries it; readers use the same."""

    header: HeaderName = "THANOS-TENANT"
    """HTTP header that names the tenant, of writes and of queries."""
    default_tenant: Tenant = "default-tenant"
    """Tenant of requests that name none."""
    label_name: LabelName = "tenant_id"
    """Label that a tenant's series bear."""
    certificate_field: Literal["organization", "organizationalUnit", "commonName"] | None = None
    """Field of a sender's certificate that names the tenant; headers are not looked at then."""
    split_label_name: LabelName | None = None
    """Label whose value is the tenant of a series; it is removed, and goes before the header."""


class ServiceSettings(Model):
    """How a component's Service is offered."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service."""
    annotations: Annotated[dict[str, ShortText], Field(max_length=64)] = {}
    """Annotations of the Service, such as those of a cloud's load balancer."""


class Routers(PodSettings):
    """The routing receivers: stateless, any number."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of routers."""
    sloppy_quorum: bool = False
    """While an ingestor is down, write its share to the next one of the ring."""
    grpc_compression: Literal["snappy", "none"] = "snappy"
    """Compression between routers and ingestors."""
    limits: Limits | None = None
    """Write limits, as in Thanos's limits file; they change without a restart."""
    relabel_configs: Annotated[list[RelabelConfig], Field(max_length=100)] = []
    """Relabel rules, as in Prometheus, that every write goes through; a change restarts routers."""
    service: ServiceSettings = ServiceSettings()
    """The Service that senders write to, port 19291."""


class Storage(Model):
    """The volume of each ingestor. It is kept when its pod goes."""

    model_config = rules(SIZE_ONLY_GROWS, CLASS_IS_KEPT)

    size: Quantity = "10Gi"
    """Size of each volume; it may grow where the storage class allows it, and never shrinks."""
    class_name: ObjectName | None = None
    """StorageClass, the cluster's default if left out; it cannot be changed."""


class ScaleDown(Model):
    """How ingestors leave: out of the ring, acknowledged, drained, pod gone, volume kept."""

    drain_timeout: Duration = "15m"
    """How long an ingestor that does not answer is waited for; its volume is kept all the same."""


class Ring(PodSettings):
    """One hashring and its StatefulSet of ingestors."""

    name: RingName
    """Name of the ring; its ingestors are `<stack>-ingestor-<name>-<number>`."""
    tenants: Annotated[list[Tenant], Field(max_length=1000, json_schema_extra=SET)] = []
    """Tenants that this ring takes; none is all, so such a ring stands last."""
    tenant_matcher_type: Literal["exact", "glob"] = "exact"
    """Whether `tenants` are names or patterns."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of ingestors; they join and leave the ring one by one."""
    min_ready_seconds: Annotated[int, Field(ge=1, le=3600)] = 35
    """How long a replaced ingestor is ready before the next one goes: as long as DNS is cached."""
    zones: Literal["Auto", "Off"] = "Auto"
    """Auto keeps the copies of a series in different zones, by the labels of the nodes."""
    storage: Storage = Storage()
    """The volume of each ingestor."""
    retention: Duration = "15d"
    """How long samples are kept on the volumes; 0d is for ever."""
    external_labels: Annotated[dict[LabelName, ShortText], Field(max_length=32)] = {}
    """Labels announced with the ring's data, laid over the stack's."""
    overrides: Overrides | None = None
    """Limits and retention of single tenants; they change without a restart."""
    scale_down: ScaleDown = ScaleDown()
    """How ingestors leave."""


class Receive(Model):
    """Routers, rings, and what both must agree on."""

    model_config = rules(RINGS_HOLD_ALL_COPIES, CATCH_ALL_IS_LAST)

    replication_factor: Annotated[int, Field(ge=1, le=5)] = 3
    """Ingestors that store each series; with 3, one of them may be down."""
    tenancy: Tenancy = Tenancy()
    """Whose data a write is."""
    routers: Routers = Routers()
    """The routing receivers, which senders write to."""
    rings: Annotated[
        list[Ring], Field(min_length=1, max_length=20, json_schema_extra=map_keys("name"))
    ] = [Ring(name="default")]
    """The rings of ingestors, tried in this order."""
