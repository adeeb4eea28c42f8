"""Whether a live object is as desired, where not, and who made it differ."""

import copy

import pytest

from thanostack_operator.plan.comparison import (
    APPLIED_ANNOTATION,
    differences,
    drifts,
    quantity,
    stamped,
    template_changes,
    with_live_template,
)
from thanostack_operator.testing.stacks import named, objects_at_rest, stack_of

WANTED = {
    "kind": "Deployment",
    "metadata": {"name": "x", "labels": {"a": "1"}},
    "spec": {
        "replicas": 2,
        "template": {
            "metadata": {},
            "spec": {
                "containers": [
                    {
                        "name": "c",
                        "image": "i:1",
                        "args": ["a", "b"],
                        "env": [{"name": "E", "value": ""}],
                        "ports": [{"name": "http", "containerPort": 80}],
                        "resources": {"requests": {"cpu": "1"}},
                        "securityContext": {"allowPrivilegeEscalation": False},
                        "volumeMounts": [{"mountPath": "/a", "name": "v", "readOnly": False}],
                    }
                ],
                "tolerations": [{"key": "k"}],
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        },
    },
}


def as_stored(wanted=WANTED):
    """Return an object as the API server has it: with defaults, and with what others add."""
    live = copy.deepcopy(stamped(wanted))
    live["metadata"] |= {"uid": "u", "generation": 1}
    live["metadata"]["labels"]["other"] = "x"
    live["spec"]["progressDeadlineSeconds"] = 600
    pod = live["spec"]["template"]["spec"]
    pod["restartPolicy"] = "Always"
    container = pod["containers"][0]
    container |= {"resources": {"requests": {"cpu": "1000m"}}, "imagePullPolicy": "Always"}
    container["ports"][0]["protocol"] = "TCP"
    container["env"] = [{"name": "OTHER", "value": "1"}, {"name": "E"}]
    del container["volumeMounts"][0]["readOnly"]
    pod["containers"].insert(0, {"name": "sidecar", "image": "s"})
    pod["volumes"].append({"name": "token"})
    pod["hostAliases"].insert(0, {"ip": "10.0.0.2", "hostnames": ["other"]})
    pod["tolerations"][0]["operator"] = "Equal"
    return live


def changed(path, value):
    live = as_stored()
    at = live
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return live


CONTAINER = ("spec", "template", "spec", "containers", 1)


def test_defaults_and_what_others_add_are_no_difference():
    assert differences(stamped(WANTED), as_stored()) == []


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("spec", "replicas"), 3, "spec.replicas"),
        (("metadata", "labels", "a"), "2", "metadata.labels.a"),
        (("metadata", "labels", "a"), None, "metadata.labels.a"),
        ((*CONTAINER, "image"), "i:2", "spec.template.spec.containers[c].image"),
        ((*CONTAINER, "args"), ["a"], "spec.template.spec.containers[c].args"),
        ((*CONTAINER, "args"), ["b", "a"], "spec.template.spec.containers[c].args"),
        ((*CONTAINER, "env"), [], "spec.template.spec.containers[c].env[E]"),
        ((*CONTAINER, "name"), "d", "spec.template.spec.containers[c]"),
        ((*CONTAINER, "resources", "requests", "cpu"), "2",
         "spec.template.spec.containers[c].resources.requests.cpu"),
        ((*CONTAINER, "securityContext", "allowPrivilegeEscalation"), True,
         "spec.template.spec.containers[c].securityContext.allowPrivilegeEscalation"),
        ((*CONTAINER, "securityContext", "allowPrivilegeEscalation"), None,
         "spec.template.spec.containers[c].securityContext.allowPrivilegeEscalation"),
        (("spec", "template", "spec", "tolerations"), [], "spec.template.spec.tolerations"),
        (("spec", "template", "spec", "tolerations", 0, "key"), "z",
         "spec.template.spec.tolerations[0].key"),
    ],
)  # fmt: skip
def test_a_field_that_differs_is_named(path, value, name):
    found = differences(stamped(WANTED), changed(path, value))
    assert name in [difference.name for difference in found]


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1000m"), ("1Gi", "1073741824"), ("1.5", "1500m"), ("1024Mi", "1Gi"), ("1k", "1000")],
)
def test_quantities_are_equal_by_value(one, other):
    assert quantity(one) == quantity(other) is not None


@pytest.mark.parametrize("text", ["", "x", "1X", None, "Gi"])
def test_what_is_no_quantity_has_no_value(text):
    assert quantity(text) is None


def test_a_field_that_is_no_longer_asked_for_is_noticed():
    """The live object still has it, so only the fingerprint can tell."""
    less = copy.deepcopy(WANTED)
    less["spec"]["template"]["spec"]["containers"][0]["env"] = []
    found = differences(stamped(less), as_stored())
    assert [APPLIED_ANNOTATION] == [difference.path[-1] for difference in found]
    assert template_changes(stamped(less), as_stored(), found)


def test_replicas_are_no_change_of_the_template():
    more = copy.deepcopy(WANTED)
    more["spec"]["replicas"] = 5
    found = differences(stamped(more), as_stored())
    assert not template_changes(stamped(more), as_stored(), found)


def test_a_held_workload_keeps_its_template_and_takes_the_rest():
    wanted = copy.deepcopy(WANTED)
    wanted["spec"]["replicas"] = 5
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2"
    live = as_stored()
    held = with_live_template(stamped(wanted), live)
    assert held["spec"]["template"] == live["spec"]["template"]
    assert held["spec"]["replicas"] == 5
    # Once it was applied, holding on writes nothing, and letting go does.
    after = copy.deepcopy(held)
    assert differences(with_live_template(stamped(wanted), after), after) == []
    found = differences(stamped(wanted), after)
    assert template_changes(stamped(wanted), after, found)


def manager(name, fields, operation="Update", **more):
    return {"manager": name, "operation": operation, "fieldsV1": fields} | more


def test_drift_names_who_wrote_the_field():
    live = changed((*CONTAINER, "image"), "evil")
    fields = {"f:spec": {"f:template": {"f:spec": {"f:containers": {
        'k:{"name":"c"}': {"f:image": {}}}}}}}  # fmt: skip
    live["metadata"]["managedFields"] = [
        manager("thanostack-operator", {"f:spec": {}}, "Apply"),
        manager("kubectl-set", fields),
    ]
    target = stamped(WANTED)
    (drift,) = drifts(target, live, differences(target, live))
    assert (drift.manager, drift.difference.old, drift.difference.new) == (
        "kubectl-set", "evil", "i:1",
    )  # fmt: skip


def test_a_field_that_was_removed_is_drift_of_nobody():
    live = changed(("metadata", "labels", "a"), None)
    target = stamped(WANTED)
    (drift,) = drifts(target, live, differences(target, live))
    assert drift.manager == ""


def test_what_we_ask_otherwise_is_no_drift():
    more = copy.deepcopy(WANTED)
    more["spec"]["replicas"] = 5
    live = as_stored()
    live["metadata"]["managedFields"] = [
        manager("thanostack-operator", {"f:spec": {"f:replicas": {}}}, "Apply"),
        manager("kube-controller-manager", {"f:spec": {"f:replicas": {}}}, subresource="status"),
    ]
    target = stamped(more)
    assert drifts(target, live, differences(target, live)) == []


def test_what_another_manager_owns_is_drift_though_we_ask_otherwise():
    more = copy.deepcopy(WANTED)
    more["metadata"]["labels"]["a"] = "new"
    live = as_stored()
    live["spec"]["replicas"] = 9
    live["metadata"]["managedFields"] = [manager("hpa", {"f:spec": {"f:replicas": {}}})]
    target = stamped(more)
    (drift,) = drifts(target, live, differences(target, live))
    assert (drift.manager, drift.difference.name) == ("hpa", "spec.replicas")


def test_an_object_as_applied_is_its_own_equal():
    """What manifests make differs in nothing from itself, whatever it holds."""
    for wanted in objects_at_rest(stack_of()):
        assert differences(stamped(wanted), copy.deepcopy(stamped(wanted))) == []


def test_volume_claims_compare_by_value():
    stateful_set = named(objects_at_rest(stack_of()), "StatefulSet", "x-ingestor-default")
    live = copy.deepcopy(stamped(stateful_set))
    claim = live["spec"]["volumeClaimTemplates"][0]
    claim["spec"]["resources"]["requests"]["storage"] = "10240Mi"
    claim |= {"status": {"phase": "Pending"}}
    assert differences(stamped(stateful_set), live) == []
