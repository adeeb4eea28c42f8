"""What others add to a stack's objects is told once, with whose it is, and stays."""

import copy

import pytest

from thanostack_operator.plan.additions import additions
from thanostack_operator.plan.comparison import stamped
from thanostack_operator.testing.clusters import (
    cluster_at_rest,
    condition,
    live_of,
    operate,
    operate_until_ready,
    plan_of,
    writes,
)
from thanostack_operator.testing.stacks import named, objects_at_rest, stack_of

QUERY = ("Deployment", "x-query")
FOO = {".": {}, "f:name": {}, "f:value": {}}


def owning(live, spec, manager="kubectl-set", **more):
    """Have a manager own fields of an object's spec."""
    entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": spec}} | more
    live["metadata"].setdefault("managedFields", []).append(entry)


def template(spec):
    return {"f:template": {"f:spec": spec}}


def container(fields, name="thanos-query"):
    return template({"f:containers": {f'k:{{"name":"{name}"}}': fields}})


def foo(live):
    """Do what `kubectl set env deployment/x-query FOO=1` does."""
    env = live["spec"]["template"]["spec"]["containers"][0]["env"]
    env.append({"name": "FOO", "value": "1"})
    owning(live, container({"f:env": {'k:{"name":"FOO"}': FOO}}))


def found(kind, name, fields, changed=None, **entry):
    """Return what is added to an object whose spec somebody owns fields of."""
    wanted = stamped(named(objects_at_rest(stack_of()), kind, name))
    live = copy.deepcopy(wanted)
    live["spec"] |= changed or {}
    owning(live, fields, **entry)
    return [addition.name for addition in additions(wanted, live)]


POD = "spec.template.spec"


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (container({"f:env": {".": {}, 'k:{"name":"FOO"}': FOO}}),
         [f"{POD}.containers[thanos-query].env[FOO]"]),
        (container({"f:envFrom": {}}), [f"{POD}.containers[thanos-query].envFrom"]),
        (container({"f:env": {'k:{"name":"POD_NAME"}': {"f:value": {}}}}),
         [f"{POD}.containers[thanos-query].env[POD_NAME].value"]),
        (container({".": {}, "f:image": {}, "f:name": {}}, "sidecar"),
         [f"{POD}.containers[sidecar]"]),
        (container({"f:ports": {'k:{"containerPort":10902,"protocol":"UDP"}': {".": {}}}}),
         [f"{POD}.containers[thanos-query].ports[10902,UDP]"]),
        (template({"f:nodeSelector": {"f:disk": {}}, "f:hostNetwork": {}}),
         [f"{POD}.hostNetwork", f"{POD}.nodeSelector.disk"]),
        (template({"f:imagePullSecrets": {".": {}, 'k:{"name":"s"}': {}}}),
         [f"{POD}.imagePullSecrets[s]"]),
        ({"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}}},
         ["spec.template.metadata.annotations.a"]),
        ({"f:paused": {}}, ["spec.paused"]),
    ],
)  # fmt: skip
def test_what_was_not_asked_for_is_an_addition(fields, names):
    assert found(*QUERY, fields) == names


RESTART = {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({"f:replicas": {}}, {"manager": "kubectl"}),
        ({"f:paused": {}}, {"subresource": "scale"}),
        ({"f:paused": {}}, {"manager": "kube-controller-manager"}),
        ({"f:paused": {}}, {"manager": "thanostack-operator", "operation": "Apply"}),
        ({"f:template": {"f:metadata": RESTART}}, {"manager": "kubectl-rollout"}),
        (container({"f:image": {}, "f:args": {}, "f:env": {'k:{"name":"POD_NAME"}': {".": {}}}}),
         {}),
        (container({"f:ports": {'k:{"containerPort":10902,"protocol":"TCP"}': {".": {}}}}), {}),
        ({"f:paused": {}}, {"subresource": "status"}),
        ({}, {"fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}}}),
    ],
)  # fmt: skip
def test_what_was_asked_for_or_others_may_do_is_none(fields, entry):
    assert found(*QUERY, fields, **entry) == []


def test_defaults_and_addresses_of_a_service_are_none():
    """`kubectl create service` owns them all; what it really added is told."""
    ports = {
        ".": {},
        'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}},
        'k:{"port":10902,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:protocol": {}},
    }
    names = ("internalTrafficPolicy", "sessionAffinity", "type", "clusterIP", "selector")
    fields = {f"f:{name}": {} for name in names} | {"f:ports": ports}
    defaults = {"internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "clusterIP": "::1"}
    assert found("Service", "x-query", fields, defaults) == ["spec.ports[80,TCP]"]
    other = defaults | {"sessionAffinity": "ClientIP"}
    assert found("Service", "x-query", fields, other) == [
        "spec.ports[80,TCP]",
        "spec.sessionAffinity",
    ]


def test_it_is_told_once_and_stays():
    """No write but of the status, and the status is the same from then on."""
    cluster = cluster_at_rest()
    foo(live_of(cluster, *QUERY))
    told = plan_of(cluster)
    assert writes(told) == []
    drifted = condition(told.status, "NoDrift")
    assert (drifted["status"], drifted["reason"]) == ("False", "ForeignFields")
    field = f"{POD}.containers[thanos-query].env[FOO]"
    text = f"Deployment x-query: {field} was added by kubectl-set; it stays"
    assert drifted["message"] == text
    assert [(e.type, e.reason, e.message) for e in told.events] == [
        ("Warning", "ForeignFields", text)
    ]
    assert condition(told.status, "Ready")["status"] == "True"
    cluster.carry_out(told)
    cluster.tick()
    assert "ForeignFields" not in [event.reason for event in operate_until_ready(cluster)]
    later = plan_of(cluster)
    assert (later.events, later.status) == ((), cluster.stack.status)
    assert condition(later.status, "NoDrift")["message"] == text


def test_one_that_goes_is_told_no_more():
    cluster = cluster_at_rest()
    foo(live_of(cluster, *QUERY))
    operate(cluster)
    live_of(cluster, *QUERY)["metadata"]["managedFields"] = []
    operate(cluster)
    assert condition(cluster.stack.status, "NoDrift")["reason"] == "AsApplied"


def test_many_are_told_as_far_as_a_condition_has_room_for():
    """And each once all the same, beside drift too."""
    cluster = cluster_at_rest()
    long = {f"f:{number:03}{'long' * 60}": {} for number in range(50)}
    owning(live_of(cluster, *QUERY), template({"f:nodeSelector": long}))
    live_of(cluster, *QUERY)["spec"]["replicas"] = 7
    told = plan_of(cluster)
    assert condition(told.status, "NoDrift")["reason"] == "Drifted"
    assert sum(event.reason == "ForeignFields" for event in told.events) == 20
    cluster.stack.status.update(told.status)
    assert [event.reason for event in plan_of(cluster).events] == ["Drift"]
