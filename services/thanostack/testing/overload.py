"""What a receiver does with four times the load that it can take, in a control group.

    start in the group ──> every sender once ──> capacity, closed loop ──> overload, open loop
        ──> the load ends: capacity again ──> what is stored, against what was acknowledged

The group makes the machine small: a share of one CPU, so that a modest sender is four times too
much, and little memory. The receiver's peers, if it routes, are in groups of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Final

from thanostack.runtime.grpc_client import UnaryChannel
from thanostack.testing import open_loop
from thanostack.testing.cgroups import ControlGroup, control_group
from thanostack.testing.h2_client import plain_message
from thanostack.testing.open_loop import PATIENCE_S, Senders, Tally
from thanostack.testing.open_loop_grpc import LABEL_NAMES, GrpcSenders, ask
from thanostack.testing.ports import free_port
from thanostack.testing.probe_times import Answers, ProbeTimes
from thanostack.testing.processes import Server, our_query, our_receive

TENANT: Final = "overload"
MEMORY_MIB: Final = 512
CPUS: Final = 0.2
TIMES: Final = 4.0
SENDERS: Final = 1500
SERIES: Final = 100
INGESTORS: Final = 3
_CLOSED_SENDERS: Final = 32
_WINDOW: Final = "1h"
_READ_INTERVAL_S: Final = 0.2
_PROBES: Final = ("/-/healthy", "/-/ready")


@dataclass
class Figures:
    """What was seen.

    Args:
        capacity: requests a second before, closed loop.
        cpu_capacity: requests a CPU second then.
        cpu_goodput: acknowledged requests a CPU second during the overload, as a share of that:
            what refusals and turns cost, whatever else the machine does.
        cpu_share: what the receiver got of its CPU meanwhile: less than 1 where the machine has
            other work, and times are longer by as much.
        offered: requests a second that were due during the overload.
        duration_s: of the overload.
        overload: what became of its requests.
        after: of a closed loop right behind it.
        capacity_after: requests a second of that.
        probes: (status, seconds) of every probe meanwhile, by URL.
        reads: (code, seconds) of every call of the StoreAPI meanwhile.
        steady_mib, peak_mib: resident memory before the overload, and its highest.
        anonymous_mib: of the group, at the end.
        oom_kills: of all groups.
        lost: lines about acknowledged requests that cannot be read, wholly or in part.
        invented: lines about samples that nobody sent or that were refused.
        stored: samples that can be read.
    """

    capacity: float = 0.0
    cpu_capacity: float = 0.0
    cpu_goodput: float = 0.0
    cpu_share: float = 0.0
    offered: float = 0.0
    duration_s: float = 0.0
    overload: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)
    capacity_after: float = 0.0
    probes: Answers = field(default_factory=dict)
    reads: list[tuple[int, float]] = field(default_factory=list)
    steady_mib: float = 0.0
    peak_mib: float = 0.0
    anonymous_mib: float = 0.0
    oom_kills: int = 0
    lost: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    stored: int = 0

    @property
    def goodput(self) -> float:
        """Return acknowledged requests a second during the overload, as a share of capacity."""
        seconds = range(int(self.duration_s))
        return sum(self.overload.seconds[s] for s in seconds) / len(seconds) / self.capacity

    def probe_s(self, q: float) -> float:
        """Return a quantile of the probes' times."""
        return _quantile([*chain(*self.probes.values())], q)

    def late_probes(self, limit_s: float) -> int:
        """Return how many probes in a row, at most, took longer; by what its CPU share leaves."""
        limit_s /= self.cpu_share

        def in_a_row(answers: list[tuple[int, float]]) -> int:
            runs = groupby(seconds > limit_s for _, seconds in answers)
            return max((sum(run) for _, run in runs), default=0)

        return max(in_a_row(answers) for answers in self.probes.values())

    def read_s(self, q: float) -> float:
        """Return a quantile of the times of calls of the StoreAPI."""
        return _quantile(self.reads, q)

    def text(self) -> str:
        """Return all of it to read."""
        tally = self.overload
        return (
            f"capacity {self.capacity:.0f}/s, offered {self.offered:.0f}/s for "
            f"{self.duration_s:.0f} s: {dict(tally.statuses)}, missed {tally.missed}, broken "
            f"{tally.broken}, late {tally.late}, no Retry-After {tally.hasty}; goodput "
            f"{self.goodput:.0%}, by CPU time {self.cpu_goodput:.0%}, CPU share "
            f"{self.cpu_share:.0%}; latency p50 "
            f"{tally.quantile_s(0.5):.3f} p99 "
            f"{tally.quantile_s(0.99):.3f} s; probes {sum(map(len, self.probes.values()))}, p99 "
            f"{self.probe_s(0.99):.3f}, longest {self.probe_s(1.0):.3f} s; StoreAPI "
            f"{len(self.reads)}, p99 {self.read_s(0.99):.3f}, longest {self.read_s(1.0):.3f} s; "
            f"memory "
            f"{self.steady_mib:.0f} MiB before, peak {self.peak_mib:.0f}, anonymous at the end "
            f"{self.anonymous_mib:.0f} of {MEMORY_MIB}; afterwards {dict(self.after.statuses)}, "
            f"{self.capacity_after:.0f}/s, p50 {self.after.quantile_s(0.5):.3f} s; "
            f"{self.stored} samples stored, {len(self.lost)} lost, {len(self.invented)} invented"
        )


def _quantile(answers: list[tuple[int, float]], q: float) -> float:
    times = sorted(seconds for _, seconds in answers)
    return times[min(len(times) - 1, math.ceil(q * len(times)) - 1)]


def measure(
    role: str, folder: Path, *, duration_s: float, encoding: str = "", capacity_s: float = 5.0
) -> Figures:
    """Start a receiver of a role, overload it, and return what was seen.

    Args:
        role: `IngestorOnly`, `RouterIngestor` or `RouterOnly`.
        encoding: of writes over gRPC, `snappy` or `identity`; empty for writes over HTTP.
        folder: an empty one.
        duration_s: of the overload.
        capacity_s: of each measurement of capacity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = Figures(duration_s=duration_s)
    with contextlib.ExitStack() as stack:
        server, groups, stores = stack.enter_context(_started(role, folder))
        querier = stack.enter_context(our_query(folder, *stores))
        senders = _senders(server, encoding)
        open_loop.run(_load(figures, server, senders, capacity_s))
        figures.peak_mib = server.memory_mib()
        figures.anonymous_mib = groups[-1].anonymous_mib()
        figures.oom_kills = sum(group.oom_kills() for group in groups)
        querier.wait_ready()
        copies = INGESTORS if role == "RouterOnly" else 1
        _compare(figures, querier, senders, copies // 2 + 1, copies)
    return figures


def _senders(server: Server, encoding: str) -> Senders:
    if not encoding:
        return Senders(server.write_port, SENDERS, SERIES, tenant=TENANT)
    return GrpcSenders(server.grpc_port, SENDERS, SERIES, tenant=TENANT, encoding=encoding)


@contextlib.contextmanager
def _started(role: str, folder: Path) -> Iterator[tuple[Server, list[ControlGroup], list[int]]]:
    """Yield the receiver, all groups, its own last, and the gRPC ports of those that store."""
    groups: list[ControlGroup] = []
    with contextlib.ExitStack() as stack:

        def start(name: str, *flags: str, grpc_port: int = 0) -> Server:
            group = stack.enter_context(
                control_group(f"thanostack-{name}", memory_bytes=MEMORY_MIB << 20, cpus=CPUS)
            )
            groups.append(group)
            return stack.enter_context(
                our_receive(
                    folder / name, *flags, replica=name, grpc_port=grpc_port, prefix=group.prefix
                )
            )

        nodes: list[Server] = []
        flags: list[str] = []
        port = free_port()
        if role == "RouterIngestor":
            flags = [_ring(port), f"--receive.local-endpoint=127.0.0.1:{port}"]
        elif role == "RouterOnly":
            nodes = [start(f"i{n}") for n in range(INGESTORS)]
            ring = _ring(*(node.grpc_port for node in nodes))
            flags = [ring, f"--receive.replication-factor={INGESTORS}"]
        server = start(role, *flags, grpc_port=port)
        for running in (*nodes, server):
            running.wait_ready()
        yield server, groups, [node.grpc_port for node in nodes or [server]]


def _ring(*ports: int) -> str:
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return f"--receive.hashrings={json.dumps([{'endpoints': endpoints}])}"


async def _load(figures: Figures, server: Server, senders: Senders, capacity_s: float) -> None:
    first = await senders.once()
    assert set(first.statuses) == {200}, first
    cpu_s = server.cpu_s()
    before = await senders.closed(_CLOSED_SENDERS, capacity_s)
    assert set(before.statuses) == {200}, before
    figures.capacity = before.acknowledged / capacity_s
    figures.cpu_capacity = before.acknowledged / (server.cpu_s() - cpu_s)
    figures.steady_mib = server.memory_mib("VmRSS")
    figures.offered = TIMES * figures.capacity
    reading = asyncio.ensure_future(_read(figures, server.grpc_port))
    with ProbeTimes(*(server.url + path for path in _PROBES)) as probes:
        cpu_s, started = server.cpu_s(), time.monotonic()
        figures.overload = await senders.open(figures.offered, figures.duration_s)
        cpu_s = server.cpu_s() - cpu_s
        figures.cpu_share = min(1.0, cpu_s / CPUS / (time.monotonic() - started))
        figures.cpu_goodput = figures.overload.acknowledged / cpu_s / figures.cpu_capacity
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    figures.probes = probes.answers
    figures.after = await senders.closed(_CLOSED_SENDERS, capacity_s)
    figures.capacity_after = figures.after.acknowledged / capacity_s
    await senders.close()


async def _read(figures: Figures, port: int) -> None:
    """Ask the StoreAPI again and again, as a querier does."""
    channel = UnaryChannel(f"127.0.0.1:{port}", LABEL_NAMES, timeout_s=PATIENCE_S)
    try:
        while True:
            begun = time.monotonic()
            end = await ask(channel, plain_message(b""))
            figures.reads.append((end.code.value, time.monotonic() - begun))
            await asyncio.sleep(_READ_INTERVAL_S)
    finally:
        await channel.close()


def _compare(figures: Figures, querier: Server, senders: Senders, needed: int, most: int) -> None:
    """Compare what can be read with what was acknowledged.

    Of every sender's first series the timestamps, of all its series the number of samples.

    Args:
        figures: to be completed.
        querier: over all that store.
        senders: who know what was acknowledged.
        needed: copies of an acknowledged sample at least.
        most: copies at most; with one, what was refused is not stored.
    """
    at = {"time": time.time() + 1, "dedup": "false"}
    found: dict[int, Counter[int]] = {}
    first = "|".join(str(n * senders.n_series) for n in range(len(senders.all)))
    query = f'{{sender!="", pod=~"app-[0-9]+-abcde-({first})"}}[{_WINDOW}]'
    for series in querier.api("query", query=query, **at)["result"]:
        times = found.setdefault(int(series["metric"]["sender"]), Counter())
        times.update(round(t * 1000) for t, _ in series["values"])
    query = f'sum by (sender) (count_over_time({{sender!=""}}[{_WINDOW}]))'
    for series in querier.api("query", query=query, **at)["result"]:
        sender = senders.all[int(series["metric"]["sender"])]
        times = found.get(sender.number, Counter())
        n_stored = int(series["value"][1])
        figures.stored += n_stored
        n_acknowledged = len(sender.acknowledged) * senders.n_series
        maybe = {*sender.unknown, *(sender.refused if most > 1 else ())}
        if (
            any(times[t] < needed for t in sender.acknowledged)
            or n_stored < needed * n_acknowledged
        ):
            figures.lost.append(f"{sender.number}: {n_stored} of {n_acknowledged} samples")
        n_most = most * (n_acknowledged + len(maybe) * senders.n_series)
        if times.keys() - maybe - set(sender.acknowledged) or n_stored > n_most:
            figures.invented.append(f"{sender.number}: {n_stored}, acknowledged {n_acknowledged}")
    if len(found) != len(senders.all):
        figures.lost.append(f"{len(senders.all) - len(found)} senders")
