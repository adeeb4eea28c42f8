"""Names, ports and labels that objects of one stack share, and that users and other parts rely on.

For a stack named `x`: Deployment and Service `x-receive` (19291), StatefulSet and headless Service
`x-ingestor-<ring>` (10901), Deployment and Service `x-query` (10902, 10901), ConfigMap
`x-hashrings` with the key `hashrings.json`. What the spec has of files is in ConfigMaps
`x-receive-limits`, `x-receive-relabel` and `x-ingestor-<ring>-overrides`. Every object carries
`thanostack.io/stack: x`. PodDisruptionBudgets and ServiceMonitors are named as their workload.

A stack's name has at most 30 characters and 42 together with a ring's: a StatefulSet's pods bear
its name with eleven more characters in a label, and a label has at most 63.
"""

from __future__ import annotations

from typing import Any

from thanostack_operator.api.stack import GROUP, KIND, VERSION, ThanosStack

Object = dict[str, Any]

STACK_NAME_MAX = 30
HTTP_PORT = 10902
GRPC_PORT = 10901
WRITE_PORT = 19291
HASHRINGS_KEY = "hashrings.json"
STACK_LABEL = f"{GROUP}/stack"
COMPONENT_LABEL = "app.kubernetes.io/component"
RING_LABEL = f"{GROUP}/ring"
# Touching it makes the kubelet sync the pod, and with it the mounted ConfigMap, at once.
HASHRINGS_ANNOTATION = f"{GROUP}/hashrings"
FINALIZER = f"{GROUP}/flush"
FIELD_MANAGER = "thanostack-operator"
ROUTER = "receive"
INGESTOR = "ingestor"
QUERY = "query"
COMPONENTS = (ROUTER, INGESTOR, QUERY)
# What a scrape's job is made of: the stock alerts select `.*thanos-receive.*`, ingestors included.
_APP_NAMES = {INGESTOR: "thanos-receive-ingestor"}


def receive_name(stack: str) -> str:
    """Return the name of the routers' Deployment and of the Service that senders write to."""
    return f"{stack}-receive"


def ingestor_name(stack: str, ring: str) -> str:
    """Return the name of a ring's StatefulSet and of its headless Service."""
    return f"{stack}-ingestor-{ring}"


def query_name(stack: str) -> str:
    """Return the name of the queriers' Deployment and Service."""
    return f"{stack}-query"


def hashrings_name(stack: str) -> str:
    """Return the name of the ConfigMap that holds `hashrings.json`."""
    return f"{stack}-hashrings"


def limits_name(stack: str) -> str:
    """Return the name of the ConfigMap with the routers' limits."""
    return f"{receive_name(stack)}-limits"


def relabel_name(stack: str) -> str:
    """Return the name of the ConfigMap with the routers' relabel rules."""
    return f"{receive_name(stack)}-relabel"


def overrides_name(stack: str, ring: str) -> str:
    """Return the name of the ConfigMap with the limits and retention of a ring's tenants."""
    return f"{ingestor_name(stack, ring)}-overrides"


def ingestor_pod(stack: str, ring: str, ordinal: int) -> str:
    """Return the name of one ingestor's pod."""
    return f"{ingestor_name(stack, ring)}-{ordinal}"


def ingestor_address(stack: ThanosStack, ring: str, ordinal: int) -> str:
    """Return the address of one ingestor as it stands in `hashrings.json`."""
    pod = ingestor_pod(stack.name, ring, ordinal)
    service = ingestor_name(stack.name, ring)
    return f"{pod}.{service}.{stack.namespace}.svc:{GRPC_PORT}"


def selector(stack: str, component: str, ring: str | None = None) -> dict[str, str]:
    """Return the labels that select a component's pods; they never change once applied."""
    labels = {STACK_LABEL: stack, COMPONENT_LABEL: component}
    return labels if ring is None else labels | {RING_LABEL: ring}


def labels(stack: str, component: str, ring: str | None = None) -> dict[str, str]:
    """Return the labels of a component's objects: the selector and the recommended ones."""
    return selector(stack, component, ring) | {
        "app.kubernetes.io/name": _APP_NAMES.get(component, f"thanos-{component}"),
        "app.kubernetes.io/instance": stack,
        "app.kubernetes.io/part-of": "thanostack",
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
    }


def metadata(stack: ThanosStack, name: str, component: str, ring: str | None = None) -> Object:
    """Return the metadata of an object of the stack: name, labels, owner."""
    return {
        "name": name,
        "namespace": stack.namespace,
        "labels": labels(stack.name, component, ring),
        "ownerReferences": [owner_reference(stack)],
    }


def owner_reference(stack: ThanosStack) -> Object:
    """Return the owner reference that every object of the stack carries."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": stack.name,
        "uid": stack.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
