"""What stops a plan: each problem is one sentence that says what to do, and nothing is touched."""

import copy

import pytest

from thanostack_operator.api.stack import ThanosStack, ThanosStackSpec
from thanostack_operator.plan.conditions import invalid_status
from thanostack_operator.plan.planner import plan
from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    cluster_of,
    condition,
    live_of,
    operate_until_ready,
    plan_of,
    ref_of,
    ring_spec,
    writes,
)


def rings(*names_and_tenants, factor=3, replicas=3):
    return {"replicationFactor": factor, "rings": [
        {"name": name, "tenants": tenants, "replicas": replicas}
        for name, tenants in names_and_tenants
    ]}  # fmt: skip


@pytest.mark.parametrize(
    ("receive", "message"),
    [
        (rings(("a", []), ("b", ["x"])), "rings[b]: no tenant gets here, because ring a before"),
        (rings(("a", []), ("b", [])), "rings[b]: no tenant gets here"),
        (rings(("a", ["x"]), ("b", ["y", "x"])), "rings[b].tenants: 'x' never gets here"),
        (rings(("a", ["x"]), ("a", ["y"])), "rings[a].name: it is there twice"),
        (rings(("a", []), replicas=2), "2 ingestors cannot hold 3 copies"),
        ({"routers": {"extraArgs": ["--receive.replication-factor=1"]}},
         "--receive.replication-factor is the operator's"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_refused(receive, message):
    planned = plan_of(cluster_of(receive=receive))
    assert not writes(planned)
    valid = condition(planned.status, "SpecValid")
    assert (valid["status"], valid["reason"]) == ("False", "SpecInvalid")
    assert message in valid["message"]
    assert condition(planned.status, "Stalled")["status"] == "True"
    assert ["SpecInvalid"] == [event.reason for event in planned.events]
    assert "act on the spec" in [wait.step for wait in planned.waiting]


def test_a_tenant_that_a_glob_takes_is_refused():
    spec = rings(("a", ["team-*"]), ("b", ["team-1"]))
    spec["rings"][0]["tenantMatcherType"] = "glob"
    message = condition(plan_of(cluster_of(receive=spec)).status, "SpecValid")["message"]
    assert "'team-1' never gets here" in message


def test_a_name_that_is_too_long_is_refused():
    stack = ThanosStack("x" * 31, "ns", "u", 1, ThanosStackSpec())
    planned = plan(stack, cluster_of().observe(), operator_version="v")
    assert "may have 30" in condition(planned.status, "SpecValid")["message"]
    assert not planned.apply


@pytest.mark.parametrize("missing", [frozenset({"Secret/s", "ConfigMap/c"})])
def test_what_the_spec_mentions_has_to_exist(missing):
    cluster = cluster_at_rest()
    change(cluster, version="v2")
    planned = plan_of(cluster, missing=missing)
    valid = condition(planned.status, "SpecValid")
    assert valid["reason"] == "ReferenceMissing"
    assert "Secret/s does not exist: create it in ns" in valid["message"]
    assert not planned.apply
    assert plan_of(cluster, missing=None).apply, "not being allowed to ask refuses nothing"


def sized(size, class_name=None):
    return ring_spec(3, storage={"size": size} | ({"className": class_name} if class_name else {}))


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (("5Gi",), "its volumes have 10Gi and cannot shrink to 5Gi: set"),
        (("10Gi", "fast"), "its volumes are of class None and cannot become fast: set"),
    ],
)  # fmt: skip
def test_volumes_neither_shrink_nor_change_their_class(storage, message):
    cluster = cluster_at_rest(**sized("10Gi"))
    change(cluster, **sized(*storage))
    planned = plan_of(cluster)
    valid = condition(planned.status, "SpecValid")
    assert valid["reason"] == "FieldImmutable"
    assert message in valid["message"]
    assert not planned.apply


def test_volumes_of_the_same_size_are_the_same():
    cluster = cluster_at_rest(**sized("10Gi"))
    change(cluster, **sized("10240Mi"))
    assert condition(plan_of(cluster).status, "SpecValid")["status"] == "True"


def test_doing_what_the_message_says_resolves_it():
    cluster = cluster_at_rest()
    live = live_of(cluster, "StatefulSet", "x-ingestor-default")
    live["spec"] = copy.deepcopy(live["spec"]) | {"podManagementPolicy": "OrderedReady"}
    assert condition(plan_of(cluster).status, "SpecValid")["status"] == "False"
    pods = dict(cluster.pods)
    del cluster.objects[ref_of(cluster.observe(), "StatefulSet", "x-ingestor-default")]
    operate_until_ready(cluster)
    assert cluster.pods == pods, "its pods run on"
    live = live_of(cluster, "StatefulSet", "x-ingestor-default")
    assert live["spec"]["podManagementPolicy"] == "Parallel"


@pytest.mark.parametrize(
    ("field", "value"),
    [("serviceName", "other"), ("podManagementPolicy", "OrderedReady"), ("selector", {})],
)
def test_fields_that_nobody_can_change_are_named(field, value):
    cluster = cluster_at_rest()
    live = live_of(cluster, "StatefulSet", "x-ingestor-default")
    live["spec"] = copy.deepcopy(live["spec"]) | {field: value}
    message = condition(plan_of(cluster).status, "SpecValid")["message"]
    assert f"spec.{field}" in message
    assert "--cascade=orphan" in message


def test_a_spec_that_cannot_be_read_leaves_the_rest_of_the_status():
    cluster = cluster_at_rest()
    former = cluster.stack.status
    status = invalid_status(cluster.stack, ["spec.x: there is no such field"], now=cluster.now)
    assert status["components"] == former["components"]
    assert condition(status, "SpecValid")["message"] == "spec.x: there is no such field"
    assert condition(status, "Ready")["status"] == "False"
    assert condition(status, "RingStable") == condition(former, "RingStable")
    assert status["observedGeneration"] == cluster.stack.generation


def test_timers_outlive_a_refusal():
    cluster = cluster_at_rest()
    before = cluster.stack.status["transitions"]
    assert before
    assert plan_of(cluster, missing=frozenset({"Secret/s"})).status["transitions"] == before
