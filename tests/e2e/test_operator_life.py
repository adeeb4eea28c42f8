"""A second cluster beside the first: side by side, the chart's upgrade, a stop, the uninstallation.

The tests are in the order of that cluster's life.
"""

from __future__ import annotations

import pytest
from cluster.cluster import Cluster
from cluster.given import GivenCluster
from cluster.operators import Stack
from cluster.project import add_project_images, tag_for_chart
from cluster.release import Release, querier, router_address
from cluster.writes import Writes

from thanostack.testing.processes import until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        GivenCluster.from_environment() is not None, reason="KUBECONFIG chooses another cluster"
    ),
]
RUN = 7
# Has a finalizer of the operator's, unlike the first cluster's stack.
SPEC = {
    "deletionPolicy": "Flush",
    "receive": {"routers": {"replicas": 1}, "rings": [{"name": "default"}]},
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


def test_two_clusters_have_a_stack_each(other_writes, writes):
    """Both are written to at the same time, and each gives back what is its own."""
    with (
        writes.phase("two clusters, the first") as first,
        other_writes.phase("two clusters, the second") as second,
    ):
        other_writes.senders.await_writes(30)
    for tally in (first, second):
        assert (tally.lost, sum(tally.refused.values())) == (0, 0), tally.details
    for asked, foreign in ((writes, other_writes), (other_writes, writes)):
        assert asked.querier.query(f'sent{{run="{foreign.senders.run}"}}[1h]') == []


def test_an_upgrade_of_the_chart_keeps_stacks_as_they_are(other, other_stack, other_writes):
    """Another operator takes over; resource, objects and pods stay."""

    def identities():
        pods = {(pod["metadata"]["uid"], restarts(pod)) for pod in other_stack.items("pods")}
        return pods, other_stack.get("thanosstack", "metrics")["metadata"]["uid"]

    before = identities()
    release = Release(other.kubectl, "thanostack-system")
    (old,) = release.operator_pods()
    with other_writes.phase("upgrade of the chart") as tally:
        release.install(logLevel="debug")
        until("another operator", lambda: is_gone(release, old))
        other_stack.await_ready()
    assert (tally.lost, sum(tally.refused.values())) == (0, 0), tally.details
    assert identities() == before


def restarts(pod):
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def is_gone(release, pod):
    return pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in release.operator_pods()}


@pytest.fixture(scope="module")
def again(other, other_stack, other_writes):
    """The second cluster after all its processes were killed and it was started anew."""
    other_writes.senders.halt()
    other.stop()
    again = Cluster.start(other.folder, zone="zone-b")
    other_stack.await_ready(300)
    yield again
    again.stop()


def test_a_node_that_stops_comes_back_with_all_samples(again, other_stack, other_writes):
    tally = other_writes.whole("all before a stop of the node")
    assert tally.samples > 1000
    assert tally.lost == 0, tally.details
    address = router_address(again, other_stack)
    writes = Writes.to(address, querier(again, other_stack), RUN + 1)
    with writes.phase("after a stop of the node") as tally:
        pass
    writes.senders.halt()
    assert (tally.lost, sum(tally.refused.values())) == (0, 0), tally.details


def test_an_uninstallation_leaves_stacks_that_run_and_can_be_deleted(again, other_stack):
    """The CRD, the stack, its pods and volumes stay; no finalizer waits for who is gone."""
    pods = {pod["metadata"]["uid"] for pod in other_stack.items("pods")}
    assert other_stack.get("thanosstack", "metrics")["metadata"]["finalizers"]
    release = Release(again.kubectl, "thanostack-system")
    release.uninstall()
    assert release.operator_pods() == []
    assert {pod["metadata"]["uid"] for pod in other_stack.items("pods")} == pods
    assert "finalizers" not in other_stack.get("thanosstack", "metrics")["metadata"]
    other_stack.delete()
    other_stack.until("no pods", lambda: not other_stack.items("pods"))
    claims = again.kubectl.json("get", "pvc", "--namespace=default")["items"]
    assert len(claims) == 3
