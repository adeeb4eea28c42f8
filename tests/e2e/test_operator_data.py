"""The operator on a real node: what is acknowledged stays readable, whatever it changes.

this test ──> Service metrics-receive ──> routers ──> ingestors <── queriers <── Service ──

Senders write all the time, to one Service address, without retries: some keep their connections,
some open one for each request. The first answer to each request counts.
"""

from __future__ import annotations

import json
import time

import pytest
from cluster.cluster import Cluster
from cluster.project import NEXT_VERSION, chart_version
from cluster.release import querier, router_address
from cluster.writes import Querier

from thanostack.testing.ports import free_port
from thanostack.testing.processes import prometheus, until
from thanostack_operator.observe import is_ready

pytestmark = pytest.mark.timeout(900)
# From when a router is dead until no new connection goes to it: the kubelet looks at containers
# each second, and the Service hears of it.
UNREADY_S = 5
CUT_MAX = 200
PROMETHEUS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["127.0.0.1:{own}"]}}]
remote_write:
- url: http://{host}:{port}/api/v1/receive
  headers: {{THANOS-TENANT: team-a}}
"""


@pytest.fixture
def stack(example_stack):
    return example_stack


def check(tally, *, cut_max=0):
    """Nothing was refused and nothing is lost; there was a load."""
    assert tally.lost == 0, tally.details
    assert not tally.refused, tally.details
    assert tally.cut <= cut_max
    assert tally.acknowledged > 20


def test_a_prometheus_writes_to_it_and_its_tenant_alone_can_read(cluster, stack, tmp_path):
    begun = time.monotonic()
    services = ("metrics-receive", "metrics-query")
    until("the Services", lambda: all(stack.get("service", name) for name in services))
    address, there = router_address(cluster, stack), querier(cluster, stack).address
    own = free_port()
    config = PROMETHEUS.format(own=own, host=address[0], port=address[1])
    with prometheus(tmp_path / "prometheus", config=config, port=own):
        # A scrape fails that takes over a second while the stack starts.
        found = until("a sample", lambda: Querier(there, "team-a").query("up == 1"), 300)
        print(f"\nfrom apply to the first answered query: {time.monotonic() - begun:.1f} s")
        assert found[0]["metric"]["tenant_id"] == "team-a"
        assert found[0]["value"][1] == "1"
        assert Querier(there, "team-b").query("up") == []
        assert Querier(there).query('{__name__=~".+"}') == []
    stack.await_ready(300)
    print(f"to Ready: {time.monotonic() - begun:.1f} s")


def rings(replicas, size="50Gi"):
    """Return the example's ring with so many ingestors, and volumes of a size."""
    ring = {"name": "default", "retention": "15d", "storage": {"size": size}}
    # By default 35 s, for clusters that cache DNS longer than this one.
    return {"receive": {"rings": [ring | {"replicas": replicas, "minReadySeconds": 6}]}}


def at_size(stack, replicas):
    """Have it so large, which it is already after the test before."""
    stack.patch(rings(replicas))
    stack.await_settled()


def test_a_ring_grows(stack, writes):
    with writes.phase("ring 3 -> 5") as tally:
        stack.patch(rings(5))
        stack.await_settled()
        assert stack.members() == [0, 1, 2, 3, 4]
    check(tally)


def test_a_ring_shrinks(stack, writes):
    at_size(stack, 5)
    with writes.phase("ring 5 -> 4") as tally:
        stack.patch(rings(4))
        stack.await_settled()
        assert stack.members() == [0, 1, 2, 3]
        assert len(stack.pods("ingestor")) == 4
    check(tally)


def step_of(stack):
    """Return all that a scale-down changes, as one value, and how many ingestors there are."""
    names = ["tstk/metrics", "configmap/metrics-hashrings", "statefulset/metrics-ingestor-default"]
    answer = stack.kubectl.json("get", *names, f"--namespace={stack.namespace}")
    resource, config_map, stateful_set = answer["items"]
    status = resource["status"]
    n_pods = stateful_set["status"]["replicas"]
    return n_pods, json.dumps(
        [
            config_map["data"],
            status["hashrings"],
            [ring["waiting"] for ring in status["rings"]],
            [transition["name"] for transition in status["transitions"]],
            [condition["message"] for condition in status["conditions"]],
            stateful_set["spec"]["replicas"],
            n_pods,
        ]
    )


def test_an_operator_killed_at_every_step_of_a_scale_down_goes_on(stack, writes, release):
    """Whenever anything of the stack has changed the operator is killed."""
    at_size(stack, 4)
    steps = []
    with writes.phase("ring 4 -> 3, the operator killed at every step") as tally:
        stack.patch(rings(3))
        deadline = time.monotonic() + 300
        n_pods = 4
        while n_pods > 3 and time.monotonic() < deadline:
            n_pods, step = step_of(stack)
            if step not in steps:
                steps.append(step)
                release.kill_operator()
        stack.await_settled()
        assert stack.members() == [0, 1, 2]
    print(f"{len(steps)} operators killed")
    check(tally)
    assert len(steps) >= 4


def test_routers_are_replaced(stack, writes):
    with writes.phase("router rollout") as tally:
        stack.patch({"receive": {"routers": {"extraArgs": ["--receive.request-bytes-max=16MiB"]}}})
        stack.await_settled()
    check(tally)


FORCED = ("--grace-period=0", "--force")


def replace(stack, name, *how):
    """Delete a pod and wait until another one is ready and all is as it should be.

    That it is ready the pod itself says: the stack is Ready until the operator has looked.
    """
    old = stack.get("pod", name)["metadata"]["uid"]
    stack.kubectl("delete", "pod", name, f"--namespace={stack.namespace}", *how)

    def is_replaced():
        pod = stack.get("pod", name)
        return is_other(pod, old) and is_ready(pod)

    stack.until("another pod, ready", is_replaced, 240)
    stack.await_settled()


@pytest.mark.parametrize("how", [(), FORCED], ids=["asked", "forced"])
def test_an_ingestor_is_deleted(stack, writes, how):
    with writes.phase(" ".join(("kubectl delete pod of an ingestor", *how))) as tally:
        replace(stack, "metrics-ingestor-default-1", *how)
    check(tally)


def is_other(pod, uid):
    return pod is not None and pod["metadata"]["uid"] != uid


def kill_9(cluster, stack, pod):
    """Kill a pod's process and wait until another has taken its place and is ready."""
    status = pod["status"]["containerStatuses"][0]
    cluster.kill_container(status["containerID"])
    name = pod["metadata"]["name"]

    def is_back():
        now = stack.get("pod", name)["status"]["containerStatuses"][0]
        return now["restartCount"] > status["restartCount"] and now["ready"]

    stack.until("the container", is_back)


def own_cluster(cluster):
    if not isinstance(cluster, Cluster):
        pytest.skip("containers are killed on a node of our own only")


def test_an_ingestor_is_killed(cluster, stack, writes):
    own_cluster(cluster)
    with writes.phase("kill -9 of an ingestor") as tally:
        kill_9(cluster, stack, stack.pods("ingestor")[0])
        stack.await_settled()
    check(tally)


def test_ingestors_are_lost_one_after_another(cluster, stack, writes):
    """Routers find the one that has a new address before they need it."""
    own_cluster(cluster)
    with writes.phase("of ingestors one deleted, the next killed, three times") as tally:
        for ordinal in range(3):
            replace(stack, f"metrics-ingestor-default-{ordinal}", *FORCED)
            kill_9(cluster, stack, stack.pods("ingestor")[(ordinal + 1) % 3])
            stack.await_settled()
    check(tally)


def test_a_router_is_killed(cluster, stack, writes):
    """What it held is cut, as nobody else could answer that; nothing acknowledged is lost."""
    own_cluster(cluster)
    with writes.phase("kill -9 of a router") as tally, writes.router_kill(UNREADY_S):
        kill_9(cluster, stack, stack.pods("receive")[0])
        stack.await_settled()
    check(tally, cut_max=CUT_MAX)


def images_of(stack):
    pods = [*stack.pods("ingestor"), *stack.pods("receive"), *stack.pods("query")]
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}


def test_an_upgrade_that_is_turned_back(stack, writes):
    """As soon as an ingestor has the next version; that one has hardly started then."""
    at_size(stack, 3)
    with writes.phase("an upgrade that is turned back") as tally:
        stack.patch({"version": NEXT_VERSION})
        stack.until("an ingestor of the next version", lambda: NEXT_VERSION in images_of(stack))
        stack.patch({"version": None})
        stack.await_settled()
        assert images_of(stack) == {chart_version()}
    check(tally)


def test_an_upgrade(stack, writes):
    """Of every component, to the next version."""
    with writes.phase("an upgrade") as tally:
        go_to(stack, NEXT_VERSION)
    check(tally)


def test_a_roll_back(stack, writes):
    """Of every component, after an upgrade that is complete."""
    go_to(stack, NEXT_VERSION)
    with writes.phase("a roll-back") as tally:
        go_to(stack, chart_version())
    check(tally)


def go_to(stack, version):
    """Have the resource name a version, and wait until all pods are of it."""
    stack.patch({"version": version})
    stack.await_settled()
    assert images_of(stack) == {version}
    assert stack.status()["version"] == version


def lives(stack):
    """Return what tells whether a pod was replaced or its container restarted."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            pod["status"]["containerStatuses"][0]["containerID"],
        )
        for pod in (*stack.pods("ingestor"), *stack.pods("receive"), *stack.pods("query"))
    }


def test_volumes_grow(cluster, stack, writes):
    """Claims and StatefulSet; the folders that are volumes here have no size, and say so."""
    at_size(stack, 3)
    name = "metrics-ingestor-default"
    claim = stack.get("persistentvolumeclaim", f"data-{name}-0")
    allow = ("patch", "storageclass", claim["spec"]["storageClassName"], "-p")
    cluster.kubectl(*allow, '{"allowVolumeExpansion":true}')
    before, former = lives(stack), stack.get("statefulset", name)["metadata"]["uid"]
    with writes.phase("volumes 50Gi -> 60Gi") as tally:
        stack.patch(rings(3, "60Gi"))
        stack.until(
            "another StatefulSet", lambda: is_other(stack.get("statefulset", name), former), 120
        )
        stack.await_settled()
        time.sleep(5)
    cluster.kubectl(*allow, '{"allowVolumeExpansion":false}')
    assert lives(stack) == before
    (template,) = stack.get("statefulset", name)["spec"]["volumeClaimTemplates"]
    claims = [template, *stack.items("persistentvolumeclaims")]
    sizes = [each["spec"]["resources"]["requests"]["storage"] for each in claims]
    assert sizes[:4] == ["60Gi"] * 4
    assert "ask for 60Gi and have 50Gi" in stack.condition("VolumesGrown")["message"]
    check(tally)


def test_whatever_was_done_nothing_that_was_acknowledged_is_lost(writes):
    """Read at the end, through ingestors that have been other pods many times."""
    tally = writes.whole("all phases")
    assert tally.lost == 0, tally.details
    assert tally.samples > 1000
