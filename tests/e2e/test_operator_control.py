"""The operator against real Kubernetes controllers: rings, drift, refusals, restarts.

Pods are a fake kubelet's, which makes them ready and answers for them; that they really store and
route is shown on a real node, in `test_operator_data.py`.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.api_server import ApiServer
from cluster.fake_kubelet import FakeKubelet, running
from cluster.fixtures import new_namespace
from cluster.kubectl import Kubectl, KubectlError
from cluster.operators import OperatorProcess, Stack, operator

from thanostack.testing.processes import until

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "thanostack.io_thanosstacks.yaml"


def apply_crd(kubectl: Kubectl) -> None:
    """Apply the CRD and wait until its kind is served."""
    kubectl.apply(CRD.read_text())
    kubectl.await_crds()


@pytest.fixture(scope="module")
def kubelet(api_server_with_controllers: ApiServer) -> Iterator[FakeKubelet]:
    apply_crd(api_server_with_controllers.kubectl())
    with running(FakeKubelet(api_server_with_controllers.admin)) as kubelet:
        yield kubelet


@pytest.fixture(scope="module")
def kubectl(api_server_with_controllers: ApiServer) -> Kubectl:
    return api_server_with_controllers.kubectl()


@pytest.fixture(scope="module")
def process(
    kubelet: FakeKubelet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    with operator(kubelet.kubeconfig, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture
def stack(process: OperatorProcess, kubectl: Kubectl) -> Iterator[Stack]:
    stack = Stack(kubectl, new_namespace(kubectl))
    yield stack
    stack.kubectl(
        "delete", "thanosstack", "--all", f"--namespace={stack.namespace}", "--timeout=60s"
    )


def ingestors_gone(stack: Stack, kubelet: FakeKubelet) -> list[tuple[str, str]]:
    """Return ordinal and drain of the stack's ingestors that ended, in their order."""
    return [
        (name.rsplit("-", 1)[1], state)
        for namespace, name, state in kubelet.removed.values()
        if namespace == stack.namespace and name.startswith("x-ingestor")
    ]


def test_an_empty_spec_becomes_a_whole_stack(stack: Stack):
    """Three ingestors in three zones, in the ring; routers that know it; queriers."""
    stack.apply()
    stack.await_ready()
    assert stack.members() == [0, 1, 2]
    config_map = stack.get("configmap", "x-hashrings")
    ring = json.loads(config_map["data"]["hashrings.json"])[0]
    assert ring["algorithm"] == "ketama"
    assert {e["az"] for e in ring["endpoints"]} == {"zone-a", "zone-b", "zone-c"}
    assert stack.get("deployment", "x-receive")["status"]["readyReplicas"] == 2
    assert stack.get("deployment", "x-query")["status"]["readyReplicas"] == 2
    status = stack.status()
    assert len(status["hashrings"]["acknowledged"]) == 2
    assert status["hashrings"]["missing"] == []
    line = stack.kubectl("get", "tstk", "x", f"--namespace={stack.namespace}", "--no-headers")
    assert line.split()[:4] == ["x", "True", "1.0", "3/3"]


def test_rest_is_rest(stack: Stack, process: OperatorProcess):
    """A stack that is as it should be is looked at, and nothing is written."""
    stack.apply()
    objects = ("thanosstack/x", "deployment/x-query")
    before = stack.await_rest(*objects)
    changes = process.metric("thanostack_operator_changes_total")
    writes = process.metric("thanostack_operator_writes_total")
    passes = process.metric("thanostack_operator_reconciles_total")
    for number in range(3):  # events that ask for passes
        stack.annotate("service", "x-query", some=str(number))
        time.sleep(0.5)
    until("a pass", lambda: process.metric("thanostack_operator_reconciles_total") > passes)
    assert process.metric("thanostack_operator_changes_total") == changes
    assert process.metric("thanostack_operator_writes_total") == writes
    assert stack.versions(*objects) == before


def test_a_ring_grows_one_by_one_and_shrinks_after_drains(stack: Stack, kubelet: FakeKubelet):
    stack.apply()
    stack.await_ready()
    stack.patch({"receive": {"rings": [{"name": "default", "replicas": 5}]}})
    stack.await_ready()
    assert stack.members() == [0, 1, 2, 3, 4]
    kubelet.removed.clear()
    stack.patch({"receive": {"rings": [{"name": "default", "replicas": 3}]}})
    stack.await_ready(180)
    assert stack.members() == [0, 1, 2]
    assert ingestors_gone(stack, kubelet) == [("4", "drained"), ("3", "drained")]
    claims = stack.kubectl("get", "pvc", f"--namespace={stack.namespace}", "-o", "name").split()
    assert len(claims) == 5  # volumes stay
    # The volumes remember their drain: whoever comes back on them is told to serve.
    stack.patch({"receive": {"rings": [{"name": "default", "replicas": 5}]}})
    stack.await_ready()
    assert stack.members() == [0, 1, 2, 3, 4]


def test_ingestors_that_never_ran_go_without_a_drain(stack: Stack):
    """A ring whose volumes nobody provides is taken back, and nothing waits a drain's time."""
    rest = {"name": "default", "replicas": 3}
    far = {"name": "far", "replicas": 3, "tenants": ["t"], "storage": {"className": "nowhere"}}
    stack.apply(receive={"rings": [rest]})
    stack.await_ready()
    stack.patch({"receive": {"rings": [far, rest]}})

    def pending() -> int:
        return sum(pod["status"]["phase"] == "Pending" for pod in stack.pods("ingestor"))

    stack.until("pods that no node takes", lambda: pending() == 3)
    stack.patch({"receive": {"rings": [rest]}})
    stack.await_ready(60)
    assert len(stack.pods("ingestor")) == 3
    here = f"--namespace={stack.namespace}"
    told = stack.kubectl("get", "events", here, "--field-selector=reason=IngestorRemoved")
    assert told.count("never ran and has no volume") == 3


def test_nothing_moves_until_all_routers_have_the_ring(stack: Stack, kubelet: FakeKubelet):
    stack.apply()
    stack.await_ready()
    router = stack.items("pods")
    names = [p["metadata"]["name"] for p in router if p["metadata"]["name"].startswith("x-receive")]
    kubelet.deaf.add(names[0])
    stack.patch({"receive": {"rings": [{"name": "default", "replicas": 5}]}})
    stack.until("the first step", lambda: stack.members() == [0, 1, 2, 3])
    stack.until("the other router", lambda: stack.status()["hashrings"]["missing"] == [names[0]])
    time.sleep(4)
    assert stack.members() == [0, 1, 2, 3]
    assert names[0] in stack.condition("RingStable")["message"]
    assert stack.status()["hashrings"]["missing"] == [names[0]]
    kubelet.deaf.clear()
    stack.kubectl("delete", "pod", names[0], f"--namespace={stack.namespace}")
    stack.await_ready()
    assert stack.members() == [0, 1, 2, 3, 4]


def start_anew(stack: Stack, process: OperatorProcess) -> None:
    """Start an operator that need not wait for the Lease of a killed one to end."""
    stack.kubectl(
        "patch", "lease", "thanostack-operator", "--namespace=default", "--type=merge",
        "-p", '{"spec":{"holderIdentity":null}}',
    )  # fmt: skip
    process.start()


def test_an_operator_killed_at_any_step_of_a_scale_down_goes_on(
    stack: Stack, process: OperatorProcess, kubelet: FakeKubelet
):
    """Each is killed at its first step, until the ring is small and whole."""
    written = ("thanosstack/x", "configmap/x-hashrings", "statefulset/x-ingestor-default")
    stack.apply(receive={"rings": [{"name": "default", "replicas": 5}]})
    stack.await_ready()
    kubelet.removed.clear()
    process.stop(signal.SIGKILL)
    stack.patch({"receive": {"rings": [{"name": "default", "replicas": 3}]}})
    kills, deadline = 0, time.monotonic() + 240
    while time.monotonic() < deadline and len(stack.items("pods")) > 7:
        start_anew(stack, process)
        before = stack.versions(*written)
        while stack.versions(*written) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        process.stop(signal.SIGKILL)
        kills += 1
    start_anew(stack, process)
    stack.await_ready(120)
    assert stack.members() == [0, 1, 2]
    assert ingestors_gone(stack, kubelet) == [("4", "drained"), ("3", "drained")]
    assert kills >= 6, "two ingestors leave in three steps each at least"


def test_deleted_children_come_back_and_foreign_edits_go(stack: Stack):
    stack.apply()
    stack.await_ready()
    here = f"--namespace={stack.namespace}"
    for child in ("service/x-query", "deployment/x-query", "pdb/x-ingestor-default"):
        stack.kubectl("delete", child, here)
    stack.until(
        "the children",
        lambda: stack.get("service", "x-query") and stack.get("deployment", "x-query"),
    )
    stack.await_ready()
    stack.kubectl("scale", "deployment/x-query", "--replicas=5", here)
    stack.until("two replicas", lambda: stack.get("deployment", "x-query")["spec"]["replicas"] == 2)
    stack.kubectl(
        "patch", "configmap", "x-hashrings", here, "-p", '{"data":{"hashrings.json":"[]"}}'
    )
    stack.until("the ring", lambda: stack.members() == [0, 1, 2])
    events = stack.kubectl("get", "events", here, "--field-selector=reason=Drift")
    assert "kubectl" in events
    assert "spec.replicas" in events


def test_what_others_add_is_told_and_stays(stack: Stack):
    """A variable is named with its manager, once; a restart and defaults are no additions."""
    stack.apply()
    stack.await_ready()
    here = f"--namespace={stack.namespace}"
    stack.kubectl("rollout", "restart", "deployment/x-receive", here)
    stack.kubectl("set", "env", "deployment/x-query", "FOO=1", here)
    condition = stack.await_condition("NoDrift", "False")
    assert condition["reason"] == "ForeignFields"
    variable = "Deployment x-query: spec.template.spec.containers[thanos-query].env[FOO]"
    assert condition["message"] == f"{variable} was added by kubectl-set; it stays"
    objects = ("thanosstack/x", "deployment/x-query")
    before = stack.await_rest(*objects)
    stack.annotate("service", "x-query", some="thing")  # an event that asks for a pass
    time.sleep(2)
    assert stack.versions(*objects) == before
    told = stack.kubectl(
        "get", "events", here, "--field-selector=reason=ForeignFields", "--output=name"
    )
    assert len(told.split()) == 1
    stack.kubectl("set", "env", "deployment/x-query", "FOO-", here)
    stack.await_condition("NoDrift", "True")


def test_a_missing_secret_is_named_and_nothing_changes(stack: Stack):
    stack.apply()
    stack.await_ready()
    before = stack.get("deployment", "x-query")["metadata"]["generation"]
    stack.patch(
        {"query": {"secrets": [{"name": "certificates", "mountPath": "/etc/certificates"}]}}
    )
    condition = stack.await_condition("SpecValid", "False")
    assert "certificates" in condition["message"]
    assert stack.get("deployment", "x-query")["metadata"]["generation"] == before
    stack.kubectl("create", "secret", "generic", "certificates", f"--namespace={stack.namespace}")
    stack.await_ready()


def test_pods_that_are_refused_are_explained(stack: Stack):
    """By a quota, say: there is no pod then that could tell why."""
    stack.apply(podDefaults={"priorityClassName": "missing"})

    def messages() -> list[str]:
        components = stack.status().get("components", [])
        return [c["message"] for c in components if c["name"] != "x-receive"]

    def explained() -> bool:
        told = messages()
        return len(told) == 2 and all("no PriorityClass" in message for message in told)

    stack.until("the reasons", explained)
    assert "no PriorityClass" in stack.condition("Ready")["message"]


def test_a_rollout_that_stalls_stops_and_says_why(stack: Stack, kubelet: FakeKubelet):
    """An image that cannot be pulled: one ingestor is lost to it, no other component changes."""
    stack.apply(receive={"rings": [{"name": "default", "minReadySeconds": 1}]})
    stack.await_ready()
    kubelet.broken_images.add("thanostack/thanostack:9.9")
    stack.patch({"version": "9.9"})
    condition = stack.await_condition("Stalled", "True")
    assert "ImagePullBackOff" in condition["message"]
    images = {
        name: stack.get("deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("x-receive", "x-query")
    }
    assert set(images.values()) == {"thanostack/thanostack:1.0"}
    ready = [i for i in stack.items("pods") if "ingestor" in i["metadata"]["name"]]
    assert sum(p["status"].get("phase") == "Running" for p in ready) == 2
    stack.patch({"version": None})
    stack.await_ready()
    kubelet.broken_images.clear()
    stack.patch({"version": "2.0"})
    stack.await_ready()
    assert stack.status()["version"] == "2.0"


def test_two_stacks_in_one_namespace_keep_apart(stack: Stack):
    other = Stack(stack.kubectl, stack.namespace, "y")
    stack.apply()
    other.apply(receive={"rings": [{"name": "default", "replicas": 4}]})
    stack.await_ready()
    other.await_ready()
    other.delete()
    assert stack.condition("Ready")["status"] == "True"
    assert stack.members() == [0, 1, 2]
    assert len(stack.items("pods")) == 7


def test_an_object_of_somebody_else_is_left_alone(stack: Stack):
    """The stack waits and says whose it is; given away by labels, the object is taken over."""
    here = f"--namespace={stack.namespace}"
    stack.kubectl("create", "service", "clusterip", "x-query", "--tcp=80:80", here)
    before = stack.get("service", "x-query")
    stack.apply()
    condition = stack.await_condition("Stalled", "True")
    assert condition["reason"] == "NameTaken"
    assert "Service x-query is there already" in condition["message"]
    assert "kubectl-create made it" in condition["message"]
    warnings = ("get", "events", here, "--field-selector=type=Warning")
    stack.until("the event", lambda: "x-query" in stack.kubectl(*warnings))
    time.sleep(1)
    assert stack.get("service", "x-query") == before
    assert stack.items("deployments,statefulsets,services,configmaps") == []
    command = condition["message"].partition("`kubectl ")[2].partition("`")[0]
    stack.kubectl(*command.split())
    stack.await_ready()
    ports = stack.get("service", "x-query")["spec"]["ports"]
    assert {10901, 10902} <= {port["port"] for port in ports}


def test_of_two_stacks_that_want_one_name_the_first_has_it(stack: Stack):
    """Ring `b-ingestor-c` of `a` and ring `c` of `a-ingestor-b`."""
    first = Stack(stack.kubectl, stack.namespace, "a")
    second = Stack(stack.kubectl, stack.namespace, "a-ingestor-b")
    first.apply(receive={"rings": [{"name": "b-ingestor-c", "replicas": 3}]})
    first.await_ready()
    before = first.get("statefulset", "a-ingestor-b-ingestor-c")
    second.apply(receive={"rings": [{"name": "c", "replicas": 4}]})
    condition = second.await_condition("Stalled", "True")
    assert "StatefulSet a-ingestor-b-ingestor-c" in condition["message"]
    assert "ThanosStack a owns it" in condition["message"]
    assert first.get("statefulset", "a-ingestor-b-ingestor-c")["spec"] == before["spec"]
    assert second.items("deployments,statefulsets,services") == []
    assert first.condition("Ready")["status"] == "True"


def test_flush_drains_every_ingestor_before_the_resource_goes(stack: Stack, kubelet: FakeKubelet):
    stack.apply(deletionPolicy="Flush")
    stack.await_ready()
    kubelet.removed.clear()
    stack.delete()
    stack.until("no pods", lambda: not stack.items("pods"))
    assert sorted(ingestors_gone(stack, kubelet)) == [(str(i), "drained") for i in range(3)]


def test_keep_lets_the_resource_go_at_once(stack: Stack, process: OperatorProcess):
    stack.apply(deletionPolicy="Keep")
    stack.await_ready()
    assert "finalizers" not in stack.get("thanosstack", "x")["metadata"]


def test_a_namespace_goes_with_the_stack_in_it(stack: Stack, kubelet: FakeKubelet):
    """Whatever goes first, nothing waits for what is gone: not for the time of a drain."""
    stack.apply(deletionPolicy="Flush")
    stack.await_ready()
    stack.kubectl("delete", "namespace", stack.namespace, "--timeout=90s")


def test_a_node_port_that_somebody_chose_stays(stack: Stack):
    """The resource has no field for it."""
    spec = {"receive": {"routers": {"service": {"type": "NodePort"}}}}
    stack.apply(**spec)
    stack.await_ready()
    here = f"--namespace={stack.namespace}"
    port = '{"spec":{"ports":[{"port":19291,"nodePort":30291}]}}'
    stack.kubectl("patch", "service", "x-receive", here, "-p", port)
    stack.patch({"receive": {"routers": {"service": {"annotations": {"a": "b"}}}}})
    stack.until(
        "the annotation",
        lambda: stack.get("service", "x-receive")["metadata"]["annotations"].get("a"),
    )
    chosen = {p["port"]: p["nodePort"] for p in stack.get("service", "x-receive")["spec"]["ports"]}
    assert chosen[19291] == 30291
    assert not stack.kubectl("get", "events", here, "--field-selector=reason=Drift")


def test_paused_means_nothing_is_touched(stack: Stack):
    stack.apply()
    stack.await_ready()
    stack.patch({"paused": True, "query": {"replicas": 3}})
    stack.await_condition("Paused", "True")
    time.sleep(2)
    assert stack.get("deployment", "x-query")["spec"]["replicas"] == 2
    stack.patch({"paused": False})
    stack.until(
        "three queriers", lambda: stack.get("deployment", "x-query")["spec"]["replicas"] == 3
    )


def test_a_second_operator_waits_and_takes_over(
    stack: Stack, process: OperatorProcess, tmp_path: Path
):
    until("the first", lambda: process.metric("thanostack_operator_ready") == 1)
    with operator(process.kubeconfig, tmp_path, "--identity=second") as second:
        stack.apply()
        stack.await_ready()
        passes = until(
            "its metrics", lambda: [second.metric("thanostack_operator_reconciles_total")]
        )
        assert passes == [0]
        process.stop()
        stack.patch({"query": {"replicas": 3}})
        stack.until(
            "the second", lambda: stack.get("deployment", "x-query")["spec"]["replicas"] == 3
        )
        until("its pass", lambda: second.metric("thanostack_operator_reconciles_total") > 0)
        process.start()
        second.stop()
    until("the first again", lambda: process.metric("thanostack_operator_stacks") >= 1)


def test_unknown_fields_are_refused(stack: Stack):
    with pytest.raises(KubectlError, match=r"unknown field|not declared in schema"):
        stack.apply(receive={"ring": []})


def test_an_operator_that_is_there_before_its_crd(api_server: ApiServer, tmp_path: Path):
    """It says what it waits for; it does not outlive its CRD, but waits for it when restarted."""
    kubectl = api_server.kubectl()
    kubectl("delete", "crd", "thanosstacks.thanostack.io", "--ignore-not-found", "--timeout=60s")
    with operator(api_server.admin, tmp_path) as process:
        until("the reason", lambda: "install the CRD" in process.log.read_text())
        stack = Stack(kubectl, new_namespace(kubectl))
        apply_crd(kubectl)
        stack.apply(deletionPolicy="Keep")
        stack.await_condition("Ready", "False")
        kubectl("delete", "crd", "thanosstacks.thanostack.io", "--timeout=60s")
        assert process.process is not None
        assert process.process.wait(60) == 1
        *_, last = process.log.read_text().splitlines()
        assert "install the CRD" in last
        process.start()
        apply_crd(kubectl)
        stack.apply(deletionPolicy="Keep")
        stack.await_condition("Ready", "False")


def test_an_operator_without_rights_says_which_one_it_lacks(
    api_server_with_controllers: ApiServer,
    process: OperatorProcess,
    tmp_path: Path,
    kubectl: Kubectl,
):
    process.stop()  # the last test of all: the one with rights is in the way
    namespace = new_namespace(kubectl)
    here = f"--namespace={namespace}"
    owned = "statefulsets.apps,deployments.apps,services,configmaps"
    rules = [
        ("thanosstacks.thanostack.io", "get,list,watch,patch"),
        ("thanosstacks.thanostack.io/status", "patch"),
        (owned, "get,list,watch,patch,create"),
        ("poddisruptionbudgets.policy", "get,list,watch"),  # and not: create, patch
        ("endpointslices.discovery.k8s.io,pods", "list,watch"),
        ("leases.coordination.k8s.io", "get,create,patch"),
        ("events", "create"),
    ]
    for number, (resources, verbs) in enumerate(rules):
        kubectl("create", "role", f"r{number}", f"--verb={verbs}", f"--resource={resources}", here)
        kubectl("create", "rolebinding", f"r{number}", f"--role=r{number}", "--user=narrow", here)
    narrow = api_server_with_controllers.kubeconfig("narrow")
    stack = Stack(kubectl, namespace)
    with operator(narrow, tmp_path, f"--namespace={namespace}", f"--lease-namespace={namespace}"):
        stack.apply(deletionPolicy="Keep")
        stack.await_condition("Ready", "False")
        stack.until(
            "the refusal",
            lambda: "cannot patch resource" in stack.condition("Stalled").get("message", ""),
        )
        assert "poddisruptionbudgets" in stack.condition("Stalled")["message"]
