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

    def await_result(self, query, at_s, n_results=1):
        """Wait until both queriers give so many results: they hear of new data every 5 s."""
        for querier in (self.ours, self.real):
            until(
                f"{n_results} of {query} at {querier.name}",
                lambda querier=querier: (
                    n_results
                    == len(querier.api("query", query=query, time=at_s, dedup="false")["result"])
                ),
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
