"""CPU seconds per million samples in the router, and its peak memory: ours against the real one.

Both stand before the same three ingestors of ours and send them the same bodies in turn, three
replicas each, so that what differs is the router. What they send the second time is a duplicate to
the ingestors, which costs the routers nothing. Eight senders at once, as a router's memory is what
it holds for those who wait.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from thanostack.testing.bodies import Load
from thanostack.testing.processes import Server, our_receive, thanos_receive

INGESTORS = 3
SENDERS = 8
LOADS = {
    "requests of 2,000": Load(rounds=7),
    "requests of 500": Load(rounds=5, batch=500),
}
ROUTERS: dict[str, tuple[Callable[..., AbstractContextManager[Server]], str]] = {
    "Thanos, snappy (default)": (thanos_receive, "snappy"),
    "Thanos, none": (thanos_receive, "none"),
    "thanostack, none": (our_receive, "none"),
    "thanostack, snappy": (our_receive, "snappy"),
}


@dataclass(frozen=True)
class Cost:
    """What one router needed.

    Args:
        cpu_s: CPU seconds per million samples, the median of the rounds after the first.
        ingestors_s: the same of all ingestors together.
        peak_mib: peak resident memory.
        idle_mib: resident memory before the first request.
    """

    router: str
    cpu_s: float
    ingestors_s: float
    peak_mib: float
    idle_mib: float


@contextlib.contextmanager
def _ingestors(folder: Path) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(our_receive(folder / f"i{n}", replica=f"r{n}"))
            for n in range(INGESTORS)
        ]
        for server in servers:
            server.wait_ready()
        yield servers


def measure(load: Load) -> list[Cost]:
    """Send a load through each router in turn and return what it cost each."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        ingestors = stack.enter_context(_ingestors(folder))
        ring = json.dumps([{"endpoints": [f"127.0.0.1:{i.grpc_port}" for i in ingestors]}])
        routers = {}
        for n, (name, (start, compression)) in enumerate(ROUTERS.items()):
            flags = (
                f"--receive.hashrings={ring}",
                "--receive.hashrings-algorithm=ketama",
                f"--receive.replication-factor={INGESTORS}",
                f"--receive.grpc-compression={compression}",
            )
            routers[name] = stack.enter_context(start(folder / f"router{n}", *flags))
        idle = {}
        for name, router in routers.items():
            router.wait_ready()
            idle[name] = router.memory_mib("VmRSS")
        return _compare(routers, ingestors, idle, load)


def _send(router: Server, bodies: list[bytes]) -> None:
    with ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(lambda n: router.send(bodies[n::SENDERS]), range(SENDERS)))


def _compare(
    routers: dict[str, Server], ingestors: list[Server], idle: dict[str, float], load: Load
) -> list[Cost]:
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in routers}
    for _, bodies in load.requests():
        for name, router in routers.items():
            before = router.cpu_s(), sum(i.cpu_s() for i in ingestors)
            _send(router, bodies)
            after = router.cpu_s(), sum(i.cpu_s() for i in ingestors)
            spent[name].append((after[0] - before[0], after[1] - before[1]))
    per_million = load.series / 1e6
    return [
        Cost(
            name,
            statistics.median(cpu for cpu, _ in spent[name][1:]) / per_million,
            statistics.median(cpu for _, cpu in spent[name][1:]) / per_million,
            router.memory_mib(),
            idle[name],
        )
        for name, router in routers.items()
    ]
