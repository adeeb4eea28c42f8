"""What the operator costs while nothing happens: fifty stacks, as they should be."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from cluster import fake_kubelet
from cluster.api_server import running_api_server
from cluster.fake_kubelet import FakeKubelet, running
from cluster.operators import Stack, operator
from cluster.project import ROOT

from thanostack.testing.processes import Server, until
from thanostack_operator.api.crd import FILE

pytestmark = pytest.mark.timeout(600)
N_STACKS = 50
REST_S = 30  # each stack is looked at once a minute
SMALL = {
    "deletionPolicy": "Keep",
    "receive": {
        "replicationFactor": 1,
        "routers": {"replicas": 1},
        "rings": [{"name": "default", "replicas": 1}],
    },
    "query": {"replicas": 1},
}


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """An operator, and a function that returns its stacks; all are ready.

    On an API server of its own, which nobody has to clean up.
    """
    monkeypatch.setattr(fake_kubelet, "LOOK_EVERY_S", 1.0)  # 150 pods; others want the CPU
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(
            running_api_server(tmp_path / "server", controllers=True, scheduler=True)
        )
        kubectl = server.kubectl()
        kubectl.apply((ROOT / FILE).read_text(encoding="utf-8"))
        kubectl.await_crds()
        opened.enter_context(running(FakeKubelet(server.admin)))
        process = opened.enter_context(operator(server.admin, tmp_path))
        items = [Stack(kubectl, "default", f"s{n}").manifest(**SMALL) for n in range(N_STACKS)]
        kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        until("all are ready", lambda: n_ready(kubectl) == N_STACKS, 400)
        yield process, lambda: stacks(kubectl)


def stacks(kubectl):
    return kubectl.json("get", "tstk", "--namespace=default")["items"]


def n_ready(kubectl):
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for item in stacks(kubectl)
        for condition in item.get("status", {}).get("conditions", [])
    )


def counters(process):
    """Return passes, and requests that changed anything, as the operator counts them."""
    names = ("reconciles", "writes")
    passes, writes = (process.metric(f"thanostack_operator_{name}_total") for name in names)
    return passes, writes


def test_fifty_stacks_at_rest_cost_little_and_write_nothing(fleet):
    process, resources = fleet
    time.sleep(5)  # the last events
    versions = [item["metadata"]["resourceVersion"] for item in resources()]
    server = Server("operator", process.process)
    passes, writes = counters(process)
    begun, cpu_s = time.monotonic(), server.cpu_s()
    time.sleep(REST_S)
    cpu = (server.cpu_s() - cpu_s) / (time.monotonic() - begun)
    after = counters(process)
    rss, peak = server.memory_mib("VmRSS"), server.memory_mib()
    print(
        f"\n{N_STACKS} stacks at rest for {REST_S} s: {cpu:.1%} of a core, {rss:.0f} MiB "
        f"(at most {peak:.0f}), {after[0] - passes:.0f} passes, {after[1] - writes:.0f} writes"
    )
    assert [item["metadata"]["resourceVersion"] for item in resources()] == versions
    assert after[1] == writes
    assert after[0] > passes
    assert cpu < 0.1
    assert rss < 256  # the limit that the chart sets
