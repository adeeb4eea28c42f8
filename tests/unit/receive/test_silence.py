"""Many peers that say nothing: what they hold together leaves turns for the rings of the others."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from thanostack.lib.foundation.ids import Tenant
from thanostack.receive import peers
from thanostack.receive.request_body import InflightBytes
from thanostack.receive.silence import TRIALS, TRIALS_OF_A_PEER, Silence
from thanostack.receive.write_pace import AT_ONCE_MAX, WritePace
from thanostack.runtime.http2_client import OK_END
from thanostack.testing.polling import eventually
from thanostack.testing.ring_nodes import Cluster
from thanostack.testing.write_storage import write_request

N_SILENT = 64
SILENCE_S = 0.2
TIMEOUT_S = 2.0


def test_silent_peers_share_what_may_be_tried():
    """A few each, less if there are many, one each at least while there is room."""
    silence = Silence()
    shares = []
    for n in range(2 * TRIALS):
        silence.begin(n)
        shares.append(silence.share)
    assert shares[0] == TRIALS_OF_A_PEER
    assert shares[TRIALS // 2 - 1] == 2
    assert shares[TRIALS - 1] == shares[-1] == 1
    assert shares == sorted(shares, reverse=True)


def test_what_is_tried_has_an_end():
    """One that ends makes room for another, and so do all those of a peer that speaks again."""
    silence = Silence()
    silence.begin("a")
    assert [silence.enter(n) for n in range(TRIALS + 1)] == [True] * TRIALS + [False]
    silence.leave(3)
    silence.leave("never entered")
    assert [silence.enter("b"), silence.enter("c")] == [True, False]
    silence.end("a", range(10))
    assert "a" not in silence
    assert [silence.enter(("d", n)) for n in range(10)] == [True] * 9 + [False]


class Rings:
    """A ring for each of many tenants, one node each, behind one router that takes turns."""

    def __init__(self):
        addresses = [f"silent-{n}:1" for n in range(N_SILENT)] + ["quick:1"]
        self.cluster = cluster = Cluster(addresses, timeout_s=TIMEOUT_S)
        cluster.rings = cluster.parse(
            [{"tenants": [a.split(":")[0]], "endpoints": [a]} for a in addresses]
        )
        self.pace = WritePace(None, InflightBytes(1 << 30), wait_max_s=60.0)
        for address in addresses[:-1]:
            cluster.nodes[address].says = None
        self.n_open = self.most_open = self.n_stored = 0
        self.writers = []
        self.body = np.frombuffer(write_request(({"__name__": "up"}, [(1, 1.0)])), np.uint8)

    def begin(self, *tenants):
        """Begin to write for each of these."""
        self.writers += [asyncio.ensure_future(self._sends(tenant)) for tenant in tenants]

    async def close(self):
        """End all of it."""
        for writer in self.writers:
            writer.cancel()
        await asyncio.wait(self.writers)
        await self.cluster.peers.close()

    async def _sends(self, tenant):
        """Write again and again, as soon as it was answered; a refused one after a second."""
        while True:
            await self.pace.come()
            self.n_open += 1
            try:
                outcome = await self.cluster.router.write(Tenant(tenant), self.body, 1)
            finally:
                self.n_open -= 1
                self.pace.leave()
            if outcome.error() is None:
                self.n_stored += 1
            else:
                await asyncio.sleep(1.0)

    async def passes(self, seconds):
        """Let time pass, on the clock of the peers too, and see what becomes of writes.

        Where the loop stands still it is not seen, and counts for little.
        """
        loop = asyncio.get_running_loop()
        turned, passed = loop.time(), 0.0
        self.n_stored = self.most_open = 0
        while passed < seconds:
            await asyncio.sleep(0.01)
            step = loop.time() - turned
            self.cluster.clock.advance(round(step * 1000))
            turned, passed = turned + step, passed + min(step, 0.1)
            self.most_open = max(self.most_open, self.n_open)

    def are_noticed(self):
        """Return whether all that say nothing are known to."""
        peers = [self.cluster.peers.of(a) for a, n in self.cluster.nodes.items() if n.says is None]
        return all(peer.is_down for peer in peers)

    async def passes_until(self, claim):
        """Let time pass until something holds."""
        for _ in range(60):
            if claim():
                return
            await self.passes(0.5)
        pytest.fail(f"30 s, and {self.n_open} writes are open")


@pytest.fixture
async def rings(monkeypatch):
    monkeypatch.setattr(peers, "SILENCE_S", SILENCE_S)
    rings = Rings()
    rings.cluster.clock.advance(1_000_000)
    yield rings
    await rings.close()


async def test_silent_rings_leave_turns_for_a_healthy_one(rings):
    """They take all turns until the silence is noticed, and would take most of them ever after."""
    rings.begin(*(f"silent-{n}" for n in range(N_SILENT) for _ in range(5)), "quick")
    await eventually(lambda: rings.n_open == AT_ONCE_MAX)
    await rings.passes_until(lambda: rings.n_open < TRIALS + 20 and rings.are_noticed())
    nodes = rings.cluster.nodes.values()
    for node in nodes:
        node.requests.clear()
    await rings.passes(2 * TIMEOUT_S)
    assert rings.most_open < TRIALS + 20
    assert rings.n_stored > 0
    await rings.passes_until(lambda: all(node.requests for node in nodes))


async def test_a_silent_node_that_nobody_waits_for_keeps_what_it_was_sent(monkeypatch):
    """One of three in each ring, more forwards than may be tried: they may still be stored."""
    monkeypatch.setattr(peers, "SILENCE_S", SILENCE_S)
    rings = [(f"a-{n}:1", f"b-{n}:1", f"silent-{n}:1") for n in range(TRIALS // 4)]
    cluster = Cluster(sum(rings, ()), replication_factor=3, timeout_s=60.0)
    cluster.rings = cluster.parse(
        [{"tenants": [f"t{n}"], "endpoints": ring} for n, ring in enumerate(rings)]
    )
    body = np.frombuffer(write_request(({"__name__": "up"}, [(1, 1.0)])), np.uint8)
    for n, (_, _, silent) in enumerate(rings):
        cluster.nodes[silent].says = None
        for _ in range(5):
            assert (await cluster.router.write(Tenant(f"t{n}"), body, 1)).error() is None
    before = cluster.peers.held_bytes()
    cluster.clock.advance(1000)
    await eventually(lambda: all(cluster.peers.of(silent).is_down for _, _, silent in rings))
    assert cluster.peers.held_bytes() == before
    for _, _, silent in rings:
        for call in cluster.nodes[silent].silent:
            call.cancel(OK_END)
