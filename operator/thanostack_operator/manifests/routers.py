"""The routers: Deployment, Service, disruption budget, limits, relabel rules, and their hashrings.

A router is not made before there is a ring: it would start, and refuse every write. A new one is
ready before an old one goes, and one that goes serves until nobody sends to it any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from thanostack_operator.api.stack import ThanosStack

from .args import flag, switch
from .hashrings import Member, render
from .names import (
    HASHRINGS_KEY,
    ROUTER,
    Object,
    hashrings_name,
    limits_name,
    metadata,
    receive_name,
    relabel_name,
    selector,
)
from .pod import CONFIG_FOLDER, REPLICA_LABEL, Config, Pod, checksum, template
from .services import config_map, disruption_budget, file_text, service

LIMITS_KEY = "limits.yaml"
RELABEL_KEY = "relabel.yaml"
# Kubernetes takes a pod out of Services while it tells it to end, not before.
STOP_DELAY_S = 10
GRACE_S = 150  # the delay, the two minutes that requests may take, and a margin


def hashrings_config_map(stack: ThanosStack, rings: Mapping[str, Sequence[Member]]) -> Object:
    """Return the ConfigMap `x-hashrings`."""
    text = render(stack, rings)
    return config_map(stack, hashrings_name(stack.name), ROUTER, {HASHRINGS_KEY: text})


def router_objects(stack: ThanosStack, operator_version: str, *, has_ring: bool) -> list[Object]:
    """Return the objects of the routers, less their hashrings, and less pods without a ring."""
    routers = stack.spec.receive.routers
    name = receive_name(stack.name)
    unavailable = 1 if routers.replicas > 1 else 0
    return [
        *_files(stack),
        service(stack, name, ROUTER, ["remote-write", "http"], routers.service),
        *disruption_budget(stack, name, ROUTER, unavailable),
        *([_deployment(stack, operator_version)] if has_ring else []),
    ]


def _deployment(stack: ThanosStack, operator_version: str) -> Object:
    pod = _pod(stack)
    replicas = stack.spec.receive.routers.replicas
    return deployment(pod, receive_name(stack.name), replicas, operator_version)


def deployment(pod: Pod, name: str, replicas: int, operator_version: str) -> Object:
    """Return a Deployment that never has a ready pod less than it should."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(pod.stack, name, pod.component),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector(pod.stack.name, pod.component)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": template(pod, operator_version),
        },
    }


def _pod(stack: ThanosStack) -> Pod:
    routers = stack.spec.receive.routers
    name = stack.name
    return Pod(
        stack=stack,
        component=ROUTER,
        settings=routers.over(stack.spec.pod_defaults),
        args=router_args(stack),
        ports=["remote-write", "http", "grpc"],
        grace_s=GRACE_S,
        liveness_failures=8,
        stop_delay_s=STOP_DELAY_S,
        configs=[
            Config("hashrings", hashrings_name(name)),
            *([Config("limits", limits_name(name))] if routers.limits is not None else []),
            *([Config("relabel", relabel_name(name))] if routers.relabel_configs else []),
        ],
        checksum=checksum(_relabel_text(stack)) if routers.relabel_configs else "",
    )


def router_args(stack: ThanosStack) -> list[str]:
    """Return subcommand and flags of the routers, as far as fields give them."""
    receive = stack.spec.receive
    routers, tenancy = receive.routers, receive.tenancy
    args = [
        "receive",
        REPLICA_LABEL,
        flag("receive.hashrings-file", f"{CONFIG_FOLDER}/hashrings/{HASHRINGS_KEY}"),
        flag("receive.hashrings-algorithm", "ketama"),
        flag("receive.replication-factor", receive.replication_factor),
        flag("receive.grpc-compression", routers.grpc_compression),
        flag("receive.tenant-header", tenancy.header),
        flag("receive.default-tenant-id", tenancy.default_tenant),
        flag("receive.tenant-label-name", tenancy.label_name),
    ]
    if routers.sloppy_quorum:
        args.append(switch("receive.sloppy-quorum", is_on=True))
    optional = {
        "receive.tenant-certificate-field": tenancy.certificate_field,
        "receive.split-tenant-label-name": tenancy.split_label_name,
        "receive.limits-config-file": routers.limits is not None
        and f"{CONFIG_FOLDER}/limits/{LIMITS_KEY}",
        "receive.relabel-config-file": routers.relabel_configs
        and f"{CONFIG_FOLDER}/relabel/{RELABEL_KEY}",
    }
    return [*args, *(flag(name, value) for name, value in optional.items() if value)]


def _files(stack: ThanosStack) -> list[Object]:
    """Return the ConfigMaps of files; limits are followed, relabel rules read at the start."""
    routers = stack.spec.receive.routers
    objects = []
    if routers.limits is not None:
        text = file_text(routers.limits)
        objects.append(config_map(stack, limits_name(stack.name), ROUTER, {LIMITS_KEY: text}))
    if routers.relabel_configs:
        data = {RELABEL_KEY: _relabel_text(stack)}
        objects.append(config_map(stack, relabel_name(stack.name), ROUTER, data))
    return objects


def _relabel_text(stack: ThanosStack) -> str:
    return file_text(stack.spec.receive.routers.relabel_configs)
