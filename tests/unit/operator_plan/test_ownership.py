"""An object of somebody else that has one of a stack's names is told of and never written to."""

from dataclasses import replace

import pytest

from thanostack_operator.api.reading import read_stack
from thanostack_operator.manifests.names import labels, owner_reference
from thanostack_operator.manifests.stack_objects import object_keys
from thanostack_operator.plan.model import Cluster
from thanostack_operator.plan.observed import Ref
from thanostack_operator.plan.outcome import SetFinalizers
from thanostack_operator.plan.planner import BUSY_RECHECK_S
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
    writes,
)
from thanostack_operator.testing.stacks import objects_at_rest, stack_of

OURS = labels("x", "query")


def made(name="x-query", kind="Service", api_version="v1", **metadata):
    """Return an object that somebody made."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name} | metadata}


def controlled_by(kind, name, uid="another"):
    return {"ownerReferences": [{"kind": kind, "name": name, "uid": uid, "controller": True}]}


@pytest.mark.parametrize(
    ("metadata", "whose", "may_be_given"),
    [
        ({}, "nobody says whose it is", True),
        ({"managedFields": [{"manager": "kubectl-create"}]}, "kubectl-create made it", True),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "managed-by is Helm", True),
        ({"labels": {"thanostack.io/stack": "x"}}, "nobody says whose it is", True),
        (controlled_by("Deployment", "theirs"), "Deployment theirs owns it", False),
        (controlled_by("ThanosStack", "y") | {"labels": OURS}, "ThanosStack y owns it", False),
    ],
)
def test_a_name_that_is_taken_keeps_the_stack_from_being_made(metadata, whose, may_be_given):
    cluster = cluster_of()
    cluster.apply(made(**metadata))
    planned = plan_of(cluster)
    assert not writes(planned)
    assert planned.recheck_s == BUSY_RECHECK_S
    stalled = condition(planned.status, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "NameTaken")
    assert "Service x-query is there already and not this stack's" in stalled["message"]
    assert whose in stalled["message"]
    assert "delete it, or rename it or the stack" in stalled["message"]
    command = (
        "kubectl -n ns label service x-query thanostack.io/stack=x "
        "app.kubernetes.io/managed-by=thanostack-operator"
    )
    assert (command in stalled["message"]) == may_be_given
    assert condition(planned.status, "SpecValid")["status"] == "True"
    assert condition(planned.status, "Ready")["reason"] == "NameTaken"
    (told,) = (event for event in planned.events if event.type == "Warning")
    assert "x-query" in told.message


def test_it_goes_on_by_itself_once_the_name_is_free():
    cluster = cluster_of()
    cluster.apply(made())
    operate(cluster, 3)
    assert len(cluster.objects) == 1
    cluster.objects.clear()
    operate_until_ready(cluster)


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": OURS},
        {"ownerReferences": [owner_reference(stack_of())]},
        {"labels": OURS, "ownerReferences": [{"kind": "Namespace", "name": "n", "uid": "n"}]},
    ],
)
def test_what_was_given_to_the_stack_or_is_its_own_is_taken_over(metadata):
    cluster = cluster_of()
    cluster.apply(made(**metadata))
    assert "x-query" in [wanted["metadata"]["name"] for wanted in plan_of(cluster).apply]
    operate_until_ready(cluster)
    live = live_of(cluster, "Service", "x-query")
    assert live["metadata"]["ownerReferences"][0]["uid"] == "u"


def test_the_inventory_tells_an_object_that_lost_its_labels_and_owner():
    cluster = cluster_at_rest()
    live = live_of(cluster, "Service", "x-query")
    del live["metadata"]["labels"], live["metadata"]["ownerReferences"]
    planned = plan_of(cluster)
    assert ["x-query"] == [wanted["metadata"]["name"] for wanted in planned.apply]
    assert "deleted" not in condition(planned.status, "NoDrift")["message"]
    live["metadata"]["uid"] = "another"
    ref = next(ref for ref in cluster.objects if (ref.kind, ref.name) == ("Service", "x-query"))
    cluster.objects[Ref("v1", "Service", "x-query", "another")] = cluster.objects.pop(ref)
    assert not plan_of(cluster).apply


def test_what_a_former_stack_of_that_name_left_is_waited_for():
    cluster = cluster_of()
    cluster.apply(made(labels=OURS, **controlled_by("ThanosStack", "x", "former")))
    message = condition(plan_of(cluster).status, "Stalled")["message"]
    assert "ThanosStack x owns it, which was deleted: it is collected soon" in message
    assert not plan_of(cluster).apply


def test_what_is_made_only_later_is_looked_for_before_anything_is_made():
    """The hashrings and the routers wait for the first ring."""
    for kind, api_version, name in (
        ("ConfigMap", "v1", "x-hashrings"),
        ("Deployment", "apps/v1", "x-receive"),
    ):
        for metadata in ({}, {"labels": {"thanostack.io/stack": "x"}}):
            cluster = cluster_of()
            cluster.apply(made(name, kind, api_version, **metadata))
            assert not plan_of(cluster).apply


def test_what_runs_runs_on_when_a_new_name_is_taken():
    cluster = cluster_at_rest(**ring_spec(3))
    before = dict(cluster.objects)
    cluster.apply(made("x-ingestor-new"))
    rings = [{"name": "new", "tenants": ["t"]}, {"name": "default", "replicas": 3}]
    change(cluster, receive={"rings": rings})
    operate(cluster, 5)
    assert before.items() <= cluster.objects.items()
    assert len(cluster.objects) == len(before) + 1
    assert "x-ingestor-new" in condition(cluster.stack.status, "Stalled")["message"]


def test_other_objects_are_nobodys_business():
    cluster = cluster_of()
    cluster.apply(made("y-query"))
    cluster.apply(made("x-query", "Secret"))
    assert plan_of(cluster).apply


def stack_named(name, *rings):
    spec = {"receive": {"rings": [{"name": ring, "tenants": [ring]} for ring in rings]}}
    return read_stack({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec})


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [
        (stack_named("a", "b-ingestor-c"), stack_named("a-ingestor-b", "c"), "StatefulSet"),
        (stack_named("a", "receive"), stack_named("a-ingestor", "c"), "Service"),
        (stack_named("a", "query"), stack_named("a-ingestor", "c"), "Service"),
    ],
)
def test_two_stacks_that_want_one_name(one, other, taken):
    """The first one has it; the second one is told whose it is, and touches nothing."""
    cluster = Cluster(one)
    operate_until_ready(cluster)
    second = Cluster(other, objects=cluster.objects)
    planned = plan_of(second)
    assert not writes(planned)
    message = condition(planned.status, "Stalled")["message"]
    assert f"{taken} a-ingestor-" in message
    assert "ThanosStack a owns it" in message


def test_the_names_that_are_looked_for_are_those_that_are_made():
    everything = {"overrides": {"default": {}}}
    stack = stack_of(**ring_spec(3, **everything))
    made_of = {
        ((o["apiVersion"], o["kind"]), o["metadata"]["name"]) for o in objects_at_rest(stack)
    }
    assert made_of == object_keys(stack, knows_service_monitors=False)
    assert (("v1", "ConfigMap"), "x-ingestor-default-overrides") in made_of


def test_a_stack_that_is_deleted_leaves_routers_that_are_not_its_own():
    cluster = cluster_at_rest()
    cluster.stack = replace(cluster.stack, deleting=True)
    assert [ref.name for ref in plan_of(cluster).prune] == ["x-receive"]
    theirs = controlled_by("Deployment", "theirs")
    live_of(cluster, "Deployment", "x-receive")["metadata"] |= theirs
    for name in list(cluster.routers()):
        del cluster.pods[name]
    planned = plan_of(cluster)
    assert not planned.prune
    while cluster.stack.finalizers:
        planned = plan_of(cluster)
        assert not planned.prune
        operate(cluster)
    assert SetFinalizers(()) in planned.actions
