"""The chart limited to one namespace: what its operator runs, what it may do, what it leaves.

helm puts it on a real API server that knows prometheus-operator's definitions. The operator is a
process with the arguments of the Deployment and the rights of its account; pods are a fake
kubelet's. The tests are in the order of the installation's life.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml
from cluster.api_server import ApiServer, running_api_server
from cluster.fake_kubelet import FakeKubelet, claims_may_grow, running
from cluster.operators import OperatorProcess, Stack, operator
from cluster.programs import monitoring_definitions
from cluster.release import OPERATOR, RELEASE, Release

from thanostack.testing.processes import until

HOME, WATCHED, UNWATCHED = "thanostack-system", "watched", "unwatched"
ACCOUNT = f"system:serviceaccount:{HOME}:{OPERATOR}"
MONITORS = {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}

Right = tuple[str, str, str]
"""Resource with its group, name of the object if it is for that one only, verb."""
CHANGE = "get list watch create patch delete"
WATCHED_RIGHTS = {
    "thanosstacks.thanostack.io": "get list watch patch",
    "thanosstacks/status.thanostack.io": "patch",
    "thanosstacks/finalizers.thanostack.io": "update",
    "deployments.apps": CHANGE,
    "statefulsets.apps": CHANGE,
    "services.": CHANGE,
    "configmaps.": CHANGE,
    "poddisruptionbudgets.policy": CHANGE,
    "servicemonitors.monitoring.coreos.com": "get list create patch delete",
    "endpointslices.discovery.k8s.io": "list watch",
    "pods.": "list watch patch",
    "persistentvolumeclaims.": "get list patch",
    "events.": "list create",
    "secrets.": "get",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    folder = tmp_path_factory.mktemp("limited-install")
    with running_api_server(folder, controllers=True, scheduler=True) as server:
        kubectl = server.kubectl()
        for path in monitoring_definitions():
            kubectl.apply(path.read_text(encoding="utf-8"))
        kubectl.await_crds()
        for namespace in (WATCHED, UNWATCHED):
            kubectl("create", "namespace", namespace)
        with running(FakeKubelet(server.admin)):
            yield server


@pytest.fixture(scope="module")
def release(server: ApiServer) -> Release:
    release = Release(server.kubectl(), HOME)
    flags = {"serviceMonitor.enabled": "true", "prometheusRule.enabled": "true"}
    release.install(watchNamespaces=f"{{{WATCHED}}}", **flags)
    return release


@pytest.fixture(scope="module")
def process(
    server: ApiServer, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator, as what the Deployment says and who it is."""
    deployment = release.kubectl.json("get", "deployment", OPERATOR, f"--namespace={HOME}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command, *arguments = container["args"]
    assert command == "run"
    arguments = [it for it in arguments if not it.startswith("--http-port=")]
    folder = tmp_path_factory.mktemp("operator")
    with operator(server.kubeconfig(ACCOUNT), folder, *arguments) as process:
        yield process


@pytest.fixture(scope="module")
def other(release: Release) -> Stack:
    """A stack in a namespace that is not watched."""
    stack = Stack(release.kubectl, UNWATCHED)
    stack.apply(deletionPolicy="Flush")
    return stack


@pytest.fixture(scope="module")
def stack(process: OperatorProcess, other: Stack) -> Stack:
    """A stack in the watched namespace, ready."""
    stack = Stack(other.kubectl, WATCHED)
    stack.apply(deletionPolicy="Flush", monitoring=MONITORS)
    stack.await_ready()
    return stack


def test_a_stack_in_a_namespace_that_is_not_watched_is_left_alone(stack: Stack, other: Stack):
    assert len(stack.objects()) > 15
    assert other.objects() == {}
    metadata = other.get("thanosstack", "x")["metadata"]
    assert metadata["generation"] == 1
    assert "finalizers" not in metadata
    assert other.status() == {}


def rights(server: ApiServer, user: str, namespace: str) -> set[Right]:
    """Return what the API server lets a user do to resources in a namespace."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    create = ("create", "--validate=false", "-f", "-", "-o", "json")
    answer = json.loads(server.kubectl(user)(*create, stdin=json.dumps(review)))["status"]
    assert not answer["incomplete"]
    return {
        (f"{resource}.{group}", name, verb)
        for rule in answer["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def further_rights(server: ApiServer, namespace: str) -> set[Right]:
    """Return what the operator may do that a stranger may not."""
    return rights(server, ACCOUNT, namespace) - rights(server, "stranger", namespace)


def test_its_rights_are_those_that_it_needs_where_it_watches(server: ApiServer, stack: Stack):
    assert further_rights(server, WATCHED) == {
        (resource, "", verb) for resource, verbs in WATCHED_RIGHTS.items() for verb in verbs.split()
    }


@pytest.mark.parametrize("namespace", [UNWATCHED, "default", "kube-system"])
def test_it_has_no_rights_elsewhere(server: ApiServer, release: Release, namespace: str):
    """Rights to what has no namespace, or in all of them, would be among these too."""
    assert further_rights(server, namespace) == set()


def test_at_home_it_has_its_lease_and_can_stop_itself(server: ApiServer, release: Release):
    lease = {("leases.coordination.k8s.io", "", v) for v in ("get", "create", "patch")}
    assert further_rights(server, HOME) == lease | {("deployments.apps", OPERATOR, "patch")}


def ports_of(release: Release, monitor: dict, namespace: str) -> list[set[str]]:
    """Return the names of ports of each Service that a ServiceMonitor selects."""
    labels = monitor["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    here = (f"--namespace={namespace}", f"--selector={selector}")
    services = release.kubectl.json("get", "services", *here)["items"]
    return [{port["name"] for port in service["spec"]["ports"]} for service in services]


def test_service_monitors_of_a_stack_find_one_service_each(release: Release, stack: Stack):
    monitors = stack.items("servicemonitors")
    names = [each["metadata"]["name"] for each in monitors]
    assert names == ["x-ingestor-default", "x-query", "x-receive"]
    for monitor in monitors:
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        (ports,) = ports_of(release, monitor, WATCHED)
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    jobs = {
        service["metadata"]["labels"][monitors[0]["spec"]["jobLabel"]]
        for service in stack.items("services")
    }
    assert jobs == {"thanos-receive-ingestor", "thanos-receive", "thanos-query"}


def test_what_the_chart_monitors_with_is_stored_as_it_was_rendered(release: Release):
    """The API server drops what a definition does not have."""
    manifest = release.helm("get", "manifest", RELEASE, f"--namespace={HOME}")
    rendered = [each for each in yaml.safe_load_all(manifest) if each]
    kinds = ("PrometheusRule", "ServiceMonitor")
    rendered = sorted((e for e in rendered if e["kind"] in kinds), key=lambda e: str(e["kind"]))
    assert [each["kind"] for each in rendered] == list(kinds)
    for each in rendered:
        name = (each["kind"], each["metadata"]["name"], f"--namespace={HOME}")
        assert release.kubectl.json("get", *name)["spec"] == each["spec"]
    assert ports_of(release, rendered[1], HOME) == [{"http"}]


def test_volumes_grow_without_the_right_to_ask_their_class(release: Release, stack: Stack):
    """The API server's refusal says what the class would have said; it is told with the class."""
    stack.patch({"receive": {"rings": [{"name": "default", "storage": {"size": "20Gi"}}]}})
    told = stack.await_condition("Stalled", "True")
    assert told["reason"] == "ExpansionRefused"
    assert "(StorageClass fake) is refused to grow: 403: " in told["message"]
    assert "the storageclass that provisions the pvc must support resize" in told["message"]
    with claims_may_grow(release.kubectl):
        stack.annotate("service", "x-query", some="event")
        stack.await_condition("VolumesGrown", "True")
        stack.await_ready()


def test_service_monitors_go_when_they_are_not_asked_for(stack: Stack):
    stack.patch({"monitoring": {"serviceMonitor": {"enabled": False}}})
    stack.until("no ServiceMonitors", lambda: not stack.items("servicemonitors"))
    stack.await_ready()


def stop(release: Release, process: OperatorProcess) -> float:
    """Stop the operator while it looks after its stack; return the s that its end took."""
    until("its stack", lambda: process.metric("thanostack_operator_stacks") == 1)
    begun = time.monotonic()
    assert process.stop() == 0
    took_s = time.monotonic() - begun
    lease = release.kubectl.json("get", "lease", OPERATOR, f"--namespace={HOME}")
    assert lease["spec"].get("holderIdentity") is None
    return took_s


def test_it_ends_at_once_and_gives_its_lease_back(
    release: Release, process: OperatorProcess, stack: Stack
):
    """Kopf waits five seconds for tasks that go on: the next operator would, too.

    It would do so every time; a busy machine does not.
    """
    took_s = stop(release, process)
    for _ in range(2):
        if took_s >= 4:
            process.start()
            took_s = stop(release, process)
    assert took_s < 4


def test_an_uninstallation_lets_go_of_stacks(
    server: ApiServer, release: Release, stack: Stack, other: Stack
):
    """No kubelet runs the hook's pod here: this does, as the same account."""
    here = f"--namespace={HOME}"
    (job,) = yaml.safe_load_all(release.helm("get", "hooks", RELEASE, here))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert stack.get("thanosstack", "x")["metadata"]["finalizers"]
    subprocess.run(
        [sys.executable, "-P", "-m", "thanostack_operator", *container["args"]],
        check=True,
        env={**os.environ, "KUBECONFIG": str(server.kubeconfig(ACCOUNT))},
    )
    deployment = release.kubectl.json("get", "deployment", OPERATOR, here)
    assert deployment["spec"]["replicas"] == 0
    release.helm("uninstall", RELEASE, here, "--no-hooks", "--wait")
    assert stack.items("pods")
    for each in (stack, other):
        each.delete()
        each.until("no pods", lambda each=each: not each.items("pods"))
