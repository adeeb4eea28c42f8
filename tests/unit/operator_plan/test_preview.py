"""What `thanostack-operator plan` prints before anything happens."""

from dataclasses import replace

from thanostack_operator.plan.preview import preview
from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    cluster_of,
    live_of,
    ring_spec,
)
from thanostack_operator.testing.stacks import VERSION


def lines_of(cluster):
    return preview(cluster.stack, cluster.observe(), operator_version=VERSION)


def steps_of(cluster):
    lines = lines_of(cluster)
    return [line.split(". ", 1)[1] for line in lines[lines.index("Steps that follow:") + 1 :]]


def test_a_stack_as_it_should_be_has_no_steps():
    assert lines_of(cluster_at_rest()) == [
        "Changes now:",
        "  none",
        "",
        "Steps that follow:",
        "  none: the stack is as it should be",
    ]


def test_a_new_stack_is_made_in_order():
    steps = steps_of(cluster_of(**ring_spec(3)))
    published = steps.index("ring default is published with 3 ingestors")
    assert steps.index("apply StatefulSet x-ingestor-default, 3 replicas") < published
    assert steps.index("apply Deployment x-receive, 2 replicas") > published


def test_a_scale_down_goes_step_by_step():
    cluster = cluster_at_rest(**ring_spec(4))
    change(cluster, **ring_spec(3))
    steps = [step for step in steps_of(cluster) if "load the hashrings" not in step]
    assert steps == [
        "ring default: ingestor 3 leaves",
        "apply ConfigMap x-hashrings",
        "drain x-ingestor-default-3",
        "x-ingestor-default-3 is drained and goes; its volume is kept",
        "apply StatefulSet x-ingestor-default, 3 replicas",
    ]


def test_only_workloads_need_a_generation():
    """As the API server has it: it counts none of a ConfigMap or a Service."""
    cluster = cluster_at_rest(**ring_spec(3))
    for live in cluster.objects.values():
        if live["kind"] in ("ConfigMap", "Service"):
            del live["metadata"]["generation"]
    change(cluster, **ring_spec(4))
    assert "apply ConfigMap x-hashrings" in steps_of(cluster)


def test_service_monitors_stay_where_they_are_known():
    cluster = cluster_of(monitoring={"serviceMonitor": {"enabled": True}})
    cluster.service_monitors = True
    steps = steps_of(cluster)
    assert "apply ServiceMonitor x-query" in steps
    assert "delete ServiceMonitor x-query" not in steps


def test_an_upgrade_names_fields_and_order():
    cluster = cluster_at_rest(version="v1")
    change(cluster, version="v2")
    lines = lines_of(cluster)
    assert "  ~ StatefulSet x-ingestor-default" in lines
    assert (
        "      spec.template.spec.containers[thanos-receive-ingestor].image: "
        '"thanostack/thanostack:v1" -> "thanostack/thanostack:v2"'
    ) in lines
    workloads = [step for step in steps_of(cluster) if "Deployment" in step or "Stateful" in step]
    assert [step.split()[2].rstrip(",") for step in workloads][-3:] == [
        "x-ingestor-default", "x-receive", "x-query",
    ]  # fmt: skip


def test_a_ring_that_goes_is_shown_to_go():
    cluster = cluster_at_rest(**ring_spec(3, name="old"))
    change(cluster, **ring_spec(3, name="new"))
    steps = steps_of(cluster)
    order = [
        "ring new is published with 3 ingestors",
        "ring old leaves the hashrings",
        "drain x-ingestor-old-0",
        "delete StatefulSet x-ingestor-old",
        "delete Service x-ingestor-old",
    ]
    assert order == [step for step in steps if step in order]


def test_a_deletion_ends():
    cluster = cluster_at_rest()
    cluster.stack = replace(cluster.stack, deleting=True)
    steps = steps_of(cluster)
    assert steps[0] == "delete Deployment x-receive"
    assert steps[-1] == "the resource and its objects go; volumes stay"
    assert steps[-2] == "set finalizers: none"


def test_a_wrong_spec_is_told():
    lines = lines_of(cluster_of(**ring_spec(2)))
    assert lines[0] == "Nothing would be done:"
    assert "cannot hold 3 copies" in lines[1]


def test_drift_is_shown_as_what_it_becomes():
    cluster = cluster_at_rest()
    live_of(cluster, "Deployment", "x-query")["spec"]["replicas"] = 9
    assert "      spec.replicas: 9 -> 2" in lines_of(cluster)


def test_a_preview_leaves_the_cluster_alone():
    cluster = cluster_at_rest(**ring_spec(4))
    change(cluster, **ring_spec(3))
    before = (cluster.now, str(cluster.objects), str(cluster.pods), cluster.stack)
    lines_of(cluster)
    assert before == (cluster.now, str(cluster.objects), str(cluster.pods), cluster.stack)
