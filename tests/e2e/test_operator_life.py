"""A second cluster beside the first: two stacks in it, the chart's upgrade, a stop, the end.

The tests are in the order of that cluster's life.
"""

from __future__ import annotations

import datetime as dt

import pytest
from cluster.cluster import Cluster
from cluster.given import GivenCluster
from cluster.operators import Stack
from cluster.project import NEXT_VERSION, add_project_images, chart_version, tag_for_chart
from cluster.release import Release, querier, router_address
from cluster.writes import Writes

from thanostack.testing.processes import until
from thanostack_operator.observe import is_ready
from thanostack_operator.plan.observed import dig

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        GivenCluster.from_environment() is not None, reason="KUBECONFIG chooses another cluster"
    ),
]
RUN = 7
# Has a finalizer of the operator's, unlike its neighbour and the first cluster's stack.
SPEC = {
    "version": chart_version(),
    "deletionPolicy": "Flush",
    "receive": {"routers": {"replicas": 1}, "rings": [{"name": "default"}]},
    "query": {"replicas": 1},
}
NEIGHBOUR = {
    "deletionPolicy": "Keep",
    "receive": {
        "replicationFactor": 1,
        "routers": {"replicas": 1},
        "rings": [{"name": "default", "replicas": 1, "minReadySeconds": 1}],
    },
    "query": {"replicas": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("other-cluster")


@pytest.fixture(scope="module")
def other(folder, chart_images):
    """Another cluster with the images and the chart, as it was first started."""
    with Cluster.start(folder, zone="zone-b") as other:
        add_project_images(other)
        tag_for_chart(other)
        Release(other.kubectl, "thanostack-system").install()
        yield other


@pytest.fixture(scope="module")
def other_stack(other):
    stack = Stack(other.kubectl, "default", "metrics")
    stack.apply(**SPEC)
    stack.await_ready(300)
    return stack


@pytest.fixture(scope="module")
def other_writes(other, other_stack):
    writes = Writes.to(router_address(other, other_stack), querier(other, other_stack), RUN)
    yield writes
    writes.senders.halt()


@pytest.fixture
def neighbour(other, other_stack):
    """Another stack in the namespace of the first, ready."""
    stack = Stack(other.kubectl, other_stack.namespace, f"{other_stack.name}-b")
    stack.apply(**NEIGHBOUR)
    stack.await_ready(300)
    return stack


def check(*tallies):
    """Nothing was refused, and nothing is lost."""
    for tally in tallies:
        assert (tally.lost, sum(tally.refused.values())) == (0, 0), tally.details
        assert tally.acknowledged > 10


def identities(stack):
    """Return a stack's objects and the restarts of its pods: equal if nothing was done to it."""
    return stack.objects(), {pod["metadata"]["name"]: restarts(pod) for pod in stack.items("pods")}


def restarts(pod):
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def test_two_clusters_have_a_stack_each(cluster, other, other_writes, writes):
    """Both are written to at the same time, and each gives back what is its own."""
    one, another = (each.kubectl.json("get", "nodes")["items"] for each in (cluster, other))
    assert one[0]["metadata"]["name"] != another[0]["metadata"]["name"]
    with (
        writes.phase("two clusters, the first") as first,
        other_writes.phase("two clusters, the second") as second,
    ):
        other_writes.senders.await_writes(30)
    check(first, second)
    assert_apart(writes, other_writes)


def assert_apart(one, other):
    """Neither's querier has anything that the other's senders wrote."""
    for asked, foreign in ((one, other), (other, one)):
        assert asked.querier.query(f'sent{{run="{foreign.senders.run}"}}[1h]') == []


def test_two_stacks_in_one_namespace_keep_apart(other, other_stack, other_writes, neighbour):
    """What is done to one, its deletion too, changes no object and no pod of the other."""
    near = Writes.to(router_address(other, neighbour), querier(other, neighbour), RUN + 2)
    theirs, ours = identities(neighbour), identities(other_stack)
    with near.phase("two stacks, the second") as second:
        other_stack.patch({"receive": {"routers": {"replicas": 2}}, "query": {"replicas": 2}})
        other_stack.await_ready()
    assert identities(neighbour) == theirs
    assert identities(other_stack) != ours
    ours = identities(other_stack)
    with other_writes.phase("two stacks, the first") as first:
        ring = NEIGHBOUR["receive"]["rings"][0] | {"replicas": 2}
        neighbour.patch({"receive": {"rings": [ring]}, "query": {"replicas": 2}})
        neighbour.await_ready()
        assert neighbour.members() == [0, 1]
        assert_apart(near, other_writes)
        near.senders.halt()
        neighbour.delete()
        neighbour.until("no objects", lambda: not neighbour.objects())
    assert identities(other_stack) == ours
    check(first, second)


def test_an_upgrade_of_the_chart_keeps_stacks_as_they_are(
    other, other_stack, other_writes, neighbour
):
    """Another operator takes over, of another version; only who names no version follows it."""
    before = identities(other_stack)
    release = Release(other.kubectl, "thanostack-system")
    (old,) = release.operator_pods()
    with other_writes.phase("upgrade of the chart") as tally:
        release.install(logLevel="debug", **{"image.tag": NEXT_VERSION})
        until("another operator", lambda: is_gone(release, old))
        neighbour.until("version", lambda: neighbour.status()["version"] == NEXT_VERSION, 120)
        neighbour.await_ready()
        other_stack.await_ready()
    check(tally)
    assert identities(other_stack) == before


def is_gone(release, pod):
    return pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in release.operator_pods()}


@pytest.fixture(scope="module")
def again(other, other_stack, other_writes):
    """The second cluster after all its processes were killed and it was started anew."""
    other_writes.senders.halt()
    other.stop()
    since = dt.datetime.now(dt.UTC)
    again = Cluster.start(other.folder, zone="zone-b")
    assert again.addresses == other.addresses
    for stack in (other_stack, Stack(again.kubectl, "default", "metrics-b")):
        stack.until("pods that started anew", lambda s=stack: have_started(s, since), 300)
        stack.await_ready(300)
    yield again
    again.stop(wipe=True)
    assert not other.folder.exists()


def have_started(stack, since):
    """Return whether all pods are ready now: at first the API has the state of before a stop."""
    pods = stack.items("pods")
    return bool(pods) and all(is_ready(pod) and started(pod) >= since for pod in pods)


def started(pod):
    """Return when a pod's container started that runs; long ago if none does."""
    running = dig(pod, "status", "containerStatuses", 0, "state", "running", "startedAt")
    return dt.datetime.fromisoformat(running or "1970-01-01T00:00:00Z")


def test_a_node_that_stops_comes_back_with_all_samples(again, other_stack, other_writes):
    tally = other_writes.whole("all before a stop of the node")
    assert tally.samples > 1000
    assert tally.lost == 0, tally.details
    address = router_address(again, other_stack)
    writes = Writes.to(address, querier(again, other_stack), RUN + 1)
    with writes.phase("after a stop of the node") as tally:
        pass
    writes.senders.halt()
    check(tally)


def test_an_uninstallation_leaves_stacks_that_run_and_can_be_deleted(again, other_stack):
    """The CRD, the stacks, their pods and volumes stay; no finalizer waits for who is gone."""
    stacks = (other_stack, Stack(again.kubectl, "default", "metrics-b"))
    before = [identities(stack) for stack in stacks]
    flush, keep = (stack.get("thanosstack", stack.name)["metadata"] for stack in stacks)
    assert ("finalizers" in flush, "finalizers" in keep) == (True, False)
    release = Release(again.kubectl, "thanostack-system")
    release.uninstall()
    until("no pod of the operator", lambda: not release.operator_pods())
    assert [identities(stack) for stack in stacks] == before
    for stack in stacks:
        assert "finalizers" not in stack.get("thanosstack", stack.name)["metadata"]
        stack.delete()
        stack.until("no pods", lambda stack=stack: not stack.items("pods"))
    claims = again.kubectl.json("get", "pvc", "--namespace=default")["items"]
    assert len(claims) == 3 + 2
