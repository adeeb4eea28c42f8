"""Two receivers of ours that are replicas, and a querier of each make over both.

    Prometheus, router, tests ──writes──> receive a, receive b  <── query (ours)
                                                                <── query (real Thanos)

Started once for all modules that want them: each test writes tenants of its own.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from thanostack.testing.processes import Server, our_query, our_receive, thanos_query, until


@dataclass
class Pair:
    """What runs; receivers carry `replica="a"` and `replica="b"`."""

    folder: Path
    a: Server
    b: Server
    ours: Server
    real: Server

    def await_label(self, name, value):
        """Wait until both queriers show a label value: they learn of new tenants from Info."""
        for querier in (self.ours, self.real):
            until(
                f"{name}={value} at {querier.name}",
                lambda querier=querier: value in querier.api(f"label/{name}/values"),
            )


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(our_receive(folder / "a", replica="a"))
        b = stack.enter_context(our_receive(folder / "b", replica="b"))
        ports = (a.grpc_port, b.grpc_port)
        ours = stack.enter_context(our_query(folder, *ports))
        real = stack.enter_context(thanos_query(folder, *ports))
        pair = Pair(folder, a, b, ours, real)
        for server in (a, b, ours, real):
            server.wait_ready()
        yield pair
