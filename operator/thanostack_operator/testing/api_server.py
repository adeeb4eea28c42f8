"""An API server in memory, in the place of the transport of `kubernetes`'s asyncio client.

    KubeClient ──► ApiClient ──► FakeApiServer.request: paths, verbs, status objects, versions

It answers as the real one does to what the operator asks: labels and fields select, preconditions
on UID and resource version conflict, a merge of nothing new changes no version, a deletion takes
what is owned with it unless it orphans, errors are `Status` objects. Of server-side apply it has
the outcome for one applier: what is applied is merged, a UID that is not the object's is a
conflict. It validates nothing; that is for the real one, in `tests/e2e/test_operator_control.py`.
Faults are entries of `faults`, which a real one would not make on demand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.aio.client import ApiClient, Configuration

from thanostack_operator.kube import KINDS
from thanostack_operator.manifests.names import Object
from thanostack_operator.plan.observed import dig

_PATH = re.compile(
    r"/apis?/(?P<version>.+?)(/namespaces/(?P<namespace>[^/]+))?"
    r"(/(?P<plural>[a-z]+)(/(?P<name>[^/]+)(/(?P<sub>status))?)?)?"
)


@dataclass
class Refusal(Exception):
    """What a request is answered with instead of an object."""

    status: int
    message: str
    reason: str = ""

    def body(self) -> Object:
        """Return the API server's `Status` object."""
        return {"kind": "Status", "code": self.status, "message": self.message}


@dataclass
class _Answer:
    """As `kubernetes.aio.client.rest.RESTResponse`, of the parts that are used."""

    status: int
    data: bytes
    reason: str = ""

    async def read(self) -> bytes:
        return self.data


Fault = Callable[[], None]


@dataclass
class FakeApiServer:
    """Objects by path, and what was asked of them.

    Args:
        objects: what there is, by path.
        requests: method and path of every request, in order.
        faults: by "METHOD path", a pattern: what is called before the request is answered; it may
            raise a `Refusal`, or what a connection raises, or change objects as somebody else.
        absent: API versions that are not served.
    """

    objects: dict[str, Object] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def client(self) -> ApiClient:
        """Return a client whose requests come here."""
        client = ApiClient(Configuration(host="http://fake"))
        client.rest_client = self  # type: ignore[assignment]
        return client

    async def close(self) -> None:
        """Do nothing; a transport can be closed."""

    async def request(self, method: str, url: str, *, body: Any = None, **_: Any) -> _Answer:
        """Answer a request of the client."""
        parts = urlsplit(url)
        asked = f"{method} {parts.path}"
        self.requests.append(asked)
        try:
            for pattern, fault in list(self.faults.items()):
                if re.fullmatch(pattern, asked):
                    fault()
            answer = self._answer(method, parts.path, parse_qs(parts.query), body)
        except Refusal as refusal:
            return _Answer(refusal.status, json.dumps(refusal.body()).encode(), refusal.reason)
        return _Answer(200, json.dumps(answer).encode())

    def put(self, path: str, found: Object) -> Object:
        """Write an object, whatever there is; return it with its metadata."""
        former = dig(self.objects.get(path), "metadata", default={})
        metadata = {"uid": f"uid-{next(self._numbers)}"} | former | found.get("metadata", {})
        metadata |= {"resourceVersion": str(next(self._numbers))}
        self.objects[path] = found | {"metadata": metadata}
        return self.objects[path]

    def writes(self) -> list[str]:
        """Return the requests that write."""
        return [asked for asked in self.requests if not asked.startswith("GET ")]

    def _answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Object:
        match = _PATH.fullmatch(path)
        if match is None or match["version"] in self.absent:
            raise Refusal(404, "the server could not find the requested resource")
        if match["plural"] is None:
            served = [kind for version, kind in KINDS if version == match["version"]]
            return {"resources": [{"kind": kind} for kind in served]}
        if match["name"] is None:
            return self._list(path, match, query) if method == "GET" else self._create(path, body)
        path = path.removesuffix("/status")
        if path not in self.objects and not (method == "PATCH" and "force" in query):
            raise Refusal(404, f'{match["plural"]} "{match["name"]}" not found')
        if method == "GET":
            return self.objects[path]
        if method == "DELETE":
            self._check(path, dig(body, "preconditions", default={}))
            self._collect(path, orphans=dig(body, "propagationPolicy") == "Orphan")
            return self.objects.pop(path)
        return self._patch(path, body)

    def _list(self, path: str, match: re.Match[str], query: dict[str, list[str]]) -> Object:
        pattern = path if match["namespace"] else f"/apis?/{match['version']}/.*{match['plural']}"
        labels, fields = (
            dict(pair.split("=") for text in query.get(name, []) for pair in text.split(","))
            for name in ("labelSelector", "fieldSelector")
        )
        return {"items": list(self._selected(re.compile(f"{pattern}/[^/]+"), labels, fields))}

    def _selected(
        self, pattern: re.Pattern[str], labels: dict[str, str], fields: dict[str, str]
    ) -> Iterator[Object]:
        for path, found in self.objects.items():
            has = dig(found, "metadata", "labels", default={})
            are = {name: dig(found, *name.split(".")) for name in fields}
            if pattern.fullmatch(path) and labels.items() <= has.items() and are == fields:
                # As the real one: items of a list do not say of which kind they are.
                yield {k: v for k, v in found.items() if k not in ("apiVersion", "kind")}

    def _create(self, path: str, body: Object) -> Object:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise Refusal(409, f'"{body["metadata"]["name"]}" already exists')
        return self.put(name, body)

    def _patch(self, path: str, body: Object) -> Object:
        self._check(path, body.get("metadata", {}))
        before = self.objects.get(path, {})
        after = _merged(before, body)
        return before if after == before else self.put(path, after)

    def _collect(self, path: str, *, orphans: bool) -> None:
        """Do what garbage collection does for an object that goes: at once, one level deep."""
        uid = dig(self.objects[path], "metadata", "uid")
        for other, found in list(self.objects.items()):
            owners = dig(found, "metadata", "ownerReferences", default=[])
            left = [owner for owner in owners if owner.get("uid") != uid]
            if left == owners:
                continue
            if orphans:
                self.put(other, found | {"metadata": found["metadata"] | {"ownerReferences": left}})
            elif not left:
                del self.objects[other]

    def _check(self, path: str, wanted: Object) -> None:
        there = dig(self.objects.get(path), "metadata", default={})
        for key in ("uid", "resourceVersion"):
            if wanted.get(key) and wanted[key] != there.get(key):
                raise Refusal(409, f"Precondition failed: {key} is {there.get(key)}")


def _merged(before: Any, patch: Any) -> Any:
    """Return what a JSON merge patch makes of a tree."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
