"""All hashrings of one configuration: which one takes a tenant, and its nodes.

    tenant ──first ring, in order, that lists it or lists nobody──> ring ──> its shard, if sharded

Source: Thanos v0.42.4 `pkg/receive/hashring.go` (multiHashring); `multitsdb.go` (external labels).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from thanostack.lib.foundation.errors import InvalidInput, NoHashring
from thanostack.lib.hashring.config import HashringConfig, parse_config
from thanostack.lib.hashring.placement import HashmodRing, KetamaRing, Ring
from thanostack.lib.hashring.shuffle import ShuffleShards

_REMEMBERED_MAX: Final = 1 << 16


class Hashrings:
    """The hashrings of one configuration, immutable; safe from any thread.

    Args:
        configs: in order.
        replication_factor: replicas of a series, at least 1.
        warnings: what the operator should know about the configuration.

    Raises:
        InvalidInput: as `parse`.
    """

    def __init__(
        self,
        configs: list[HashringConfig],
        replication_factor: int,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.configs, self.warnings = tuple(configs), warnings
        self.addresses = frozenset(e.address for c in configs for e in c.endpoints)
        self._rings = [_build(config, replication_factor) for config in configs]
        self._remembered: dict[str, int] = {}

    @classmethod
    def parse(
        cls, text: str | bytes, *, algorithm: str = "hashmod", replication_factor: int = 1
    ) -> Hashrings:
        """Return the rings that a configuration describes.

        Args:
            text: the content of hashrings.json.
            algorithm: of rings that name none: "hashmod" or "ketama".
            replication_factor: replicas of a series, at least 1.

        Raises:
            InvalidInput: with the place and what to do, if any part of it cannot be used.
        """
        configs, warnings = parse_config(text, algorithm)
        return cls(configs, replication_factor, warnings)

    def ring_of(self, tenant: str) -> Ring:
        """Return the nodes for a tenant: its ring, or its shard of it.

        Raises:
            NoHashring: if no ring takes the tenant.
        """
        ring = self._rings[self._index_of(tenant)]
        return ring.ring_of(tenant) if isinstance(ring, ShuffleShards) else ring

    def name_of(self, tenant: str) -> str:
        """Return the name of a tenant's ring; may be empty.

        Raises:
            NoHashring: if no ring takes the tenant.
        """
        return self.configs[self._index_of(tenant)].name

    def external_labels_of(self, tenant: str) -> dict[str, str]:
        """Return the labels for a tenant's data: of the first ring that lists it by its name."""
        # Upstream: neither a pattern nor a ring for all counts, unlike for the choice of the ring.
        for config in self.configs:
            if config.tenants and tenant in config.tenants.names:
                return dict(config.external_labels)
        return {}

    @property
    def node_counts(self) -> Mapping[str, int]:
        """`thanos_receive_hashring_nodes` by name."""
        return {config.name: len(config.endpoints) for config in self.configs}

    @property
    def tenant_counts(self) -> Mapping[str, int]:
        """`thanos_receive_hashring_tenants` by name."""
        return {c.name: len(c.tenants.names) if c.tenants else 0 for c in self.configs}

    @property
    def shards(self) -> Mapping[str, ShuffleShards]:
        """The caches of `thanos_shuffle_shard_cache_*` by name."""
        pairs = zip(self.configs, self._rings, strict=True)
        return {c.name: ring for c, ring in pairs if isinstance(ring, ShuffleShards)}

    def _index_of(self, tenant: str) -> int:
        index = self._remembered.get(tenant)
        if index is None:
            matching = (
                i
                for i, config in enumerate(self.configs)
                if config.tenants is None or config.tenants.has(tenant)
            )
            index = next(matching, None)
            if index is None:
                raise NoHashring(tenant)
            # Bound: names come from clients.
            if len(self._remembered) < _REMEMBERED_MAX:
                self._remembered[tenant] = index
        return index


def _build(config: HashringConfig, replication_factor: int) -> Ring | ShuffleShards:
    """Return the ring of one configuration.

    Raises:
        InvalidInput: if it cannot hold the replicas, or asks of its algorithm what that cannot do.
    """
    where = f"hashring {config.name!r}"
    _check_nodes(config, replication_factor, where)
    if config.algorithm == "hashmod":
        if any(e.az for e in config.endpoints):
            raise InvalidInput(
                f"{where}: hashmod does not support availability zones: set its algorithm to "
                "ketama, or remove every az"
            )
        if config.shuffle_sharding:
            raise InvalidInput(
                f"{where}: hashmod does not support shuffle sharding: set its algorithm to ketama, "
                "or remove shuffle_sharding_config"
            )
        return HashmodRing(config.endpoints)
    ring = KetamaRing(config.endpoints, replication_factor)
    if not config.shuffle_sharding:
        return ring
    try:
        return ShuffleShards(ring, config.shuffle_sharding, replication_factor)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error


def _check_nodes(config: HashringConfig, replication_factor: int, where: str) -> None:
    nodes = len(config.endpoints)
    # Upstream: takes such a hashmod ring and fails every write.
    if nodes < max(1, replication_factor):
        raise InvalidInput(
            f"{where}: {nodes} endpoints cannot hold {replication_factor} replicas: add endpoints "
            "or lower --receive.replication-factor"
        )
    # Upstream: takes it, and may count one node as two replicas.
    twice = [a for a, n in Counter(e.address for e in config.endpoints).items() if n > 1]
    if twice:
        raise InvalidInput(f"{where}: endpoint {twice[0]} is listed twice: remove one")
