"""A real Thanos router with default flags spreads a real Prometheus's writes over two ingestors.

Prometheus ──1.0──> router (real) ──gRPC, snappy──> receive a, receive b  <── query (ours)
"""

import json
import time

import pytest

from thanostack.testing import held_samples
from thanostack.testing.bodies import request_body
from thanostack.testing.ports import free_port
from thanostack.testing.processes import prometheus, thanos_receive, until

pytestmark = pytest.mark.interop
TENANT = "routed"
SCRAPES = 15
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{written_by: prometheus}}}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
- url: http://127.0.0.1:{to}/api/v1/receive
  headers: {{THANOS-TENANT: {tenant}}}
"""


@pytest.fixture(scope="module")
def router(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("router") / "data"
    endpoints = [f"127.0.0.1:{pair.a.grpc_port}", f"127.0.0.1:{pair.b.grpc_port}"]
    ring = json.dumps([{"endpoints": endpoints}])
    with thanos_receive(folder, f"--receive.hashrings={ring}") as server:
        server.wait_ready()
        yield server


def test_what_is_routed_arrives(pair, router, tmp_path):
    """Every sample of the Prometheus is in one of the two ingestors, and both have their share."""
    port = free_port()
    config = CONFIG.format(port=port, to=router.write_port, tenant=TENANT)
    with prometheus(tmp_path / "prometheus", config=config, port=port) as server:
        server.wait_ready()

        def last_of_enough():
            found = server.api("query", query="up[5m]")["result"]
            return found and found[0]["values"][SCRAPES:]

        fence = float(until("scrapes", last_of_enough)[-1][0])
        sent = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
        until("the queue beyond the fence", lambda: min(server.metric(sent), default=0) > fence + 2)
        own = held_samples.of_query(server, '{__name__=~".+"}[5m]', fence)
        failed = server.metric("prometheus_remote_storage_samples_failed_total")
    everything = f'{{tenant_id="{TENANT}", __name__=~".+"}}'
    pair.await_result(f"count by (replica) ({everything})", fence, 2)
    got = held_samples.of_query(pair.ours, f"{everything}[5m]", fence, dedup="false")
    shares = [sum(("replica", name) in labels for labels in got) for name in "ab"]
    print(
        f"{held_samples.size(own)} samples there, {held_samples.size(got)} here, series: {shares}"
    )
    assert failed == [0]
    assert min(shares) > 0.3 * len(own)
    got = held_samples.without(got, "replica", "tenant_id", "written_by")
    assert held_samples.differences(own, got) == []


def test_a_conflict_comes_back(router):
    """Our refusal of another value at a time is the router's 409; a repetition is success."""
    now = int(time.time() * 1000)

    def body(value):
        series = [({"__name__": "conflict", "n": str(n)}, [(now, value)]) for n in range(20)]
        return [request_body(series)]

    router.send(body(1.0), tenant=TENANT)
    router.send(body(1.0), tenant=TENANT)
    with pytest.raises(RuntimeError, match="409"):
        router.send(body(2.0), tenant=TENANT)
