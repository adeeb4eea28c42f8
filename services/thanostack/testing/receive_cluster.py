"""A receive cluster of real processes whose parts are ended, stopped and started again.

    senders ──> Service ──> router-0, router-1 ──ring──> ingestor-0 … ingestor-4
                                                              ^── query (chain deduplication)

    senders ──> Service ──> node-0 … node-4, each a router and an ingestor of the ring

A node keeps its addresses and its directory from one life to the next, as a pod of a StatefulSet
does. Each router has a hashrings file of its own, so that two routers can disagree for a while, as
they do when the kubelet brings a ConfigMap to their nodes. All ingestors run all the time; the ring
has the first few of them.

What breaks such a cluster is in `receive_faults`, who writes to it in `write_senders`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from thanostack.testing.ports import free_port
from thanostack.testing.processes import Server, launch, our_query, thanostack, until
from thanostack.testing.relay import Relay
from thanostack.testing.write_senders import Service

KETAMA: Final = "--receive.hashrings-algorithm=ketama"
REPLICATION_FACTOR: Final = 3
_QUERY_FLAGS: Final = (
    # Every sample of every replica; penalty, the default, leaves some out as it changes replicas.
    "--deduplication.func=chain",
    # Of a node that is silent: the others have what is acknowledged.
    "--store.response-timeout=2s",
)


@dataclass(frozen=True)
class Place:
    """Where a node lives.

    Args:
        host: its address.
        prefix: of its command, such as one that enters a network namespace.
        folder: of its data; empty for one beside the others.
        is_relayed: whether routers reach it through a relay.
    """

    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    folder: Path | None = None
    is_relayed: bool = False


@dataclass(frozen=True)
class Topology:
    """What a cluster consists of.

    Args:
        places: of its ingestors.
        ring_size: how many of them are in the ring at first.
        n_routers: beside them; 0 if they are routers themselves.
        router_flags: of each router, besides the ring's.
    """

    places: Sequence[Place]
    ring_size: int = 3
    n_routers: int = 2
    router_flags: tuple[str, ...] = ()


class Node:
    """One receiver through all its lives; the first one begins with `start`.

    Args:
        name: in tallies, also its replica label and the name of its folder.
        folder: of the cluster.
        place: where it lives.
    """

    def __init__(self, name: str, folder: Path, place: Place) -> None:
        self.name, self.place = name, place
        self._http, self._grpc, self._write = (free_port() for _ in range(3))
        self._log = folder / f"{name}.log"
        self.flags: tuple[str, ...] = ()
        """Of `thanostack receive`, besides addresses and directory."""
        self._command = [
            *place.prefix, *thanostack(), "receive", f'--label=replica="{name}"',
            f"--tsdb.path={place.folder or folder / name}",
            f"--http-address={place.host}:{self._http}",
            f"--grpc-address={place.host}:{self._grpc}",
            f"--remote-write.address={place.host}:{self._write}",
        ]  # fmt: skip
        self.relay = Relay((place.host, self._grpc)) if place.is_relayed else None
        self.server: Server

    @property
    def address(self) -> str:
        """Return the address of its gRPC port, as it stands in a hashring."""
        return f"127.0.0.1:{self.relay.port}" if self.relay else self.own_address

    @property
    def own_address(self) -> str:
        """Return the address of its gRPC port for those who do not use its relay."""
        return f"{self.place.host}:{self._grpc}"

    @property
    def writes(self) -> tuple[str, int]:
        """Return the address of its remote-write port."""
        return self.place.host, self._write

    def start(self) -> Server:
        """Begin a life; `server.wait_ready` waits until it serves."""
        process = launch([*self._command, *self.flags], self._log)
        self.server = Server(
            self.name, process, http_port=self._http, grpc_port=self._grpc,
            write_port=self._write, host=self.place.host, log=self._log,
        )  # fmt: skip
        return self.server

    def restart(self) -> None:
        """Begin a life and wait until it is ready."""
        self.start().wait_ready()

    def pause(self) -> None:
        """Stop the process where it stands: connections are accepted, nothing is answered."""
        self.server.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.server.process.send_signal(signal.SIGCONT)

    def appended(self) -> float:
        """Return how many samples this life has stored."""
        return sum(self.server.metric("prometheus_tsdb_head_samples_appended_total"))

    def end(self) -> None:
        """End the life in any case."""
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self.server.kill()
        if self.relay is not None:
            self.relay.close()


@dataclass
class Cluster:
    """What runs.

    Args:
        folder: of everything.
        ingestors: all of them, in the ring or not.
        routers: each with its hashrings file at `ring_file`; perhaps the ingestors.
        query: over all ingestors.
        service: in front of the routers.
        ring_size: how many ingestors are in the ring.
    """

    folder: Path
    ingestors: list[Node]
    routers: list[Node]
    query: Server
    service: Service
    ring_size: int
    kills: list[tuple[str, float, float]] = field(default_factory=list)
    """Routers killed with `kill -9`: the name, and between which monotonic seconds."""

    @property
    def ring(self) -> list[Node]:
        """Return the ingestors of the ring."""
        return self.ingestors[: self.ring_size]

    def resize(self, n: int, lag_s: float) -> None:
        """Put so many ingestors into the ring; the second router hears of it later."""
        self.ring_size = n
        for router in self.routers:
            write_ring(ring_file(self.folder, router.name), self.ring)
            time.sleep(lag_s)
        for router in self.routers:
            until(f"{n} nodes in {router.name}", lambda router=router: _knows(router, n), 30)  # type: ignore[misc]

    def kill_router(self, router: Node) -> None:
        """End a router as the kernel would, and note when."""
        begun_s = time.monotonic()
        router.server.kill()
        self.kills.append((router.name, begun_s, time.monotonic()))
        self.service.remove(router.name)

    def revive_router(self, router: Node) -> None:
        """Start a router that has ended and send it writes once it is ready."""
        router.restart()
        self.service.add(router.name, router.writes)


def ring_file(folder: Path, router: str) -> Path:
    """Return the hashrings file of a router, in a folder of its own."""
    return folder / f"{router}-ring" / "hashrings.json"


def write_ring(file: Path, ingestors: Sequence[Node]) -> None:
    """Replace a hashrings file at once, as the kubelet does."""
    file.parent.mkdir(exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    ring = [{"hashring": "default", "endpoints": [node.address for node in ingestors]}]
    unfinished.write_text(json.dumps(ring))
    unfinished.replace(file)


def _knows(router: Node, n: int) -> bool:
    return router.server.metric("thanos_receive_hashring_nodes") == [n]


@contextlib.contextmanager
def running_cluster(folder: Path, topology: Topology) -> Iterator[Cluster]:
    """Run a cluster, and yield it when all of it is ready."""
    ingestors, routers = _nodes(folder, topology)
    nodes = list(dict.fromkeys((*ingestors, *routers)))
    with contextlib.ExitStack() as stack:
        for node in nodes:
            node.start()
            stack.callback(node.end)
        flags = (*_QUERY_FLAGS, *(f"--endpoint={node.own_address}" for node in ingestors))
        query = stack.enter_context(our_query(folder, flags=flags))
        service = Service()
        for node in nodes:
            node.server.wait_ready()
        for router in routers:
            service.add(router.name, router.writes)
        query.wait_ready()
        yield Cluster(folder, ingestors, routers, query, service, topology.ring_size)


def _nodes(folder: Path, topology: Topology) -> tuple[list[Node], list[Node]]:
    """Return ingestors and routers, not started yet, with their flags and hashrings files."""
    kind = "ingestor" if topology.n_routers else "node"
    ingestors = [Node(f"{kind}-{n}", folder, place) for n, place in enumerate(topology.places)]
    beside = [Node(f"router-{n}", folder, Place()) for n in range(topology.n_routers)]
    routers = beside or ingestors
    for node in ingestors:
        node.flags += ("--receive.enable-drain",)
    for router in routers:
        file = ring_file(folder, router.name)
        write_ring(file, ingestors[: topology.ring_size])
        router.flags += (
            f"--receive.hashrings-file={file}", KETAMA,
            f"--receive.replication-factor={REPLICATION_FACTOR}", *topology.router_flags,
        )  # fmt: skip
        if router in ingestors:
            router.flags += (f"--receive.local-endpoint={router.address}",)
    return ingestors, routers


def log_tails(cluster: Cluster, n_bytes: int = 2000) -> str:
    """Return the last lines of every log, for a failure's report."""
    tails = []
    for file in sorted(cluster.folder.glob("*.log")):
        with file.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - n_bytes))
            tails.append(f"--- {file.name}\n{log.read().decode(errors='replace')}")
    return "\n".join(tails)
