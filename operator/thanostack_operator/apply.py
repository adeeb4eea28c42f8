"""Carry a plan out: apply, act on pods, prune, write status, post events. One request a change.

A request that is refused does not keep the others from being made: what failed is returned, stands
in the next plan's `Observed.failures`, and is tried again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import aiohttp

from .api.stack import GROUP, KIND, VERSION, ThanosStack
from .kube import PODS, STACKS, VOLUME_CLAIMS, ApiError, KubeClient
from .manifests.names import FIELD_MANAGER, HASHRINGS_ANNOTATION, Object, hashrings_name
from .plan.outcome import (
    Action,
    CancelDrain,
    Event,
    GrowClaim,
    Plan,
    ReplaceSet,
    SetFinalizers,
    StartDrain,
    TouchPod,
)
from .pods import PodClient

Failures = dict[str, str]


async def carry_out(
    plan: Plan,
    stack: ThanosStack,
    kube: KubeClient,
    pods: PodClient,
    addresses: Mapping[str, str],
) -> Failures:
    """Make every request of a plan, in its order.

    An action on a pod that has no address is dropped, and so is a touch that would tell a router
    of hashrings which were refused: the next plan has them again.

    Returns:
        What was refused and in which words, by "Kind/name".
    """
    failures: Failures = {}
    for wanted in plan.apply:
        name = f"{wanted['kind']}/{wanted['metadata']['name']}"
        await _try(failures, name, kube.apply(wanted, stack.namespace))
    for action in plan.actions:
        await _act(failures, action, stack, kube, pods, addresses)
    for ref in plan.prune:
        await _try(failures, f"{ref.kind}/{ref.name}", kube.delete(ref, stack.namespace))
    if plan.status is not None and plan.status != stack.status:
        await _try(failures, f"{KIND}/{stack.name}", write_status(stack, kube, plan.status))
    return failures


async def write_status(stack: ThanosStack, kube: KubeClient, status: dict[str, Any]) -> None:
    """Replace the status of a stack.

    Raises:
        ApiError: if the API server refuses it.
    """
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": stack.name, "namespace": stack.namespace, "uid": stack.uid},
        "status": status,
    }
    try:
        await kube.apply(body, stack.namespace, sub="status")
    except ApiError as error:
        if error.status not in (404, 409):  # gone meanwhile, or another of that name
            raise


async def set_finalizers(
    kube: KubeClient, metadata: Mapping[str, Any], finalizers: Sequence[str]
) -> None:
    """Replace the finalizers of a stack, unless it was written to since it was read.

    Args:
        kube: the API server.
        metadata: of the stack as it was read; a finalizer that came later would be lost.
        finalizers: all that it shall have.

    Raises:
        ApiError: 409 if it was written to, or is another of that name; or any other refusal.
    """
    read = {key: metadata[key] for key in ("uid", "resourceVersion")}
    body: Object = {"metadata": read | {"finalizers": list(finalizers)}}
    await kube.merge(STACKS, metadata["namespace"], metadata["name"], body)


async def grow_claim(
    kube: KubeClient, namespace: str, name: str, size: str, uid: str, version: str
) -> None:
    """Have a volume claim ask for a size; for which claim and version of it that was decided.

    Raises:
        ApiError: 409 if it was written to, so that nothing shrinks; or any other refusal.
    """
    body: Object = {
        "metadata": {"uid": uid, "resourceVersion": version},
        "spec": {"resources": {"requests": {"storage": size}}},
    }
    await kube.merge(VOLUME_CLAIMS, namespace, name, body)


def _metadata(stack: ThanosStack) -> dict[str, Any]:
    return {
        "name": stack.name,
        "namespace": stack.namespace,
        "uid": stack.uid,
        "resourceVersion": stack.resource_version,
    }


async def post_event(stack: ThanosStack, kube: KubeClient, event: Event, now: float) -> None:
    """Post an event on a stack; one that is refused is lost, as events are."""
    time = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{stack.name}.{uuid4().hex[:16]}", "namespace": stack.namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": stack.name,
            "namespace": stack.namespace,
            "uid": stack.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
    await _try({}, "", kube.create(body, stack.namespace))


async def _act(
    failures: Failures,
    action: Action,
    stack: ThanosStack,
    kube: KubeClient,
    pods: PodClient,
    addresses: Mapping[str, str],
) -> None:
    match action:
        case TouchPod(pod, value) if f"ConfigMap/{hashrings_name(stack.name)}" not in failures:
            touch = {"metadata": {"annotations": {HASHRINGS_ANNOTATION: value}}}
            touched = kube.merge(PODS, stack.namespace, pod, touch)
            await _try(failures, f"Pod/{pod}", touched)
        case StartDrain(pod) if pod in addresses:
            await _try(failures, f"Pod/{pod}", pods.start_drain(addresses[pod]))
        case CancelDrain(pod) if pod in addresses:
            await _try(failures, f"Pod/{pod}", pods.cancel_drain(addresses[pod]))
        case GrowClaim(name, size, uid, version):
            growing = grow_claim(kube, stack.namespace, name, size, uid, version)
            await _try(failures, f"PersistentVolumeClaim/{name}", growing)
        case ReplaceSet(ref, version):
            orphaning = kube.delete(ref, stack.namespace, orphan_version=version)
            await _try(failures, f"StatefulSet/{ref.name}", orphaning)
        case SetFinalizers(finalizers):
            setting = set_finalizers(kube, _metadata(stack), finalizers)
            await _try(failures, f"{KIND}/{stack.name}", setting)


async def _try(failures: Failures, name: str, request: Awaitable[object]) -> None:
    try:
        await request
    except ApiError as error:
        # A pod may go at any time, and somebody may delete a claim.
        if error.status != 404 or not name.startswith(("Pod/", "PersistentVolumeClaim/")):
            failures[name] = str(error)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        failures[name] = str(error) or type(error).__name__
