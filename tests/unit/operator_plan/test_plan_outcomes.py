"""What a plan says as a whole: nothing at rest, what others changed, what is paused, the status."""

import time
from dataclasses import replace

import pytest

from thanostack_operator.api.status import ThanosStackStatus
from thanostack_operator.plan.model import Cluster
from thanostack_operator.plan.observed import Ref
from thanostack_operator.plan.outcome import TouchPod
from thanostack_operator.plan.planner import BUSY_RECHECK_S, REST_RECHECK_S
from thanostack_operator.plan.published import annotation_of
from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    cluster_of,
    condition,
    live_of,
    operate,
    operate_until_ready,
    plan_of,
    ref_of,
    ring_spec,
    writes,
)


def settled(**spec) -> Cluster:
    cluster = cluster_at_rest(**spec)
    operate(cluster, 5)
    return cluster


def test_a_stack_at_rest_is_not_written_to():
    cluster = settled(**ring_spec(4))
    for _ in range(3):
        cluster.tick(100)
        planned = plan_of(cluster)
        assert not writes(planned)
        assert not planned.events
        assert not planned.waiting
        assert planned.status == cluster.stack.status
        assert planned.recheck_s == REST_RECHECK_S


def test_a_stack_that_changes_is_looked_at_soon():
    cluster = settled(**ring_spec(3))
    change(cluster, **ring_spec(4))
    assert plan_of(cluster).recheck_s == BUSY_RECHECK_S


@pytest.mark.parametrize("repository", ["a/b", "registry.example.com:5000/a/b"])
@pytest.mark.parametrize("digest", [None, f"sha256:{64 * 'a'}"])
def test_the_status_tells_the_version_of_each_component(repository, digest):
    """A digest decides which image runs; what people read is the version."""
    image = {"repository": repository} | ({"digest": digest} if digest else {})
    cluster = settled(**ring_spec(3), version="1.2.3", image=image)
    status = cluster.stack.status
    assert [component["version"] for component in status["components"]] == 3 * ["1.2.3"]
    assert status["version"] == "1.2.3"


def test_the_status_is_as_the_schema_has_it():
    cluster = cluster_of(**ring_spec(3))
    for n in (3, 5, 3):
        change(cluster, **ring_spec(n))
        for _ in range(30):
            operate(cluster)
            ThanosStackStatus.model_validate(cluster.stack.status)
    assert cluster.stack.status["observedGeneration"] == cluster.stack.generation


def test_a_new_generation_shows_in_every_condition():
    cluster = settled()
    change(cluster)
    planned = plan_of(cluster)
    assert planned.status["observedGeneration"] == cluster.stack.generation
    assert {cluster.stack.generation} == {
        c["observedGeneration"] for c in planned.status["conditions"]
    }  # fmt: skip
    assert not planned.apply


def test_of_ready_reconciling_and_stalled_one_at_most_is_true():
    cluster = cluster_of(**ring_spec(3), version="v1")
    for _ in range(60):
        operate(cluster)
        if cluster.stack.status["version"] == "v1" and cluster.stack.spec.version == "v1":
            cluster.broken_images = {"thanostack/thanostack:v2"}
            change(cluster, **ring_spec(3), version="v2")
        kinds = ("Ready", "Reconciling", "Stalled")
        true = [k for k in kinds if condition(cluster.stack.status, k)["status"] == "True"]
        assert len(true) == 1
    assert true == ["Stalled"]


def test_a_condition_keeps_its_time_until_it_flips():
    cluster = settled()
    since = condition(cluster.stack.status, "Ready")["lastTransitionTime"]
    cluster.tick(1000)
    assert condition(plan_of(cluster).status, "Ready")["lastTransitionTime"] == since
    cluster.crash("x-ingestor-default-0")
    down = condition(plan_of(cluster).status, "Ready")
    assert down["lastTransitionTime"] > since
    assert (down["status"], down["reason"]) == ("False", "PodsNotReady")


def test_routers_are_touched_once_with_what_is_published():
    cluster = settled(**ring_spec(3))
    change(cluster, **ring_spec(4))
    while cluster.observe().ingestors["default"][-1].ordinal < 3 or not plan_of(cluster).actions:
        operate(cluster)
    planned = plan_of(cluster)
    (text,) = (w["data"]["hashrings.json"] for w in planned.apply if w["kind"] == "ConfigMap")
    routers = sorted(cluster.routers())
    assert [TouchPod(pod, annotation_of(text)) for pod in routers] == list(planned.actions)
    cluster.carry_out(planned)
    assert not plan_of(cluster).actions
    missing = plan_of(cluster).status["hashrings"]["missing"]
    assert missing == routers


def test_the_ingestors_of_all_rings_are_counted():
    """Those that leave are not: they are desired no more."""
    rings = [{"name": "a", "replicas": 3, "tenants": ["a"]}, {"name": "b", "replicas": 4}]
    cluster = settled(receive={"rings": rings})
    assert cluster.stack.status["ingestors"] == "7/7"
    cluster.crash("x-ingestor-a-1")
    assert plan_of(cluster).status["ingestors"] == "6/7"
    change(cluster, receive={"rings": [rings[0], rings[1] | {"replicas": 3}]})
    assert plan_of(cluster).status["ingestors"] == "5/6"
    assert plan_of(cluster_of()).status["ingestors"] == "0/3"


def test_the_epoch_rises_by_one_a_change():
    cluster = settled(**ring_spec(3))
    change(cluster, **ring_spec(5))
    operate_until_ready(cluster)
    (ring,) = cluster.stack.status["rings"]
    assert (ring["epoch"], len(ring["members"]), ring["waiting"]) == (3, 5, "")


@pytest.mark.parametrize(
    "status", [None, {}, {"conditions": [None, 7], "rings": 3, "transitions": {}, "hashrings": []}]
)
def test_a_status_that_is_lost_or_mangled_changes_nothing_but_itself(status):
    cluster = settled(**ring_spec(4))
    cluster.stack = replace(cluster.stack, status=status)
    planned = plan_of(cluster)
    assert not writes(planned)
    operate_until_ready(cluster)
    assert cluster.published().count("address") == 4


def tampered(kind, name, change_it):
    cluster = settled()
    change_it(live_of(cluster, kind, name))
    return cluster, plan_of(cluster)


def scale_to_seven(live):
    live["spec"]["replicas"] = 7
    fields = {"f:spec": {"f:replicas": {}}}
    live["metadata"]["managedFields"] = [
        {"manager": "kubectl", "operation": "Update", "subresource": "scale", "fieldsV1": fields}
    ]


def relabel(live):
    del live["metadata"]["labels"]["app.kubernetes.io/name"]


def reroute(live):
    live["spec"]["ports"][0]["port"] = 1


@pytest.mark.parametrize(
    ("kind", "name", "change_it", "told"),
    [
        ("Deployment", "x-receive", scale_to_seven,
         "Deployment x-receive: spec.replicas was changed by kubectl to 7; it becomes 2 again"),
        ("Service", "x-query", relabel,
         ("Service x-query: metadata.labels.app.kubernetes.io/name was changed to nothing; "
         "it becomes thanos-query again")),
        ("Service", "x-receive", reroute, "Service x-receive: spec.ports[19291"),
    ],
)  # fmt: skip
def test_drift_is_told_and_corrected(kind, name, change_it, told):
    cluster, planned = tampered(kind, name, change_it)
    drifted = condition(planned.status, "NoDrift")
    assert (drifted["status"], drifted["reason"]) == ("False", "Drifted")
    assert told in drifted["message"]
    assert any(e.reason == "Drift" and told in e.message for e in planned.events)
    assert [name] == [wanted["metadata"]["name"] for wanted in planned.apply]
    operate_until_ready(cluster)
    assert condition(cluster.stack.status, "NoDrift")["status"] == "True"


def test_a_changed_spec_is_no_drift():
    cluster = settled()
    change(cluster, query={"replicas": 3}, version="v2")
    for _ in range(40):
        operate(cluster)
        assert condition(cluster.stack.status, "NoDrift")["status"] == "True"


def test_an_object_that_was_deleted_is_drift_and_made_again():
    cluster = settled()
    del cluster.objects[ref_of(cluster.observe(), "Service", "x-query")]
    planned = plan_of(cluster)
    assert ["x-query"] == [wanted["metadata"]["name"] for wanted in planned.apply]
    assert "Service x-query was deleted" in condition(planned.status, "NoDrift")["message"]


def test_damaged_hashrings_are_made_anew_at_once():
    cluster = settled(**ring_spec(4))
    text = cluster.published()
    live_of(cluster, "ConfigMap", "x-hashrings")["data"]["hashrings.json"] = "[]"
    for pod in cluster.routers().values():
        pod.text = "lagging"
    operate(cluster)
    assert cluster.published() == text


def test_what_is_no_longer_asked_for_is_pruned_if_it_is_ours():
    cluster = settled(query={"replicas": 2})
    mine = live_of(cluster, "PodDisruptionBudget", "x-query")
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "own", "labels": mine["metadata"]["labels"],
        "ownerReferences": [{"uid": "another stack"}]}}  # fmt: skip
    unowned = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "by-hand"}}
    cluster.apply(foreign)
    cluster.apply(unowned)
    cluster.apply(mine | {"metadata": mine["metadata"] | {"name": "former"}})
    assert ["former"] == [ref.name for ref in plan_of(cluster).prune]


def test_files_stay_while_pods_of_a_former_template_may_mount_them():
    overrides = {"overrides": {"default": {}}}
    cluster = settled(**ring_spec(3, **overrides))
    assert cluster.observe().find("ConfigMap", "x-ingestor-default-overrides")
    change(cluster, **ring_spec(3))
    while cluster.observe().find("ConfigMap", "x-ingestor-default-overrides"):
        planned = plan_of(cluster)
        if planned.prune:
            owned = [pod for pod in cluster.pods.values() if pod.ring]
            assert not any("overrides" in pod.template for pod in owned)
        cluster.carry_out(planned)
        cluster.tick()


def test_a_paused_stack_is_looked_at_and_not_touched():
    cluster = settled(**ring_spec(3))
    scale_to_seven(live_of(cluster, "Deployment", "x-receive"))
    change(cluster, **ring_spec(5), version="v2", paused=True)
    planned = plan_of(cluster)
    assert not writes(planned)
    paused = condition(planned.status, "Paused")
    assert (paused["status"], paused["reason"]) == ("True", "Paused")
    assert condition(planned.status, "Reconciling")["status"] == "False"
    assert ["Paused"] == [event.reason for event in planned.events if event.type == "Normal"]
    change(cluster, **ring_spec(5), version="v2")
    operate_until_ready(cluster)
    assert condition(cluster.stack.status, "Paused")["status"] == "False"


def test_a_request_that_was_refused_stalls_the_stack_and_says_so():
    cluster = settled()
    planned = plan_of(cluster, failures={"Deployment/x-receive": "403 Forbidden: no patch"})
    stalled = condition(planned.status, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "RequestRefused")
    assert stalled["message"] == "Deployment/x-receive: 403 Forbidden: no patch"
    assert any(e.type == "Warning" and "403" in e.message for e in planned.events)


def test_service_monitors_are_made_where_they_are_known():
    spec = {"monitoring": {"serviceMonitor": {"enabled": True}}}
    cluster = settled(**spec)
    assert not plan_of(cluster).apply
    kinds = {wanted["kind"] for wanted in plan_of(cluster, service_monitors=True).apply}
    assert kinds == {"ServiceMonitor"}


def test_the_inventory_knows_every_object_by_its_uid():
    cluster = settled()
    inventory = {(i["kind"], i["name"]): i["uid"] for i in cluster.stack.status["inventory"]}
    assert inventory == {(ref.kind, ref.name): ref.uid for ref in cluster.objects}
    assert all(inventory.values())


def test_routers_are_not_pruned_when_nobody_knows_the_ring():
    """ConfigMap and status gone at once: what runs goes on with what it loaded."""
    cluster = settled()
    del cluster.objects[ref_of(cluster.observe(), "ConfigMap", "x-hashrings")]
    cluster.stack = replace(cluster.stack, status=None)
    cluster.crash("x-ingestor-default-0")
    planned = plan_of(cluster)
    assert not planned.prune
    operate_until_ready(cluster)
    assert cluster.published().count("address") == 3


def test_planning_a_big_stack_takes_milliseconds():
    """Sixty objects; the bound is loose, for a machine that does other things."""
    rings = [{"name": f"r{i}", "replicas": 9, "tenants": [f"t{i}"]} for i in range(15)]
    cluster = settled(receive={"rings": rings})
    assert len(cluster.objects) > 50
    began = time.process_time()
    for _ in range(5):
        plan_of(cluster)
    assert (time.process_time() - began) / 5 < 0.1


def test_references_do_not_compare_by_uid():
    assert Ref("v1", "Service", "x", "1") == Ref("v1", "Service", "x", "2")
