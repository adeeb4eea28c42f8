"""What a router counts, under upstream's names; an ingestor has the same metrics at zero.

Source: Thanos `pkg/receive/handler.go`, `config.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from thanostack.lib.hashring import Hashrings
from thanostack.lib.hashring.shuffle import ShuffleShards
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.tally import Tally, TallyHistogram

# Upstream: sixteen bounds from a millisecond on, each twice the one before.
_Family = CounterMetricFamily | GaugeMetricFamily
_DELAY_BUCKETS: Final = tuple(0.001 * 2**power for power in range(16))


class RoutingMetrics:
    """Forwards and replications.

    Args:
        registry: where they are registered.
        replication_factor: as set; shown only.
    """

    def __init__(self, registry: CollectorRegistry, *, replication_factor: int) -> None:
        self._registry = registry
        forwards = Counter(
            "thanos_receive_forward_requests_total",
            "The number of forward requests.",
            ["result"],
            registry=registry,
        )
        replications = Counter(
            "thanos_receive_replications_total",
            "The number of replication operations done by the receiver. The success of "
            "replication is fulfilled when a quorum is met.",
            ["result"],
            registry=registry,
        )
        self._forwarded, self._not_forwarded = (forwards.labels(r) for r in ("success", "error"))
        self._replicated, self._not_replicated = (
            replications.labels(r) for r in ("success", "error")
        )
        Gauge(
            "thanos_receive_replication_factor",
            "The number of times to replicate incoming write requests.",
            registry=registry,
        ).set(max(1, replication_factor))
        self._delay = TallyHistogram(
            "thanos_receive_forward_delay_seconds",
            "The delay between the time the request was received and the time it was forwarded "
            "to a worker.",
            ["worker"],
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        for step in ("attempted", "completed"):
            # Upstream flushes and reopens all tenants when hashrings change; nothing does here.
            Counter(
                f"thanos_receive_multi_db_updates_{step}_total",
                f"Number of Multi DB {step} reloads due to hashring changes.",
                registry=registry,
            )
        self.handed_over = Counter(
            "thanostack_receive_handed_over_series_total",
            "Series written to the next node of the ring as theirs was down.",
            registry=registry,
        )

    def count(self, code: GrpcCode, *, is_replication: bool) -> None:
        """Count a forward that ended, sent or written here.

        Args:
            code: how it ended.
            is_replication: whether this receiver made the replica that it carried.
        """
        # Upstream: a conflict is neither a success nor an error.
        if code is GrpcCode.ALREADY_EXISTS:
            return
        is_success = code is GrpcCode.OK
        (self._forwarded if is_success else self._not_forwarded).inc()
        if is_replication:
            (self._replicated if is_success else self._not_replicated).inc()

    def forward_delay(self, worker: str) -> Tally:
        """Return where the time that forwards to a peer waited is observed."""
        return self._delay.labels(worker)

    def forget_peer(self, worker: str) -> None:
        """Show nothing of a peer any more."""
        self._delay.remove(worker)

    def watch_queues(
        self, held_bytes: Callable[[], Mapping[str, int]], bytes_max: int, all_bytes_max: int
    ) -> None:
        """Show what is held for each peer, and the bounds of it, for one and for all."""
        self._registry.register(_Queues(held_bytes))
        Gauge(
            "thanostack_receive_forward_queue_bytes_max",
            "Most bytes of forwards that are held for one peer.",
            registry=self._registry,
        ).set(bytes_max)
        Gauge(
            "thanostack_receive_forward_queues_bytes_max",
            "Most bytes of forwards that are held for all peers.",
            registry=self._registry,
        ).set(all_bytes_max)


class _Queues(Collector):
    def __init__(self, held_bytes: Callable[[], Mapping[str, int]]) -> None:
        self._held_bytes = held_bytes

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "thanostack_receive_forward_queue_bytes",
            "Memory of forwards that wait for a peer or are on their way to it.",
            labels=["worker"],
        )
        for worker, held in self._held_bytes().items():
            family.add_metric([worker], held)
        yield family


class HashringMetrics:
    """The hashring configuration that is in force, and how reading it went.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"thanos_receive_{name}", text, registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"thanos_receive_hashrings_file_{name}", text, registry=registry)

        self._hash = gauge("config_hash", "Hash of the currently loaded hashring configuration.")
        self._successful = gauge(
            "config_last_reload_successful",
            "Whether the last hashring configuration file reload attempt was successful.",
        )
        self._success_time = gauge(
            "config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful hashring configuration file reload.",
        )
        self.refreshes = counter(
            "refreshes_total",
            "The number of refreshes of the hashrings configuration file.",
        )
        self._changes = counter(
            "changes_total", "The number of times the hashrings configuration file has changed."
        )
        self._errors = counter(
            "errors_total", "The number of errors watching the hashrings configuration file."
        )
        self._nodes = Gauge(
            "thanos_receive_hashring_nodes",
            "The number of nodes per hashring.",
            ["name"],
            registry=registry,
        )
        self._tenants = Gauge(
            "thanos_receive_hashring_tenants",
            "The number of tenants per hashring.",
            ["name"],
            registry=registry,
        )

    def failed(self) -> None:
        """Count a file that could not be read or used."""
        self._errors.inc()
        self._successful.set(0)

    def unchanged(self) -> None:
        """Note that the file is what is in force."""
        self._successful.set(1)

    def loaded(
        self, config_hash: float, nodes: Mapping[str, int], tenants: Mapping[str, int], now_s: float
    ) -> None:
        """Show a configuration that is in force now."""
        self._changes.inc()
        self._hash.set(config_hash)
        self._successful.set(1)
        self._success_time.set(now_s)
        for gauge, counts in ((self._nodes, nodes), (self._tenants, tenants)):
            gauge.clear()
            for name, count in counts.items():
                gauge.labels(name).set(count)


class ShardCollector(Collector):
    """`thanos_shuffle_shard_cache_*{hashring}`, read when someone scrapes.

    Args:
        loaded: returns the hashrings in force, None if there are none yet.
    """

    def __init__(self, loaded: Callable[[], Hashrings | None]) -> None:
        self._loaded = loaded

    def describe(self) -> Iterable[Metric]:
        """Return nothing: which rings there are is not known at registration."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield one family a metric, with every ring that shards."""
        rings = self._loaded()
        shards = {} if rings is None else rings.shards
        for name, kind, text, value_of in _SHARD_CACHE:
            family = kind(f"thanos_shuffle_shard_cache_{name}", text, labels=["hashring"])
            for hashring, shard in shards.items():
                family.add_metric([hashring], value_of(shard))
            yield family


_SHARD_CACHE: Final[
    tuple[tuple[str, type[_Family], str, Callable[[ShuffleShards], float]], ...]
] = (
    ("requests", CounterMetricFamily, "Look-ups of a tenant's sub-ring.", lambda s: s.requests),
    ("hits", CounterMetricFamily, "Look-ups that found one kept.", lambda s: s.hits),
    ("evicted", CounterMetricFamily, "Sub-rings that gave way.", lambda s: s.evicted),
    ("items", GaugeMetricFamily, "Sub-rings that are kept.", len),
    ("max_items", GaugeMetricFamily, "Most that are kept.", lambda s: s.config.cache_size),
)
