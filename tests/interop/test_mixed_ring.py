"""Rings of real Thanos ingestors and ours: what either router wrote is where the other expects it.

                   ┌──> router (ours) ──┐      ┌──> ours-0 … ours-2     ┐  <── query (ours)
    test ──in turn─┤                    ├─ring─┤                        │
                   └──> router (real) ──┘      └──> theirs-0 … theirs-2 ┘  <── query (real)

Every router has the same rings, one a tenant or a few: each algorithm over all six nodes, and
rings of one make only. A node is told by its `replica` label.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass

import pytest

from thanostack.testing import held_samples
from thanostack.testing.bodies import request_body
from thanostack.testing.processes import (
    Server,
    our_query,
    our_receive,
    thanos_query,
    thanos_receive,
    until,
)

pytestmark = pytest.mark.interop
OURS, THEIRS = ([f"{make}-{n}" for n in range(3)] for make in ("ours", "theirs"))
MIXED = [name for pair in zip(OURS, THEIRS, strict=True) for name in pair]
N_SERIES = 300
ROUNDS = ("ours", "real", "ours")
FACTORS = (1, 3)
SHARDS = {"shard_size": 4, "zone_awareness_disabled": True}
RINGS = [
    {"tenants": ["hashmod"], "algorithm": "hashmod", "endpoints": MIXED},
    {"tenants": ["ketama"], "algorithm": "ketama", "endpoints": MIXED},
    {"tenants": ["zones"], "algorithm": "ketama", "endpoints": MIXED, "zones": "aabbcc"},
    {"tenants": ["uneven"], "algorithm": "ketama", "endpoints": MIXED, "zones": "aaaabc"},
    {
        "tenants": ["shard-*"], "tenant_matcher_type": "glob", "algorithm": "ketama",
        "endpoints": MIXED, "shuffle_sharding_config": SHARDS,
    },
    {
        "tenants": ["zoned-shard-?"], "tenant_matcher_type": "glob", "algorithm": "ketama",
        "endpoints": MIXED, "zones": "aabbcc", "shuffle_sharding_config": {"shard_size": 3},
    },
    # Of whatever algorithm is the default.
    {"tenants": ["into-ours"], "endpoints": OURS},
    {"tenants": ["into-theirs"], "endpoints": THEIRS},
    {"tenants": ["into-both"], "endpoints": MIXED},
]  # fmt: skip
PLACED = [
    ["hashmod"], ["ketama"], ["zones"], ["uneven"], ["shard-1", "shard-2", "shard-3"],
    ["zoned-shard-1", "zoned-shard-2", "zoned-shard-3"],
]  # fmt: skip
TENANTS = [*(tenant for case in PLACED for tenant in case), "into-ours", "into-theirs", "into-both"]


@dataclass
class World:
    """What runs; routers by replication factor and make."""

    routers: dict[tuple[int, str], Server]
    queriers: list[Server]

    def holders(self, name: str, tenant: str) -> dict[str, dict[str, int]]:
        """Return how many samples of each series each node has, by pod and node."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        query = f'count_over_time({name}{{tenant_id="{tenant}"}}[1h])'
        for series in self.queriers[0].api("query", query=query, dedup="false")["result"]:
            labels = series["metric"]
            found[labels["pod"]][labels["replica"]] = int(series["value"][1])
        return found

    def await_holders(self, name: str, tenant: str, n_samples: int) -> dict[str, dict[str, int]]:
        """Return the same once there are so many samples on all nodes together."""

        def of_all():
            found = self.holders(name, tenant)
            return found if sum(sum(n.values()) for n in found.values()) >= n_samples else None

        return until(f"{n_samples} samples of {name} of {tenant}", of_all, 30)


def rings_over(addresses: dict[str, str]) -> str:
    """Return RINGS with addresses for names, and each node in its zone."""
    rings = []
    for number, ring in enumerate(RINGS):
        nodes = [{"address": addresses[name]} for name in ring["endpoints"]]
        for node, zone in zip(nodes, ring.get("zones", ""), strict=False):
            node["az"] = zone
        named = {"hashring": f"ring-{number}", **ring, "endpoints": nodes}
        rings.append({key: value for key, value in named.items() if key != "zones"})
    return json.dumps(rings)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    makes = {"ours": our_receive, "theirs": thanos_receive, "real": thanos_receive}
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        nodes = {n: start(makes[n.partition("-")[0]](folder / n, replica=n)) for n in MIXED}
        text = rings_over({name: f"127.0.0.1:{node.grpc_port}" for name, node in nodes.items()})
        routers = {
            (factor, make): start(
                makes[make](
                    folder / f"{make}{factor}", f"--receive.hashrings={text}",
                    f"--receive.replication-factor={factor}",
                )
            )
            for factor in FACTORS for make in ("ours", "real")
        }  # fmt: skip
        ports = [node.grpc_port for node in nodes.values()]
        queriers = [start(our_query(folder, *ports)), start(thanos_query(folder, *ports))]
        for server in (*nodes.values(), *routers.values(), *queriers):
            server.wait_ready()
        make_known(nodes.values(), queriers)
        yield World(routers, queriers)


def make_known(nodes, queriers):
    """Give each node something of each tenant, older than all that comes.

    A querier hears every 5 s only of which tenants a node has, and how far back it goes; and asks
    it for nothing else meanwhile.
    """
    then = now_ms() - 40 * 60_000
    body = request_body([({"__name__": "known"}, [(then, 1.0)])])
    for tenant in TENANTS:
        for node in nodes:
            node.send([body], tenant=tenant)
    at_then = {"query": "count(known)", "dedup": "false", "time": then / 1000}
    for querier in queriers:

        def all_known(querier=querier):
            found = querier.api("query", **at_then)["result"]
            return [s["value"][1] for s in found] == [str(len(TENANTS) * len(MIXED))]

        until(f"all tenants at {querier.name}", all_known)


def now_ms():
    return int(time.time() * 1000)


def pods(name):
    """Return series of many shapes: short and long values, of any language, with and without."""
    for n in range(N_SERIES):
        labels = {"__name__": name, "pod": f"p{n}", "path": f"/é/{'x' * (n % 90)}"}
        yield labels if n % 3 else {**labels, "zone": f"z{n % 7}", "_private": '\t"\\'}


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("tenants", PLACED, ids=lambda tenants: tenants[0])
def test_routers_in_turn_make_no_second_copy(world, tenants, factor):
    """The nodes of each series are as many as its replicas, and the same after every turn."""
    name, first = f"placed_{factor}", now_ms() - 60_000
    nodes: set[str] = set()
    for tenant in tenants:
        turns = []
        for number, make in enumerate(ROUNDS):
            samples = [(first + 1000 * number, float(number))]
            body = request_body((labels, samples) for labels in pods(name))
            world.routers[factor, make].send([body], tenant=tenant)
            sent = N_SERIES * factor * (number + 1)
            turns.append(world.await_holders(name, tenant, sent))
        placed = {pod: set(counts) for pod, counts in turns[0].items()}
        assert len(placed) == N_SERIES
        assert {len(holders) for holders in placed.values()} == {factor}
        for number, found in enumerate(turns, 1):
            assert found == {pod: dict.fromkeys(of, number) for pod, of in placed.items()}
        nodes |= set().union(*placed.values())
    print(f"{tenants[0]}, replication factor {factor}: {sorted(nodes)}")
    assert nodes & set(OURS)
    assert nodes & set(THEIRS)


EXPRESSIONS = ["steady", "sum by (kind) (steady)", "avg_over_time(steady[7m]) - steady offset 10m"]
EXPRESSIONS += ["max_over_time(odd[5m])", "count by (kind) ({kind=~'.+'})", "topk(3, steady)"]
EXPRESSIONS += ["rate(risen_total[5m])", "sum by (kind) (increase(risen_total[10m]))"]
N_SAMPLES, N_A_BODY, STEP_MS = 40, 8, 30_000
# Not -0.0: the real router leaves a zero out of what it sends on, whatever its sign.
ODD = (float("nan"), float("inf"), 5e-324, -1.7976931348623157e308, 1 / 3, 2.0**53, 0.0)


def written(rng, first):
    """Return gauges, counters, and values that are hard to carry, each with a clock of its own.

    Counters of whole numbers that never fall: upstream evaluates rates of one copy over running
    totals, see `test_query_interop`, which are the same only for those.
    """
    series = []
    for n in range(40):
        times = [first + k * STEP_MS + rng.randrange(999) for k in range(N_SAMPLES)]
        labels = {"pod": f"p{n}", "kind": "abc"[n % 3]}
        risen = [float(k * n) for k in range(N_SAMPLES)]
        steady = [rng.gauss(0, 1) * 10.0 ** (9 * (n % 4) - 9) for _ in times]
        odd = [rng.choice(ODD) for _ in times]
        for name, values in (("risen_total", risen), ("steady", steady), ("odd", odd)):
            series.append(({"__name__": name, **labels}, list(zip(times, values, strict=True))))
    return series


def bodies(series):
    """Yield requests of a part of the time each, of all series."""
    for k in range(0, N_SAMPLES, N_A_BODY):
        yield request_body((labels, samples[k : k + N_A_BODY]) for labels, samples in series)


@pytest.mark.parametrize(
    ("makes", "tenant", "nodes"),
    [
        (["real"], "into-ours", OURS),
        (["ours"], "into-theirs", THEIRS),
        (["real", "ours"], "into-both", MIXED),
    ],
    ids=["real to ours", "ours to real", "both to both"],
)
def test_what_is_read_is_what_was_sent(world, makes, tenant, nodes):
    """Every sample with its bits, on three nodes, by either querier; and they say the same."""
    first = now_ms() // STEP_MS * STEP_MS - N_SAMPLES * STEP_MS - 60_000
    series = written(random.Random(tenant), first)
    sent = held_samples.of_written(series)
    end_s = first / 1000 + N_SAMPLES * STEP_MS / 1000
    everything = f'{{tenant_id="{tenant}",__name__=~"risen_total|steady|odd"}}[1h]'
    for number, body in enumerate(bodies(series), 1):
        world.routers[3, makes[number % len(makes)]].send([body], tenant=tenant)
        # Else a third replica could come behind newer samples, and be refused for that.
        await_copies(world.queriers[0], everything, end_s, 3 * len(series) * N_A_BODY * number)
    for querier in world.queriers:
        got = await_copies(querier, everything, end_s, 3 * held_samples.size(sent))
        assert copies_of(got, sent) == dict.fromkeys(sent, 3)
        assert {dict(labels)["replica"] for labels in got} == set(nodes)
        once = held_samples.of_query(querier, everything, end_s)
        assert held_samples.differences(sent, held_samples.without(once, "tenant_id")) == []
    window = {"start": first / 1000, "end": end_s, "step": 17}
    for expression in EXPRESSIONS:
        for dedup in ("true", "false"):
            compare(world, "query_range", query=expression, dedup=dedup, **window)
            compare(world, "query", query=expression, dedup=dedup, time=end_s - 100.25)


def await_copies(querier, query, at_s, n_samples):
    """Return all copies of all samples; the last replica may come after the answer."""

    def copies():
        got = held_samples.of_query(querier, query, at_s, dedup="false")
        return got if held_samples.size(got) >= n_samples else None

    return until(f"{n_samples} samples at {querier.name}", copies, 30)


def copies_of(got, sent):
    """Return how many nodes have each series just as it was sent; others fail here."""
    n_copies = defaultdict(int)
    for labels, samples in got.items():
        series = frozenset(p for p in labels if p[0] not in ("replica", "tenant_id"))
        assert samples == sent[series], sorted(labels)
        n_copies[series] += 1
    return n_copies


def compare(world, path, **parameters):
    """Check that both queriers give the same series, times and texts of numbers."""
    ours, real = (querier.api(path, **parameters) for querier in world.queriers)
    assert ours["result"], parameters
    assert ours == real, parameters
