"""A cluster in memory that does what Kubernetes does with a stack, one tick at a time.

    plan ──► carry_out: objects, drains, touched pods ──► tick: controllers, kubelets, routers
      ▲                                                                          │
      └──────────────────────── observe ◄────────────────────────────────────────┘

Deterministic, with the delays that decide orders: pods take time to start and to end, routers to
load hashrings, ingestors to drain. A StatefulSet removes all surplus pods at once and replaces
others one at a time from the top; a Deployment starts one more before it ends one. Previews run
plans on it, and tests look for an order of things in which a plan does harm.

Left out: other writers' fields, quotas, nodes, volumes that lag behind their claims. What a node
does to a pod, tests do directly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from thanostack_operator.api.stack import ThanosStack, ThanosStackSpec
from thanostack_operator.manifests.hashrings import config_hash
from thanostack_operator.manifests.names import (
    HASHRINGS_KEY,
    RING_LABEL,
    STACK_LABEL,
    Object,
    hashrings_name,
    ingestor_pod,
    receive_name,
)
from thanostack_operator.manifests.stack_objects import object_keys

from .observed import Drain, DrainState, Ingestor, Observed, Ref, Router, dig
from .outcome import (
    Action,
    CancelDrain,
    GrowClaim,
    Plan,
    ReplaceSet,
    SetFinalizers,
    StartDrain,
    TouchPod,
)
from .times import timestamp

_WORKLOADS = ("StatefulSet", "Deployment")


@dataclass(frozen=True)
class Delays:
    """How long things take, in s."""

    start_s: float = 10.0
    end_s: float = 10.0
    load_s: float = 5.0
    unpushed_load_s: float = 60.0
    drain_s: float = 15.0


@dataclass
class Pod:
    """One pod.

    Args:
        owner: kind and name of its workload.
        ring: whose ingestor it is; empty if of none.
        ordinal: of an ingestor, else -1.
        template: what it was made from, as JSON.
        runs_at: when its container is ready to serve.
        ends_at: when it is gone; None while nobody has ended it.
        text: the hashrings that a router has in force.
        next_text: what it loads at ``loads_at``.
        touched: its annotation.
    """

    owner: tuple[str, str]
    ring: str
    ordinal: int
    template: str
    runs_at: float
    zone: str = ""
    ends_at: float | None = None
    text: str | None = None
    next_text: str | None = None
    loads_at: float = 0.0
    touched: str = ""


@dataclass
class Cluster:
    """A stack and what there is of it. See the module.

    Args:
        stack: the resource with its present status.
        now: seconds since the epoch.
        broken_images: images that no kubelet can pull.
        claims: of volumes, by name; they stay.
        expandable: whether claims of a StorageClass may grow, of classes that can be read.
        silent: ingestors that do not answer, by pod.
        zones: of ingestors' nodes, by pod; those of others are empty.
        service_monitors: whether it knows ServiceMonitors.
    """

    stack: ThanosStack
    now: float = 1_700_000_000.0
    delays: Delays = field(default_factory=Delays)
    objects: dict[Ref, Object] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    drains: dict[str, DrainState] = field(default_factory=dict)
    claims: dict[str, Object] = field(default_factory=dict)
    expandable: dict[str, bool] = field(default_factory=dict)
    drained_at: dict[str, float] = field(default_factory=dict)
    broken_images: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    zones: dict[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    service_monitors: bool = False
    _names: count[int] = field(default_factory=count)

    # What a user does.

    def change(self, spec: ThanosStackSpec) -> None:
        """Give the resource another spec."""
        self.stack = replace(self.stack, spec=spec, generation=self.stack.generation + 1)

    # What the operator sees and does.

    def observe(self) -> Observed:
        """Return what there is, as `observe.py` would."""
        ingestors = {name: pod for name, pod in self.pods.items() if pod.ring}
        labelled = {
            ref: live
            for ref, live in self.objects.items()
            if dig(live, "metadata", "labels", STACK_LABEL) == self.stack.name
        }
        keys = object_keys(self.stack, knows_service_monitors=False)
        return Observed(
            now=self.now,
            objects=labelled,
            namesakes={
                ref: live
                for ref, live in self.objects.items()
                if ref not in labelled and ((ref.api_version, ref.kind), ref.name) in keys
            },
            ingestors=self._ingestors(ingestors),
            pods=frozenset(ingestors),
            pod_problems={
                name: "ImagePullBackOff: no such image"
                for name, pod in self.pods.items()
                if self._is_broken(pod)
            },
            addresses=dict.fromkeys(self.pods, "127.0.0.1"),
            routers=tuple(
                Router(
                    name,
                    self.is_ready(name),
                    None if pod.text is None else config_hash(pod.text),
                    pod.touched,
                )
                for name, pod in self.routers().items()
            ),
            drains={name: self._drain(name) for name in ingestors},
            claims=dict(self.claims),
            expandable=self.expandable,
            missing=self.missing,
            service_monitors=self.service_monitors,
        )

    def carry_out(self, plan: Plan) -> None:
        """Do what a plan says."""
        for wanted in plan.apply:
            self.apply(wanted)
        for action in plan.actions:
            self._act(action)
        for ref in plan.prune:
            self.delete(ref)
        if plan.status is not None:
            self.stack = replace(self.stack, status=json.loads(json.dumps(plan.status)))

    def apply(self, wanted: Object) -> None:
        """Make an object or replace it by this one."""
        copy: Object = json.loads(json.dumps(wanted))
        live = next(
            (ref for ref in self.objects
             if (ref.kind, ref.name) == (wanted["kind"], wanted["metadata"]["name"])), None,
        )  # fmt: skip
        if live is None:
            uid = f"uid-{next(self._names)}"
            live = Ref(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"], uid)
            copy["metadata"] |= {"uid": uid, "generation": 1}
        else:
            former = self.objects[live]
            # Kubernetes counts those of workloads, not of Services and ConfigMaps.
            generation = former["metadata"].get("generation", 0)
            generation += copy.get("spec") != former.get("spec")
            copy["metadata"] |= {"uid": live.uid, "generation": generation}
            copy["status"] = former.get("status", {})
        self.objects[live] = copy
        if live.name == hashrings_name(self.stack.name):
            for pod in self.routers().values():
                self._deliver(pod, self.delays.unpushed_load_s)

    def delete(self, ref: Ref) -> None:
        """Delete an object, and its pods if it is a workload."""
        self.objects.pop(ref, None)
        for name, pod in self.pods.items():
            if pod.owner == (ref.kind, ref.name):
                self.end(name)

    def _act(self, action: Action) -> None:
        match action:
            case TouchPod(name, value) if name in self.pods:
                self.pods[name].touched = value
                self._deliver(self.pods[name], self.delays.load_s)
            case StartDrain(name) if self.drains.get(name, "serving") in ("serving", "failed"):
                self.drains[name] = "draining"
                self.drained_at[name] = self.now + self.delays.drain_s
            case CancelDrain(name):
                self.drains[name] = "serving"
            case GrowClaim(name, size):
                live = json.loads(json.dumps(self.claims[name]))
                live["spec"]["resources"]["requests"]["storage"] = size
                self.claims[name] = live
            case ReplaceSet(ref) if ref in self.objects:
                self.objects[ref]["metadata"]["deletionTimestamp"] = timestamp(self.now)
            case SetFinalizers(finalizers):
                self.stack = replace(self.stack, finalizers=finalizers)

    # What happens to pods.

    def end(self, name: str) -> None:
        """End a pod, as an eviction or a controller does."""
        pod = self.pods[name]
        if pod.ends_at is None:
            pod.ends_at = self.now + self.delays.end_s

    def crash(self, name: str) -> None:
        """Have a pod's container start anew."""
        self.pods[name].runs_at = self.now + self.delays.start_s

    def routers(self) -> dict[str, Pod]:
        """Return the routers whose container runs."""
        owner = ("Deployment", receive_name(self.stack.name))
        return {
            name: pod for name, pod in self.pods.items() if pod.owner == owner and self._runs(pod)
        }

    def published(self) -> str | None:
        """Return the text that the ConfigMap has."""
        name = hashrings_name(self.stack.name)
        live = next((o for ref, o in self.objects.items() if ref.name == name), None)
        text = dig(live, "data", HASHRINGS_KEY)
        return text if isinstance(text, str) else None

    def is_ready(self, name: str) -> bool:
        """Return whether a pod is ready."""
        pod = self.pods[name]
        if not self._runs(pod) or pod.ends_at is not None:
            return False
        if pod.ring:
            return self.drains.get(name, "serving") == "serving"
        return pod.owner[1] != receive_name(self.stack.name) or pod.text is not None

    def _runs(self, pod: Pod) -> bool:
        return pod.runs_at <= self.now and not self._is_broken(pod)

    def _is_broken(self, pod: Pod) -> bool:
        return any(f'"image": "{image}"' in pod.template for image in self.broken_images)

    def _deliver(self, pod: Pod, after_s: float) -> None:
        """Have a router load what is published now, and nothing later than it would have."""
        due = self.now + after_s
        pod.loads_at = due if pod.next_text is None else min(due, pod.loads_at)
        pod.next_text = self.published()

    def _ingestors(self, pods: dict[str, Pod]) -> dict[str, tuple[Ingestor, ...]]:
        rings: dict[str, list[Ingestor]] = {}
        for name, pod in pods.items():
            ending = pod.ends_at is not None
            seen = Ingestor(pod.ordinal, self.is_ready(name), ending, pod.zone)
            rings.setdefault(pod.ring, []).append(seen)
        return {ring: tuple(sorted(of, key=lambda i: i.ordinal)) for ring, of in rings.items()}

    def _drain(self, name: str) -> Drain:
        if name in self.silent or not self._runs(self.pods[name]):
            return Drain("unknown", "connection refused")
        return Drain(self.drains.get(name, "serving"))

    # What controllers do.

    def tick(self, s: float = 5.0) -> None:
        """Let time pass, and everybody but the operator work."""
        self.now += s
        for ref in [ref for ref, live in self.objects.items() if _is_orphaning(live)]:
            del self.objects[ref]
        for claim in self.claims.values():
            claim["status"]["capacity"] = dict(claim["spec"]["resources"]["requests"])
        self.pods = {
            name: pod
            for name, pod in self.pods.items()
            if pod.ends_at is None or pod.ends_at > self.now
        }
        for name, at in list(self.drained_at.items()):
            if self.drains.get(name) == "draining" and at <= self.now and name in self.pods:
                self.drains[name] = "drained"
        for name, pod in self.pods.items():
            self._load(name, pod)
        for ref, live in self.objects.items():
            if ref.kind in _WORKLOADS:
                own = {n: p for n, p in self.pods.items() if p.owner == (ref.kind, ref.name)}
                (self._run_set if ref.kind == "StatefulSet" else self._run_deployment)(live, own)
                self._tell(live)

    def _load(self, name: str, pod: Pod) -> None:
        """Have a router start with what is mounted, or load what was delivered."""
        if name not in self.routers():
            pod.text = pod.next_text = None
        elif pod.text is None:
            pod.text, pod.next_text = self.published(), None
        elif pod.next_text is not None and pod.loads_at <= self.now:
            pod.text, pod.next_text = pod.next_text, None

    def _run_set(self, live: Object, own: dict[str, Pod]) -> None:
        replicas, template = live["spec"]["replicas"], _template(live)
        ring = live["metadata"]["labels"][RING_LABEL]
        present = {pod.ordinal for pod in own.values()}
        for ordinal in range(replicas):
            if ordinal not in present:
                self._make(live, ingestor_pod(self.stack.name, ring, ordinal), ring, ordinal)
        for name, pod in own.items():
            if pod.ordinal >= replicas:
                self.end(name)
        if any(pod.ends_at is not None for pod in own.values()):
            return
        for name, pod in sorted(own.items(), key=lambda item: -item[1].ordinal):
            if pod.template != template:
                self.end(name)
                return
            if not self.is_ready(name):
                return

    def _run_deployment(self, live: Object, own: dict[str, Pod]) -> None:
        replicas, template = live["spec"]["replicas"], _template(live)
        present = {name: pod for name, pod in own.items() if pod.ends_at is None}
        new = [name for name, pod in present.items() if pod.template == template]
        old = [name for name in present if name not in new]
        while len(new) < replicas and len(new) + len(old) < replicas + bool(old):
            name = f"{live['metadata']['name']}-{next(self._names)}-p"
            self._make(live, name, "", -1)
            new.append(name)
        ready = sum(name in self.pods and self.is_ready(name) for name in (*new, *old))
        surplus = new[replicas:] or (old[:1] if ready > replicas or len(new) >= replicas else [])
        if surplus and (ready > replicas or not self.is_ready(surplus[0])):
            self.end(surplus[0])

    def _make(self, live: Object, name: str, ring: str, ordinal: int) -> None:
        owner = (live["kind"], live["metadata"]["name"])
        starts = self.now + self.delays.start_s
        zone = self.zones.get(name, "")
        self.pods[name] = Pod(owner, ring, ordinal, _template(live), starts, zone)
        for template in dig(live, "spec", "volumeClaimTemplates", default=[]):
            claim = f"{template['metadata']['name']}-{name}"
            self.claims.setdefault(claim, _claim_of(template, claim))

    def _tell(self, live: Object) -> None:
        """Write a workload's status."""
        owner = (live["kind"], live["metadata"]["name"])
        own = {name: pod for name, pod in self.pods.items() if pod.owner == owner}
        template = _template(live)
        present = own if live["kind"] == "StatefulSet" else {
            name: pod for name, pod in own.items() if pod.ends_at is None
        }  # fmt: skip
        updated = sum(pod.template == template for pod in present.values())
        whole = updated == len(present) >= live["spec"]["replicas"]
        status = live.get("status", {})
        revision = str(hash(template))
        live["status"] = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": len(present),
            "readyReplicas": sum(map(self.is_ready, present)),
            "updatedReplicas": updated,
            "updateRevision": revision,
            "currentRevision": revision if whole else status.get("currentRevision", revision),
        }

    # Where a cluster begins.

    @classmethod
    def of(cls, stack: ThanosStack, observed: Observed) -> Cluster:
        """Return a model of an observed cluster, its pods made of their workloads' templates."""
        cluster = cls(
            stack,
            observed.now,
            objects=json_copy(observed.objects),
            claims=json.loads(json.dumps(observed.claims or {})),
            expandable=observed.expandable,
            service_monitors=observed.service_monitors,
        )
        for ref in [ref for ref in cluster.objects if ref.kind in _WORKLOADS]:
            live = cluster.objects[ref]
            ring = dig(live, "metadata", "labels", RING_LABEL, default="")
            if ref.kind == "StatefulSet":
                cluster._adopt(live, ring, observed)
            elif ref.name != receive_name(stack.name):
                for _ in range(dig(live, "spec", "replicas", default=1)):
                    name = f"{ref.name}-{next(cluster._names)}-p"
                    cluster._make(live, name, "", -1)
                    cluster.pods[name].runs_at = cluster.now
            else:
                cluster._adopt_routers(live, observed.routers)
        cluster.drains = {name: drain.state for name, drain in observed.drains.items()}
        return cluster

    def _adopt(self, live: Object, ring: str, observed: Observed) -> None:
        ready = {i.ordinal: i for i in observed.ingestors.get(ring, ())}
        for ordinal in range(dig(live, "spec", "replicas", default=1)):
            name = ingestor_pod(self.stack.name, ring, ordinal)
            self._make(live, name, ring, ordinal)
            if ordinal in ready:
                self.pods[name].zone = ready[ordinal].zone
                self.pods[name].runs_at -= self.delays.start_s if ready[ordinal].ready else 0

    def _adopt_routers(self, live: Object, routers: Iterable[Router]) -> None:
        text = self.published()
        for router in routers:
            self._make(live, router.pod, "", -1)
            pod = self.pods[router.pod]
            pod.runs_at, pod.touched = self.now, router.annotation
            if text is not None and router.config_hash == config_hash(text):
                pod.text = text
            else:
                pod.text = ""
                self._deliver(pod, self.delays.unpushed_load_s)


def json_copy(objects: dict[Ref, Object]) -> dict[Ref, Object]:
    """Return a deep copy of objects of JSON."""
    return {ref: json.loads(json.dumps(live)) for ref, live in objects.items()}


def _claim_of(template: Object, name: str) -> Object:
    """Return a claim that a StatefulSet makes, as it is once it has a volume."""
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    metadata |= {"labels": dig(template, "metadata", "labels", default={})}
    spec: Object = {"storageClassName": "standard"} | json.loads(json.dumps(template["spec"]))
    status = {"phase": "Bound", "capacity": dict(spec["resources"]["requests"])}
    return {"metadata": metadata, "spec": spec, "status": status}


def _is_orphaning(live: Object) -> bool:
    return dig(live, "metadata", "deletionTimestamp") is not None


def _template(live: Any) -> str:
    return json.dumps(dig(live, "spec", "template"), sort_keys=True)
