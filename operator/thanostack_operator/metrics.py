"""The operator's own metrics, by one class with an injected registry."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .plan.observed import items_of
from .plan.outcome import Plan


class Metrics:
    """What the operator says of itself; names are ours, there is no upstream to follow."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.ready = Gauge(
            "thanostack_operator_ready",
            "1 while it holds the Lease and watches stacks, 0 while it waits for either.",
            registry=registry,
        )
        self.stacks = Gauge(
            "thanostack_operator_stacks", "Stacks that have a loop.", registry=registry
        )
        self._passes = Counter(
            "thanostack_operator_reconciles_total", "Passes made.", ["result"], registry=registry
        )
        self._seconds = Histogram(
            "thanostack_operator_reconcile_duration_seconds",
            "Time of a pass.",
            registry=registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
        )
        self._changes = Counter(
            "thanostack_operator_changes_total",
            "Objects applied or pruned and actions on pods.",
            ["kind"],
            registry=registry,
        )
        self._waiting = Gauge(
            "thanostack_operator_waiting_steps",
            "Steps of a stack that wait for something.",
            ["namespace", "stack"],
            registry=registry,
        )
        self._conditions = Gauge(
            "thanostack_operator_stack_condition",
            "1 for a condition of a stack that is True, else 0.",
            ["namespace", "stack", "condition"],
            registry=registry,
        )
        self.writes = Counter(
            "thanostack_operator_writes_total",
            "Requests to the API server that write, the Lease's left out.",
            registry=registry,
        )
        for result in ("success", "error"):
            self._passes.labels(result)

    def reconciled(self, result: str, seconds: float) -> None:
        """Count a pass."""
        self._passes.labels(result).inc()
        self._seconds.observe(seconds)

    def planned(self, namespace: str, stack: str, plan: Plan) -> None:
        """Count what a plan changes and what it waits for."""
        for wanted in plan.apply:
            self._changes.labels(wanted["kind"]).inc()
        for ref in plan.prune:
            self._changes.labels(ref.kind).inc()
        for action in plan.actions:
            self._changes.labels(type(action).__name__).inc()
        self._waiting.labels(namespace, stack).set(len(plan.waiting))

    def told(self, namespace: str, stack: str, status: Mapping[str, Any] | None) -> None:
        """Show the conditions of a stack's status."""
        for condition in items_of(status, "conditions"):
            gauge = self._conditions.labels(namespace, stack, condition["type"])
            gauge.set(condition["status"] == "True")

    def forget(self, namespace: str, stack: str) -> None:
        """Drop the series of a stack that is gone."""
        with contextlib.suppress(KeyError):
            self._waiting.remove(namespace, stack)
        self._conditions.remove_by_labels({"namespace": namespace, "stack": stack})
