"""Clusters for the tests below this folder; each is started when the first test asks for it."""

import signal

import pytest
from cluster.fixtures import (
    api_server,
    api_server_with_controllers,
    chart_images,
    cluster,
    helm,
    operator_image,
    services_image,
)
from cluster.stack_fixtures import example_stack, release, writes

__all__ = [
    "api_server",
    "api_server_with_controllers",
    "chart_images",
    "cluster",
    "example_stack",
    "helm",
    "operator_image",
    "release",
    "services_image",
    "writes",
]


def pytest_collection_modifyitems(items):
    """Mark the modules that need a node, which are half of `make e2e`."""
    modules = {item.module for item in items if "cluster" in item.fixturenames}
    for item in items:
        if item.module in modules:
            item.add_marker(pytest.mark.node)


def pytest_configure():
    """Being told to end is like Ctrl-C: clusters are taken down first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
