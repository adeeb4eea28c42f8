"""A plan is carried out in its order, and what is refused keeps nothing else from being done."""

import json

import aiohttp
import pytest

from thanostack_operator.api.reading import read_stack
from thanostack_operator.apply import carry_out, post_event, write_status
from thanostack_operator.kube import ApiError, KubeClient
from thanostack_operator.manifests.names import HASHRINGS_ANNOTATION
from thanostack_operator.plan.observed import Ref
from thanostack_operator.plan.outcome import CancelDrain, Event, Plan, StartDrain, TouchPod
from thanostack_operator.testing.api_server import FakeApiServer, Refusal
from thanostack_operator.testing.clusters import cluster_of, condition, plan_of

CORE = "/api/v1/namespaces/ns"
STACK = "/apis/thanostack.io/v1alpha1/namespaces/ns/thanosstacks/x"


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class Pods:
    """Ingestors that take requests, in order, or raise."""

    def __init__(self, error=None):
        self.asked, self.error = [], error

    async def start_drain(self, address):
        self.asked.append(("start", address))
        if self.error is not None:
            raise self.error

    async def cancel_drain(self, address):
        self.asked.append(("cancel", address))


def refuse(status, message="no"):
    def fault():
        raise Refusal(status, message)

    return fault


@pytest.fixture
def server():
    server = FakeApiServer()
    server.put(STACK, {"metadata": {"name": "x", "namespace": "ns"}, "spec": {}})
    return server


async def carry(server, plan, pods=None, addresses=None):
    stack = read_stack(server.objects.get(STACK) or {"metadata": {"name": "x", "namespace": "ns"}})
    kube = KubeClient(server.client())
    return await carry_out(plan, stack, kube, pods or Pods(), addresses or {})


async def test_requests_are_made_in_the_plans_order(server):
    server.put(f"{CORE}/pods/router", {"metadata": {"name": "router"}})
    old = server.put(f"{CORE}/configmaps/old", config_map("old"))
    plan = Plan(
        apply=(config_map("b"), config_map("a")),
        actions=(TouchPod("router", "17"),),
        prune=(Ref("v1", "ConfigMap", "old", old["metadata"]["uid"]),),
        status={"version": "1"},
    )
    assert await carry(server, plan) == {}
    assert server.writes() == [
        f"PATCH {CORE}/configmaps/b",
        f"PATCH {CORE}/configmaps/a",
        f"PATCH {CORE}/pods/router",
        f"DELETE {CORE}/configmaps/old",
        f"PATCH {STACK}/status",
    ]
    router = server.objects[f"{CORE}/pods/router"]["metadata"]
    assert router["annotations"] == {HASHRINGS_ANNOTATION: "17"}
    assert server.objects[STACK]["status"] == {"version": "1"}


@pytest.mark.parametrize(
    ("status", "stalls"), [(403, True), (422, True), (409, False), (429, False), (500, False)]
)
async def test_what_is_refused_keeps_nothing_else_back(server, status, stalls):
    """And only what will be refused again stalls the stack."""
    server.faults[f"PATCH {CORE}/configmaps/b"] = refuse(status, "because")
    plan = Plan(apply=(config_map("a"), config_map("b"), config_map("c")), status={"version": "1"})
    failures = await carry(server, plan)
    assert failures == {"ConfigMap/b": f"{status}: because"}
    assert f"{CORE}/configmaps/c" in server.objects
    assert server.objects[STACK]["status"] == {"version": "1"}
    told = condition(plan_of(cluster_of(), failures=failures).status, "Stalled")
    assert told["status"] == str(stalls)
    assert ("because" in told["message"]) == stalls


@pytest.mark.parametrize(
    "error", [aiohttp.ClientConnectionError("reset"), TimeoutError(), OSError("no route")]
)
async def test_an_api_server_that_breaks_off_is_a_failure_without_a_code(server, error):
    def fault():
        raise error

    server.faults[f"PATCH {CORE}/configmaps/a"] = fault
    failures = await carry(server, Plan(apply=(config_map("a"), config_map("b"))))
    reason = str(error) or "timeout"
    assert failures == {"ConfigMap/a": f"the API server does not answer: {reason}"}
    assert f"{CORE}/configmaps/b" in server.objects


async def test_only_the_object_that_was_seen_is_deleted(server):
    """It is another one by now, or gone: neither is an error."""
    server.put(f"{CORE}/configmaps/a", config_map("a"))
    plan = Plan(prune=(Ref("v1", "ConfigMap", "a", "former"), Ref("v1", "ConfigMap", "b", "uid")))
    assert await carry(server, plan) == {}
    assert f"{CORE}/configmaps/a" in server.objects


async def test_a_refused_deletion_is_a_failure(server):
    server.put(f"{CORE}/configmaps/a", config_map("a"))
    server.faults[f"DELETE {CORE}/configmaps/a"] = refuse(403)
    plan = Plan(prune=(Ref("v1", "ConfigMap", "a"),))
    assert await carry(server, plan) == {"ConfigMap/a": "403: no"}


async def test_a_pod_may_go_at_any_time(server):
    assert await carry(server, Plan(actions=(TouchPod("gone", "1"),))) == {}


async def test_routers_are_not_told_of_hashrings_that_were_refused(server):
    """They would not be touched again for the same ones, and learn of them a minute late."""
    server.put(f"{CORE}/pods/router", {"metadata": {"name": "router"}})
    server.faults[f"PATCH {CORE}/configmaps/x-hashrings"] = refuse(500)
    plan = Plan(apply=(config_map("x-hashrings"),), actions=(TouchPod("router", "1"),))
    assert list(await carry(server, plan)) == ["ConfigMap/x-hashrings"]
    assert "annotations" not in server.objects[f"{CORE}/pods/router"]["metadata"]
    server.faults.clear()
    assert await carry(server, plan) == {}
    assert "annotations" in server.objects[f"{CORE}/pods/router"]["metadata"]


async def test_drains_are_asked_for_by_address(server):
    pods = Pods()
    plan = Plan(actions=(StartDrain("a"), CancelDrain("b"), StartDrain("without address")))
    assert await carry(server, plan, pods, {"a": "10.0.0.1", "b": "10.0.0.2"}) == {}
    assert pods.asked == [("start", "10.0.0.1"), ("cancel", "10.0.0.2")]


@pytest.mark.parametrize(
    ("error", "words"),
    [(aiohttp.ClientError("refused"), "refused"), (TimeoutError(), "TimeoutError")],
)
async def test_an_ingestor_that_takes_no_request_is_a_failure(server, error, words):
    plan = Plan(actions=(StartDrain("a"), StartDrain("b")))
    pods = Pods(error)
    assert await carry(server, plan, pods, {"a": "1", "b": "2"}) == {
        "Pod/a": words,
        "Pod/b": words,
    }


async def test_a_status_that_stands_is_not_written(server):
    server.objects[STACK]["status"] = {"version": "1"}
    assert await carry(server, Plan(status={"version": "1"})) == {}
    assert server.writes() == []


@pytest.mark.parametrize("change", ["gone", "another"])
async def test_the_status_of_a_resource_that_went_meanwhile_is_no_failure(server, change):
    stack = read_stack(server.objects[STACK])
    former = server.objects.pop(STACK)
    if change == "another":
        server.put(STACK, former | {"metadata": {"name": "x", "namespace": "ns"}})
    await write_status(stack, KubeClient(server.client()), {"version": "1"})
    assert "status" not in server.objects.get(STACK, {})


async def test_a_refused_status_is_a_failure(server):
    server.faults[f"PATCH {STACK}/status"] = refuse(403)
    assert await carry(server, Plan(status={"version": "1"})) == {"ThanosStack/x": "403: no"}
    with pytest.raises(ApiError, match="403"):
        await write_status(read_stack(server.objects[STACK]), KubeClient(server.client()), {})


async def test_an_event_names_the_resource_and_fits():
    server = FakeApiServer()
    stack = read_stack({"metadata": {"name": "x", "namespace": "ns", "uid": "u"}})
    event = Event("Warning", "Drift", "é" * 5000)
    await post_event(stack, KubeClient(server.client()), event, 1_700_000_000.0)
    (posted,) = server.objects.values()
    assert posted["involvedObject"]["uid"] == "u"
    assert (posted["type"], posted["reason"]) == ("Warning", "Drift")
    assert posted["message"] == "é" * 1024
    assert posted["firstTimestamp"] == "2023-11-14T22:13:20Z"
    json.dumps(posted)


async def test_an_event_that_is_refused_is_lost():
    server = FakeApiServer()
    server.faults["POST .*"] = refuse(403)
    stack = read_stack({"metadata": {"name": "x", "namespace": "ns", "uid": "u"}})
    await post_event(stack, KubeClient(server.client()), Event("Normal", "Ready", "yes"), 0.0)
    assert server.objects == {}
