"""What a router holds for a peer that takes its time, while the others are enough."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from thanostack.lib.foundation.ids import Tenant
from thanostack.receive.peers import PeerOptions
from thanostack.testing.ring_nodes import Cluster
from thanostack.testing.write_storage import write_request

NODES = ("a:1", "b:1", "slow:1")
MIB = 1 << 20
BOUND_MIB, N_WRITES = 8, 6000
"""Each write holds some 7 KiB: 40 MiB if nothing bounded them."""


def resident_mib():
    """Return the memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


async def write(cluster, numbers):
    """Write one series at a time; what the nodes store is not kept, only what the router holds."""
    for n in numbers:
        body = np.frombuffer(write_request(({"__name__": "up"}, [(n, 1.0)])), np.uint8)
        outcome = await cluster.router.write(Tenant("t"), body, 1)
        assert outcome.error() is None
        for node in cluster.nodes.values():
            node.requests.clear()
            node.stored.clear()


async def test_thousands_of_small_writes_behind_a_slow_peer_stay_within_the_bound():
    """Two of three replicas answer, so all are stored; what waits for the third is bounded."""
    options = PeerOptions(all_bytes_max=2 * BOUND_MIB * MIB)
    cluster = Cluster(NODES, replication_factor=3, timeout_s=500.0, peers=options)
    cluster.nodes["slow:1"].says = None
    await write(cluster, range(100))
    before = resident_mib()
    await write(cluster, range(100, N_WRITES))
    held = cluster.peers.held_bytes()
    assert held["a:1"] == held["b:1"] == 0
    assert 0.9 * BOUND_MIB * MIB < held["slow:1"] <= BOUND_MIB * MIB
    assert resident_mib() - before < 2 * BOUND_MIB
    # All of it is let go of with the last forward.
    slow = cluster.nodes["slow:1"]
    slow.says = cluster.nodes["a:1"].says
    for call in slow.silent:
        call.cancel(slow.says)
    async with asyncio.timeout(30):
        while cluster.peers.held_bytes()["slow:1"]:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
