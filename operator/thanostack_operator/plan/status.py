"""The whole status of a stack, from what a plan found.

Pure data in camelCase, the form that `api/status.py` describes. A plan that found nothing new makes
the status that is already there, letter for letter, so no write is needed. Whatever stood there
before is read with care: it may be lost, old, or edited.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.hashrings import config_hash
from thanostack_operator.manifests.names import ingestor_pod

from .capacity import AS_REQUESTED, EXPANSION_REFUSED
from .checks import Problem
from .conditions import MESSAGE_MAX, Claim, conditions
from .observed import Observed, Ref, dig, items_of
from .ownership import NAME_TAKEN
from .ring import RingStep
from .skew import version_claim
from .times import Timers, seconds, timestamp
from .workload import Component

FOREIGN_FIELDS = "ForeignFields"


@dataclass
class Findings:
    """What a plan found, as far as the status tells it.

    Args:
        components: in their order.
        step: the hashrings after this plan.
        problems: why nothing is done.
        upgrading: names of components that change, are held, or roll out.
        stalled: components that do not get on, with the reason.
        drift: what others changed, one sentence each.
        contested: what others change whenever it is applied, one sentence each.
        additions: what others added, one sentence each.
        volumes: the condition that tells of the rings' volumes.
        pending: what this plan does and what waits, one phrase each; empty at rest.
        owned: the objects of the stack after this plan.
        version: of the images that were asked for.
        operator_version: of the images that this operator would take by itself.
    """

    components: list[Component]
    step: RingStep = field(default_factory=RingStep)
    problems: list[Problem] = field(default_factory=list)
    upgrading: list[str] = field(default_factory=list)
    stalled: dict[str, str] = field(default_factory=dict)
    drift: list[str] = field(default_factory=list)
    contested: list[str] = field(default_factory=list)
    additions: list[str] = field(default_factory=list)
    volumes: Claim = AS_REQUESTED
    pending: list[str] = field(default_factory=list)
    owned: list[Ref] = field(default_factory=list)
    version: str = ""
    operator_version: str = ""

    @property
    def rolling(self) -> list[str]:
        """Return the components whose pods are not all made or replaced yet."""
        return [component.name for component in self.components if component.rolling]


def status_of(
    stack: ThanosStack, observed: Observed, findings: Findings, timers: Timers
) -> dict[str, Any]:
    """Return the status."""
    status: dict[str, Any] = {
        "observedGeneration": stack.generation,
        "version": _version(stack, findings),
        "ingestors": _ingestors(findings.components),
        "conditions": conditions(stack, _claims(stack, observed, findings), observed.now),
        "components": [_component(component) for component in findings.components],
        "rings": _rings(stack, findings.step),
        "transitions": timers.transitions(),
        "inventory": [
            {"apiVersion": ref.api_version, "kind": ref.kind, "name": ref.name, "uid": ref.uid}
            for ref in sorted(findings.owned)
        ],
    }
    if findings.step.text is not None:
        status["hashrings"] = _hashrings(stack, observed, findings.step.text)
    return status


def _version(stack: ThanosStack, findings: Findings) -> str:
    """Return the version that every component has; while they change, the former one."""
    changing = findings.upgrading or findings.rolling
    if findings.version and not changing and all(c.exists for c in findings.components):
        return findings.version
    return str(dig(stack.status, "version", default=""))


def _ingestors(components: Iterable[Component]) -> str:
    rings = [component for component in components if component.kind == "StatefulSet"]
    return f"{sum(ring.ready for ring in rings)}/{sum(ring.desired for ring in rings)}"


def _component(component: Component) -> dict[str, Any]:
    return {
        "name": component.name,
        "desired": component.desired,
        "ready": component.ready,
        "updated": component.updated,
        "version": component.version,
        "message": component.problem[:MESSAGE_MAX],
    }


def _rings(stack: ThanosStack, step: RingStep) -> list[dict[str, Any]]:
    """Return the rings of the spec in its order, then those that have to leave yet."""
    former = {str(dig(r, "name")): r for r in items_of(stack.status, "rings")}
    names = [ring.name for ring in stack.spec.receive.rings]
    names += [name for name in step.members if name not in names]
    return [
        {
            "name": name,
            "epoch": _epoch(former.get(name), step, name),
            "members": [
                ingestor_pod(stack.name, name, m.ordinal) for m in step.members.get(name, ())
            ],
            "waiting": step.waiting.get(name, "")[:MESSAGE_MAX],
        }
        for name in names
    ]


def _epoch(former: Any, step: RingStep, name: str) -> int:
    before = dig(former, "epoch", default=0)
    before = before if isinstance(before, int) else 0
    if name in step.changed:
        return before + 1
    # A ring that is published has an epoch, whatever became of the status.
    return max(before, int(name in step.members))


def _hashrings(stack: ThanosStack, observed: Observed, text: str) -> dict[str, Any]:
    expected = config_hash(text)
    former = dig(stack.status, "hashrings", default={})
    same = dig(former, "hash") == expected and seconds(dig(former, "changedAt")) is not None
    return {
        "hash": expected,
        "changedAt": former["changedAt"] if same else timestamp(observed.now),
        "acknowledged": sorted(r.pod for r in observed.routers if r.config_hash == expected),
        "missing": sorted(r.pod for r in observed.routers if r.config_hash != expected),
    }


def _claims(stack: ThanosStack, observed: Observed, findings: Findings) -> list[Claim]:
    available = _available(findings.components)
    ring = _ring_stable(stack, findings.step)
    stalled = _stalled(findings, observed)
    wrong = [problem for problem in findings.problems if problem.reason != NAME_TAKEN]
    valid = _joined("SpecValid", False, wrong) if wrong else Claim("SpecValid", True, "Valid")
    ready, reconciling = _ready(stack, findings, stalled, [valid, available, ring])
    return [
        ready,
        reconciling,
        stalled,
        available,
        ring,
        _no_drift([*findings.drift, *findings.contested], findings.additions),
        findings.volumes,
        _upgrade(findings),
        _paused(stack),
        valid,
        version_claim(stack.spec.version, findings.operator_version),
    ]


def _ready(
    stack: ThanosStack, findings: Findings, stalled: Claim, good: list[Claim]
) -> tuple[Claim, Claim]:
    """Return `Ready` and `Reconciling`: never both True, neither with `Stalled`."""
    paused = _is_paused(stack)
    busy = stack.deleting or (bool(findings.pending or findings.rolling) and not paused)
    why = [stalled] if stalled.holds else [claim for claim in good if not claim.holds]
    doing = "; ".join(findings.pending[:5] or findings.rolling)
    if not why and not busy:
        ready = Claim("Ready", True, "Ready", "everything that was asked for runs")
        return ready, Claim("Reconciling", False, "AtRest")
    first = why[0] if why else Claim("", False, "Reconciling", doing)
    ready = Claim("Ready", False, first.reason, first.message)
    if stalled.holds or paused:
        return ready, Claim("Reconciling", False, "Stalled" if stalled.holds else "Paused")
    return ready, Claim("Reconciling", True, "Reconciling", doing or first.message)


def _available(components: Iterable[Component]) -> Claim:
    missing = [
        component.trouble() for component in components if component.ready < component.desired
    ]
    if missing:
        return Claim("ComponentsAvailable", False, "PodsNotReady", "; ".join(missing))
    return Claim("ComponentsAvailable", True, "AllReady")


def _ring_stable(stack: ThanosStack, step: RingStep) -> Claim:
    if step.text is None:
        reasons = [f"ring {name}: {why}" for name, why in step.waiting.items()]
        return Claim("RingStable", False, "NotPublished", "; ".join(reasons))
    reasons = [*step.notes, *(f"ring {name}: {why}" for name, why in step.waiting.items())]
    if step.publishes or reasons:
        return Claim("RingStable", False, "RingChanging", "; ".join(reasons))
    members = sum(len(of) for of in step.members.values())
    rings = len(stack.spec.receive.rings)
    return Claim("RingStable", True, "AtRest", f"{rings} rings of {members} ingestors")


def _stalled(findings: Findings, observed: Observed) -> Claim:
    if findings.problems:
        return _joined("Stalled", True, findings.problems)
    if findings.stalled:
        reasons = "; ".join(findings.stalled.values())
        return Claim("Stalled", True, "RolloutStalled", reasons)
    if findings.volumes.reason == EXPANSION_REFUSED:
        return Claim("Stalled", True, findings.volumes.reason, findings.volumes.message)
    if findings.contested:
        return Claim("Stalled", True, "Contested", "; ".join(findings.contested))
    refused = [f"{name}: {why}" for name, why in sorted(observed.refused().items())]
    if refused:
        return Claim("Stalled", True, "RequestRefused", "; ".join(refused))
    return Claim("Stalled", False, "NotStalled")


def _joined(kind: str, holds: bool, problems: list[Problem]) -> Claim:
    return Claim(kind, holds, problems[0].reason, "; ".join(p.message for p in problems))


def _no_drift(drift: list[str], additions: list[str]) -> Claim:
    if drift or additions:
        # Additions come first: which of them were told is read from here.
        reason = "Drifted" if drift else FOREIGN_FIELDS
        return Claim("NoDrift", False, reason, "; ".join([*additions, *drift]))
    return Claim("NoDrift", True, "AsApplied")


def _upgrade(findings: Findings) -> Claim:
    if not findings.upgrading:
        return Claim("UpgradeInProgress", False, "UpToDate")
    names = ", ".join(findings.upgrading)
    stalled = [why for name, why in findings.stalled.items() if name in findings.upgrading]
    if stalled:
        return Claim("UpgradeInProgress", True, "RolloutStalled", f"{names}; {stalled[0]}")
    return Claim("UpgradeInProgress", True, "RollingOut", names)


def _is_paused(stack: ThanosStack) -> bool:
    return stack.spec.paused and not stack.deleting


def _paused(stack: ThanosStack) -> Claim:
    if _is_paused(stack):
        return Claim("Paused", True, "Paused", "spec.paused is set: nothing but status is written")
    return Claim("Paused", False, "Active")
