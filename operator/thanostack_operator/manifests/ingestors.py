"""A ring's ingestors: StatefulSet, headless Service, disruption budget, overrides.

They start and stop independently of each other, and are replaced one at a time, from the highest
number down. Volumes stay when a pod, a replica or the whole set goes.
"""

from __future__ import annotations

from thanostack_operator.api.receive import Ring
from thanostack_operator.api.stack import ThanosStack

from .args import flag, label_flag
from .names import INGESTOR, Object, ingestor_name, metadata, overrides_name, selector
from .pod import CONFIG_FOLDER, DATA_FOLDER, REPLICA_LABEL, Config, Pod, template
from .services import (
    config_map,
    disruption_budget,
    file_text,
    headless_service,
    missing_copies,
)

OVERRIDES_KEY = "overrides.yaml"
DATA_CLAIM = "data"
_GRACE_S = 900
# The program answers `/-/healthy` while it replays; before that it may have kernels to compile.
_START_S = 900


def ingestor_objects(
    stack: ThanosStack, ring: Ring, operator_version: str, replicas: int
) -> list[Object]:
    """Return the objects of a ring, in order.

    The StatefulSet has ``replicas``, which are more than the spec's while ingestors leave.
    """
    name = ingestor_name(stack.name, ring.name)
    unavailable = missing_copies(stack.spec.receive.replication_factor)
    return [
        *_overrides(stack, ring),
        headless_service(stack, name, INGESTOR, ring.name),
        *disruption_budget(stack, name, INGESTOR, unavailable, ring.name),
        _stateful_set(stack, ring, operator_version, replicas),
    ]


def _stateful_set(stack: ThanosStack, ring: Ring, operator_version: str, replicas: int) -> Object:
    name = ingestor_name(stack.name, ring.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(stack, name, INGESTOR, ring.name),
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": selector(stack.name, INGESTOR, ring.name)},
            "podManagementPolicy": "Parallel",
            # How long a router may take to find an ingestor at its new address: DNS caches (30 s
            # where kubeadm installs CoreDNS) and the back-off of forwards (5 s) by default.
            "minReadySeconds": ring.min_ready_seconds,
            "updateStrategy": {"type": "RollingUpdate"},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": "Retain",
                "whenScaled": "Retain",
            },
            "template": template(_pod(stack, ring), operator_version),
            "volumeClaimTemplates": [_claim(stack, ring)],
        },
    }


def _pod(stack: ThanosStack, ring: Ring) -> Pod:
    return Pod(
        stack=stack,
        component=INGESTOR,
        ring=ring.name,
        settings=ring.over(stack.spec.pod_defaults),
        args=ingestor_args(stack, ring),
        ports=["grpc", "http"],
        grace_s=_GRACE_S,
        liveness_failures=8,
        start_s=_START_S,
        configs=[Config("overrides", overrides_name(stack.name, ring.name))]
        if ring.overrides is not None
        else [],
        data_volume=DATA_CLAIM,
    )


def ingestor_args(stack: ThanosStack, ring: Ring) -> list[str]:
    """Return subcommand and flags of a ring's ingestors, as far as fields give them."""
    tenancy = stack.spec.receive.tenancy
    args = [
        "receive",
        flag("tsdb.path", f"{DATA_FOLDER}/receive"),
        flag("tsdb.retention", ring.retention),
        REPLICA_LABEL,
        *(label_flag(name, value) for name, value in external_labels(stack, ring).items()),
        flag("receive.default-tenant-id", tenancy.default_tenant),
        flag("receive.tenant-label-name", tenancy.label_name),
        "--receive.enable-drain",
    ]
    if ring.overrides is not None:
        args.append(flag("receive.overrides-file", f"{CONFIG_FOLDER}/overrides/{OVERRIDES_KEY}"))
    return args


def external_labels(stack: ThanosStack, ring: Ring) -> dict[str, str]:
    """Return what a ring's data is announced with beside `replica`, in order of name."""
    spec = stack.spec
    cluster = {"cluster": spec.cluster_name} if spec.cluster_name else {}
    return dict(sorted((cluster | spec.external_labels | ring.external_labels).items()))


def _claim(stack: ThanosStack, ring: Ring) -> Object:
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": ring.storage.size}},
    }
    if ring.storage.class_name is not None:
        spec["storageClassName"] = ring.storage.class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DATA_CLAIM, "labels": selector(stack.name, INGESTOR, ring.name)},
        "spec": spec,
    }


def _overrides(stack: ThanosStack, ring: Ring) -> list[Object]:
    """Return the ConfigMap of the overrides; the program follows it without a restart."""
    if ring.overrides is None:
        return []
    text = file_text(ring.overrides)
    name = overrides_name(stack.name, ring.name)
    return [config_map(stack, name, INGESTOR, {OVERRIDES_KEY: text}, ring.name)]
