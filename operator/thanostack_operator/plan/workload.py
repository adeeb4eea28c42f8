"""One workload of a stack and how it is: what its controller says, what its pods say.

Of ingestors the endpoints are counted, not the StatefulSet's numbers: those count the ones that are
leaving, and may count one as available that is ending.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import Object, ingestor_name, query_name, receive_name

from .observed import Observed, dig

# What the kubelet says of a container that will not start by being waited for.
_TERMINAL = (
    "CrashLoopBackOff", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
)  # fmt: skip
_PROBLEM_MAX = 1000


@dataclass(frozen=True)
class Component:
    """One workload and how it is.

    Args:
        kind: Deployment or StatefulSet.
        name: of the object.
        desired: pods that it should have.
        ready: of these, ready ones.
        updated: pods with the present template.
        version: tag of the live image; empty if there is none.
        rolling: whether its controller still has to replace or make pods.
        problem: what keeps a pod from running, if anything: "x-query-7c…: ImagePullBackOff".
        terminal: whether waiting does not help against ``problem``.
        exists: whether the object does.
    """

    kind: str
    name: str
    desired: int
    ready: int = 0
    updated: int = 0
    version: str = ""
    rolling: bool = False
    problem: str = ""
    terminal: bool = False
    exists: bool = False

    @property
    def is_whole(self) -> bool:
        """Return whether every pod is there, new and ready."""
        return self.exists and not self.rolling and self.ready >= self.desired

    def trouble(self) -> str:
        """Return why it is not whole, for people."""
        if not self.exists and self.ready < self.desired:
            return f"{self.name} is not made yet"
        doing = "rolls out" if self.rolling else "is not whole"
        text = f"{self.name} {doing}: {self.ready} of {self.desired} pods are ready"
        return f"{text} ({self.problem})" if self.problem else text


def components(stack: ThanosStack, observed: Observed) -> list[Component]:
    """Return the components in the order in which they change."""
    spec = stack.spec
    found = []
    for ring in spec.receive.rings:
        name = ingestor_name(stack.name, ring.name)
        wanted = [i for i in observed.ingestors.get(ring.name, ()) if i.ordinal < ring.replicas]
        ready = sum(ingestor.ready for ingestor in wanted)
        found.append(_component("StatefulSet", name, ring.replicas, ready, observed))
    for name, replicas in (
        (receive_name(stack.name), spec.receive.routers.replicas),
        (query_name(stack.name), spec.query.replicas),
    ):
        found.append(_component("Deployment", name, replicas, None, observed))
    return found


def _component(
    kind: str, name: str, desired: int, ready: int | None, observed: Observed
) -> Component:
    live = observed.find(kind, name)
    if live is None:
        # Ingestors outlive a StatefulSet that is being replaced.
        return Component(kind, name, desired, ready=min(desired, ready or 0))
    status = live.get("status") or {}
    problem, terminal = _problem(kind, name, observed.pod_problems)
    refusal = observed.refusals.get(name) or _refusal(live)
    return Component(
        kind,
        name,
        desired,
        ready=min(desired, int(status.get("readyReplicas", 0) if ready is None else ready)),
        updated=int(status.get("updatedReplicas", 0)),
        version=_version(live),
        rolling=is_rolling(live),
        problem=problem or refusal[:_PROBLEM_MAX],
        terminal=terminal,
        exists=True,
    )


def is_rolling(live: Object) -> bool:
    """Return whether a workload's controller still has pods to make or to replace."""
    status = live.get("status") or {}
    generation = int(dig(live, "metadata", "generation", default=0))
    if generation > int(status.get("observedGeneration", 0)):
        return True
    replicas = int(dig(live, "spec", "replicas", default=1))
    if int(status.get("updatedReplicas", 0)) >= replicas:
        # A Deployment's old pods count until they are gone.
        return live["kind"] == "Deployment" and int(status.get("replicas", 0)) > replicas
    revisions = status.get("currentRevision"), status.get("updateRevision")
    return live["kind"] == "Deployment" or revisions[0] != revisions[1]


def _refusal(live: Object) -> str:
    """Return why the API server refuses pods of a Deployment, which its own status tells."""
    conditions = dig(live, "status", "conditions", default=[])
    failures = [c for c in conditions if (c["type"], c["status"]) == ("ReplicaFailure", "True")]
    return str(failures[0].get("message") or "") if failures else ""


def _version(live: Object) -> str:
    image = str(dig(live, "spec", "template", "spec", "containers", 0, "image", default=""))
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def _problem(kind: str, name: str, problems: dict[str, str]) -> tuple[str, bool]:
    """Return the gravest problem of a component's pods and whether it is terminal."""
    tail = "[0-9]+" if kind == "StatefulSet" else "[a-z0-9]+-[a-z0-9]+"
    pattern = re.compile(f"{re.escape(name)}-{tail}")
    own = [(pod, why) for pod, why in sorted(problems.items()) if pattern.fullmatch(pod)]
    own.sort(key=lambda item: not item[1].startswith(_TERMINAL))
    if not own:
        return "", False
    return f"{own[0][0]}: {own[0][1]}"[:_PROBLEM_MAX], own[0][1].startswith(_TERMINAL)
