"""Read one stack's cluster into an `Observed`: owned objects, endpoints, pods, and what pods say.

    API server ── lists by label ──► objects, ingestors, pods
    router pods ── /metrics ──► ring hashes         ingestor pods ── /-/drain ──► drains

Reads only. Lists are consistent; a step that was begun on older knowledge would be the same step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator

from .api.pod import PodSettings
from .api.stack import ThanosStack
from .claims import with_claims
from .kube import (
    ENDPOINT_SLICES,
    EVENTS,
    OWNED,
    PODS,
    SERVICE_MONITORS,
    VOLUME_CLAIMS,
    ApiError,
    KubeClient,
)
from .manifests.ingestors import DATA_CLAIM
from .manifests.names import (
    COMPONENT_LABEL,
    HASHRINGS_ANNOTATION,
    RING_LABEL,
    STACK_LABEL,
    Object,
)
from .manifests.stack_objects import object_keys
from .plan.observed import Drain, Ingestor, Observed, Ref, Router, dig
from .pods import PodClient

# prometheus-operator comes and goes rarely.
DISCOVERY_S = 60.0
_ORDINAL = re.compile(r"-([0-9]+)$")
# Of a volume's source, which the API server has not read: what it is a name of, and where.
_FILES = {"secret": ("Secret", "secretName"), "configMap": ("ConfigMap", "name")}
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")  # nothing that leads elsewhere


async def observe(
    stack: ThanosStack,
    kube: KubeClient,
    pods: PodClient,
    *,
    now: float,
    failures: dict[str, str],
) -> Observed:
    """Return what there is of a stack.

    Raises:
        ApiError: if the API server does not answer a list.
    """
    namespace, selector = stack.namespace, f"{STACK_LABEL}={stack.name}"
    monitors = await kube.knows(SERVICE_MONITORS, within_s=DISCOVERY_S)
    kinds = [kind for kind in OWNED if kind != SERVICE_MONITORS or monitors]
    *lists, slices, seen = await asyncio.gather(
        *(kube.list(kind, namespace, selector) for kind in kinds),
        kube.list(ENDPOINT_SLICES, namespace, selector),
        kube.list(PODS, namespace, selector),
    )
    objects = {_ref(found): found for objects in lists for found in objects}
    # Nothing is made any more of a stack that is deleted.
    keys = set() if stack.deleting else object_keys(stack, knows_service_monitors=monitors)
    ingestor_pods = [pod for pod in seen if dig(pod, "metadata", "labels", RING_LABEL)]
    routers, drains, missing, refusals, namesakes = await asyncio.gather(
        _routers(seen, pods),
        _drains(stack, ingestor_pods, kube, pods),
        _missing(stack, kube),
        _refusals(stack, kube, objects.values()),
        _namesakes(stack, kube, objects, keys),
    )
    observed = Observed(
        now=now,
        objects=objects,
        namesakes=namesakes,
        ingestors=_ingestors(slices),
        pods=frozenset(pod["metadata"]["name"] for pod in ingestor_pods),
        pod_problems={
            pod["metadata"]["name"]: problem for pod in seen if (problem := pod_problem(pod))
        },
        addresses={
            pod["metadata"]["name"]: address
            for pod in seen
            if (address := dig(pod, "status", "podIP"))
        },
        refusals=refusals,
        failures=failures,
        routers=routers,
        drains=drains,
        missing=missing,
        service_monitors=monitors,
    )
    # Of a stack that is deleted no volume grows.
    return observed if stack.deleting else await with_claims(stack, kube, observed)


def _ref(found: Object) -> Ref:
    metadata = found["metadata"]
    return Ref(found["apiVersion"], found["kind"], metadata["name"], metadata["uid"])


async def _namesakes(
    stack: ThanosStack,
    kube: KubeClient,
    objects: Iterable[Ref],
    keys: Iterable[tuple[tuple[str, str], str]],
) -> dict[Ref, Object]:
    """Return what has a name of the stack's without its label, of each its metadata only."""
    labelled = {((ref.api_version, ref.kind), ref.name) for ref in objects}
    missing = sorted(set(keys) - labelled)
    found = await asyncio.gather(
        *(kube.get(kind, stack.namespace, name, metadata_only=True) for kind, name in missing)
    )
    return {
        Ref(*kind, name, live["metadata"]["uid"]): live
        for (kind, name), live in zip(missing, found, strict=True)
        if live is not None
    }


def _ingestors(slices: Iterable[Object]) -> dict[str, tuple[Ingestor, ...]]:
    """Return each ring's endpoints in numeric order; of a pod in two slices the ready one."""
    rings: dict[str, dict[int, Ingestor]] = {}
    for endpoint_slice in slices:
        ring = dig(endpoint_slice, "metadata", "labels", RING_LABEL)
        if ring is None:
            continue
        found = rings.setdefault(ring, {})
        for endpoint in endpoint_slice.get("endpoints") or []:
            ingestor = _ingestor(endpoint)
            if ingestor and not (ingestor.ordinal in found and found[ingestor.ordinal].ready):
                found[ingestor.ordinal] = ingestor
    return {ring: tuple(found[i] for i in sorted(found)) for ring, found in rings.items()}


def _ingestor(endpoint: Object) -> Ingestor | None:
    pod = dig(endpoint, "targetRef", "name", default="")
    ordinal = _ORDINAL.search(pod)
    if ordinal is None:
        return None
    terminating = bool(dig(endpoint, "conditions", "terminating", default=False))
    serving = dig(endpoint, "conditions", "serving")
    ready = (serving is None or bool(serving)) and not terminating
    return Ingestor(int(ordinal[1]), ready, terminating, endpoint.get("zone") or "")


def is_running(pod: Object) -> bool:
    """Return whether a container of the pod runs now, terminating or not."""
    statuses = dig(pod, "status", "containerStatuses", default=[])
    return any(dig(status, "state", "running") is not None for status in statuses)


def has_started(pod: Object) -> bool:
    """Return whether a container of the pod started, or may have: of a pending one it is known."""
    if dig(pod, "status", "phase") != "Pending":
        return True
    return any(
        status.get("restartCount")
        or status.get("lastState")
        or set(status.get("state") or {}) - {"waiting"}
        for status in dig(pod, "status", "containerStatuses", default=[])
    )


def is_ready(pod: Object) -> bool:
    """Return whether the pod's `Ready` condition holds."""
    conditions = dig(pod, "status", "conditions", default=[])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def pod_problem(pod: Object) -> str:
    """Return why a pod does not run, in the kubelet's or scheduler's words; empty if it does."""
    for status in dig(pod, "status", "containerStatuses", default=[]):
        waiting = dig(status, "state", "waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            last = dig(status, "lastState", "terminated", default={})
            words = [waiting["reason"], waiting.get("message") or "", *_last_words(last)]
            return ": ".join(word for word in words if word)
    for condition in dig(pod, "status", "conditions", default=[]):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return ""


def _last_words(terminated: Object) -> list[str]:
    """Return how a container ended and what it said at last, as far as the kubelet tells."""
    code = terminated.get("exitCode")
    ended = terminated.get("reason") or ""
    if ended == "Error" and code is not None:
        ended = f"it ended with {code}"
    return [ended, (terminated.get("message") or "").strip()[-300:]]


async def _routers(seen: Iterable[Object], pods: PodClient) -> tuple[Router, ...]:
    running = [
        pod
        for pod in seen
        if dig(pod, "metadata", "labels", COMPONENT_LABEL) == "receive"
        and is_running(pod)
        and dig(pod, "status", "podIP")
    ]
    answers = await asyncio.gather(*(pods.config_hash(pod["status"]["podIP"]) for pod in running))
    return tuple(
        Router(
            pod=pod["metadata"]["name"],
            ready=is_ready(pod),
            config_hash=config_hash,
            annotation=dig(pod, "metadata", "annotations", HASHRINGS_ANNOTATION, default=""),
            error=error,
        )
        for pod, (config_hash, error) in zip(running, answers, strict=True)
    )


async def _drains(
    stack: ThanosStack, ingestor_pods: Iterable[Object], kube: KubeClient, pods: PodClient
) -> dict[str, Drain]:
    """Ask those ingestors that leave, or that are not ready: a draining one is not."""
    wanted = {ring.name: ring.replicas for ring in stack.spec.receive.rings}
    asked = []
    for pod in ingestor_pods:
        ordinal = _ORDINAL.search(pod["metadata"]["name"])
        replicas = wanted.get(pod["metadata"]["labels"][RING_LABEL], 0)
        leaves = stack.deleting or (ordinal is not None and int(ordinal[1]) >= replicas)
        if leaves or not is_ready(pod):
            asked.append((pod, leaves))
    answers = await asyncio.gather(*(_drain(pod, kube, pods, leaves=going) for pod, going in asked))
    names = [pod["metadata"]["name"] for pod, _ in asked]
    return dict(zip(names, answers, strict=True))


async def _drain(pod: Object, kube: KubeClient, pods: PodClient, *, leaves: bool) -> Drain:
    address = dig(pod, "status", "podIP")
    if address and is_running(pod):
        return await pods.drain(address)
    never_ran = leaves and not has_started(pod) and await _has_no_volume(pod, kube)
    return Drain("unknown", pod_problem(pod) or "its container does not run", never_ran)


async def _has_no_volume(pod: Object, kube: KubeClient) -> bool:
    """Return whether an ingestor's claim never had a volume; False if asking is not permitted."""
    name = f"{DATA_CLAIM}-{pod['metadata']['name']}"
    try:
        claim = await kube.get(VOLUME_CLAIMS, pod["metadata"]["namespace"], name)
    except ApiError as error:
        if error.status == 403:
            return False
        raise
    if claim is None:
        return True
    return dig(claim, "status", "phase") == "Pending" and not dig(claim, "spec", "volumeName")


async def _refusals(
    stack: ThanosStack, kube: KubeClient, objects: Iterable[Object]
) -> dict[str, str]:
    """Return why StatefulSets that lack pods cannot make them: only their events tell."""
    names = [
        live["metadata"]["name"]
        for live in objects
        if live["kind"] == "StatefulSet"
        and dig(live, "status", "replicas", default=0) < dig(live, "spec", "replicas", default=1)
    ]
    found = await asyncio.gather(*(_refusal(stack.namespace, name, kube) for name in names))
    return {name: refusal for name, refusal in zip(names, found, strict=True) if refusal}


async def _refusal(namespace: str, stateful_set: str, kube: KubeClient) -> str:
    fields = f"involvedObject.kind=StatefulSet,involvedObject.name={stateful_set}"
    try:
        events = await kube.list(EVENTS, namespace, fields=f"{fields},reason=FailedCreate")
    except ApiError as error:
        if error.status == 403:
            return ""
        raise
    last = max(events, key=lambda event: event.get("lastTimestamp") or "", default={})
    return str(last.get("message") or "")


async def _missing(stack: ThanosStack, kube: KubeClient) -> frozenset[str] | None:
    """Return which Secrets and ConfigMaps of the spec are not there; None if not permitted."""
    names = sorted(mentioned(stack))
    try:
        found = await asyncio.gather(
            *(kube.get(("v1", k), stack.namespace, n, metadata_only=True) for k, n in names)
        )
    except ApiError as error:
        if error.status == 403:
            return None
        raise
    return frozenset(
        f"{kind}/{name}" for (kind, name), there in zip(names, found, strict=True) if there is None
    )


def mentioned(stack: ThanosStack) -> set[tuple[str, str]]:
    """Return the Secrets and ConfigMaps that the spec names, as (kind, name)."""
    spec = stack.spec
    names = {("Secret", name) for name in spec.image.pull_secrets}
    settings: list[PodSettings] = [spec.pod_defaults, spec.receive.routers, spec.query]
    settings += spec.receive.rings
    for component in settings:
        names |= {("Secret", mount.name) for mount in component.secrets or []}
        names |= {("ConfigMap", mount.name) for mount in component.config_maps or []}
        names.update(_files_of_volumes(component))
    return names


def _files_of_volumes(settings: PodSettings) -> Iterator[tuple[str, str]]:
    """Yield the Secrets and ConfigMaps that further volumes need, as (kind, name)."""
    for volume in settings.extra_volumes or []:
        for source, (kind, key) in _FILES.items():
            files = dig(volume.sources, source, default={})
            name = dig(files, key, default="")
            if _OBJECT_NAME.fullmatch(str(name)) and not dig(files, "optional"):
                yield kind, str(name)
