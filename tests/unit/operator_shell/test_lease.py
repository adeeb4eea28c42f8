"""Who leads: one at a time, and nobody without the Lease."""

import asyncio
from types import SimpleNamespace

import pytest

from thanostack_operator import lease as module
from thanostack_operator.kube import ApiError
from thanostack_operator.lease import Lease, LeaseLost, lead


class Server:
    """The Lease of an API server that several share; each write takes the next version."""

    def __init__(self):
        self.lease = None
        self.error = None
        self.is_silent = False

    async def get(self, _kind, _namespace, _name):
        await self._answer()
        return self.lease

    async def create(self, wanted, _namespace):
        await self._answer()
        self.lease = wanted | {"metadata": wanted["metadata"] | {"resourceVersion": "1"}}

    async def merge(self, _kind, _namespace, _name, body):
        await self._answer()
        version = self.lease["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "it has been changed")
        metadata = self.lease["metadata"] | {"resourceVersion": str(int(version) + 1)}
        self.lease = {"metadata": metadata, "spec": self.lease["spec"] | body["spec"]}
        return self.lease

    async def _answer(self):
        if self.is_silent:
            await asyncio.sleep(3600)
        if self.error is not None:
            raise self.error


def now():
    return asyncio.get_running_loop().time()


@pytest.fixture(autouse=True)
def one_clock(monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=now))


async def leading(server, identity="a", run_s=3600.0):
    """Return a task that leads, and when it does."""
    started = asyncio.Event()

    async def run():
        started.set()
        await asyncio.sleep(run_s)

    task = asyncio.create_task(lead(Lease(server, "ns", identity), run, asyncio.Event()))
    return task, started


async def test_it_gives_the_lease_back():
    server = Server()
    task, _ = await leading(server, run_s=4 * module.LEASE_S)
    await task
    assert server.lease["spec"]["holderIdentity"] is None


async def test_one_that_fails_gives_the_lease_back_too():
    server = Server()

    async def fail():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await lead(Lease(server, "ns", "a"), fail, asyncio.Event())
    assert server.lease["spec"]["holderIdentity"] is None


async def test_a_second_one_waits_and_takes_over():
    server = Server()
    first, started = await leading(server)
    await started.wait()
    second, follows = await leading(server, "b")
    await asyncio.sleep(4 * module.LEASE_S)
    assert not follows.is_set()
    first.cancel()
    left = now()
    await follows.wait()
    assert module.LEASE_S - module.RETRY_S < now() - left < module.LEASE_S + 2 * module.RETRY_S
    second.cancel()


async def test_one_that_hears_nothing_stops_before_another_may_lead():
    """The API server takes the request and does not answer."""
    server = Server()
    task, started = await leading(server)
    await started.wait()
    server.is_silent = True
    silent = now()
    with pytest.raises(LeaseLost):
        await task
    assert now() - silent == module.RENEW_S < module.LEASE_S


async def test_one_whose_lease_was_taken_stops_at_once():
    server = Server()
    task, started = await leading(server)
    await started.wait()
    metadata = server.lease["metadata"] | {"resourceVersion": "99"}
    server.lease = {"metadata": metadata, "spec": {"holderIdentity": "b"}}
    with pytest.raises(LeaseLost, match="b holds"):
        await asyncio.wait_for(task, module.RETRY_S + 1)


async def test_nobody_leads_who_could_not_ask():
    """A proxy that answers something that is no JSON, say."""
    server = Server()
    server.error = ValueError("no JSON")
    task, started = await leading(server)
    with pytest.raises(ValueError, match="no JSON"):
        await task
    assert not started.is_set()
