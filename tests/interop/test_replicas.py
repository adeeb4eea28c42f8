"""Two replicas that each missed something are one series, as the real Thanos querier says.

The same two receivers of ours below a querier of each make; what the real one answers, byte for
byte, is what ours must answer. Receivers of Thanos below both are in `test_query_interop`.
"""

import itertools
import json
import random
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.processes import peer_program

pytestmark = pytest.mark.interop
TENANT = "replicas"
STEP_MS = 15_000
ROUNDS = 200
GAPS = {"a": range(60, 90), "b": range(120, 124)}


def series_of(replica, start):
    """Yield what one replica scraped: its own times, a gap, counters that reset together."""
    source = random.Random(7)
    shift = {"a": 0, "b": 6_100}[replica]
    for n in range(20):
        value, counter, gauge = 0.0, [], []
        for k in range(ROUNDS):
            value = 0.0 if source.random() < 0.02 else value + source.randrange(1000) / 8
            if k not in GAPS[replica]:
                t = start + shift + k * STEP_MS
                counter.append((t, value))
                gauge.append((t, value / 3 - n))
        yield {"__name__": "replicated_total", "instance": f"host-{n}"}, counter
        yield {"__name__": "replicated", "instance": f"host-{n}"}, gauge


@pytest.fixture(scope="module")
def start(pair):
    """Both replicas written; the second that they begin at."""
    start = (int(time.time()) // 15 * 15 - 3600) * 1000
    for name in "ab":
        getattr(pair, name).send([request_body(series_of(name, start))], tenant=TENANT)
    # At its beginning: until queriers know how far back it goes they do not ask for that.
    pair.await_result("count by (replica) (replicated)", start // 1000 + 10, 2)
    return start // 1000


def body(server, path, **parameters):
    url = f"{server.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def test_two_series_or_one(pair, start):
    """Without dedup each replica shows its own gap; with it, one series heals both.

    Going over to the other replica costs up to three steps, by the penalty: so the hole that is
    left depends on where a gap begins, and is shorter than the shorter gap.
    """
    query = 'replicated{instance="host-3"}[51m]'
    parameters = {"query": query, "time": start + 3000}
    apart = pair.ours.api("query", **parameters, dedup="false")["result"]
    assert [series["metric"]["replica"] for series in apart] == ["a", "b"]
    assert [len(series["values"]) for series in apart] == [ROUNDS - len(GAPS[n]) for n in "ab"]
    (one,) = pair.ours.api("query", **parameters, dedup="true")["result"]
    assert "replica" not in one["metric"]
    times = [t for t, _ in one["values"]]
    shorter_s = (len(GAPS["b"]) + 1) * STEP_MS / 1000
    assert max(b - a for a, b in itertools.pairwise(times)) < shorter_s


EXPRESSIONS = [
    "replicated",
    "replicated_total",
    "rate(replicated_total[2m])",
    "sum by (instance) (increase(replicated_total[5m]))",
    "quantile_over_time(0.9, replicated[10m])",
    "topk(3, replicated) + on (instance) group_left replicated offset 5m",
    "count(replicated)",
    "absent(replicated_nothing)",
]


# With dedup off upstream folds counter resets away before `rate` sees them, and so differs from
# Prometheus, which we follow: see `test_query_interop`.
RANGES = [
    *((expression, "true") for expression in EXPRESSIONS[:5]),
    *((EXPRESSIONS[i], "false") for i in (0, 1, 4)),
]


@pytest.mark.parametrize(("expression", "dedup"), RANGES)
def test_range_query_is_the_real_ones(pair, start, expression, dedup):
    """A range query over both gaps gives the real querier's bytes."""
    parameters = {"query": expression, "start": start, "end": start + 3000, "step": 13}
    expected = body(pair.real, "query_range", **parameters, dedup=dedup)
    assert len(json.loads(expected)["data"]["result"]) in {20, 40}
    assert expected == body(pair.ours, "query_range", **parameters, dedup=dedup)


@pytest.mark.parametrize("second", [905, 1100, 1360, 1845, 2999])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_instant_query_is_the_real_ones(pair, start, expression, second):
    """An instant query in and beside the gaps gives the real querier's bytes."""
    parameters = {"query": expression, "time": start + second}
    expected = body(pair.real, "query", **parameters)
    assert json.loads(expected)["data"]["result"]
    assert expected == body(pair.ours, "query", **parameters)


def promtool(server, *arguments):
    command = [str(peer_program("promtool")), "query", *arguments]
    place = next(i for i, argument in enumerate(command) if argument == "SERVER")
    command[place] = server.url
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


COMMANDS = [
    ("instant", "--time={end}", "SERVER", 'sum(rate(replicated_total{{instance=~"host-.*"}}[5m]))'),
    ("instant", "--time={end}", "SERVER", 'replicated{{instance="host-3"}}[1m]'),
    ("range", "--start={start}", "--end={end}", "--step=60s", "SERVER", "avg(replicated)"),
    ("series", "--match=replicated", "--start={start}", "--end={end}", "SERVER"),
    ("labels", "--start={start}", "--end={end}", "SERVER", "instance"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_promtool_query(pair, start, arguments):
    """Promtool understands our querier and prints the same as over the real one."""
    arguments = [text.format(start=start, end=start + 2900) for text in arguments]
    expected = promtool(pair.real, *arguments)
    assert len(expected) > 10
    assert expected == promtool(pair.ours, *arguments)
