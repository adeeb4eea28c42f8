"""Run the benchmarks against the peers and print their tables, ready for docs/performance.md.

python tests/benchmarks/run.py [start|ingest|memory|replay|query|disk|cold|router|deadpeer ...]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from thanostack.testing.bodies import Load
from thanostack.testing.processes import (
    Server,
    our_receive,
    our_standalone,
    thanos_receive,
    victoria_metrics,
)

# The safe path keeps a script's own folder out of the search path; these are its neighbours.
sys.path.append(str(Path(__file__).parent))
import deadpeer
import disk
import ingest
import query
import replay
import router


def _install_victoria_metrics() -> bool:
    """Return whether VictoriaMetrics is there, after trying Debian's package."""
    if not shutil.which("victoria-metrics") and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
        command = ["apt-get", "install", "-q", "-y", "victoria-metrics"]
        subprocess.run(command, check=False, capture_output=True)
    return shutil.which("victoria-metrics") is not None


def run_ingest() -> None:
    """CPU seconds per million samples."""
    print("| load | server | first round | steady | Thanos / it | disk, bytes a sample |")
    print("|---|---|---|---|---|---|")
    for name, load in ingest.SCENARIOS.items():
        starts: list[ingest.Start] = [thanos_receive, our_receive]
        if name == next(iter(ingest.SCENARIOS)) and _install_victoria_metrics():
            starts.append(victoria_metrics)
        thanos = None
        for start in starts:
            cost = ingest.measure(start, load)
            thanos = thanos or cost
            ratio = thanos.steady_s / cost.steady_s
            print(
                f"| {name} | {cost.server} | {cost.first_s:.2f} | {cost.steady_s:.2f} | "
                f"{ratio:.1f} | {cost.disk_bytes:.2f} |",
                flush=True,
            )


def run_memory() -> None:
    """Peak resident memory over twenty rounds."""
    print("| series | server | peak MiB | it / Thanos |")
    print("|---|---|---|---|")
    for series in (100_000, 500_000):
        load = replace(Load(), series=series, rounds=20 if series == 100_000 else 8, batch=5_000)
        thanos = ingest.measure(thanos_receive, load)
        ours = ingest.measure(our_receive, load)
        for cost in (thanos, ours):
            share = cost.peak_mib / thanos.peak_mib
            print(f"| {series:,} | {cost.server} | {cost.peak_mib:.0f} | {share:.2f} |", flush=True)


def run_replay() -> None:
    """CPU seconds to replay the same log, a short one and one of an hour."""
    print(
        "| samples a series | server | CPU s | peer / it | user | peer / it | peak MiB | after it |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for samples in (40, 240):
        ours, peer = replay.measure(Load(series=100_000, rounds=samples, batch=5_000))
        for cost in (ours, peer):
            print(
                f"| {samples} | {cost.server} | {cost.cpu_s:.2f} | {peer.cpu_s / cost.cpu_s:.1f} "
                f"| {cost.user_s:.2f} | {peer.user_s / cost.user_s:.1f} | {cost.peak_mib:.0f} | "
                f"{cost.steady_mib:.0f} |",
                flush=True,
            )


def run_query() -> None:
    """CPU seconds of range queries over 2,000 series and six hours."""
    print("| query | system | CPU s | equal to Prometheus |")
    print("|---|---|---|---|")
    for cost in query.measure():
        print(f"| `{cost.query}` | {cost.system} | {cost.cpu_s:.3f} | {cost.equal} |")


def run_start() -> None:
    """Seconds to ready with cached kernels, and idle memory."""
    with tempfile.TemporaryDirectory() as temporary:
        begun = time.monotonic()
        with our_receive(Path(temporary) / "data") as server:
            server.wait_ready()
            took = time.monotonic() - begun
            print(f"ready after {took:.1f} s, {server.cpu_s():.1f} s of CPU;", end=" ")
            time.sleep(5)
            print(f"idle {server.memory_mib('VmRSS'):.0f} MiB")


def run_cold() -> None:
    """Seconds from a start on a machine without compiled kernels to the first answers."""
    with tempfile.TemporaryDirectory() as temporary:
        begun = time.monotonic()
        with our_standalone(Path(temporary) / "data", cache=Path(temporary)) as server:
            server.wait_ready()
            print(f"ready after {time.monotonic() - begun:.0f} s;", end=" ", flush=True)
            while not _answers_up(server):
                time.sleep(0.5)
            print(f"`up` is answered after {time.monotonic() - begun:.0f} s")


def _answers_up(server: Server) -> bool:
    try:
        return bool(server.api("query", query="up")["result"])
    except RuntimeError:
        return False


def run_disk() -> None:
    """Bytes a sample in the first block of six hours."""
    print("| server | samples | chunks, bytes a sample | index bytes |")
    print("|---|---|---|---|")
    for block in disk.measure():
        share = block.chunk_bytes / block.samples
        print(f"| {block.server} | {block.samples:,} | {share:.4f} | {block.index_bytes:,} |")


def run_router() -> None:
    """CPU seconds per million samples of a router before three ingestors, three replicas each."""
    print("| load | router | CPU s a million | Thanos / it | ingestors' | idle MiB | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, load in router.LOADS.items():
        costs = router.measure(load)
        for cost in costs:
            print(
                f"| {name} | {cost.router} | {cost.cpu_s:.2f} | "
                f"{costs[0].cpu_s / cost.cpu_s:.1f} | {cost.ingestors_s:.2f} | "
                f"{cost.idle_mib:.0f} | {cost.peak_mib:.0f} |",
                flush=True,
            )


def run_deadpeer() -> None:
    """Milliseconds a write takes while one of three ingestors is dead or silent, factor 3."""
    print("| router | one ingestor is | writes | failed | p50 | p99 | p99 / none's | worst early |")
    print("|---|---|---|---|---|---|---|---|")
    healthy = 1.0
    for name, kind, times in deadpeer.measure():
        p50, p99 = (times.quantile(share) for share in (0.5, 0.99))
        healthy = p99 if kind == "none" else healthy
        print(
            f"| {name} | {kind} | {len(times.steady_s)} | {times.failed} | {1000 * p50:.1f} | "
            f"{1000 * p99:.1f} | {p99 / healthy:.2f} | {1000 * max(times.early_s):.0f} |",
            flush=True,
        )


RUNS: dict[str, Callable[[], None]] = {
    "start": run_start,
    "ingest": run_ingest,
    "memory": run_memory,
    "replay": run_replay,
    "query": run_query,
    "disk": run_disk,
    "cold": run_cold,
    "router": run_router,
    "deadpeer": run_deadpeer,
}

if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in RUNS]
    if unknown:
        sys.exit(f"no such benchmark: {' '.join(unknown)}; there are: {' '.join(RUNS)}")
    for wanted in sys.argv[1:] or list(RUNS):
        print(f"\n### {wanted}\n\n{RUNS[wanted].__doc__}\n", flush=True)
        RUNS[wanted]()
