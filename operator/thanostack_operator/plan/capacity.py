"""How far the volumes of a stack have what was asked for: the condition `VolumesGrown`.

A claim that asks for more is the driver's to follow. Most do it while the pod runs; some want a
new pod, and some fail and say so in the conditions of the claim. The operator restarts nothing: it
passes on what is said, and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import Object

from .conditions import Claim, reason_of
from .observed import dig, items_of
from .outcome import Event
from .times import Timers
from .volumes import (
    RingVolumes,
    capacity_of,
    class_of,
    growing,
    is_less,
    listed,
    request_of,
)

VOLUMES_GROWN = "VolumesGrown"
AS_REQUESTED = Claim(VOLUMES_GROWN, True, "AsRequested")
EXPANSION_REFUSED = "ExpansionRefused"
# How long a driver may take before it is told that a volume does not follow its claim.
FOLLOW_S = 120.0
_UNFOLLOWED = ("FileSystemResizePending", "NotGrown")
# The first one that holds of any ring is the condition's.
_REASONS = (EXPANSION_REFUSED, "StatefulSetAbsent", *_UNFOLLOWED, "Growing")
_CONDITIONS = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


def volumes_claim(volumes: Iterable[RingVolumes], timers: Timers) -> Claim:
    """Return the condition that says how far the volumes have what was asked for."""
    told = [found for ring in volumes for found in _told(ring, timers)]
    if not told:
        return AS_REQUESTED
    told.sort(key=lambda reason_and_text: _REASONS.index(reason_and_text[0]))
    return Claim(VOLUMES_GROWN, False, told[0][0], "; ".join(text for _, text in told))


def _told(ring: RingVolumes, timers: Timers) -> Iterator[tuple[str, str]]:
    """Yield what is to be said of a ring's volumes, with one word for it."""
    if ring.problem:
        yield EXPANSION_REFUSED, ring.problem
    elif ring.small or ring.unbound or ring.set_is_small:
        yield "Growing", growing(ring)
    if ring.runs_on:
        text = f"ring {ring.ring}: StatefulSet {ring.name} is not there, and is made anew"
        yield (
            "StatefulSetAbsent",
            f"{text}; its pods run on, and one that ends is missing until then",
        )
    behind = {
        claim: live
        for claim, live in ring.claims.items()
        if capacity_of(live) and is_less(capacity_of(live), request_of(live))
    }
    if not behind:
        return
    pending = [
        claim for claim, live in behind.items() if "FileSystemResizePending" in _states(live)
    ]
    is_late = timers.elapsed_s(f"resize/{ring.name}") >= FOLLOW_S
    reason = (_UNFOLLOWED[0] if pending else _UNFOLLOWED[1]) if is_late else "Growing"
    yield reason, f"ring {ring.ring}: {_behind(ring, behind, pending)}"


def _behind(ring: RingVolumes, behind: Iterable[str], pending: list[str]) -> str:
    """Return what claims have that have less than they ask for, in whose words, and a cure."""
    claim = (pending or [*behind])[0]
    live = ring.claims[claim]
    words = "; ".join(f"{kind}: {text}" if text else kind for kind, text in _states(live).items())
    has = f"{listed(tuple(behind))} ask for {request_of(live)} and have {capacity_of(live)}"
    has += f" ({words})" if words else ""
    if not pending:
        driver = f"the driver of StorageClass {class_of(live) or 'none'}"
        return f"{has}: {driver} has yet to do it; `kubectl describe pvc {claim}` says more"
    pod = claim[claim.index(ring.name) :]
    return (
        f"{has}: the file systems of {listed(tuple(pending))} grow when the kubelet does it; where "
        "that takes a new pod, delete one pod after another, each when the one before is ready: "
        f"`kubectl delete pod {pod}`"
    )


def _states(claim: Object) -> dict[str, str]:
    """Return the conditions of a claim that tell of its growth, with their messages."""
    found = {
        str(item.get("type")): str(item.get("message") or "")
        for item in items_of(dig(claim, "status"), "conditions")
        if item.get("status") == "True" and item.get("type") in _CONDITIONS
    }
    state = str(dig(claim, "status", "allocatedResourceStatuses", "storage", default=""))
    return found | ({state: ""} if state.endswith("Infeasible") else {})


def follow_events(stack: ThanosStack, claim: Claim) -> list[Event]:
    """Return the event that tells once of volumes which do not follow their claims."""
    if claim.reason not in _UNFOLLOWED or reason_of(stack, VOLUMES_GROWN) == claim.reason:
        return []
    return [Event("Warning", claim.reason, claim.message)]
