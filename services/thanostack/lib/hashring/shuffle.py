"""Shuffle sharding: each tenant on a few nodes of its own choice, so that few share all of them.

For each zone, a random source seeded by tenant and zone draws positions of the ring; each draw
takes the next node from there that the tenant has not yet. The nodes form a ring of their own. A
node that joins or leaves so changes a shard by one node at most.

Source: Thanos v0.42.4 `pkg/receive/hashring.go` (shuffleShardHashring), after Cortex.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.hashring.config import ShuffleSharding
from thanostack.lib.hashring.go_rand import uint64_draws
from thanostack.lib.hashring.placement import Int32Array, KetamaRing, Sections
from thanostack.lib.model.label_runs import Int64Array


def shard_seed(tenant: str, zone: str) -> int:
    """Return the int64 that the choice of a tenant's nodes in one zone is seeded with."""
    digest = hashlib.md5(tenant.encode(), usedforsecurity=False)
    if zone:
        digest.update(b"\0" + zone.encode())
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


class ShuffleShards:
    """The sub-rings of one ring, made when a tenant first needs its own; safe from any thread.

    Args:
        base: the ring they are parts of.
        config: sizes, and whether zones count.
        replication_factor: replicas of a series; a shard must have as many nodes.

    Raises:
        InvalidInput: if a size asks for more nodes than there are, or fewer than the replicas.
    """

    def __init__(self, base: KetamaRing, config: ShuffleSharding, replication_factor: int) -> None:
        self.config, self.requests, self.hits, self.evicted = config, 0, 0, 0
        self._base, self._replicas = base, replication_factor
        self._zone_of = [e.az if config.is_zone_aware else "" for e in base.endpoints]
        self._zones = tuple(dict.fromkeys(self._zone_of))
        self._sections = {zone: self._sections_of(zone) for zone in self._zones}
        for size in (config.shard_size, *(size for _, size in config.overrides)):
            self._check(size)
        self._kept: OrderedDict[str, KetamaRing] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def ring_of(self, tenant: str) -> KetamaRing:
        """Return a tenant's sub-ring."""
        with self._lock:
            self.requests += 1
            if tenant in self._kept:
                self.hits += 1
                self._kept.move_to_end(tenant)
                return self._kept[tenant]
        ring = self._base.sub_ring(self.nodes_of(tenant), self._replicas)
        with self._lock:
            self._kept[tenant] = ring
            if len(self._kept) > self.config.cache_size:
                self._kept.popitem(last=False)
                self.evicted += 1
        return ring

    def nodes_of(self, tenant: str) -> list[int]:
        """Return the nodes of a tenant's shard, ascending."""
        count = self._nodes_per_zone(self.config.shard_size_of(tenant))
        chosen: list[int] = []
        for zone in self._zones:
            positions, owners = self._sections[zone]
            draws = uint64_draws(shard_seed(tenant, zone), count)
            chosen += _first_unchosen(np.searchsorted(positions, draws), owners)
        return sorted(chosen)

    def _sections_of(self, zone: str) -> Sections:
        positions, owners = self._base.sections
        in_zone = np.array([az == zone for az in self._zone_of])[owners]
        return Sections(positions[in_zone], owners[in_zone])

    def _nodes_per_zone(self, shard_size: int) -> int:
        return -(-shard_size // len(self._zones))

    def _check(self, shard_size: int) -> None:
        # Upstream: takes the file, and fails every write of the tenants concerned.
        if shard_size < 1:
            raise InvalidInput(
                f"shard size {shard_size} leaves a tenant without nodes: use 1 or more"
            )
        count = self._nodes_per_zone(shard_size)
        for zone in self._zones:
            nodes = self._zone_of.count(zone)
            if count > nodes:
                raise InvalidInput(
                    f"shard size {shard_size} is larger than number of nodes in AZ {zone!r} "
                    f"({nodes}): it takes {count} of each; lower it or add nodes"
                )
        if count * len(self._zones) < self._replicas:
            raise InvalidInput(
                f"shard size {shard_size} gives a tenant {count * len(self._zones)} nodes, fewer "
                f"than the replication factor {self._replicas}: raise it"
            )


def _first_unchosen(starts: Int64Array, owners: Int32Array) -> list[int]:
    """Return, for each start in turn, the next owner from there on that is not returned yet."""
    chosen: list[int] = []
    for start in starts.tolist():
        at = start % len(owners)
        while owners[at] in chosen:
            at = (at + 1) % len(owners)
        chosen.append(int(owners[at]))
    return chosen
