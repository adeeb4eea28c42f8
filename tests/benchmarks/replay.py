"""CPU seconds to replay a log, and peak memory while doing so: ours against Prometheus.

The log is one that the real Prometheus wrote and was killed over, so that both replay the same
bytes; each start gets a copy of its own.

Our start loads kernels for seconds, so the difference of two starts is mostly noise. A process that
has replayed a small log before tells what replay itself costs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from thanostack.lib.wal.writer import WALWriter
from thanostack.testing.bodies import START_MS, Load
from thanostack.testing.processes import our_receive, prometheus
from thanostack.testing.wal import samples_record, series_record


@dataclass(frozen=True)
class ReplayCost:
    """What a start on a log cost, less what a start on nothing costs."""

    server: str
    cpu_s: float
    empty_cpu_s: float
    peak_mib: float
    steady_mib: float
    series: int


def _start(program: str, folder: Path) -> tuple[float, float, float, int]:
    target = folder / "default-tenant" if program == "thanostack" else folder
    start = our_receive(folder) if program == "thanostack" else prometheus(folder)
    assert target.exists()
    with start as server:
        server.wait_ready()
        return (
            server.cpu_s(),
            server.memory_mib(),
            server.memory_mib("VmRSS"),
            int(sum(server.metric("prometheus_tsdb_head_series"))),
        )


_REPLAYS = """
import pathlib, sys, time
from thanostack.lib.tsdb.options import TSDBOptions
from thanostack.lib.tsdb.tsdb import TSDB
for folder in sys.argv[1:]:
    begun = time.process_time()
    tsdb = TSDB(pathlib.Path(folder), TSDBOptions())
    print(time.process_time() - begun, tsdb.head.series)
    tsdb.close()
"""


def _with_kernels_loaded(origin: Path, temporary: Path) -> ReplayCost:
    """Return what a replay costs after one of a small log in the same process, without a server."""
    small, copy = temporary / "small", temporary / "again"
    writer = WALWriter(small / "wal")
    writer.log([series_record(1, 5000), samples_record(1, 5000, START_MS)])
    writer.close()
    shutil.copytree(origin, copy)
    command = [sys.executable, "-P", "-c", _REPLAYS, str(small), str(copy)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cpu, series = done.stdout.split()[-2:]
    return ReplayCost("thanostack, kernels loaded", float(cpu), 0, 0, 0, int(series))


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
            empty_cpu, *_ = _start(program, empty)
            cpu, *rest = _start(program, full)
            costs.append(ReplayCost(program, cpu - empty_cpu, empty_cpu, *rest))
        costs.append(_with_kernels_loaded(origin, Path(temporary)))
    return costs
