"""CPU seconds to replay a log, and peak memory while doing so: ours against Prometheus.

The log is one that the real Prometheus wrote and was killed over, so that both replay the same
bytes; each start gets a copy of its own. A start on nothing is subtracted. Starts are taken in
turns, and the medians count: a start of ours loads kernels, which takes longer than a replay.

System time is told apart. It is the first touch of memory, and depends on whether the machine has
that memory at hand: the same replay takes 0.05 s of it or 0.3 s.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from thanostack.testing.bodies import Load
from thanostack.testing.processes import our_receive, prometheus

REPEATS = 5


@dataclass(frozen=True)
class ReplayCost:
    """What a start costs; of two, what the log costs."""

    server: str
    user_s: float
    system_s: float
    peak_mib: float
    steady_mib: float
    series: int

    @property
    def cpu_s(self) -> float:
        """Of both."""
        return self.user_s + self.system_s

    def beyond(self, empty: ReplayCost) -> ReplayCost:
        """Return what it took more than a start on nothing."""
        return replace(
            self, user_s=self.user_s - empty.user_s, system_s=self.system_s - empty.system_s
        )


def _start(program: str, origin: Path | None) -> ReplayCost:
    """Start a program on a copy of a directory of Prometheus, or on an empty one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = program == "thanostack"
        if origin is not None:
            shutil.copytree(
                origin, folder / "default-tenant" if ours else folder, dirs_exist_ok=True
            )
        with our_receive(folder) if ours else prometheus(folder) as server:
            server.wait_ready()
            series = int(sum(server.metric("prometheus_tsdb_head_series")))
            peak, steady = server.memory_mib(), server.memory_mib("VmRSS")
            return ReplayCost(program, *server.cpu_times_s(), peak, steady, series)


def _median(costs: list[ReplayCost]) -> ReplayCost:
    """Return the medians of all that varies."""
    names = ("user_s", "system_s", "peak_mib", "steady_mib")
    return replace(
        costs[0], **{name: median(getattr(cost, name) for cost in costs) for name in names}
    )


def _written(load: Load, origin: Path) -> None:
    with prometheus(origin) as server:
        server.wait_ready()
        for _, bodies in load.requests():
            server.send(bodies)
        server.kill()
    (origin / "lock").unlink(missing_ok=True)


def measure(load: Load) -> list[ReplayCost]:
    """Write a load to Prometheus, kill it, and start both on copies of its directory."""
    programs = ("thanostack", "prometheus")
    with tempfile.TemporaryDirectory() as temporary:
        origin = Path(temporary) / "origin"
        _written(load, origin)
        rounds = [
            [_start(program, log) for program in programs for log in (None, origin)]
            for _ in range(REPEATS)
        ]
    costs = [_median(list(column)) for column in zip(*rounds, strict=True)]
    assert all(cost.series == load.series for cost in costs[1::2]), "a log was not replayed"
    return [full.beyond(empty) for empty, full in zip(costs[::2], costs[1::2], strict=True)]
