"""CPU seconds per million samples on receive, and peak memory: ours against the peers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from thanostack.testing.bodies import Load
from thanostack.testing.processes import Server

Start = Callable[[Path], AbstractContextManager[Server]]


@dataclass(frozen=True)
class Cost:
    """What one server needed for one load.

    Args:
        first_s: CPU seconds per million samples of the first round, series creation included.
        steady_s: the same over the later rounds.
        peak_mib: peak resident memory.
        disk_bytes: of its data directory per sample.
    """

    server: str
    first_s: float
    steady_s: float
    peak_mib: float
    disk_bytes: float


SCENARIOS = {
    "100,000 series, requests of 2,000": Load(),
    "requests of 500": Load(batch=500),
    "requests of 200": Load(batch=200, series=50_000),
    "shuffled order": Load(shuffled=True),
    "10 % churn a round": Load(churn=0.1),
}


def measure(start: Start, load: Load) -> Cost:
    """Send a load to a fresh server and return what it cost."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        with start(folder) as server:
            server.wait_ready()
            marks = [server.cpu_s()]
            for _, bodies in load.requests():
                server.send(bodies)
                marks.append(server.cpu_s())
            peak = server.memory_mib()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    per_million = load.series / 1e6
    first = (marks[1] - marks[0]) / per_million
    steady = (marks[-1] - marks[1]) / (per_million * (load.rounds - 1))
    return Cost(server.name, first, steady, peak, size / load.samples)


def memory_load(series: int) -> Load:
    """Return the load that memory is compared on."""
    return replace(Load(), series=series, rounds=6, batch=5_000)
