"""Which endpoints there are now: configured, looked up, and asked for Info every five seconds.

    specs --resolve--> addresses --Info--> listed endpoints

A new endpoint is listed once it answers; one that stops answering stays, and is queried, until
`unhealthy_timeout`; a strict one is always listed and queried. Endpoints that left the
configuration are closed at once.

Source: Thanos `pkg/query/endpointset.go`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from thanostack.lib.foundation.clock import Clock
from thanostack.lib.foundation.errors import EndpointUnavailable
from thanostack.lib.model.label_runs import Labels
from thanostack.lib.storeapi.info import EndpointInfo, TSDBInfo, parse_info
from thanostack.query.discovery import EndpointSpec
from thanostack.query.endpoints import Endpoint, LocalEndpoint, RemoteEndpoint
from thanostack.runtime.logs import Logger

INTERVAL_S: Final = 5.0
_LEAVE_S: Final = 120.0


@dataclass(slots=True)
class EndpointStatus:
    """How an endpoint did when it was last asked.

    Args:
        endpoint: whose status it is.
        checked_ms: when it was last asked; 0 is never.
        answered_ms: when it last answered; 0 is never.
        error: why the last call failed, "" if it did not.
        is_listed: whether it is shown and queried.
    """

    endpoint: Endpoint
    checked_ms: int = 0
    answered_ms: int = 0
    error: str = ""
    is_listed: bool = False

    @property
    def spec(self) -> EndpointSpec | None:
        """Return how it was configured; None for an endpoint of this process."""
        return self.endpoint.spec if isinstance(self.endpoint, RemoteEndpoint) else None


@dataclass(frozen=True, slots=True)
class EndpointTimes:
    """How patient the set is, seconds."""

    info_timeout_s: float = 5.0
    unhealthy_timeout_s: float = 300.0
    dns_interval_s: float = 30.0


class EndpointSet:
    """The endpoints of one querier.

    Args:
        resolve: returns the configured endpoints by address, as they are now.
        times: how patient to be.
        local: endpoints of this process, always listed.
        clock: tells when.
        log: told about endpoints that come and go.
        connect: makes the endpoint of a spec, with what is assumed until it answers.
    """

    def __init__(
        self,
        resolve: Callable[[], Awaitable[dict[str, EndpointSpec]]],
        *,
        times: EndpointTimes,
        local: Sequence[LocalEndpoint] = (),
        clock: Clock,
        log: Logger,
        connect: Callable[[EndpointSpec, EndpointInfo], RemoteEndpoint] = RemoteEndpoint,
    ) -> None:
        self._connect = connect
        self._leaving: set[asyncio.Task[None]] = set()
        self._resolve, self._times, self._clock, self._log = resolve, times, clock, log
        self._local = tuple(EndpointStatus(endpoint, is_listed=True) for endpoint in local)
        self._known: dict[str, EndpointStatus] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._resolved_s = float("-inf")
        self.is_discovered = asyncio.Event()

    async def run(self) -> None:
        """Keep the set up to date for ever."""
        while True:
            await self.update()
            self.is_discovered.set()
            await asyncio.sleep(INTERVAL_S)

    async def update(self) -> None:
        """Look names up if it is time, and ask every endpoint for Info."""
        now_s = self._clock.monotonic_s()
        if now_s - self._resolved_s >= self._times.dns_interval_s:
            self._specs = await self._resolve()
            self._resolved_s = now_s
        for address, status in list(self._known.items()):
            if address not in self._specs:
                await self._close(address, "it is no longer configured")
            elif self._specs[address] != status.spec:
                self._replace(address)
        await asyncio.gather(*(self._check(spec) for spec in self._specs.values()))
        self._unlist_unhealthy()

    def _unlist_unhealthy(self) -> None:
        oldest_ms = self._clock.now_ms() - self._times.unhealthy_timeout_s * 1000
        for address, status in self._known.items():
            strict = self._specs[address].strict
            if status.is_listed and status.answered_ms < oldest_ms and not strict:
                status.is_listed = False
                self._log.warning("endpoint is gone", address=address, err=status.error)

    def _replace(self, address: str) -> None:
        """Make way for a new connection to an endpoint; calls on the old one come to their end."""
        status = self._known.pop(address)
        self._log.info("connecting anew, its configuration has changed", address=address)
        assert isinstance(status.endpoint, RemoteEndpoint)
        task = asyncio.ensure_future(status.endpoint.close(_LEAVE_S))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _close(self, address: str, reason: str) -> None:
        status = self._known.pop(address)
        self._log.info("closing endpoint", address=address, reason=reason)
        assert isinstance(status.endpoint, RemoteEndpoint)
        await status.endpoint.close()

    async def _check(self, spec: EndpointSpec) -> None:
        status = self._known.get(spec.address)
        if status is None:
            # Strict: listed before it answered; nothing is known, so it may hold anything.
            unknown = EndpointInfo("", has_store=spec.strict, supports_sharding=False)
            endpoint = self._connect(spec, unknown)
            status = self._known[spec.address] = EndpointStatus(endpoint, is_listed=spec.strict)
        assert isinstance(status.endpoint, RemoteEndpoint)
        status.checked_ms = self._clock.now_ms()
        try:
            info = parse_info(await status.endpoint.ask_info(self._times.info_timeout_s))
        except EndpointUnavailable as error:
            if not status.error:
                self._log.warning("endpoint does not answer", address=spec.address, err=error)
            status.error = str(error)
            return
        if not status.answered_ms or status.error:
            self._log.info("endpoint answers", address=spec.address, type=info.component)
        status.endpoint.info = info
        status.answered_ms, status.error, status.is_listed = status.checked_ms, "", True

    def stores(self) -> list[Endpoint]:
        """Return every endpoint that serves the StoreAPI."""
        return [s.endpoint for s in self.statuses() if s.endpoint.info.has_store]

    def statuses(self) -> list[EndpointStatus]:
        """Return every listed endpoint with its status, by name."""
        listed = [status for status in self._known.values() if status.is_listed]
        return [*self._local, *sorted(listed, key=lambda status: status.endpoint.name)]

    def label_sets(self) -> list[Labels]:
        """Return the distinct external label sets of all stores."""
        found = dict.fromkeys(labels for s in self.stores() for labels in s.info.label_sets)
        return list(found)

    def tsdbs(self) -> list[TSDBInfo]:
        """Return the TSDBs of all stores."""
        return [tsdb for store in self.stores() for tsdb in store.info.tsdbs]

    async def close(self) -> None:
        """Close all connections."""
        for task in list(self._leaving):
            task.cancel()
        for address in list(self._known):
            await self._close(address, "stopping")


class EndpointCollector(Collector):
    """`thanos_store_nodes_grpc_connections`: listed endpoints by labels and type.

    Args:
        endpoints: the set.
        labels: of external_labels, store_type, ip_port.
        registry: where to register.
    """

    def __init__(
        self, endpoints: EndpointSet, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._endpoints, self._labels = endpoints, tuple(labels)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the one metric."""
        counts = Counter(
            tuple(self._value(status.endpoint, label) for label in self._labels)
            for status in self._endpoints.statuses()
        )
        family = GaugeMetricFamily(
            "thanos_store_nodes_grpc_connections",
            "Number of gRPC connection to Store APIs. Opened connection means healthy store APIs "
            "available for Querier.",
            labels=self._labels,
        )
        for values, count in counts.items():
            family.add_metric(list(values), count)
        yield family

    @staticmethod
    def _value(endpoint: Endpoint, label: str) -> str:
        if label == "store_type":
            return endpoint.info.component
        if label == "ip_port":
            return endpoint.name
        return ",".join(_set_text(labels) for labels in endpoint.info.label_sets)


def _set_text(labels: Labels) -> str:
    pairs = (f'{n.decode()}="{v.decode(errors="replace")}"' for n, v in labels)
    return "{" + ", ".join(pairs) + "}"
