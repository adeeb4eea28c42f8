"""Our router before real Thanos ingestors and ours, beside a real router; either querier reads.

test ──1.0, 2.0──> router (ours) ──gRPC, snappy──> Thanos, Thanos, ours  <── query (real, ours)
                   router (real) ──────────────────^
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from dataclasses import dataclass

import cramjam
import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.processes import (
    Server,
    our_query,
    our_receive,
    thanos_query,
    thanos_receive,
    until,
)
from thanostack.testing.write_storage import write_request_v2

pytestmark = pytest.mark.interop
N_SERIES = 300
KETAMA = "--receive.hashrings-algorithm=ketama"
SPLIT = "--receive.split-tenant-label-name=team"


@dataclass
class Ring:
    """Three ingestors, two routers over them that keep one copy and two that keep three."""

    ingestors: list[Server]
    single: dict[str, Server]
    tripled: dict[str, Server]
    queriers: list[Server]

    def await_count(self, expected: int, selector: str, **parameters: str) -> None:
        """Wait until both queriers count so many series."""
        for querier in self.queriers:

            def count(querier=querier):
                found = querier.api("query", query=f"count({selector})", **parameters)["result"]
                return [int(series["value"][1]) for series in found] == [expected]

            until(f"{expected} series at {querier.name}", count, 60)


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring")
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        ingestors = [
            start(thanos_receive(folder / "a", replica="a")),
            start(thanos_receive(folder / "b", replica="b")),
            start(our_receive(folder / "c", replica="c")),
        ]
        text = json.dumps([{"endpoints": [f"127.0.0.1:{i.grpc_port}" for i in ingestors]}])
        routers = {
            factor: {
                kind: start(
                    receive(
                        folder / f"{kind}{factor}", f"--receive.hashrings={text}", KETAMA, SPLIT,
                        f"--receive.replication-factor={factor}",
                    )
                )
                for kind, receive in (("ours", our_receive), ("real", thanos_receive))
            }
            for factor in (1, 3)
        }  # fmt: skip
        ports = [server.grpc_port for server in ingestors]
        queriers = [start(thanos_query(folder, *ports)), start(our_query(folder, *ports))]
        ring = Ring(ingestors, routers[1], routers[3], queriers)
        for server in (*ingestors, *routers[1].values(), *routers[3].values(), *queriers):
            server.wait_ready()
        yield ring


def body_of(name, time_ms, value=1.0, **labels):
    series = ({"__name__": name, "pod": f"p{n}", **labels} for n in range(N_SERIES))
    return request_body((each, [(time_ms, value)]) for each in series)


def now_ms():
    return int(time.time() * 1000)


def test_each_series_is_on_every_node_and_both_queriers_see_it_once(ring):
    """Three replicas over a mixed ring, with default flags on the wire."""
    ring.tripled["ours"].send([body_of("tripled", now_ms())], tenant="x")
    ring.await_count(N_SERIES, 'tripled{tenant_id="x"}')
    ring.await_count(3 * N_SERIES, 'tripled{tenant_id="x"}', dedup="false")


def test_both_routers_place_every_series_on_the_same_node(ring):
    """Fed in turn they make no second copy of any, and nodes of both kinds have their share."""
    first = now_ms() - 60_000
    for n in range(6):
        kind = ("ours", "real")[n % 2]
        ring.single[kind].send([body_of("placed", first + n * 1000, float(n))])
    ring.await_count(N_SERIES, "placed", dedup="false")
    found = ring.queriers[1].api("query", query="count by (replica) (placed)", dedup="false")
    shares = {s["metric"]["replica"]: int(s["value"][1]) for s in found["result"]}
    assert sum(shares.values()) == N_SERIES
    assert min(shares[name] for name in "abc") > N_SERIES / 6
    counts = ring.queriers[1].api("query", query="count_over_time(placed[10m])", dedup="false")
    assert {series["value"][1] for series in counts["result"]} == {"6"}


def test_tenants_of_a_split_label_reach_nodes_that_know_one_tenant_a_message(ring):
    """Thanos v0.42 answers OK to a message of several tenants and stores nothing of it."""
    for team in ("red", "blue"):
        ring.tripled["ours"].send([body_of("split", now_ms(), team=team)])
        ring.await_count(3 * N_SERIES, f'split{{tenant_id="{team}"}}', dedup="false")


def test_a_second_version_request_reaches_nodes_that_speak_the_first(ring):
    """Translated on the way, with the counts in the answer."""
    series = [({"__name__": "second", "pod": f"p{n}"}, [(now_ms(), 1.0)]) for n in range(50)]
    body = bytes(cramjam.snappy.compress_raw(write_request_v2(*series)))
    connection = http.client.HTTPConnection("127.0.0.1", ring.tripled["ours"].write_port)
    headers = {
        "X-Prometheus-Remote-Write-Version": "2.0.0",
        "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "Content-Encoding": "snappy",
    }
    connection.request("POST", "/api/v1/receive", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    assert (answer.status, text) == (200, b"")
    assert answer.headers["X-Prometheus-Remote-Write-Samples-Written"] == "50"
    ring.await_count(150, "second", dedup="false")


def test_a_refusal_of_real_nodes_is_the_senders_409(ring):
    """Another value at a time; the same value again is a success."""
    at = now_ms()
    router = ring.tripled["ours"]
    router.send([body_of("conflict", at), body_of("conflict", at)])
    with pytest.raises(RuntimeError, match=r"409 .*300 of 300 series are not on 2 of 3 replicas"):
        router.send([body_of("conflict", at, 2.0)])
