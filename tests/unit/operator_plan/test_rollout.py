"""Components change one after another, from a sound place, and stop by themselves."""

import pytest

from thanostack_operator.plan.rollout import PROGRESS_DEADLINE_S
from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    cluster_of,
    condition,
    live_of,
    operate,
    operate_until_ready,
    plan_of,
    ring_spec,
)

RINGS = [
    {"name": "a", "replicas": 3, "tenants": ["a"]},
    {"name": "b", "replicas": 3},
]
ORDER = ["x-ingestor-a", "x-ingestor-b", "x-receive", "x-query"]


def spec(version, **more):
    return {"version": version, "receive": {"rings": RINGS}} | more


def images(cluster):
    """Return the version of each component's template, in their order."""
    found = {}
    for ref, live in cluster.observe().objects.items():
        if ref.kind in ("StatefulSet", "Deployment"):
            image = live["spec"]["template"]["spec"]["containers"][0]["image"]
            found[ref.name] = image.rpartition(":")[2]
    return [found.get(name) for name in ORDER]


def test_an_upgrade_goes_ring_by_ring_then_routers_then_queriers():
    cluster = cluster_at_rest(**spec("v1"))
    change(cluster, **spec("v2"))
    seen = []
    for _ in range(120):
        operate(cluster)
        if images(cluster) not in seen:
            seen.append(images(cluster))
    assert seen == [["v2"] * n + ["v1"] * (4 - n) for n in range(1, 5)]
    assert cluster.stack.status["version"] == "v2"


def test_the_next_one_waits_until_every_pod_is_ready():
    cluster = cluster_at_rest(**spec("v1"))
    change(cluster, **spec("v2"))
    operate(cluster, 2)
    planned = plan_of(cluster)
    assert not planned.apply
    assert {w.step for w in planned.waiting} == {f"roll out {name}" for name in ORDER[1:]}
    assert planned.waiting[0].reason.startswith("x-ingestor-a rolls out: 2 of 3 pods are ready")
    assert condition(planned.status, "UpgradeInProgress")["reason"] == "RollingOut"
    assert planned.status["version"] == "v1"


@pytest.mark.parametrize("broken", ["x-ingestor-a", "x-receive"])
def test_an_upgrade_that_fails_stops_and_says_where(broken):
    cluster = cluster_at_rest(**spec("v1"))
    change(cluster, **spec("v2"))
    while images(cluster)[ORDER.index(broken)] == "v1":
        operate(cluster)
    cluster.broken_images = {"thanostack/thanostack:v2"}
    events = operate(cluster, 60)
    status = cluster.stack.status
    stalled = condition(status, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "RolloutStalled")
    assert "ImagePullBackOff" in stalled["message"]
    assert condition(status, "UpgradeInProgress")["reason"] == "RolloutStalled"
    assert condition(status, "Ready")["status"] == "False"
    assert condition(status, "Reconciling")["status"] == "False"
    assert any(e.type == "Warning" and "ImagePullBackOff" in e.message for e in events)
    held = ORDER[ORDER.index(broken) + 1 :]
    assert images(cluster)[ORDER.index(broken) + 1 :] == ["v1"] * len(held)


def test_going_back_heals_what_stalled():
    cluster = cluster_at_rest(**spec("v1"))
    cluster.broken_images = {"thanostack/thanostack:v2"}
    change(cluster, **spec("v2"))
    operate(cluster, 30)
    assert images(cluster) == ["v2", "v1", "v1", "v1"]
    change(cluster, **spec("v1"))
    operate_until_ready(cluster)
    assert images(cluster) == ["v1"] * 4
    assert sum(cluster.is_ready(name) for name in cluster.pods) == 10


def test_pods_that_are_not_ready_in_time_are_a_stall():
    cluster = cluster_at_rest(**spec("v1"))
    change(cluster, **spec("v2"))
    operate(cluster)
    cluster.delays = cluster.delays.__class__(start_s=10_000)
    began = cluster.now
    while condition(cluster.stack.status, "Stalled")["status"] == "False":
        operate(cluster)
        assert cluster.now - began < 2 * PROGRESS_DEADLINE_S
    assert cluster.now - began >= PROGRESS_DEADLINE_S


def test_a_slow_rollout_that_gets_on_is_no_stall():
    """Ten pods of two minutes each take longer than the deadline of one."""
    cluster = cluster_at_rest(**ring_spec(10), version="v1")
    cluster.delays = cluster.delays.__class__(start_s=120)
    change(cluster, **ring_spec(10), version="v2")
    events = operate_until_ready(cluster)
    assert not [event for event in events if event.reason == "Stalled"]


def test_replicas_change_though_the_template_is_held():
    cluster = cluster_at_rest(**spec("v1"))
    change(cluster, **spec("v2", query={"replicas": 5}))
    operate(cluster)
    live = live_of(cluster, "Deployment", "x-query")
    assert live["spec"]["replicas"] == 5
    assert images(cluster)[3] == "v1"
    assert not plan_of(cluster).apply


def test_nothing_rolls_out_while_a_ring_changes():
    cluster = cluster_at_rest(**ring_spec(5), version="v1")
    change(cluster, **ring_spec(3), version="v2")
    while any(pod.ordinal > 2 for pod in cluster.pods.values()):
        tags = {live["spec"]["template"]["spec"]["containers"][0]["image"]
                for ref, live in cluster.observe().objects.items()
                if ref.kind in ("StatefulSet", "Deployment")}  # fmt: skip
        assert tags == {"thanostack/thanostack:v1"}
        operate(cluster)
    operate_until_ready(cluster)
    assert cluster.stack.status["version"] == "v2"


def test_hashrings_that_no_router_acknowledges_do_not_stop_the_cure():
    cluster = cluster_at_rest(**ring_spec(3), version="v1")
    cluster.delays = cluster.delays.__class__(load_s=1e9, unpushed_load_s=1e9)
    change(cluster, **ring_spec(4), version="v1")
    operate(cluster, 10)
    change(cluster, **ring_spec(4), version="v2")
    operate(cluster, 5)
    assert images(cluster)[2] == "v1"
    operate_until_ready(cluster)
    assert cluster.stack.status["version"] == "v2"


def test_a_component_without_a_ready_pod_has_nothing_to_lose():
    cluster = cluster_at_rest(**spec("v1"))
    for name in [n for n, p in cluster.pods.items() if p.owner[1] == "x-query"]:
        cluster.pods[name].runs_at = 1e12
    cluster.crash("x-ingestor-a-1")
    cluster.tick(1)
    change(cluster, **spec("v1", query={"logLevel": "debug"}))
    operate(cluster)
    assert "--log.level=debug" in str(live_of(cluster, "Deployment", "x-query"))


def test_routers_get_a_higher_factor_when_the_rings_are_big_enough():
    def receive(factor, replicas):
        return {"replicationFactor": factor, "rings": [{"name": "r", "replicas": replicas}]}

    cluster = cluster_at_rest(receive=receive(1, 1))
    change(cluster, receive=receive(3, 3))
    for _ in range(60):
        operate(cluster)
        template = str(live_of(cluster, "Deployment", "x-receive")["spec"]["template"])
        if "replication-factor=3" in template:
            assert cluster.published().count("address") == 3
    operate_until_ready(cluster)
    assert "replication-factor=3" in template


def test_first_creation_waits_for_nothing_but_routers_for_a_ring():
    cluster = cluster_of(**spec("v1"))
    planned = plan_of(cluster)
    made = {w["metadata"]["name"] for w in planned.apply if "template" in w.get("spec", {})}
    assert made == {"x-ingestor-a", "x-ingestor-b", "x-query"}
    assert ("make x-receive", "no ring is published yet") in [
        (wait.step, wait.reason) for wait in planned.waiting
    ]  # fmt: skip
