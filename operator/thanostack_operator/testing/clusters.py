"""Clusters in memory with a stack in them, and the operator run on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thanostack_operator.api.stack import ThanosStackSpec
from thanostack_operator.plan.model import Cluster
from thanostack_operator.plan.observed import Observed, Ref, dig
from thanostack_operator.plan.outcome import Event, Plan
from thanostack_operator.plan.planner import plan

from .stacks import VERSION, stack_of

ROUNDS_MAX = 400


def ring_spec(replicas: int, *, name: str = "default", **more: Any) -> dict[str, Any]:
    """Return a spec of one ring."""
    return {"receive": {"rings": [{"name": name, "replicas": replicas} | more]}}


def cluster_of(**spec: Any) -> Cluster:
    """Return an empty cluster with a stack `x` in it."""
    return Cluster(stack_of(**spec))


def cluster_at_rest(**spec: Any) -> Cluster:
    """Return a cluster whose stack `x` has everything it asked for."""
    cluster = cluster_of(**spec)
    operate_until_ready(cluster)
    return cluster


def change(cluster: Cluster, **spec: Any) -> None:
    """Give the stack another spec, as in YAML."""
    cluster.change(ThanosStackSpec.model_validate(spec))


def plan_of(cluster: Cluster, **observed: Any) -> Plan:
    """Return the plan for a cluster as it is, less what ``observed`` says instead."""
    seen = replace(cluster.observe(), **observed)
    return plan(cluster.stack, seen, operator_version=VERSION)


def writes(planned: Plan) -> list[Any]:
    """Return everything that a plan would do beside telling."""
    return [*planned.apply, *planned.actions, *planned.prune]


def operate(cluster: Cluster, rounds: int = 1) -> list[Event]:
    """Run the operator so many times, some seconds apart; return what it told."""
    events: list[Event] = []
    for _ in range(rounds):
        planned = plan_of(cluster)
        events += planned.events
        cluster.carry_out(planned)
        cluster.tick()
    return events


def operate_until_ready(cluster: Cluster) -> list[Event]:
    """Run the operator until the stack is Ready; return what it told.

    Raises:
        AssertionError: if it does not come to rest.
    """
    events: list[Event] = []
    for _ in range(ROUNDS_MAX):
        events += operate(cluster)
        if condition(cluster.stack.status, "Ready")["status"] == "True":
            return events
    raise AssertionError(f"the stack does not come to rest: {cluster.stack.status}")


def condition(status: Any, kind: str) -> dict[str, Any]:
    """Return the condition of a type."""
    (found,) = (dict(item) for item in dig(status, "conditions") if item["type"] == kind)
    return found


def live_of(cluster: Cluster, kind: str, name: str) -> dict[str, Any]:
    """Return a live object, to be looked at or tampered with."""
    found = cluster.observe().find(kind, name)
    assert found is not None, f"there is no {kind} {name}"
    return found


def ref_of(observed: Observed, kind: str, name: str) -> Ref:
    """Return the reference of a live object."""
    (found,) = (ref for ref in observed.objects if (ref.kind, ref.name) == (kind, name))
    return found
