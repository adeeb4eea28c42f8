"""The loop of a stack: when it makes a pass, when it waits, and what it outlives."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from thanostack_operator import loop as module
from thanostack_operator.kube import KubeClient
from thanostack_operator.loop import Loops, StackLoop, Tools
from thanostack_operator.metrics import Metrics
from thanostack_operator.plan import planner
from thanostack_operator.plan.observed import Drain, items_of
from thanostack_operator.testing.api_server import FakeApiServer, Refusal

RECHECK_S = 10_000.0
PATH = "/apis/thanostack.io/v1alpha1/namespaces/ns/thanosstacks/x"
READ = f"GET {PATH}"


class Pods:
    """No pod answers."""

    async def config_hash(self, _):
        return None, "refused"

    async def drain(self, _):
        return Drain("unknown", "refused")


@dataclass
class World:
    """An API server with a stack in it, and the loops of an operator.

    Args:
        passes: when one began, by the event loop's clock.
    """

    server: FakeApiServer
    loops: Loops
    passes: list[float] = field(default_factory=list)
    now: float = 1_700_000_000.0

    def sample(self, name, **labels):
        return self.loops.tools.metrics.registry.get_sample_value(name, labels)

    def waits(self):
        """Return the seconds between passes."""
        return [round(b - a, 3) for a, b in zip(self.passes, self.passes[1:], strict=False)]

    def events(self):
        """Return the reasons of the events that were posted."""
        return [o["reason"] for path, o in self.server.objects.items() if "/events/" in path]

    def condition(self, kind):
        found = items_of(self.server.objects[PATH]["status"], "conditions")
        return next(c for c in found if c["type"] == kind)


def put(server, **spec):
    former = server.objects.get(PATH, {"metadata": {"name": "x", "namespace": "ns"}})
    generation = former["metadata"].get("generation", 0) + 1
    metadata = former["metadata"] | {"generation": generation}
    server.put(PATH, former | {"metadata": metadata, "spec": spec})


@pytest.fixture
async def world(monkeypatch):
    # Only errors and events make passes, unless a test waits for that long.
    monkeypatch.setattr(planner, "BUSY_RECHECK_S", RECHECK_S)
    server = FakeApiServer(absent={"monitoring.coreos.com/v1"})
    put(server)
    tools = Tools(
        KubeClient(server.client()), Pods(), Metrics(CollectorRegistry()), "1.0", "here/services"
    )
    world = World(server, Loops(tools))
    tools.clock = lambda: world.now
    server.faults[READ] = lambda: world.passes.append(asyncio.get_running_loop().time())
    yield world
    await world.loops.stop()


async def passes_in(world, s):
    """Return how many passes are begun in the next seconds."""
    before = len(world.passes)
    await asyncio.sleep(s)
    return len(world.passes) - before


async def settled(world):
    """Start the loop and return once it has nothing more to write."""
    world.loops.ensure("ns", "x")
    for _ in range(3):
        await passes_in(world, 1)
        world.loops.wake("ns", "x")
    await passes_in(world, 1)


async def test_many_events_make_one_pass(world):
    await settled(world)
    for _ in range(20):
        world.loops.wake("ns", "x")
        await asyncio.sleep(0.009)
    assert await passes_in(world, 1) == 1


async def test_an_event_during_a_pass_makes_another(world):
    await settled(world)
    woken = []

    def wake_once():
        if not woken:
            woken.append(1)
            world.loops.wake("ns", "x")

    world.server.faults["GET .*/pods"] = wake_once
    world.loops.wake("ns", "x")
    assert await passes_in(world, 1) == 2


async def test_a_child_without_a_loop_starts_none(world):
    world.loops.wake("ns", "gone")
    assert world.sample("thanostack_operator_stacks") == 0
    assert await passes_in(world, 1) == 0


async def test_a_loop_is_started_once(world):
    for _ in range(3):
        world.loops.ensure("ns", "x")
    assert world.sample("thanostack_operator_stacks") == 1


def refuse(status=500):
    def fault():
        raise Refusal(status, "no")

    return fault


async def test_after_errors_it_waits_twice_as_long_each_time_up_to_a_bound(world):
    await settled(world)
    world.passes.clear()
    world.server.faults["GET .*/pods"] = refuse()
    world.loops.wake("ns", "x")
    await asyncio.sleep(250)
    assert world.waits() == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert world.sample("thanostack_operator_reconciles_total", result="error") == 10


async def test_after_a_success_the_next_error_waits_briefly_again(world):
    await settled(world)
    world.server.faults["GET .*/pods"] = refuse()
    world.loops.wake("ns", "x")
    await asyncio.sleep(100)
    del world.server.faults["GET .*/pods"]
    world.loops.wake("ns", "x")
    await asyncio.sleep(1)
    world.server.faults["GET .*/pods"] = refuse()
    world.passes.clear()
    world.loops.wake("ns", "x")
    await asyncio.sleep(10)
    assert world.waits() == [1, 2, 4]


async def test_an_event_cuts_the_wait_after_an_error_short(world):
    world.server.faults["GET .*/pods"] = refuse()
    world.loops.ensure("ns", "x")
    await asyncio.sleep(300)
    world.loops.wake("ns", "x")
    assert await passes_in(world, 1) == 1


async def test_what_nothing_tells_of_is_looked_at_now_and_then(world):
    await settled(world)
    world.passes.clear()
    await asyncio.sleep(3 * RECHECK_S)
    assert world.waits() == [RECHECK_S] * 2


async def test_a_bug_in_a_plan_ends_a_pass_and_not_the_loop(world, monkeypatch, caplog):
    right, wrong = module.plan, [1, 2]

    def plan(*arguments, **more):
        if wrong:
            wrong.pop()
            raise KeyError("a bug")
        return right(*arguments, **more)

    monkeypatch.setattr(module, "plan", plan)
    world.loops.ensure("ns", "x")
    await asyncio.sleep(10)
    assert world.waits() == [1, 2]
    assert "pass ended by a bug stack=ns/x" in caplog.text
    assert world.condition("SpecValid")["status"] == "True"


async def test_a_request_that_is_refused_is_tried_again_and_stands_in_the_status(world):
    query = "PATCH .*/deployments/x-query"
    world.server.faults[query] = refuse(403)
    world.loops.ensure("ns", "x")
    await asyncio.sleep(10)
    assert world.condition("Stalled")["message"] == "Deployment/x-query: 403: no"
    assert (
        world.sample(
            "thanostack_operator_stack_condition", namespace="ns", stack="x", condition="Stalled"
        )
        == 1
    )
    assert world.sample("thanostack_operator_reconciles_total", result="error") >= 3
    del world.server.faults[query]
    for _ in range(2):  # it is made, and it is seen to be
        world.loops.wake("ns", "x")
        await asyncio.sleep(1)
    assert world.condition("Stalled")["status"] == "False"
    assert any(path.endswith("/deployments/x-query") for path in world.server.objects)


async def test_a_stack_that_names_no_image_gets_the_operators_own(world):
    def image():
        (query,) = [
            o for p, o in world.server.objects.items() if p.endswith("/deployments/x-query")
        ]
        return query["spec"]["template"]["spec"]["containers"][0]["image"]

    await settled(world)
    assert image() == "here/services:1.0"
    put(world.server, image={"repository": "there/thanostack"})
    world.server.put(PATH, world.server.objects[PATH])
    await settled(world)
    assert image() == "there/thanostack:1.0"


async def test_a_stack_at_rest_is_left_alone(world):
    await settled(world)
    before = len(world.server.writes())
    for _ in range(3):
        world.loops.wake("ns", "x")
        assert await passes_in(world, 1) == 1
    assert len(world.server.writes()) == before


async def test_a_paused_stack_is_written_no_more_than_its_status(world):
    await settled(world)
    put(world.server, paused=True, query={"replicas": 5})
    before = len(world.server.writes())
    world.loops.wake("ns", "x")
    await passes_in(world, 1)
    written = world.server.writes()[before:]
    assert {w for w in written if "/events" not in w} == {f"PATCH {PATH}/status"}
    assert world.condition("Paused")["status"] == "True"
    assert "Paused" in world.events()


async def test_a_wrong_spec_is_told_once_and_touches_nothing(world):
    await settled(world)
    objects = {p: o for p, o in world.server.objects.items() if "/events/" not in p and p != PATH}
    put(world.server, query={"replicas": "many"})
    for _ in range(3):
        world.loops.wake("ns", "x")
        await passes_in(world, 1)
    assert objects.items() <= world.server.objects.items()
    assert world.condition("SpecValid")["status"] == "False"
    assert world.events().count("SpecInvalid") == 1
    assert (
        world.sample(
            "thanostack_operator_stack_condition", namespace="ns", stack="x", condition="SpecValid"
        )
        == 0
    )


async def test_an_event_is_posted_again_only_after_a_while(world):
    stack_loop = StackLoop("ns", "x", world.loops.tools)
    put(world.server, query={"replicas": "many"})
    for later_s, told in ((0, 1), (100, 1), (700, 2), (100, 2)):
        world.now += later_s
        await stack_loop.reconcile()
        assert world.events().count("SpecInvalid") == told


async def test_a_stack_that_is_gone_ends_its_loop_and_its_series(world):
    await settled(world)
    del world.server.objects[PATH]
    world.loops.wake("ns", "x")
    await asyncio.sleep(1)
    assert world.sample("thanostack_operator_stacks") == 0
    series = "thanostack_operator_stack_condition"
    assert world.sample(series, namespace="ns", stack="x", condition="Ready") is None
    assert await passes_in(world, 1) == 0


async def test_a_stack_that_is_made_anew_at_once_has_a_loop(world):
    await settled(world)
    del world.server.objects[PATH]
    began = world.passes.append

    def remake():
        """The resource comes back, and is seen, after it was found to be gone."""
        began(asyncio.get_running_loop().time())
        world.server.faults[READ] = lambda: began(asyncio.get_running_loop().time())
        asyncio.get_running_loop().call_soon(come_back)

    def come_back():
        put(world.server)
        world.loops.ensure("ns", "x")

    world.server.faults[READ] = remake
    world.loops.wake("ns", "x")
    await passes_in(world, 1)
    assert "status" in world.server.objects[PATH]
    assert world.sample("thanostack_operator_stacks") == 1


@pytest.mark.parametrize("moment", ["GET .*/pods", "PATCH .*/services/x-query", f"PATCH {PATH}/.*"])
async def test_a_stack_that_goes_in_the_middle_of_a_pass(world, moment, caplog):
    """The pass ends well, whatever it was at; nothing is made of the resource anew."""
    world.server.faults[moment] = lambda: world.server.objects.pop(PATH, None)
    world.loops.ensure("ns", "x")
    await asyncio.sleep(1)
    assert PATH not in world.server.objects
    world.loops.wake("ns", "x")
    await asyncio.sleep(1)
    assert world.sample("thanostack_operator_stacks") == 0
    assert PATH not in world.server.objects
    assert "a bug" not in caplog.text


async def test_a_wrong_spec_holds_no_deletion_up(world):
    """It is read no further than to what becomes of the data."""
    former = world.server.objects[PATH]
    metadata = former["metadata"] | {
        "deletionTimestamp": "now", "finalizers": ["thanostack.io/flush", "their/own"]
    }  # fmt: skip
    spec = {"query": {"replicas": "many"}, "deletionPolicy": "Keep"}
    world.server.put(PATH, former | {"metadata": metadata, "spec": spec})
    world.loops.ensure("ns", "x")
    await passes_in(world, 1)
    assert world.server.objects[PATH]["metadata"]["finalizers"] == ["their/own"]


async def test_loops_can_be_stopped_whatever_they_do(world):
    """One hangs in a request."""
    hanging = asyncio.Event()

    class Hanging(Pods):
        async def drain(self, _):
            hanging.set()
            await asyncio.sleep(3600)

    world.loops.tools.pods = Hanging()
    labels = {"thanostack.io/stack": "x", "thanostack.io/ring": "default"}
    world.server.put(
        "/api/v1/namespaces/ns/pods/x-ingestor-default-9",
        {"metadata": {"name": "x-ingestor-default-9", "labels": labels},
         "status": {"podIP": "10.0.0.1", "containerStatuses": [{"state": {"running": {}}}]}},
    )  # fmt: skip
    world.loops.ensure("ns", "x")
    await asyncio.wait_for(hanging.wait(), 20)
    await asyncio.wait_for(world.loops.stop(), 20)
    assert world.sample("thanostack_operator_stacks") == 0


async def test_statuses_are_json(world):
    await settled(world)
    json.dumps(world.server.objects[PATH]["status"], allow_nan=False)
