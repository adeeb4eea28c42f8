"""A stack that is deleted: flushed first, or left to the garbage collector; volumes stay."""

from dataclasses import replace

import pytest

from thanostack_operator.manifests.names import FINALIZER
from thanostack_operator.plan.observed import Drain
from thanostack_operator.plan.outcome import SetFinalizers, StartDrain
from thanostack_operator.testing.clusters import cluster_at_rest, operate, plan_of, ring_spec


def deleted(**spec):
    cluster = cluster_at_rest(**spec)
    cluster.stack = replace(cluster.stack, deleting=True)
    return cluster


@pytest.mark.parametrize(
    ("policy", "before", "after"),
    [
        ("Flush", (), (FINALIZER,)),
        ("Flush", ("other",), ("other", FINALIZER)),
        ("Flush", (FINALIZER, "other"), None),
        ("Keep", (FINALIZER, "other"), ("other",)),
        ("Keep", ("other",), None),
    ],
)
def test_the_finalizer_follows_the_policy(policy, before, after):
    cluster = cluster_at_rest(deletionPolicy=policy)
    cluster.stack = replace(cluster.stack, finalizers=before)
    actions = plan_of(cluster).actions
    assert list(actions) == ([] if after is None else [SetFinalizers(after)])


def test_kept_stacks_are_let_go_at_once():
    cluster = deleted(deletionPolicy="Keep")
    assert not plan_of(cluster).actions
    cluster.stack = replace(cluster.stack, finalizers=(FINALIZER,))
    assert plan_of(cluster).actions == (SetFinalizers(()),)


@pytest.mark.parametrize("paused", [False, True])
def test_flushed_stacks_drain_every_ingestor_after_the_last_router(paused):
    cluster = deleted(paused=False)
    spec = cluster.stack.spec.model_copy(update={"paused": paused})
    cluster.stack = replace(cluster.stack, spec=spec)
    (routers,) = plan_of(cluster).prune
    assert (routers.kind, routers.name) == ("Deployment", "x-receive")
    for _ in range(40):
        planned = plan_of(cluster)
        if any(isinstance(action, StartDrain) for action in planned.actions):
            assert not cluster.routers()
        if SetFinalizers(()) in planned.actions:
            break
        assert not planned.apply
        cluster.carry_out(planned)
        cluster.tick()
    assert {"drained"} == {cluster.drains[f"x-ingestor-default-{n}"] for n in range(3)}


def test_an_ingestor_that_is_silent_holds_it_up_no_longer_than_its_timeout():
    cluster = deleted(**ring_spec(3, scaleDown={"drainTimeout": "2m"}))
    cluster.silent = {"x-ingestor-default-1"}
    began = cluster.now
    events = []
    while cluster.stack.finalizers:
        events += operate(cluster)
        assert cluster.now - began < 300
    assert cluster.now - began > 120
    assert ["DrainTimeout"] == [e.reason for e in events if "default-1" in e.message]


def test_rings_that_left_the_spec_are_flushed_too():
    cluster = cluster_at_rest(**ring_spec(3, name="old"))
    spec = cluster.stack.spec.model_copy()
    renamed = spec.receive.rings[0].model_copy(update={"name": "new"})
    receive = spec.receive.model_copy(update={"rings": [renamed]})
    cluster.change(spec.model_copy(update={"receive": receive}))
    cluster.stack = replace(cluster.stack, deleting=True)
    while cluster.stack.finalizers:
        operate(cluster)
    assert {"drained"} == {cluster.drains[f"x-ingestor-old-{n}"] for n in range(3)}


def test_a_stack_without_objects_is_let_go():
    cluster = deleted()
    cluster.objects.clear()
    cluster.pods.clear()
    assert plan_of(cluster).actions == (SetFinalizers(()),)


def test_a_pod_that_is_gone_in_a_namespace_that_ends_holds_nothing_up():
    cluster = deleted()
    cluster.objects.clear()
    drains = {name: Drain("drained") for name in cluster.pods}
    cluster.pods = {name: pod for name, pod in cluster.pods.items() if pod.ring}
    assert plan_of(cluster, drains=drains).actions == (SetFinalizers(()),)
