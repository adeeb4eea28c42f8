"""Conditions: what holds of a stack, why, and since when.

True is good but for `Reconciling`, `Stalled`, `UpgradeInProgress` and `Paused`. `Ready`,
`Reconciling` and `Stalled` follow kstatus, so that `kubectl wait`, Argo CD and Flux understand
them: at most one of the three is True.

`lastTransitionTime` is kept while the status is the same, so a stack at rest has a status that
never changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thanostack_operator.api.stack import ThanosStack

from .observed import items_of
from .outcome import Event
from .times import seconds, timestamp

MESSAGE_MAX = 4096
_TELLING = {
    # Which flips are worth an event, and how it is called.
    ("Ready", "True"): ("Normal", "Ready"),
    ("SpecValid", "False"): ("Warning", "SpecInvalid"),
    ("SpecValid", "True"): ("Normal", "SpecValid"),
    ("Stalled", "True"): ("Warning", "Stalled"),
    ("VersionSupported", "False"): ("Warning", "VersionSkew"),
    ("ComponentsAvailable", "False"): ("Warning", "ComponentsNotAvailable"),
    ("UpgradeInProgress", "True"): ("Normal", "UpgradeStarted"),
    ("UpgradeInProgress", "False"): ("Normal", "UpgradeFinished"),
    ("VolumesGrown", "True"): ("Normal", "VolumesGrown"),
    ("Paused", "True"): ("Normal", "Paused"),
    ("Paused", "False"): ("Normal", "Resumed"),
}
# What is told of a stack that had no status: the rest is as everybody expects of a new one.
_TOLD_AT_FIRST = ("Ready", "SpecInvalid", "Stalled", "Paused", "VersionSkew")
# Of these, when they are bad, another message is worth an event although the status stays.
_TELLING_WHY = ("SpecValid", "Stalled", "VersionSupported")


@dataclass(frozen=True)
class Claim:
    """One condition without its times.

    Args:
        holds: its status; None is Unknown.
        reason: one word.
        message: why, for people.
    """

    type: str
    holds: bool | None
    reason: str
    message: str = ""


def conditions(stack: ThanosStack, claims: Iterable[Claim], now: float) -> list[dict[str, Any]]:
    """Return claims as conditions, with the former times where nothing flipped."""
    former = _former(stack)
    return [_condition(claim, former.get(claim.type), stack.generation, now) for claim in claims]


def _former(stack: ThanosStack) -> dict[str, Mapping[str, Any]]:
    return {str(item.get("type")): item for item in items_of(stack.status, "conditions")}


def reason_of(stack: ThanosStack, condition: str) -> str:
    """Return the reason that a condition has in the status; empty if it is not there."""
    return str(_former(stack).get(condition, {}).get("reason", ""))


def is_told(stack: ThanosStack, condition: str, text: str) -> bool:
    """Return whether the message of a condition has a text already."""
    return text in str(_former(stack).get(condition, {}).get("message", ""))


def _condition(
    claim: Claim, former: Mapping[str, Any] | None, generation: int, now: float
) -> dict[str, Any]:
    status = {True: "True", False: "False", None: "Unknown"}[claim.holds]
    since = timestamp(now)
    if former and former.get("status") == status and seconds(former.get("lastTransitionTime")):
        since = former["lastTransitionTime"]
    return {
        "type": claim.type,
        "status": status,
        "reason": claim.reason,
        "message": claim.message[:MESSAGE_MAX],
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def flips(stack: ThanosStack, after: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Return the events that tell which conditions flipped, or are still bad for another reason."""
    former = _former(stack)
    told = {condition["type"]: condition for condition in after}
    if told["SpecValid"]["status"] == "False":
        told.pop("Stalled")  # it would say the same
    events = []
    for condition in told.values():
        kind, reason = _TELLING.get((condition["type"], condition["status"]), ("", ""))
        before = former.get(condition["type"])
        if kind and (_says_other(before, condition) if before else reason in _TOLD_AT_FIRST):
            message = condition["message"] or f"{condition['type']} is {condition['status']}"
            events.append(Event("Warning" if kind == "Warning" else "Normal", reason, message))
    return events


def _says_other(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    if before.get("status") != after["status"]:
        return True
    tells_why = after["type"] in _TELLING_WHY and after["reason"] != "Valid"
    return tells_why and before.get("message") != after["message"]


def invalid_status(stack: ThanosStack, problems: Iterable[str], *, now: float) -> dict[str, Any]:
    """Return the status of a stack whose spec cannot be read; all else in it stays.

    Args:
        stack: the resource with an empty spec in the place of its own.
        problems: one sentence each.
        now: seconds since the epoch.
    """
    former = dict(stack.status or {})
    message = "; ".join(problems)
    claims = [
        Claim("Ready", False, "SpecInvalid", "the spec cannot be used; what runs stays as it is"),
        Claim("Reconciling", False, "SpecInvalid"),
        Claim("Stalled", True, "SpecInvalid", message),
        Claim("SpecValid", False, "SpecInvalid", message),
    ]
    told = conditions(stack, claims, now)
    replaced = {claim.type for claim in claims}
    others = [item for name, item in _former(stack).items() if name not in replaced]
    return former | {"observedGeneration": stack.generation, "conditions": [*told, *others]}
