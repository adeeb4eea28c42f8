"""Which workload may change its pods now: one at a time, in order, and only from a sound place.

    ring, ring, … ──► routers ──► queriers        (spec order)

A workload whose template would change keeps the live template while an earlier one rolls out, is
not whole, or has yet to change; and while the hashrings move. Everything else of it, replicas
foremost, is applied all the same. So an upgrade that fails stops by itself at the first component
that does not become ready, and going back is the same thing in the same order: a workload's own
trouble never keeps its own cure away.

What is not held: the first creation; a component of which no pod is ready, which has nothing to
lose; queriers that have to know a ring before it is written to. Hashrings that no router
acknowledges stop rollouts for `PROGRESS_DEADLINE_S` at most: the rollout may be the cure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from thanostack_operator.manifests.names import (
    Object,
)

from .comparison import Difference, differences, template_changes, with_live_template
from .contests import Contests, is_contested
from .observed import Observed
from .outcome import Waiting
from .times import Timers
from .workload import Component

PROGRESS_DEADLINE_S = 600.0


@dataclass(frozen=True)
class Rules:
    """What holds rollouts beside the components themselves, and what does not.

    Args:
        moves: why no pod may be replaced now for the hashrings' sake; empty if one may.
        further: by name, why that component may not change yet, whatever else holds.
        urgent: names of components that may change whatever the others do.
    """

    moves: str = ""
    further: Mapping[str, str] = field(default_factory=dict)
    urgent: frozenset[str] = frozenset()


@dataclass
class Rollouts:
    """What the components' objects become.

    Args:
        objects: the workloads to have, by kind and name; some with their live template.
        differences: of those from live ones, by kind and name; of new ones there are none.
        held: names of those that keep their live template although another is desired.
        changing: names of those that get another template by this plan.
        stalled: components that do not get on, with the reason.
        waiting: what is held, and why.
    """

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    differences: dict[tuple[str, str], list[Difference]] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    changing: list[str] = field(default_factory=list)
    stalled: dict[str, str] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)


def roll_out(
    workloads: Iterable[tuple[Component, Object]],
    observed: Observed,
    rules: Rules,
    timers: Timers,
) -> Rollouts:
    """Return the workloads' objects as they may be now.

    Args:
        workloads: each component with its stamped desired object, in their order.
        observed: what there is.
        rules: what else holds rollouts.
        timers: of progress.
    """
    rollouts, contests = Rollouts(), Contests(observed, timers)
    blocked = rules.moves
    for component, target in workloads:
        if stall := _stall(component, timers):
            rollouts.stalled[component.name] = stall
        live = observed.find(component.kind, component.name)
        free = component.name in rules.urgent or not component.ready
        reason = rules.further.get(component.name, "") or ("" if free else blocked)
        changes = _decide(rollouts, component, target, live, reason, contests)
        if changes or not component.is_whole:
            blocked = blocked or (
                f"{component.name} changes first" if changes else component.trouble()
            )
    return rollouts


def _decide(
    rollouts: Rollouts,
    component: Component,
    target: Object,
    live: Object | None,
    reason: str,
    contests: Contests,
) -> bool:
    """Decide one component's object; return whether its template changes, now or later.

    Args:
        rollouts: receives the object and the rest.
        component: it.
        target: its desired object.
        live: its present one.
        reason: why its template may not change now; empty if it may.
        contests: what others object to changes nothing that lasts.
    """
    key = (component.kind, component.name)
    found = differences(target, live) if live is not None else []
    changes = (
        live is not None
        and template_changes(target, live, found)
        and not is_contested(contests.age_s(target, live, found))
    )
    if live is not None and changes and reason:
        target = with_live_template(target, live)
        found = differences(target, live)
        rollouts.held.append(component.name)
        rollouts.waiting.append(Waiting(f"roll out {component.name}", reason))
    elif changes:
        rollouts.changing.append(component.name)
    rollouts.objects[key], rollouts.differences[key] = target, found
    return changes


def _stall(component: Component, timers: Timers) -> str:
    """Return why a component does not get on; empty if it does, or has not had its time."""
    if not component.exists or component.is_whole:
        return ""
    # Any pod that becomes new or ready is progress, and begins another timer.
    progress = f"progress/{component.name}/{component.updated}.{component.ready}"
    if timers.elapsed_s(progress) >= PROGRESS_DEADLINE_S or component.terminal:
        return component.trouble()
    return ""
