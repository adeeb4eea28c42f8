"""What the operator says of itself and of its stacks, as it is scraped."""

from prometheus_client import CollectorRegistry, generate_latest

from thanostack_operator.metrics import Metrics
from thanostack_operator.plan.outcome import Plan, Waiting
from thanostack_operator.testing.clusters import cluster_at_rest, plan_of


def series(metrics, name):
    """Return the lines of a metric."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith(name)]


def test_each_condition_of_each_stack_is_a_series():
    metrics = Metrics(CollectorRegistry())
    planned = plan_of(cluster_at_rest())
    metrics.told("ns", "x", planned.status)
    metrics.told("ns", "y", {"conditions": [{"type": "Ready", "status": "Unknown"}]})
    told = series(metrics, "thanostack_operator_stack_condition")
    name = 'thanostack_operator_stack_condition{condition="%s",namespace="ns",stack="%s"} %s'
    assert name % ("Ready", "x", "1.0") in told
    assert name % ("Stalled", "x", "0.0") in told
    assert name % ("Ready", "y", "0.0") in told
    assert len(told) == len(planned.status["conditions"]) + 1


def test_a_stack_that_is_gone_has_no_series():
    metrics = Metrics(CollectorRegistry())
    for stack in ("x", "y"):
        metrics.planned("ns", stack, Plan(waiting=(Waiting("a step", "a reason"),)))
        metrics.told("ns", stack, {"conditions": [{"type": "Ready", "status": "True"}]})
    metrics.forget("ns", "x")
    metrics.forget("ns", "never seen")
    for name in ("thanostack_operator_stack_condition", "thanostack_operator_waiting_steps"):
        (left,) = series(metrics, name)
        assert 'stack="y"' in left


def test_one_that_waits_is_not_ready():
    metrics = Metrics(CollectorRegistry())
    assert series(metrics, "thanostack_operator_ready") == ["thanostack_operator_ready 0.0"]
    metrics.ready.set(1)
    assert series(metrics, "thanostack_operator_ready") == ["thanostack_operator_ready 1.0"]


def test_a_status_that_is_none_says_nothing():
    metrics = Metrics(CollectorRegistry())
    metrics.told("ns", "x", None)
    assert series(metrics, "thanostack_operator_stack_condition") == []
