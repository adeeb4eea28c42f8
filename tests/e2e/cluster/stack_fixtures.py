"""The shortest example as a stack on the cluster's node, and writes to it, for all tests.

The operator is installed by helm; the stack is `docs/examples/thanosstack.yaml`, unchanged. Both
stay until the last test, and so do the writes: whatever tests do to the stack happens under them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster
from cluster.fixtures import new_namespace
from cluster.given import GivenCluster
from cluster.operators import Stack
from cluster.project import EXAMPLE
from cluster.release import Release, querier, router_address
from cluster.writes import Writes

# Of this run's four senders one opens a connection for each request, one keeps its own for ever.
RUN = 35


@pytest.fixture(scope="session")
def release(cluster: Cluster | GivenCluster, chart_images: None) -> Iterator[Release]:
    """The chart, installed; what goes with its cluster is not uninstalled."""
    release = Release(cluster.kubectl, "thanostack-system")
    release.install()
    yield release
    if isinstance(cluster, GivenCluster):
        release.uninstall()


@pytest.fixture(scope="session")
def example_stack(cluster: Cluster | GivenCluster, release: Release) -> Iterator[Stack]:
    """The example, applied a moment ago."""
    namespace = new_namespace(cluster.kubectl)
    stack = Stack(cluster.kubectl, namespace, "metrics")
    cluster.kubectl.apply(EXAMPLE.read_text(encoding="utf-8"), f"--namespace={namespace}")
    yield stack
    if isinstance(cluster, GivenCluster):
        stack.delete()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="session")
def writes(cluster: Cluster | GivenCluster, example_stack: Stack) -> Iterator[Writes]:
    """Steady writes to the example from now on."""
    example_stack.await_ready(300)
    address = router_address(cluster, example_stack)
    writes = Writes.to(address, querier(cluster, example_stack), RUN)
    yield writes
    writes.senders.halt()
