"""The API server: lists, reads, server-side apply, deletes, events. Objects are plain JSON.

A thin layer over `kubernetes`'s asyncio transport. The kinds that a stack is made of are few and
known, so there is no discovery: `KINDS` says where each lives.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException

from .api.stack import GROUP, KIND, PLURAL, VERSION
from .manifests.names import FIELD_MANAGER, Object
from .plan.observed import Ref

REQUEST_TIMEOUT_S = 30.0
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

STACKS = (f"{GROUP}/{VERSION}", KIND)
SERVICE_MONITORS = ("monitoring.coreos.com/v1", "ServiceMonitor")
DEPLOYMENTS = ("apps/v1", "Deployment")
PODS = ("v1", "Pod")
EVENTS = ("v1", "Event")
VOLUME_CLAIMS = ("v1", "PersistentVolumeClaim")
ENDPOINT_SLICES = ("discovery.k8s.io/v1", "EndpointSlice")
STORAGE_CLASSES = ("storage.k8s.io/v1", "StorageClass")
LEASES = ("coordination.k8s.io/v1", "Lease")
# What may be owned by a stack, in the order in which it is listed and pruned.
OWNED = (
    DEPLOYMENTS,
    ("apps/v1", "StatefulSet"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("policy/v1", "PodDisruptionBudget"),
    SERVICE_MONITORS,
)
# What wakes a stack when it changes. Not every cluster knows ServiceMonitors.
WATCHED = (*(kind for kind in OWNED if kind != SERVICE_MONITORS), PODS, ENDPOINT_SLICES)
KINDS = {
    STACKS: PLURAL,
    SERVICE_MONITORS: "servicemonitors",
    DEPLOYMENTS: "deployments",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("v1", "Service"): "services",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Secret"): "secrets",
    PODS: "pods",
    EVENTS: "events",
    VOLUME_CLAIMS: "persistentvolumeclaims",
    STORAGE_CLASSES: "storageclasses",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ENDPOINT_SLICES: "endpointslices",
    LEASES: "leases",
}


@dataclass
class ApiError(Exception):
    """The API server refused a request.

    Args:
        status: HTTP code; 0 if there was no answer.
        message: the API server's own words.
    """

    status: int
    message: str

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.status else self.message


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _path(kind: tuple[str, str], namespace: str | None, name: str = "", sub: str = "") -> str:
    parts = [_root(kind[0]), f"namespaces/{namespace}" if namespace else "", KINDS[kind], name, sub]
    return "/".join(part for part in parts if part)


class KubeClient:
    """Requests to one API server. Safe for concurrent tasks of one event loop.

    Args:
        client: the transport.
        wrote: called before each request that writes.
    """

    def __init__(self, client: ApiClient, wrote: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._wrote = wrote
        self._known: dict[tuple[str, str], tuple[bool, float]] = {}

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """Return the answer's JSON.

        Raises:
            ApiError: if the API server refuses, or does not answer within `REQUEST_TIMEOUT_S`.
        """
        headers = {"Accept": accept, "Content-Type": content_type}
        request = await self._client.param_serialize(
            method, path, query_params=query or [], header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            response = await self._client.call_api(*request, _request_timeout=REQUEST_TIMEOUT_S)
            data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise ApiError(error.status or 0, _message(error.body) or str(error.reason)) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(
                0, f"the API server does not answer: {str(error) or 'timeout'}"
            ) from error
        if not 200 <= response.status <= 299:
            raise ApiError(response.status, _message(data) or response.reason)
        result: Object = json.loads(data)
        return result

    async def list(
        self, kind: tuple[str, str], namespace: str | None, selector: str = "", fields: str = ""
    ) -> list[Object]:
        """Return the objects of a kind with these labels and fields, and apiVersion and kind."""
        query = [("labelSelector", selector)] if selector else []
        query += [("fieldSelector", fields)] if fields else []
        try:
            answer = await self._request("GET", _path(kind, namespace), query=query)
        except ApiError as error:
            if error.status == 404:
                self._known.pop(kind, None)
            raise
        return [{"apiVersion": kind[0], "kind": kind[1]} | item for item in answer["items"]]

    async def get(
        self,
        kind: tuple[str, str],
        namespace: str | None,
        name: str,
        *,
        metadata_only: bool = False,
    ) -> Object | None:
        """Return one object, or None if it is not there."""
        accept = METADATA_ONLY if metadata_only else "application/json"
        try:
            return await self._request("GET", _path(kind, namespace, name), accept=accept)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def knows(self, kind: tuple[str, str], *, within_s: float = 0.0) -> bool:
        """Return whether the API server serves that kind, or did ``within_s`` ago at most.

        A former answer does not outlive a list of that kind that finds nothing served.
        """
        known, asked = self._known.get(kind, (False, -math.inf))
        if time.monotonic() - asked < within_s:
            return known
        try:
            answer = await self._request("GET", _root(kind[0]))
            known = any(resource["kind"] == kind[1] for resource in answer["resources"])
        except ApiError as error:
            if error.status != 404:
                raise
            known = False
        self._known[kind] = (known, time.monotonic())
        return known

    async def apply(self, wanted: Object, namespace: str, *, sub: str = "") -> Object:
        """Apply an object server-side, taking over every field that it names."""
        kind = (wanted["apiVersion"], wanted["kind"])
        self._wrote()
        return await self._request(
            "PATCH",
            _path(kind, namespace, wanted["metadata"]["name"], sub),
            query=[("fieldManager", FIELD_MANAGER), ("force", "true")],
            body=wanted,
            content_type="application/apply-patch+yaml",
        )

    async def merge(
        self, kind: tuple[str, str], namespace: str | None, name: str, body: Object, sub: str = ""
    ) -> Object:
        """Patch some fields of an object by JSON merge patch; return it as it is then."""
        self._wrote()
        return await self._request(
            "PATCH",
            _path(kind, namespace, name, sub),
            query=[("fieldManager", FIELD_MANAGER)],
            body=body,
            content_type="application/merge-patch+json",
        )

    async def create(self, wanted: Object, namespace: str | None) -> None:
        """Create an object."""
        self._wrote()
        kind = (wanted["apiVersion"], wanted["kind"])
        await self._request("POST", _path(kind, namespace), body=wanted)

    async def delete(
        self,
        ref: Ref,
        namespace: str,
        *,
        grace_s: int | None = None,
        orphan_version: str | None = None,
    ) -> None:
        """Delete the very object that was seen; that it is gone, or another by now, is no error.

        Args:
            ref: which.
            namespace: where.
            grace_s: its pods' grace, if not their own.
            orphan_version: of the object, if what it owns is to stay and nothing is to be done if
                it was written to since.
        """
        self._wrote()
        body: Object = {"propagationPolicy": "Background"}
        if ref.uid:
            body["preconditions"] = {"uid": ref.uid}
        if orphan_version is not None:
            body["propagationPolicy"] = "Orphan"
            body["preconditions"] = {"uid": ref.uid, "resourceVersion": orphan_version}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        path = _path((ref.api_version, ref.kind), namespace, ref.name)
        try:
            await self._request("DELETE", path, body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise


def _message(body: Any) -> str:
    """Return the message of the API server's `Status` object, or the body's beginning."""
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    try:
        return str(json.loads(body)["message"])
    except (ValueError, TypeError, KeyError):
        return str(body or "")[:500]
