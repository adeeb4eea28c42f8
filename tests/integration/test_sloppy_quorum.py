"""Two of five ingestors are gone at three replicas: what a quorum refuses and a sloppy one takes.

strict router ──┐
                ├──> ingestors 0, 1 (killed), 2, 3, 4  <── query
sloppy router ──┘
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.processes import our_query, our_receive, until

pytestmark = pytest.mark.enable_socket
N_SERIES, N_REPLICAS = 200, 3
FLAGS = ("--receive.hashrings-algorithm=ketama", f"--receive.replication-factor={N_REPLICAS}")


def body(name):
    now = int(time.time() * 1000)
    rows = ({"__name__": name, "n": str(n)} for n in range(N_SERIES))
    return request_body((labels, [(now, 1.0)]) for labels in rows)


def test_shares_of_nodes_that_are_gone_go_to_the_next_ones(tmp_path):
    """Each series has all its replicas on the three that are left, and is read once."""
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        ingestors = [start(our_receive(tmp_path / f"i{n}", replica=f"r{n}")) for n in range(5)]
        ring = json.dumps([{"endpoints": [f"127.0.0.1:{i.grpc_port}" for i in ingestors]}])
        flags = (f"--receive.hashrings={ring}", *FLAGS)
        strict = start(our_receive(tmp_path / "strict", *flags))
        sloppy = start(our_receive(tmp_path / "sloppy", *flags, "--receive.sloppy-quorum"))
        query = start(our_query(tmp_path, *(i.grpc_port for i in ingestors[2:])))
        for server in (*ingestors, strict, sloppy, query):
            server.wait_ready()
        for ingestor in ingestors[:2]:
            ingestor.kill()
        with pytest.raises(RuntimeError, match=r" 503 .*are not on 2 of 3 replicas"):
            strict.send([body("strict")])
        for _ in range(3):
            sloppy.send([body("sloppy")])

        def count(**parameters):
            found = query.api("query", query="count(sloppy)", **parameters)["result"]
            return found and int(found[0]["value"][1])

        until("each series once", lambda: count() == N_SERIES)
        until("three copies", lambda: count(dedup="false") == N_REPLICAS * N_SERIES)
