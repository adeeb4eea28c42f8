"""CPU seconds of range queries over the same samples: ours, Thanos, Prometheus, VictoriaMetrics.

For Thanos and for us the cost is that of the querier and the store together: both work for the
answer. Answers are compared before costs are.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thanostack.testing.bodies import START_MS, STEP_MS, Load
from thanostack.testing.processes import (
    Server,
    our_query,
    our_receive,
    prometheus,
    thanos_query,
    thanos_receive,
    victoria_metrics,
)

LOAD = Load(series=2_000, rounds=1_440, batch=2_000)
QUERIES = (
    'sum(rate({__name__=~"http_requests_total_.*"}[5m]))',
    'sum by (job) (rate({__name__=~"http_requests_total_.*"}[5m]))',
    'max by (namespace) ({__name__=~"http_requests_total_.*"})',
    'topk(5, rate({__name__=~"http_requests_total_.*"}[5m]))',
)
REPEATS = 5


@dataclass(frozen=True)
class QueryCost:
    """CPU seconds of one query, all servers of the system together, mean of the repeats."""

    system: str
    query: str
    cpu_s: float
    equal: bool


def measure() -> list[QueryCost]:
    """Write the load to every system and run every query on each."""
    costs = []
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        systems = _systems(folder, stack)
        for _, bodies in LOAD.requests():
            for servers in systems.values():
                servers[-1].send(bodies)
        end = (START_MS + (LOAD.rounds - 1) * STEP_MS) // 1000
        for query in QUERIES:
            # VictoriaMetrics would answer repeats from its cache; the others do not know `nocache`.
            times = {"start": START_MS // 1000, "end": end, "step": 30, "nocache": 1}
            parameters = {"query": query, **times}
            reference = None
            for name, servers in systems.items():
                answer = _points(servers[0].api("query_range", **parameters))
                reference = reference or answer
                before = sum(server.cpu_s() for server in servers)
                for _ in range(REPEATS):
                    servers[0].api("query_range", **parameters)
                cpu = (sum(server.cpu_s() for server in servers) - before) / REPEATS
                costs.append(QueryCost(name, query, cpu, _is_close(reference, answer)))
    return costs


def _systems(folder: Path, stack: ExitStack) -> dict[str, list[Server]]:
    """Return system -> servers: the first answers queries, the last takes writes."""

    def start(server: Any) -> Server:
        running: Server = stack.enter_context(server)
        running.wait_ready()
        return running

    far = "--tsdb.min-block-duration=100d", "--tsdb.max-block-duration=100d"
    theirs = start(thanos_receive(folder / "thanos", *far))
    ours = start(our_receive(folder / "ours", "--tsdb.retention=100y", *far))
    return {
        "prometheus": [start(prometheus(folder / "prometheus"))],
        "thanos": [start(thanos_query(folder, theirs.grpc_port)), theirs],
        "thanostack": [start(our_query(folder, ours.grpc_port)), ours],
        "victoria-metrics": [start(victoria_metrics(folder / "vm"))],
    }


def _points(data: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    points = {}
    for series in data["result"]:
        labels = {k: v for k, v in series["metric"].items() if k not in {"replica", "tenant_id"}}
        points[str(sorted(labels.items()))] = [(t, float(v)) for t, v in series["values"]]
    return points


def _is_close(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two answers agree to 1e-9; VictoriaMetrics extrapolates otherwise."""
    if a.keys() != b.keys():
        return False
    return all(
        len(a[key]) == len(b[key])
        and all(
            t == u and math.isclose(v, w, rel_tol=1e-9)
            for (t, v), (u, w) in zip(a[key], b[key], strict=True)
        )
        for key in a
    )
