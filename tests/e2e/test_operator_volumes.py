"""Volumes that grow, against real Kubernetes controllers: no pod is replaced, nothing is lost.

The API server decides which claim may grow, the garbage collector orphans pods, the controller of
StatefulSets adopts them again. Volumes are a fake driver's.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.api_server import ApiServer
from cluster.fake_kubelet import GROWING_CLASS, FakeKubelet, claims_may_grow, running
from cluster.fixtures import new_namespace
from cluster.kubectl import Kubectl
from cluster.operators import OperatorProcess, Stack, operator
from cluster.project import ROOT

from thanostack_operator.api.crd import FILE
from thanostack_operator.plan.observed import dig

SET = "x-ingestor-default"


@pytest.fixture(scope="module")
def kubectl(api_server_with_controllers: ApiServer) -> Kubectl:
    kubectl = api_server_with_controllers.kubectl()
    kubectl.apply((ROOT / FILE).read_text(encoding="utf-8"))
    kubectl.await_crds()
    return kubectl


@pytest.fixture(scope="module")
def kubelet(api_server_with_controllers: ApiServer, kubectl: Kubectl) -> Iterator[FakeKubelet]:
    with running(FakeKubelet(api_server_with_controllers.admin)) as kubelet:
        yield kubelet


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
    stack.delete()


def sized(size: str, replicas: int = 3, class_name: str | None = GROWING_CLASS) -> dict[str, Any]:
    storage = {"size": size} | ({"className": class_name} if class_name else {})
    ring = {"name": "default", "replicas": replicas, "storage": storage, "minReadySeconds": 1}
    return {"receive": {"rings": [ring]}}


def pods(stack: Stack) -> dict[str, Any]:
    """Return what tells whether a pod was replaced or restarted, by its name."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            pod["metadata"]["labels"].get("controller-revision-hash"),
            [it["restartCount"] for it in dig(pod, "status", "containerStatuses", default=[])],
        )
        for pod in stack.items("pods")
    }


def requests(stack: Stack) -> dict[str, str]:
    """Return what each claim asks for, by its ordinal."""
    return {
        claim["metadata"]["name"].rpartition("-")[2]: claim["spec"]["resources"]["requests"][
            "storage"
        ]
        for claim in stack.items("persistentvolumeclaims")
    }


def template_size(stack: Stack) -> Any:
    path = ("volumeClaimTemplates", 0, "spec", "resources", "requests", "storage")
    return dig(stack.get("statefulset", SET), "spec", *path)


def reasons(stack: Stack) -> list[str]:
    """Return the reasons of the events on the resource, in the order of their seconds."""
    found = json.loads(
        stack.kubectl("get", "events", f"--namespace={stack.namespace}", "-o", "json",
                      "--field-selector=involvedObject.kind=ThanosStack",
                      "--sort-by=.metadata.creationTimestamp")
    )["items"]  # fmt: skip
    return [event["reason"] for event in found]


@contextlib.contextmanager
def no_sets_made(stack: Stack) -> Iterator[None]:
    """Have StatefulSets refused for the time of the block: one that goes stays away."""
    here = f"--namespace={stack.namespace}"
    stack.kubectl("create", "quota", "no-sets", "--hard=count/statefulsets.apps=0", here)
    try:
        stack.until("the quota", lambda: dig(stack.get("quota", "no-sets"), "status", "used"))
        yield
    finally:
        stack.kubectl("delete", "quota", "no-sets", here)


def await_grown(stack: Stack, size: str) -> None:
    """Wait until a stack is ready with volumes of a size, and check that it is."""
    stack.await_condition("VolumesGrown", "True")
    stack.await_ready()
    assert template_size(stack) == size
    assert set(requests(stack).values()) == {size}


def test_volumes_grow_and_no_pod_is_touched(stack: Stack):
    stack.apply(**sized("10Gi"))
    stack.await_ready()
    before, former = pods(stack), stack.get("statefulset", SET)["metadata"]["uid"]
    n_told = len(reasons(stack))
    time.sleep(1)  # events are told apart by seconds
    stack.apply(**sized("20Gi"))
    await_grown(stack, "20Gi")
    assert pods(stack) == before
    live = stack.get("statefulset", SET)["metadata"]["uid"]
    assert live != former
    owners = {dig(pod, "metadata", "ownerReferences", 0, "uid") for pod in stack.pods("ingestor")}
    assert owners == {live}, "they are adopted"
    assert stack.members() == [0, 1, 2]
    wanted = {"VolumesGrow", "StatefulSetReplaced", "VolumesGrown"}
    stack.until("the events", lambda: wanted <= set(reasons(stack)))
    told = reasons(stack)
    assert not {"Drift", "ComponentsNotAvailable", "RingChanged"} & set(told[n_told:])


def test_a_pod_that_ends_afterwards_comes_back_to_its_volume(stack: Stack):
    """The StatefulSet that was made anew is a whole one; what held the stack meanwhile is gone."""
    stack.apply(**sized("10Gi"), deletionPolicy="Keep")
    stack.await_ready()
    stack.apply(**sized("20Gi"), deletionPolicy="Keep")
    await_grown(stack, "20Gi")
    assert "finalizers" not in stack.get("thanosstack", "x")["metadata"]
    volumes = {c["metadata"]["uid"] for c in stack.items("persistentvolumeclaims")}
    former = pods(stack)[f"{SET}-1"]
    stack.kubectl("delete", "pod", f"{SET}-1", f"--namespace={stack.namespace}")
    stack.until("another pod", lambda: pods(stack).get(f"{SET}-1", former) != former)
    stack.await_ready()
    assert {c["metadata"]["uid"] for c in stack.items("persistentvolumeclaims")} == volumes


def test_replicas_that_grow_at_once_get_the_new_size(stack: Stack):
    stack.apply(**sized("10Gi"))
    stack.await_ready()
    before = pods(stack)
    stack.apply(**sized("20Gi", 5))
    await_grown(stack, "20Gi")
    assert sorted(requests(stack)) == ["0", "1", "2", "3", "4"]
    assert before.items() <= pods(stack).items()
    capacity = stack.get("persistentvolumeclaim", f"data-{SET}-4")["status"]["capacity"]["storage"]
    assert capacity == "20Gi"


def test_a_kept_volume_grows_when_the_ring_grows_over_it(stack: Stack):
    stack.apply(**sized("10Gi", 4))
    stack.await_ready()
    stack.apply(**sized("10Gi", 3))
    stack.await_ready()
    stack.apply(**sized("20Gi", 3))
    stack.await_condition("VolumesGrown", "True")
    assert requests(stack) == {"0": "20Gi", "1": "20Gi", "2": "20Gi", "3": "10Gi"}
    stack.apply(**sized("20Gi", 4))
    await_grown(stack, "20Gi")
    assert stack.members() == [0, 1, 2, 3]


def test_an_operator_that_is_killed_while_the_set_is_gone_makes_it(
    stack: Stack, process: OperatorProcess
):
    stack.apply(**sized("10Gi"))
    stack.await_ready()
    before, rings = pods(stack), stack.status()["rings"]
    here = f"--namespace={stack.namespace}"
    process.stop(signal.SIGKILL)
    stack.kubectl("delete", "statefulset", SET, "--cascade=orphan", here)
    stack.apply(**sized("20Gi"))
    process.start()
    await_grown(stack, "20Gi")
    assert pods(stack) == before
    assert stack.status()["rings"] == rings, "nobody left"


@pytest.mark.parametrize("moment", ["claims grow", "the set is gone", "it is made anew"])
def test_an_operator_that_is_killed_at_any_moment_is_followed(
    stack: Stack, process: OperatorProcess, moment: str
):
    stack.apply(**sized("10Gi"))
    stack.await_ready()
    before = pods(stack)
    has_come = {
        "claims grow": lambda: "20Gi" in requests(stack).values(),
        "the set is gone": lambda: stack.get("statefulset", SET) is None,
        "it is made anew": lambda: template_size(stack) == "20Gi",
    }[moment]
    with no_sets_made(stack) if moment == "the set is gone" else contextlib.nullcontext():
        stack.apply(**sized("20Gi"))
        stack.until(moment, has_come)
        process.stop(signal.SIGKILL)
    process.start()
    await_grown(stack, "20Gi")
    assert pods(stack) == before


def test_a_stack_that_is_deleted_while_the_set_is_gone_leaves_no_pods(
    stack: Stack, process: OperatorProcess
):
    stack.apply(**sized("10Gi"), deletionPolicy="Keep")
    stack.await_ready()
    with no_sets_made(stack):
        stack.apply(**sized("20Gi"), deletionPolicy="Keep")
        stack.until("the moment", lambda: stack.get("statefulset", SET) is None)
        process.stop(signal.SIGKILL)
        stack.kubectl("delete", "tstk", "x", f"--namespace={stack.namespace}", "--wait=false")
    process.start()
    stack.until("no pods", lambda: not stack.items("pods"))
    stack.apply(deletionPolicy="Keep")  # for the fixture to delete


def test_a_class_that_forbids_it_stops_nothing_else(stack: Stack):
    """And once it allows it, volumes grow."""
    stack.apply(**sized("10Gi", class_name=None))
    stack.await_ready()
    wanted = sized("20Gi", 4, class_name=None)
    stack.apply(**wanted, query={"replicas": 3}, podDefaults={"logLevel": "debug"})
    told = stack.await_condition("Stalled", "True")
    assert told["reason"] == "ExpansionRefused"
    claims = ", ".join(f"data-{SET}-{n}" for n in range(3))
    assert f"StorageClass fake does not let {claims}" in told["message"]
    assert "set allowVolumeExpansion: true on StorageClass fake" in told["message"]
    stack.until("the other changes", lambda: stack.members() == [0, 1, 2, 3])
    stack.await_condition("UpgradeInProgress", "False")
    assert stack.get("deployment", "x-query")["spec"]["replicas"] == 3
    stack.await_ended()
    for pod in stack.items("pods"):
        assert "--log.level=debug" in pod["spec"]["containers"][0]["args"]
    assert set(requests(stack).values()) == {"10Gi"}
    assert reasons(stack).count("Stalled") in (1, 2)  # the fourth claim is told of, too
    with claims_may_grow(stack.kubectl):
        stack.annotate("service", "x-query", some="event")
        await_grown(stack, "20Gi")


def test_what_a_quota_refuses_is_passed_on(stack: Stack):
    stack.apply(**sized("10Gi"))
    stack.await_ready()
    here = f"--namespace={stack.namespace}"
    stack.kubectl("create", "quota", "small", "--hard=requests.storage=40Gi", here)
    stack.until("the quota", lambda: dig(stack.get("quota", "small"), "status", "used"))
    stack.apply(**sized("20Gi"))
    message = stack.await_condition("Stalled", "True")["message"]
    assert "exceeded quota: small" in message
    assert f"data-{SET}-" in message
    assert template_size(stack) == "10Gi"
    stack.kubectl("delete", "quota", "small", here)
    stack.annotate("service", "x-query", some="event")
    await_grown(stack, "20Gi")


def test_a_file_system_that_waits_for_a_pod_is_told(stack: Stack, kubelet: FakeKubelet):
    stack.apply(**sized("10Gi"))
    stack.await_ready()
    kubelet.small_file_systems = True
    stack.apply(**sized("20Gi"))
    stack.until("the set", lambda: template_size(stack) == "20Gi")
    stack.await_ready()
    stack.annotate("service", "x-query", some="event")
    told = stack.until(
        "the words",
        lambda: "a pod has to start" in stack.condition("VolumesGrown").get("message", ""),
    )
    assert told
    message = stack.condition("VolumesGrown")["message"]
    assert f"delete pod {SET}-0" in message
    kubelet.small_file_systems = False
    stack.until("the driver", lambda: all(
        claim["status"]["capacity"]["storage"] == "20Gi"
        for claim in stack.items("persistentvolumeclaims")
    ))  # fmt: skip
    stack.annotate("service", "x-query", some="other event")
    stack.await_condition("VolumesGrown", "True")
