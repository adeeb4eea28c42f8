"""A webhook that changes what is applied: said, tried again now and then, in nobody's way."""

import pytest

from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    condition,
    live_of,
    operate,
    operate_until_ready,
    plan_of,
    ring_spec,
)

SET = ("StatefulSet", "x-ingestor-default")
BUDGET = ("PodDisruptionBudget", "x-query")


def mutate(cluster, kind):
    """Do what a webhook does to each object of that kind."""
    if kind == SET[0]:
        live_of(cluster, *SET)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 77
    else:
        live_of(cluster, *BUDGET)["spec"]["maxUnavailable"] = 7


def pass_with(cluster, kind, rounds):
    """Run the operator beside the webhook; return what was applied of that kind."""
    applied = []
    for _ in range(rounds):
        planned = plan_of(cluster)
        applied += [wanted for wanted in planned.apply if wanted["kind"] == kind]
        cluster.carry_out(planned)
        mutate(cluster, kind)
        cluster.tick()
    return applied


@pytest.mark.parametrize("kind", [SET[0], BUDGET[0]])
def test_it_is_said_and_not_applied_for_ever(kind):
    cluster = cluster_at_rest()
    mutate(cluster, kind)
    assert pass_with(cluster, kind, 20)
    stalled = condition(cluster.stack.status, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "Contested")
    assert "whenever" in stalled["message"]
    assert condition(cluster.stack.status, "NoDrift")["status"] == "False"
    assert pass_with(cluster, kind, 90) == []
    assert plan_of(cluster).events == ()
    assert pass_with(cluster, kind, 12)  # ten minutes later


def test_once_the_webhook_is_gone_nothing_is_left_to_do():
    cluster = cluster_at_rest()
    mutate(cluster, SET[0])
    pass_with(cluster, SET[0], 20)
    operate_until_ready(cluster)
    template = live_of(cluster, *SET)["spec"]["template"]["spec"]
    assert template["terminationGracePeriodSeconds"] == 900


def test_a_rollout_goes_past_it():
    cluster = cluster_at_rest(version="v1")
    mutate(cluster, SET[0])
    change(cluster, version="v2")
    pass_with(cluster, SET[0], 80)
    for name in ("x-receive", "x-query"):
        assert ":v2" in str(live_of(cluster, "Deployment", name)["spec"]["template"])


def test_an_edit_is_no_contest():
    cluster = cluster_at_rest(**ring_spec(3))
    for _ in range(30):
        live_of(cluster, "Deployment", "x-query")["spec"]["replicas"] = 5
        operate(cluster, 2)  # mended, and seen to be
    assert condition(cluster.stack.status, "Stalled")["status"] == "False"


def test_hashrings_are_never_given_up():
    cluster = cluster_at_rest()
    for _ in range(30):
        live_of(cluster, "ConfigMap", "x-hashrings")["data"]["hashrings.json"] = "[]"
        planned = plan_of(cluster)
        assert [wanted["kind"] for wanted in planned.apply] == ["ConfigMap"]
        cluster.carry_out(planned)
        cluster.tick()


def test_what_the_api_server_refuses_is_no_contest():
    cluster = cluster_at_rest()
    mutate(cluster, SET[0])
    pass_with(cluster, SET[0], 20)
    refused = {"StatefulSet/x-ingestor-default": "403: cannot patch"}
    planned = plan_of(cluster, failures=refused)
    assert condition(planned.status, "Stalled")["reason"] == "RequestRefused"
    assert planned.apply
