"""Nodes of a hashring without sockets: each stores what it is sent, or says what it is told to say.

A router over them sends real messages; they are decoded by protobuf's own code.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cramjam
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.hashring import Hashrings
from thanostack.lib.pb import store_pb2
from thanostack.receive.peers import PeerOptions, Peers
from thanostack.receive.router import LocalWriter, Router, RouterOptions
from thanostack.receive.routing import REMOTE_WRITE
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.http2_client import OK_END, CallEnd, OnEnd

Labels = tuple[tuple[str, str], ...]


class _Call:
    def __init__(self, on_end: OnEnd) -> None:
        self._on_end: OnEnd | None = on_end

    def cancel(self, end: CallEnd) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(end)


@dataclass
class Node:
    """One receiver.

    Args:
        says: the end of every call; None while it does not answer.
        requests: what it was sent, whatever it said.
        stored: by tenant and labels, what it said OK to.
    """

    says: CallEnd | None = OK_END
    requests: list[Any] = field(default_factory=list)
    stored: dict[tuple[str, Labels], dict[int, float]] = field(default_factory=dict)
    silent: list[_Call] = field(default_factory=list)

    def call(self, message: memoryview, on_end: OnEnd) -> _Call:
        """Take a message; answer in the next iteration of the loop."""
        assert int.from_bytes(message[1:5], "big") == len(message) - 5
        body = bytes(message[5:])
        if message[0]:
            body = bytes(cramjam.snappy.decompress(body))
        request = store_pb2.WriteRequest.FromString(body)
        self.requests.append(request)
        call = _Call(on_end)
        if self.says is None:
            self.silent.append(call)
            return call
        if self.says.code is GrpcCode.OK:
            self._store(request)
        asyncio.get_running_loop().call_soon(call.cancel, self.says)
        return call

    async def probe(self) -> str:
        """Answer unless it is down or silent."""
        is_there = self.says is not None and self.says.code is not GrpcCode.UNAVAILABLE
        return "" if is_there else "no answer"

    async def is_answering(self, timeout_s: float) -> bool:
        """Answer unless it is silent; at once in any case."""
        del timeout_s
        return self.says is not None

    async def close(self) -> None:
        """Do nothing."""

    def _store(self, request: Any) -> None:
        assert not request.timeseriesTenantData
        for series in request.timeseries:
            labels = tuple((label.name, label.value) for label in series.labels)
            samples = self.stored.setdefault((request.tenant, labels), {})
            samples.update((sample.timestamp, sample.value) for sample in series.samples)


class Cluster:
    """A router over nodes.

    Args:
        addresses: of the nodes; each has the index of its address.
        local: storage of the node whose address the options name.
        algorithm: of the ring.
        peers: how the router uses its peers.
        options: of the router.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        *,
        local: LocalWriter | None = None,
        algorithm: str = "ketama",
        peers: PeerOptions | None = None,
        **options: Any,
    ) -> None:
        self.nodes = {address: Node() for address in addresses}
        self.registry, self.clock = CollectorRegistry(), ManualClock()
        self.options = RouterOptions(**options)
        metrics = RoutingMetrics(self.registry, replication_factor=self.options.replication_factor)
        connect: Callable[[str], Any] = self.nodes.__getitem__
        self.peers = Peers(
            connect,
            peers or PeerOptions(),
            clock=self.clock,
            metrics=metrics,
            calls=GrpcMetrics(self.registry, "client").unary(REMOTE_WRITE),
            source=random.Random(1),
        )
        self.rings = self.parse([{"endpoints": list(self.nodes)}], algorithm)
        self.router = Router(
            lambda: self.rings,
            self.peers,
            self.options,
            pool=ThreadPoolExecutor(1),
            metrics=metrics,
            local=local,
        )

    def parse(self, config: Any, algorithm: str = "ketama") -> Hashrings:
        """Return hashrings for this router."""
        return Hashrings.parse(
            json.dumps(config),
            algorithm=algorithm,
            replication_factor=self.options.replication_factor,
        )

    def copies(self) -> dict[tuple[str, Labels], list[str]]:
        """Return which nodes store each series, by tenant and labels."""
        found: dict[tuple[str, Labels], list[str]] = {}
        for address, node in self.nodes.items():
            for key in node.stored:
                found.setdefault(key, []).append(address)
        return found

    def value(self, metric: str, **labels: str) -> float | None:
        """Return a metric's value."""
        return self.registry.get_sample_value(metric, labels)
