"""Ingestors come at once and leave one by one: out of the ring, drained, then gone."""

from dataclasses import replace

import pytest

from thanostack_operator.plan.observed import Drain
from thanostack_operator.plan.outcome import CancelDrain, StartDrain
from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    live_of,
    operate,
    operate_until_ready,
    plan_of,
    ref_of,
    ring_spec,
)

SET = "x-ingestor-default"


def replicas(cluster, name=SET):
    return live_of(cluster, "StatefulSet", name)["spec"]["replicas"]


def history(cluster, rounds=60):
    """Return what happened to replicas and drains, each kind of step once."""
    steps = []
    for _ in range(rounds):
        planned = plan_of(cluster)
        steps += [f"drain {a.pod}" for a in planned.actions if isinstance(a, StartDrain)]
        before = replicas(cluster)
        cluster.carry_out(planned)
        if replicas(cluster) != before:
            steps.append(f"{before} to {replicas(cluster)}")
        cluster.tick()
    return steps


def test_growth_is_at_once():
    cluster = cluster_at_rest(**ring_spec(3))
    change(cluster, **ring_spec(7))
    assert history(cluster) == ["3 to 7"]


def test_ingestors_leave_from_the_top_once_drained():
    cluster = cluster_at_rest(**ring_spec(5))
    change(cluster, **ring_spec(3))
    steps = history(cluster)
    assert sorted(steps[:2]) == [f"drain {SET}-3", f"drain {SET}-4"]
    assert steps[2:] == ["5 to 4", "4 to 3"]


def told_of_history(cluster, rounds=60):
    """Return the warnings of a change that hides history."""
    events = operate(cluster, rounds)
    assert all(e.type == "Warning" for e in events if e.reason == "HistoryHidden")
    return [e.message for e in events if e.reason == "HistoryHidden"]


@pytest.mark.parametrize(
    ("before", "after", "factor", "warnings"),
    [(5, 3, 3, 0), (6, 3, 3, 1), (7, 3, 3, 2), (2, 1, 1, 1), (3, 6, 3, 0)],
)
def test_who_takes_away_as_many_ingestors_as_there_are_copies_is_warned(
    before, after, factor, warnings
):
    def spec(replicas):
        rings = [{"name": "default", "replicas": replicas}]
        return {"receive": {"replicationFactor": factor, "rings": rings}}

    cluster = cluster_at_rest(**spec(before))
    change(cluster, **spec(after))
    assert len(told_of_history(cluster)) == warnings


def test_the_warning_says_what_is_kept_and_how_it_is_read_again():
    cluster = cluster_at_rest(**ring_spec(6))
    change(cluster, **ring_spec(3))
    (message,) = told_of_history(cluster)
    assert "until the ring has 6 replicas again" in message
    assert f"volumes data-{SET}-3 to data-{SET}-5 are kept" in message


def test_a_ring_that_leaves_the_spec_takes_its_history_along():
    cluster = cluster_at_rest(**ring_spec(3, name="old"))
    change(cluster, **ring_spec(3, name="new"))
    (message,) = told_of_history(cluster)
    assert message.startswith("ring old is to lose 3 ingestors")


def test_the_next_waits_until_the_pod_is_gone():
    cluster = cluster_at_rest(**ring_spec(5))
    change(cluster, **ring_spec(3))
    while replicas(cluster) == 5:
        operate(cluster)
    planned = plan_of(cluster)
    assert f"{SET}-4" in cluster.pods
    assert any(wait.reason == "its pod still ends" for wait in planned.waiting)
    assert not planned.apply


@pytest.mark.parametrize("state", ["serving", "draining", "failed", "unknown"])
def test_an_ingestor_that_is_not_drained_stays_until_its_timeout(state):
    cluster = cluster_at_rest(**ring_spec(4))
    change(cluster, **ring_spec(3, scaleDown={"drainTimeout": "5m"}))
    operate(cluster, 5)  # out of the ring, settled, its drain begun
    began = cluster.now
    drains = {f"{SET}-3": Drain(state, "it said so")}
    cluster.drains = {}
    while not (planned := plan_of(cluster, drains=drains)).apply:
        assert cluster.now - began < 400
        cluster.carry_out(planned)
        cluster.drains = {}
        cluster.tick()
    assert cluster.now - began > 250
    (event,) = (e for e in planned.events if e.reason == "DrainTimeout")
    assert event.type == "Warning"
    assert f"{SET}-3" in event.message
    assert "volume is kept" in event.message


@pytest.mark.parametrize("state", ["serving", "failed"])
def test_a_drain_is_asked_for_until_it_runs(state):
    cluster = cluster_at_rest(**ring_spec(4))
    change(cluster, **ring_spec(3))
    operate(cluster, 4)
    drains = {f"{SET}-3": Drain(state)}
    assert StartDrain(f"{SET}-3") in plan_of(cluster, drains=drains).actions


def test_an_ingestor_that_never_ran_goes_at_once():
    """Its drain could only be waited for in vain, with all rollouts behind it."""
    cluster = cluster_at_rest(**ring_spec(3))
    change(cluster, **ring_spec(4))
    cluster.delays = replace(cluster.delays, start_s=1e9)  # no node takes it
    operate(cluster, 3)
    change(cluster, **ring_spec(3))
    drains = {f"{SET}-3": Drain("unknown", "Unschedulable", never_ran=True)}
    planned = plan_of(cluster, drains=drains)
    assert [3] == [w["spec"]["replicas"] for w in planned.apply if w["kind"] == "StatefulSet"]
    (event,) = planned.events
    assert (event.type, event.reason) == ("Normal", "IngestorRemoved")
    assert "never ran and has no volume" in event.message
    ran = {f"{SET}-3": Drain("unknown", "Unschedulable")}
    assert plan_of(cluster, drains=ran).apply == ()


def test_nothing_drains_before_the_routers_settled():
    cluster = cluster_at_rest(**ring_spec(4))
    change(cluster, **ring_spec(3))
    cluster.delays = cluster.delays.__class__(load_s=1000, unpushed_load_s=1000)
    operate(cluster, 30)
    planned = plan_of(cluster)
    assert not [a for a in planned.actions if isinstance(a, StartDrain)]
    assert "has former hashrings" in planned.waiting[0].reason


@pytest.mark.parametrize("state", ["draining", "drained", "failed"])
def test_an_ingestor_that_is_wanted_again_serves_again(state):
    cluster = cluster_at_rest(**ring_spec(4))
    planned = plan_of(cluster, drains={f"{SET}-3": Drain(state)})
    assert CancelDrain(f"{SET}-3") in planned.actions


def test_a_scale_down_that_is_taken_back_ends_with_all_in_the_ring():
    cluster = cluster_at_rest(**ring_spec(5))
    change(cluster, **ring_spec(3))
    operate(cluster, 6)
    assert "drained" in cluster.drains.values() or "draining" in cluster.drains.values()
    change(cluster, **ring_spec(5))
    operate_until_ready(cluster)
    assert replicas(cluster) == 5
    assert set(cluster.drains.values()) <= {"serving"}


def test_an_ingestor_that_comes_back_drained_serves_again():
    """Its volume was kept, and with it the mark that it was drained."""
    cluster = cluster_at_rest(**ring_spec(4))
    for n in (3, 4):
        change(cluster, **ring_spec(n))
        operate_until_ready(cluster)
    assert cluster.is_ready(f"{SET}-3")


@pytest.mark.parametrize("by_hand", [0, 1, 2])
def test_replicas_that_were_lowered_by_hand_are_set_back(by_hand):
    cluster = cluster_at_rest(**ring_spec(3))
    live_of(cluster, "StatefulSet", SET)["spec"]["replicas"] = by_hand
    (wanted,) = plan_of(cluster).apply
    assert wanted["spec"]["replicas"] == 3


def test_replicas_that_were_raised_by_hand_are_drained_away():
    cluster = cluster_at_rest(**ring_spec(3))
    live_of(cluster, "StatefulSet", SET)["spec"]["replicas"] = 5
    assert history(cluster)[2:] == ["5 to 4", "4 to 3"]


def test_a_set_that_was_deleted_has_as_many_as_before():
    """Also in the middle of a scale-down: members and pods say how many."""
    cluster = cluster_at_rest(**ring_spec(5))
    change(cluster, **ring_spec(3))
    operate(cluster, 2)
    del cluster.objects[ref_of(cluster.observe(), "StatefulSet", SET)]
    (wanted,) = (w for w in plan_of(cluster).apply if w["kind"] == "StatefulSet")
    assert wanted["spec"]["replicas"] == 5


def renamed():
    cluster = cluster_at_rest(**ring_spec(3, name="old"))
    change(cluster, **ring_spec(3, name="new"))
    return cluster


def test_a_ring_that_left_the_spec_is_drained_then_removed():
    cluster, seen = renamed(), []
    for _ in range(80):
        planned = plan_of(cluster)
        seen += [ref.kind for ref in planned.prune if "old" in ref.name]
        drained = [cluster.drains.get(f"x-ingestor-old-{n}") == "drained" for n in range(3)]
        assert all(drained) or not seen
        cluster.carry_out(planned)
        cluster.tick()
    assert seen == ["StatefulSet", "Service", "PodDisruptionBudget"]
    assert "old" not in str(cluster.stack.status["inventory"])


def test_its_service_stays_while_its_pods_end():
    cluster = renamed()
    while cluster.observe().find("StatefulSet", "x-ingestor-old"):
        operate(cluster)
    assert any("old" in name for name in cluster.pods)
    assert not plan_of(cluster).prune


def test_queriers_read_both_rings_while_one_replaces_the_other():
    cluster = renamed()
    for _ in range(80):
        operate(cluster)
        args = str(live_of(cluster, "Deployment", "x-query")["spec"]["template"])
        published = cluster.published()
        for ring in ("old", "new"):
            holds = f"ingestor-{ring}." in published or any(
                pod.ring == ring and cluster.drains.get(name) != "drained" and ring == "old"
                for name, pod in cluster.pods.items()
            )
            assert not holds or f"_tcp.x-ingestor-{ring}." in args


def test_a_ring_that_comes_back_serves_again():
    cluster = renamed()
    while not cluster.drains:
        operate(cluster)
    change(cluster, **ring_spec(3, name="old"))
    operate_until_ready(cluster)
    assert replicas(cluster, "x-ingestor-old") == 3
    assert all(cluster.is_ready(f"x-ingestor-old-{n}") for n in range(3))
