"""Which kinds the API server serves: waited for at the start, asked for again now and then."""

import asyncio

import pytest

from thanostack_operator import discovery, kube
from thanostack_operator.discovery import await_served, unserved
from thanostack_operator.kube import SERVICE_MONITORS, KubeClient
from thanostack_operator.testing.api_server import FakeApiServer, Refusal

OURS = "thanostack.io/v1alpha1"


async def test_it_waits_for_the_crd_and_says_so(caplog):
    server, stop = FakeApiServer(absent={OURS}), asyncio.Event()
    waiting = asyncio.create_task(await_served(KubeClient(server.client()), stop))
    await asyncio.sleep(30)
    assert not waiting.done()
    server.absent.clear()
    assert await asyncio.wait_for(waiting, discovery.RETRY_S)
    said = [r.message for r in caplog.records if r.name == discovery.__name__]
    assert said == [
        f"waiting: the API server does not serve ThanosStack of {OURS}: install the CRD"
    ]


async def test_it_waits_for_an_api_server_that_does_not_answer():
    server, stop = FakeApiServer(), asyncio.Event()

    def refuse():
        raise ConnectionRefusedError("connection refused")

    server.faults["GET .*"] = refuse
    waiting = asyncio.create_task(await_served(KubeClient(server.client()), stop))
    await asyncio.sleep(30)
    assert not waiting.done()
    server.faults.clear()
    assert await asyncio.wait_for(waiting, discovery.RETRY_S)


async def test_it_can_be_stopped_while_it_waits():
    server, stop = FakeApiServer(absent={OURS}), asyncio.Event()
    waiting = asyncio.create_task(await_served(KubeClient(server.client()), stop))
    await asyncio.sleep(1)
    stop.set()
    assert not await asyncio.wait_for(waiting, discovery.RETRY_S)


async def test_other_kinds_are_named():
    server = FakeApiServer(absent={"policy/v1"})
    problem = await unserved(KubeClient(server.client()))
    assert problem == "the API server does not serve PodDisruptionBudget of policy/v1"
    assert await unserved(KubeClient(FakeApiServer().client())) == ""


async def test_a_refusal_to_be_asked_is_a_reason():
    server = FakeApiServer()

    def refuse():
        raise Refusal(403, "forbidden: no discovery")

    server.faults["GET /apis/apps/v1"] = refuse
    assert await unserved(KubeClient(server.client())) == "403: forbidden: no discovery"


async def test_an_answer_is_good_for_a_while(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(kube.time, "monotonic", lambda: now[0])
    server = FakeApiServer(absent={SERVICE_MONITORS[0]})
    client = KubeClient(server.client())
    asked = f"GET /apis/{SERVICE_MONITORS[0]}"
    for _ in range(3):
        assert not await client.knows(SERVICE_MONITORS, within_s=60)
    assert server.requests == [asked]
    server.absent.clear()
    now[0] += 61
    assert await client.knows(SERVICE_MONITORS, within_s=60)
    assert server.requests == [asked] * 2


async def test_an_answer_is_not_kept_that_proved_wrong():
    """Who takes prometheus-operator away is not answered with errors for a minute."""
    server = FakeApiServer()
    client = KubeClient(server.client())
    assert await client.knows(SERVICE_MONITORS, within_s=60)
    server.absent.add(SERVICE_MONITORS[0])
    with pytest.raises(kube.ApiError, match="404"):
        await client.list(SERVICE_MONITORS, "ns")
    assert not await client.knows(SERVICE_MONITORS, within_s=60)
