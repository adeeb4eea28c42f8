"""The API server that the operator's tests stand on answers as a cluster's does."""

import json

import pytest
from cluster.fixtures import new_namespace
from cluster.kubectl import KubectlError

from thanostack.testing.processes import until


def config_map(name, **data):
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    )


def test_it_says_the_version_that_it_is_of(api_server):
    assert api_server.kubectl().json("version")["serverVersion"]["gitVersion"] == "v1.36.3"


def test_two_managers_of_one_field_conflict(api_server):
    """Server-side apply is the real one."""
    kubectl = api_server.kubectl()
    here = f"--namespace={new_namespace(kubectl)}"
    kubectl.apply(config_map("it", a="1"), here, "--field-manager=one")
    with pytest.raises(KubectlError, match='conflict with "one"'):
        kubectl.apply(config_map("it", a="2"), here, "--field-manager=two")


def test_a_user_may_do_what_a_role_grants_and_no_more(api_server):
    admin, user = api_server.kubectl(), api_server.kubectl("reader")
    here = f"--namespace={new_namespace(admin)}"
    with pytest.raises(KubectlError, match='User "reader" cannot list resource "configmaps"'):
        user("get", "configmaps", here)
    admin("create", "role", "reader", "--verb=list", "--resource=configmaps", here)
    admin("create", "rolebinding", "reader", "--role=reader", "--user=reader", here)
    until("the role", lambda: user.can("list", "configmaps", here))
    assert user.json("get", "configmaps", here)["items"] == []
    with pytest.raises(KubectlError, match='cannot list resource "secrets"'):
        user("get", "secrets", here)


def test_controllers_make_pods_of_a_stateful_set(api_server_with_controllers):
    """Pods are made; no kubelet is there to run them."""
    kubectl = api_server_with_controllers.kubectl()
    here = f"--namespace={new_namespace(kubectl)}"
    labels = {"app": "it"}
    pod = {"containers": [{"name": "it", "image": "localhost/it:1"}]}
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "it"},
        "spec": {
            "serviceName": "it",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    kubectl.apply(json.dumps(stateful_set), here)
    found = until("the first pod", lambda: kubectl.json("get", "pods", here)["items"])
    assert [(each["metadata"]["name"], each["status"]["phase"]) for each in found] == [
        ("it-0", "Pending")
    ]
