"""The hashrings as last published, read back from the live ConfigMap.

    ConfigMap x-hashrings ── hash of its text = its annotation ──► what the operator wrote: trusted
                          └─ anything else, or gone ────────────► damage: status.rings says who was
                                                                  in, and the text is made anew

The annotation is written with the text, so an edit by anybody else shows, however plausible it is.
Never raises: whatever stands there is judged, not trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.hashrings import Member, config_hash, read_members
from thanostack_operator.manifests.names import (
    HASHRINGS_ANNOTATION,
    HASHRINGS_KEY,
    hashrings_name,
    ingestor_pod,
)

from .observed import Observed, dig, items_of

# Bound: as many ingestors as a ring may have; a text or status that names others was edited, and
# believing it would start that many pods.
ORDINALS_MAX = 100

Members = Mapping[str, tuple[Member, ...]]


@dataclass(frozen=True)
class Published:
    """What stands in the ConfigMap, or stood.

    Args:
        text: as it stands; None if it was never published or is damaged.
        members: by ring, in numeric order.
        damage: why the text is not what the operator wrote; empty if it is, or never was.
    """

    text: str | None = None
    members: Members = field(default_factory=dict)
    damage: str = ""


def annotation_of(text: str) -> str:
    """Return the annotation that the ConfigMap and touched routers carry for a text."""
    return str(int(config_hash(text)))


def read_published(stack: ThanosStack, observed: Observed) -> Published:
    """Return what was last published for a stack."""
    name = hashrings_name(stack.name)
    live = observed.find("ConfigMap", name)
    if live is None:
        remembered = _remembered(stack, observed)
        return Published(None, remembered, f"ConfigMap {name} is gone" if remembered else "")
    text = dig(live, "data", HASHRINGS_KEY)
    written = dig(live, "metadata", "annotations", HASHRINGS_ANNOTATION)
    found = _read(text)
    if isinstance(text, str) and found and written == annotation_of(text):
        return Published(text, found)
    rings = {ring.name for ring in stack.spec.receive.rings}
    # Of a ring that left the spec only the damaged text knows; it leaves, nothing drains before.
    trusted = _remembered(stack, observed) or {r: of for r, of in found.items() if r in rings}
    return Published(None, trusted, f"ConfigMap {name} is not as the operator wrote it")


def _read(text: Any) -> Members:
    try:
        found = {ring: tuple(sorted(of)) for ring, of in read_members(str(text)).items() if of}
    except (ValueError, RecursionError):
        return {}
    return found if all(m.ordinal < ORDINALS_MAX for of in found.values() for m in of) else {}


def _remembered(stack: ThanosStack, observed: Observed) -> Members:
    """Return the members that the status names, with the zones that their nodes have now."""
    known = {ring.name: ring for ring in stack.spec.receive.rings}
    rings: dict[str, tuple[Member, ...]] = {}
    for item in items_of(stack.status, "rings"):
        name = dig(item, "name", default="")
        if name not in known:
            continue
        zones = {i.ordinal: i.zone for i in observed.ingestors.get(name, ())}
        heeded = known[name].zones == "Auto"
        ordinals = sorted(_ordinals(stack.name, name, dig(item, "members", default=[])))
        if ordinals:
            rings[name] = tuple(
                Member(ordinal, zones.get(ordinal, "") if heeded else "") for ordinal in ordinals
            )
    return rings


def _ordinals(stack: str, ring: str, pods: Any) -> set[int]:
    prefix = ingestor_pod(stack, ring, 0)[:-1]
    names = [str(pod) for pod in pods] if isinstance(pods, list) else []
    tails = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    return {int(tail) for tail in tails if tail.isdecimal() and int(tail) < ORDINALS_MAX}
