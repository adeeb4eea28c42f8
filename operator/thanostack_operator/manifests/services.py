"""Services, PodDisruptionBudgets, ServiceMonitors and ConfigMaps of components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from thanostack_operator.api.files import FileModel
from thanostack_operator.api.receive import ServiceSettings
from thanostack_operator.api.stack import ThanosStack

from .names import Object, metadata, selector
from .pod import PORTS


def service(
    stack: ThanosStack,
    name: str,
    component: str,
    ports: Sequence[str],
    settings: ServiceSettings,
) -> Object:
    """Return the Service of a component whose pods are alike, with ports out of `PORTS`."""
    meta = metadata(stack, name, component)
    if settings.annotations:
        meta["annotations"] = dict(settings.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "type": settings.type,
            "selector": selector(stack.name, component),
            "ports": _ports(ports),
        },
    }


def headless_service(stack: ThanosStack, name: str, component: str, ring: str) -> Object:
    """Return the Service that gives each ingestor of a ring its DNS name.

    It publishes ingestors that are not ready: those that drain are still read, and a router must
    find one that restarts.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(stack, name, component, ring),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(stack.name, component, ring),
            "ports": _ports(["grpc", "http"]),
        },
    }


def _ports(names: Sequence[str]) -> list[Object]:
    return [
        {"name": name, "port": PORTS[name], "targetPort": name, "protocol": "TCP"} for name in names
    ]


def disruption_budget(
    stack: ThanosStack, name: str, component: str, unavailable: int, ring: str | None = None
) -> list[Object]:
    """Return the PodDisruptionBudget of a component, none if ``unavailable`` pods are none.

    A budget of 0 would keep nodes from being drained for ever, and protect nobody: with one copy
    an ingestor that moves to another node is missed, but loses nothing.
    """
    if unavailable < 1:
        return []
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(stack, name, component, ring),
            "spec": {
                "maxUnavailable": unavailable,
                "selector": {"matchLabels": selector(stack.name, component, ring)},
                # A pod that is broken already may go.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    ]


def missing_copies(replication_factor: int) -> int:
    """Return how many ingestors of a ring may be missing while every write finds its quorum.

    A quorum is one of two, and more than half of any other number of copies.

    Example:
        >>> [missing_copies(n) for n in (1, 2, 3, 4, 5)]
        [0, 1, 1, 1, 2]
    """
    quorum = 1 if replication_factor == 2 else replication_factor // 2 + 1
    return replication_factor - quorum


def file_text(content: FileModel | Sequence[FileModel]) -> str:
    """Return the text of a file that fields describe."""
    return yaml.safe_dump(_plain(content), sort_keys=False)


def _plain(content: FileModel | Sequence[FileModel]) -> Any:
    if isinstance(content, FileModel):
        return content.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
    return [_plain(item) for item in content]


def config_map(
    stack: ThanosStack,
    name: str,
    component: str,
    data: Mapping[str, str],
    ring: str | None = None,
) -> Object:
    """Return a ConfigMap of texts by file name."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(stack, name, component, ring),
        "data": dict(data),
    }
