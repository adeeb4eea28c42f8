"""What would happen if a spec were applied: the first changes field by field, then every step.

The steps are found by running plans against a model of the cluster as it is now, until it rests.
What the model cannot know, as how long things take or what fails, the text does not claim.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.names import Object

from .comparison import APPLIED_ANNOTATION, differences
from .model import Cluster
from .observed import Observed
from .outcome import (
    CancelDrain,
    GrowClaim,
    Plan,
    ReplaceSet,
    SetFinalizers,
    StartDrain,
    TouchPod,
)
from .planner import plan
from .volumes import request_of

# Bound: hundreds of ingestors leave one by one, each in some ten ticks.
ROUNDS_MAX = 5000
REFUSED = "Nothing would be done:"
"""First line where the spec is not acted on; the others say why."""
_WIDTH_MAX = 100
_REQUEST = "spec.resources.requests.storage"


def preview(stack: ThanosStack, observed: Observed, *, operator_version: str) -> list[str]:
    """Return lines of text: what changes at once, then the steps until the stack rests.

    Args:
        stack: the resource as it would be, with the status that it has.
        observed: the cluster as it is.
        operator_version: the version of images where the spec names none.
    """
    first = plan(stack, observed, operator_version=operator_version)
    lines = ["Changes now:", *(_indented(_changes(first, observed)) or ["  none"])]
    refused = [wait.reason for wait in first.waiting if wait.step == "act on the spec"]
    if refused:
        return [REFUSED, *_indented(iter(refused))]
    return [*lines, "", "Steps that follow:", *_steps(stack, observed, operator_version)]


def _indented(lines: Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _changes(first: Plan, observed: Observed) -> Iterator[str]:
    live = {(ref.kind, ref.name): found for ref, found in observed.objects.items()}
    for wanted in first.apply:
        key = (wanted["kind"], wanted["metadata"]["name"])
        if key not in live:
            yield f"+ {key[0]} {key[1]}"
            continue
        yield f"~ {key[0]} {key[1]}"
        yield from _fields(wanted, live[key])
    for action in first.actions:
        if isinstance(action, GrowClaim):
            claim = (observed.claims or {}).get(action.name, {})
            yield f"~ PersistentVolumeClaim {action.name}"
            yield f"    {_REQUEST}: {_short(request_of(claim))} -> {_short(action.size)}"
    for ref in first.prune:
        yield f"- {ref.kind} {ref.name}"


def _fields(wanted: Object, live: Object) -> Iterator[str]:
    told = [d for d in differences(wanted, live) if d.path[-1] != APPLIED_ANNOTATION]
    for difference in told:
        yield f"    {difference.name}: {_short(difference.old)} -> {_short(difference.new)}"
    if not told:
        yield "    fields that are no longer asked for go"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH_MAX else text[: _WIDTH_MAX - 1] + "…"


def _steps(stack: ThanosStack, observed: Observed, version: str) -> list[str]:
    """Return what plans do one after another, in the order in which it is first done."""
    cluster = Cluster.of(stack, observed)
    lines: list[str] = []
    done: dict[tuple[str, str], str] = {}
    quiet = 0
    for _ in range(ROUNDS_MAX):
        seen = cluster.observe()
        step = plan(cluster.stack, seen, operator_version=version)
        lines += [f"  {len(lines) + i + 1}. {told}" for i, told in enumerate(_told(step, done))]
        cluster.carry_out(step)
        cluster.tick()
        is_at_rest = not (step.apply or step.actions or step.prune or step.waiting)
        stall = _message(step, "Stalled")
        quiet = quiet + 1 if is_at_rest and (stall or _message(step, "Ready")) else 0
        if quiet > 1 and stall:
            return [*lines, f"  … and is not as it should be: {stall}"]
        if quiet > 1:
            return lines or ["  none: the stack is as it should be"]
        if stack.deleting and not cluster.stack.finalizers:
            return [*lines, f"  {len(lines) + 1}. the resource and its objects go; volumes stay"]
    waits = "; ".join(f"{wait.step}: {wait.reason}" for wait in step.waiting[:3])
    return [*lines, f"  … and does not come to rest: {waits or 'components are not ready'}"]


def _message(step: Plan, condition: str) -> str:
    """Return the message of a condition that is True; empty if it is not."""
    conditions = (step.status or {}).get("conditions", [])
    held = (c["message"] for c in conditions if (c["type"], c["status"]) == (condition, "True"))
    return next(held, "")


def _told(step: Plan, done: dict[tuple[str, str], str]) -> list[str]:
    """Return the lines of one plan.

    Args:
        step: the plan.
        done: what was told of each object, so that the same is not told twice.
    """
    lines = [event.message for event in step.events if event.reason in _TOLD_EVENTS]
    for wanted in step.apply:
        key = (wanted["kind"], wanted["metadata"]["name"])
        verb = "change" if key in done else "apply"
        replicas = wanted.get("spec", {}).get("replicas")
        text = f"{verb} {key[0]} {key[1]}" + (f", {replicas} replicas" if replicas else "")
        done[key] = text
        lines.append(text)
    for action in step.actions:
        match action:
            case StartDrain(pod):
                lines.append(f"drain {pod}")
            case CancelDrain(pod):
                lines.append(f"have {pod} serve again")
            case TouchPod(pod):
                lines.append(f"have router {pod} load the hashrings")
            case GrowClaim(name, size):
                lines.append(f"grow PersistentVolumeClaim {name} to {size}")
            case ReplaceSet(ref):
                lines.append(f"delete StatefulSet {ref.name}, its pods run on")
            case SetFinalizers(names):
                lines.append(f"set finalizers: {', '.join(names) or 'none'}")
    lines += [f"delete {ref.kind} {ref.name}" for ref in step.prune]
    return lines


_TOLD_EVENTS = ("VersionSkew", "RingChanged", "HistoryHidden", "IngestorRemoved", "DrainTimeout")
