"""What a plan says: objects to apply and to prune, actions on pods, what waits and why, status.

`apply.py` carries it out in this order: apply, actions, prune, status, events. A plan whose parts
are all empty is a stack at rest; carrying it out makes no request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from thanostack_operator.manifests.names import Object

from .observed import Ref


@dataclass(frozen=True)
class TouchPod:
    """Annotate a router's pod with the ring's hash, so that its kubelet delivers the ring now."""

    pod: str
    value: str


@dataclass(frozen=True)
class StartDrain:
    """`POST /-/drain` to an ingestor that has left its ring."""

    pod: str


@dataclass(frozen=True)
class CancelDrain:
    """`DELETE /-/drain` to an ingestor that is wanted again."""

    pod: str


@dataclass(frozen=True)
class GrowClaim:
    """Have a volume claim ask for more, unless it was written to since it was seen."""

    name: str
    size: str
    uid: str
    resource_version: str


@dataclass(frozen=True)
class ReplaceSet:
    """Delete a StatefulSet and leave its pods, unless it was written to since it was seen.

    The next plan finds none and makes it, with volumes of ``size``.
    """

    ref: Ref
    resource_version: str
    size: str


@dataclass(frozen=True)
class SetFinalizers:
    """Replace the resource's finalizers by these."""

    finalizers: tuple[str, ...]


Action = TouchPod | StartDrain | CancelDrain | GrowClaim | ReplaceSet | SetFinalizers


@dataclass(frozen=True)
class Waiting:
    """A step that does not happen yet.

    Args:
        step: what would be done, for people: "ring default: admit ingestor 3".
        reason: what it waits for: "router x-receive-abc has ring 17, not 18".
    """

    step: str
    reason: str


@dataclass(frozen=True)
class Event:
    """A Kubernetes event on the resource, posted on transitions only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do now. Pure data; see the module.

    Args:
        apply: objects that are missing or differ, whole, in order.
        prune: objects that the stack owns and no longer asks for.
        status: the whole new status, JSON; equal to the former one if nothing changed.
        recheck_s: latest time of the next look even if nothing wakes the loop.
    """

    apply: tuple[Object, ...] = ()
    actions: tuple[Action, ...] = ()
    prune: tuple[Ref, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    recheck_s: float = 60.0
