"""Fixtures for whoever tests against a cluster; a conftest imports those that it wants.

Set-up is once a session: tests keep apart by namespaces of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from cluster.api_server import ApiServer, running_api_server
from cluster.cluster import Cluster
from cluster.given import GivenCluster
from cluster.kubectl import Helm, Kubectl
from cluster.programs import HELM
from cluster.project import OPERATOR_IMAGE, ROOT, SERVICES_IMAGE, tag_for_chart
from thanostack.testing.go_programs import build

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server without controllers: what is written stays as it is written."""
    with running_api_server(tmp_path_factory.mktemp("api-server")) as server:
        yield server


@pytest.fixture(scope="session")
def api_server_with_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with controllers and scheduler, without a kubelet: pods never start."""
    folder = tmp_path_factory.mktemp("api-server-with-controllers")
    with running_api_server(folder, controllers=True, scheduler=True) as server:
        yield server


def new_namespace(kubectl: Kubectl) -> str:
    """Create a namespace that no other test has, and return its name."""
    name = f"test-{next(_numbers)}"
    kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | GivenCluster]:
    """A cluster with a node: that of KUBECONFIG if it is set, else one of our own."""
    given = GivenCluster.from_environment()
    if given:
        yield given
        return
    with Cluster.start(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="session")
def helm(cluster: Cluster | GivenCluster) -> Helm:
    """The helm of a user who may do anything on the cluster."""
    return Helm(build(HELM), cluster.kubeconfig)


@pytest.fixture(scope="session")
def services_image(cluster: Cluster | GivenCluster) -> str:
    """The name of the services' image, which pods of the cluster find."""
    cluster.add_project_image(SERVICES_IMAGE, ROOT, "services/Dockerfile")
    return SERVICES_IMAGE


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster | GivenCluster) -> str:
    """The name of the operator's image, which pods of the cluster find."""
    cluster.add_project_image(OPERATOR_IMAGE, ROOT, "operator/Dockerfile")
    return OPERATOR_IMAGE


@pytest.fixture(scope="session")
def chart_images(cluster: Cluster | GivenCluster, services_image: str, operator_image: str) -> None:
    """The images under the names that the chart and its operator give them."""
    tag_for_chart(cluster)
