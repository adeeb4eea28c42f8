"""A kubelet and a volume provisioner that run nothing: pods become ready, answer, and go.

Beside the real API server, controllers and scheduler, so that StatefulSets, EndpointSlices and
deletions are theirs. What a pod of a stack says to the operator it says over HTTP, at its own
address of a range that is routed to loopback:

    ingestor   /-/drain    serving → draining → drained; kept by pod name, as a volume would
    router     /metrics    the hash of the hashrings that it has loaded: at its start, and when its
                           pod is touched, as a kubelet's sync would have it

Volumes grow with their claims. Speed and faults are fields: how long a drain takes, routers that
load nothing, pods that never become ready, file systems that stay as they are. For the real thing
see `cluster.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from cluster.kubectl import Kubectl
from thanostack_operator.kube import KINDS, PODS, ApiError, KubeClient
from thanostack_operator.manifests.hashrings import config_hash
from thanostack_operator.manifests.names import (
    COMPONENT_LABEL,
    HASHRINGS_ANNOTATION,
    HASHRINGS_KEY,
    HTTP_PORT,
    STACK_LABEL,
    Object,
    hashrings_name,
)
from thanostack_operator.plan.observed import Ref, dig

NODE, CLAIM, VOLUME, CLASS = (
    ("v1", "Node"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PersistentVolume"),
    ("storage.k8s.io/v1", "StorageClass"),
)
KINDS |= {
    NODE: "nodes",
    CLAIM: "persistentvolumeclaims",
    VOLUME: "persistentvolumes",
    CLASS: "storageclasses",
}
LOOK_EVERY_S = 0.1
HEARTBEAT_S = 10.0
CAPACITY = {"cpu": "1000", "memory": "1000Gi", "pods": "1000"}
STORAGE_CLASS = "fake"
GROWING_CLASS = "fake-growing"
ZONES = ("zone-a", "zone-b", "zone-c")


@dataclass
class FakePod:
    """A pod that runs, and its HTTP server."""

    address: str
    component: str
    runner: web.AppRunner
    touched: str = ""
    loaded: float | None = None
    reported: tuple[object, ...] = ()


@dataclass
class FakeKubelet:
    """The kubelet; run it by `running`.

    Args:
        kubeconfig: of an administrator.
        network: first two numbers of the pods' addresses; no two kubelets may share them.
        drain_s: how long a drain takes.
        deaf: names of routers that load no new hashrings.
        unready: names of pods that do not become ready.
        broken_images: images that cannot be pulled.
        small_file_systems: whether file systems stay as they are when their volumes grow.
        drains: states other than serving, by namespace and name.
        removed: namespace, name and drain of the pods that ended, by their uid and in their order.
    """

    kubeconfig: Path
    network: str = field(default_factory=lambda: f"10.{100 + os.getpid() % 100}")
    drain_s: float = 0.3
    deaf: set[str] = field(default_factory=set)
    unready: set[str] = field(default_factory=set)
    broken_images: set[str] = field(default_factory=set)
    small_file_systems: bool = False
    drains: dict[tuple[str, str], str] = field(default_factory=dict)
    removed: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    _pods: dict[str, FakePod] = field(default_factory=dict)
    _next: int = 1

    async def run(self, stop: asyncio.Event) -> None:
        """Look at pods and claims until told to stop."""
        settings = Configuration()
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            str(self.kubeconfig), client_configuration=settings
        )
        async with ApiClient(settings) as client:
            kube = KubeClient(client)
            await self._register(kube)
            beat_s = 0.0
            while not stop.is_set():
                with contextlib.suppress(ApiError):
                    if time.monotonic() - beat_s > HEARTBEAT_S:
                        await self._beat(kube)
                        beat_s = time.monotonic()
                    await self._look(kube)
                await asyncio.sleep(LOOK_EVERY_S)
        for pod in self._pods.values():
            await pod.runner.cleanup()

    async def _register(self, kube: KubeClient) -> None:
        for zone in ZONES:
            name = f"fake-{zone}"
            labels = {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
            }
            await _make(kube, node)
            await kube.merge(NODE, None, name, {"status": {"capacity": CAPACITY}}, sub="status")
            await self._beat(kube, name)
            await kube.merge(NODE, None, name, {"spec": {"taints": None}})
        standard = {
            "apiVersion": CLASS[0],
            "kind": CLASS[1],
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "thanostack.test/fake",
        }
        await _make(kube, standard)
        await _make(kube, _growing(standard))

    async def _beat(self, kube: KubeClient, *nodes: str) -> None:
        """Say that nodes are alive: they are taken for dead after forty seconds of silence."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "Fake", "message": ""}
        status = {"allocatable": CAPACITY, "conditions": [ready | {"lastHeartbeatTime": now}]}
        for name in nodes or [f"fake-{zone}" for zone in ZONES]:
            await kube.merge(NODE, None, name, {"status": status}, sub="status")

    async def _look(self, kube: KubeClient) -> None:
        claims, pods = await asyncio.gather(kube.list(CLAIM, None), kube.list(PODS, None))
        for claim in claims:
            ours = dig(claim, "spec", "storageClassName") in (STORAGE_CLASS, GROWING_CLASS)
            if ours and not dig(claim, "spec", "volumeName"):
                await self._provide(kube, claim)
            elif ours and dig(claim, "status", "phase") == "Bound":
                await self._enlarge(kube, claim)
        for pod in pods:
            if dig(pod, "spec", "nodeName"):
                with contextlib.suppress(ApiError):
                    await self._sync(kube, pod)
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self._pods if uid not in there]:
            await self._pods.pop(uid).runner.cleanup()

    async def _provide(self, kube: KubeClient, claim: Object) -> None:
        metadata = claim["metadata"]
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"pv-{metadata['uid']}"},
            "spec": {
                "accessModes": claim["spec"]["accessModes"],
                "capacity": claim["spec"]["resources"]["requests"],
                "storageClassName": claim["spec"]["storageClassName"],
                "hostPath": {"path": "/nowhere"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                },
            },
        }
        with contextlib.suppress(ApiError):  # made before, not bound yet
            await kube.create(volume, None)

    async def _enlarge(self, kube: KubeClient, claim: Object) -> None:
        """Do what a driver does for a claim that asks for more than it has."""
        metadata, asked = claim["metadata"], claim["spec"]["resources"]["requests"]
        told = bool(dig(claim, "status", "conditions"))
        if dig(claim, "status", "capacity") == asked or (told and self.small_file_systems):
            return
        await kube.merge(VOLUME, None, claim["spec"]["volumeName"], {"spec": {"capacity": asked}})
        waits = {
            "type": "FileSystemResizePending",
            "status": "True",
            "message": "a pod has to start",
        }
        status: Object = {"capacity": asked, "conditions": None}
        if self.small_file_systems:
            status = {"conditions": [waits]}
        body = {"status": status}
        await kube.merge(CLAIM, metadata["namespace"], metadata["name"], body, sub="status")

    async def _sync(self, kube: KubeClient, pod: Object) -> None:
        metadata = pod["metadata"]
        uid, name, namespace = metadata["uid"], metadata["name"], metadata["namespace"]
        if metadata.get("deletionTimestamp"):
            if uid in self._pods:
                await self._pods.pop(uid).runner.cleanup()
            state = self.drains.get((namespace, name), "serving")
            # Before it is gone, as tests ask then; the deletion may fail and be repeated.
            self.removed.setdefault(uid, (namespace, name, state))
            await kube.delete(Ref("v1", "Pod", name, uid), namespace, grace_s=0)
            return
        if self.broken_images & {c["image"] for c in pod["spec"]["containers"]}:
            await self._report_broken(kube, pod)
            return
        if uid not in self._pods:
            self._pods[uid] = await self._start(pod)
        running = self._pods[uid]
        await self._load(kube, running, pod)
        is_ready = name not in self.unready and (namespace, name) not in self.drains
        wanted = (is_ready, running.address)
        if running.reported != wanted:
            await kube.merge(
                PODS, namespace, name, _status(pod, running.address, is_ready), "status"
            )
            running.reported = wanted

    async def _start(self, pod: Object) -> FakePod:
        name = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        address = f"{self.network}.{self._next // 250}.{self._next % 250 + 1}"
        self._next += 1
        runner = web.AppRunner(web.Application(), access_log=None)
        component = dig(pod, "metadata", "labels", COMPONENT_LABEL, default="")
        started = FakePod(address, component, runner)

        async def metrics(_: web.Request) -> web.Response:
            loaded = started.loaded
            text = "" if loaded is None else f"thanos_receive_config_hash {loaded}\n"
            return web.Response(text=text)

        async def drain(request: web.Request) -> web.Response:
            return await self._answer_drain(name, request.method)

        runner.app.add_routes(
            [web.get("/metrics", metrics)]
            + [web.route(method, "/-/drain", drain) for method in ("GET", "POST", "DELETE")]
        )
        await runner.setup()
        await web.TCPSite(runner, address, HTTP_PORT).start()
        return started

    async def _answer_drain(self, name: tuple[str, str], method: str) -> web.Response:
        if method == "POST" and self.drains.get(name, "serving") == "serving":
            self.drains[name] = "draining"
            asyncio.get_running_loop().call_later(self.drain_s, self._end_drain, name)
        if method == "DELETE":
            self.drains.pop(name, None)
        state: Object = {"state": self.drains.get(name, "serving"), "tenants": {}, "error": None}
        return web.json_response(state, status=202 if method == "POST" else 200)

    def _end_drain(self, name: tuple[str, str]) -> None:
        if self.drains.get(name) == "draining":
            self.drains[name] = "drained"

    async def _load(self, kube: KubeClient, running: FakePod, pod: Object) -> None:
        """Load the hashrings at a router's start, and when its pod was touched."""
        touched = dig(pod, "metadata", "annotations", HASHRINGS_ANNOTATION, default="")
        is_new = running.loaded is None or touched != running.touched
        name = pod["metadata"]["name"]
        if running.component != "receive" or not is_new or (name in self.deaf and running.loaded):
            return
        rings = hashrings_name(pod["metadata"]["labels"][STACK_LABEL])
        found = await kube.get(("v1", "ConfigMap"), pod["metadata"]["namespace"], rings)
        if found is not None:
            running.loaded = config_hash(found["data"][HASHRINGS_KEY])
            running.touched = touched

    async def _report_broken(self, kube: KubeClient, pod: Object) -> None:
        waiting = {"reason": "ImagePullBackOff", "message": "there is no such image"}
        container = pod["spec"]["containers"][0]
        status = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": waiting},
        }
        body = {"status": {"phase": "Pending", "containerStatuses": [status]}}
        if dig(pod, "status", "containerStatuses") is None:
            metadata = pod["metadata"]
            await kube.merge(PODS, metadata["namespace"], metadata["name"], body, sub="status")


def _growing(standard: Object) -> Object:
    """Return a class like another one, not the default, whose claims may grow."""
    return standard | {"metadata": {"name": GROWING_CLASS}, "allowVolumeExpansion": True}


async def _make(kube: KubeClient, wanted: Object) -> None:
    """Create an object unless a former kubelet has."""
    try:
        await kube.create(wanted, None)
    except ApiError as error:
        if error.status != 409:
            raise


def _status(pod: Object, address: str, is_ready: bool) -> Object:
    ready = "True" if is_ready else "False"
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    scheduled = {"type": "PodScheduled", "status": "True"}
    conditions = [scheduled] + [
        {"type": kind, "status": ready, "lastTransitionTime": now}
        for kind in ("Ready", "ContainersReady")
    ]
    container = pod["spec"]["containers"][0]
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": is_ready,
        "restartCount": 0,
        "state": {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}},
    }
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": conditions,
            "containerStatuses": [status],
        }
    }


@contextlib.contextmanager
def running(kubelet: FakeKubelet) -> Iterator[FakeKubelet]:
    """Run a kubelet in a thread of its own while the block runs; needs root for its network."""
    route = ["local", f"{kubelet.network}.0.0/16", "dev", "lo"]
    subprocess.run(["ip", "route", "replace", *route], check=True)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            loop.run_until_complete(kubelet.run(stop))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="kubelet")
    thread.start()
    try:
        yield kubelet
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
        subprocess.run(["ip", "route", "del", *route], check=True)
        if failed:
            raise failed[0]


@contextlib.contextmanager
def claims_may_grow(kubectl: Kubectl) -> Iterator[None]:
    """Let claims of the default class grow for the time of the block."""
    patch = ("patch", "storageclass", STORAGE_CLASS, "-p")
    kubectl(*patch, '{"allowVolumeExpansion":true}')
    try:
        yield
    finally:
        kubectl(*patch, '{"allowVolumeExpansion":false}')
