"""What was seen of a stack at one moment: plain values, read by `observe.py` or a test's model.

Objects are the API server's JSON. What pods themselves say (a router's ring hash, an ingestor's
drain) is beside them, and so is how asking failed: not knowing is a value, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from thanostack_operator.manifests.names import Object


@dataclass(frozen=True, order=True)
class Ref:
    """Which object: its kind and name, in the stack's namespace."""

    api_version: str
    kind: str
    name: str
    uid: str = field(default="", compare=False)


@dataclass(frozen=True)
class Ingestor:
    """One endpoint of a ring's EndpointSlices.

    Args:
        ordinal: of its pod.
        ready: serving and not terminating. The Service publishes unready addresses, so that they
            can be read while they drain, and the slice's own `ready` is always true.
        zone: of its node; empty if the node has none.
    """

    ordinal: int
    ready: bool
    terminating: bool = False
    zone: str = ""


@dataclass(frozen=True)
class Router:
    """One router pod whose container runs, terminating ones included: they finish requests.

    Args:
        config_hash: `thanos_receive_config_hash` as it reports it; None if it does not answer.
        annotation: the ring hash that its pod was last touched with; empty if never.
        error: why there is no hash.
    """

    pod: str
    ready: bool
    config_hash: float | None
    annotation: str = ""
    error: str = ""


DrainState = Literal["serving", "draining", "drained", "failed", "unknown"]


@dataclass(frozen=True)
class Drain:
    """What an ingestor answers to `GET /-/drain`; unknown, with ``error``, if it does not.

    Args:
        never_ran: no container of its pod ever started and its claim has no volume, or is gone
            itself: it holds nothing, from this life or an earlier one.
    """

    state: DrainState
    error: str = ""
    never_ran: bool = False


@dataclass(frozen=True)
class Observed:
    """Everything that a plan may depend on beside the resource itself.

    Args:
        now: seconds since the epoch.
        objects: the live objects that carry the stack's label, by reference.
        namesakes: the live objects that have a name of the stack's and not its label.
        ingestors: by ring name, whatever the ordinals; rings that left the spec included.
        pods: names of the ingestor pods that exist, terminating ones included.
        pod_problems: why pods of the stack do not run, by name, in the kubelet's words.
        refusals: why the API server refuses pods of a StatefulSet, by its name.
        addresses: of the stack's pods, by name.
        claims: the stack's volume claims by name, and those that its ingestors use without its
            label; None where asking is not permitted.
        expandable: whether claims of a StorageClass may grow, by its name, of those that are to;
            a class that cannot be read is missing.
        failures: what was refused when the last plan was carried out, by "Kind/name".
        routers: see `Router`.
        drains: by pod name; asked only of ingestors outside their ring or not ready.
        missing: names of Secrets and ConfigMaps that the spec mentions and that are not there, as
            "Secret/name"; None where asking is not permitted.
        service_monitors: whether the cluster knows ServiceMonitors.
    """

    now: float
    objects: dict[Ref, Object] = field(default_factory=dict)
    namesakes: dict[Ref, Object] = field(default_factory=dict)
    ingestors: dict[str, tuple[Ingestor, ...]] = field(default_factory=dict)
    pods: frozenset[str] = frozenset()
    pod_problems: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    claims: dict[str, Object] | None = field(default_factory=dict)
    expandable: dict[str, bool] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    routers: tuple[Router, ...] = ()
    drains: dict[str, Drain] = field(default_factory=dict)
    missing: frozenset[str] | None = frozenset()
    service_monitors: bool = False

    def find(self, kind: str, name: str) -> Object | None:
        """Return the live object of that kind and name, or None."""
        for ref, live in self.objects.items():
            if ref.kind == kind and ref.name == name:
                return live
        return None

    def refused(self) -> dict[str, str]:
        """Return the failures that will be refused again: not those of a server busy or gone."""
        return {
            name: why
            for name, why in self.failures.items()
            if why.startswith("4") and not why.startswith(("409", "429"))
        }


def dig(tree: Any, *path: str | int, default: Any = None) -> Any:
    """Return the value at a path of keys and positions in JSON, or ``default``."""
    for step in path:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return default
    return default if tree is None else tree


def items_of(tree: Any, key: str) -> list[dict[str, Any]]:
    """Return the objects of a list in JSON that may be anything, as a status may."""
    found = dig(tree, key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
