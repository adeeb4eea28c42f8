"""CPU seconds to replay a log, and peak memory while doing so: ours against Prometheus.

The log is one that the real Prometheus wrote and was killed over, so that both replay the same
bytes; each gets a copy of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from thanostack.testing.bodies import Load
from thanostack.testing.processes import our_receive, prometheus


@dataclass(frozen=True)
class ReplayCost:
    """What a start on a log cost, less what a start on nothing costs."""

    server: str
    cpu_s: float
    empty_cpu_s: float
    peak_mib: float
    series: int


def _start(program: str, folder: Path) -> tuple[float, float, int]:
    target = folder / "default-tenant" if program == "thanostack" else folder
    start = our_receive(folder) if program == "thanostack" else prometheus(folder)
    assert target.exists()
    with start as server:
        server.wait_ready()
        return (
            server.cpu_s(),
            server.memory_mib(),
            int(sum(server.metric("prometheus_tsdb_head_series"))),
        )


def measure(load: Load) -> list[ReplayCost]:
    """Write a load to Prometheus, kill it, and start both on copies of its directory."""
    costs = []
    with tempfile.TemporaryDirectory() as temporary:
        origin = Path(temporary) / "origin"
        with prometheus(origin) as server:
            server.wait_ready()
            for _, bodies in load.requests():
                server.send(bodies)
            server.kill()
        (origin / "lock").unlink(missing_ok=True)
        for program in ("thanostack", "prometheus"):
            empty, full = Path(temporary) / f"{program}-empty", Path(temporary) / program
            inner = "default-tenant" if program == "thanostack" else "."
            (empty / inner).mkdir(parents=True)
            shutil.copytree(origin, full / inner, dirs_exist_ok=True)
            empty_cpu, _, _ = _start(program, empty)
            cpu, peak, series = _start(program, full)
            costs.append(ReplayCost(program, cpu - empty_cpu, empty_cpu, peak, series))
    return costs
