"""Our querier beside a real Thanos querier, over the same real Thanos receivers.

    receive a, b, c (real)  <-- query (real)
                            <-- query (ours)  <-- query (real), query (ours): stacked
    receive d (ours)        <-- both

Answers are compared byte for byte where upstream is bound to give them so; the differences that we
want are tests of their own.
"""

import asyncio
import contextlib
import math
import random
import time

import cramjam
import httpx
import pytest

from thanostack.lib.pb import prometheus_remote_pb2
from thanostack.testing.ports import free_port
from thanostack.testing.processes import peer_program, running, thanostack

pytestmark = [pytest.mark.interop, pytest.mark.enable_socket]

STEP_MS = 15_000
SAMPLES = 240


class Peer:
    """A server of either make: its ports, and answers of its query API."""

    def __init__(self, server):
        self.server, self.grpc = server, server.grpc_port

    def get(self, path, **params):
        return httpx.get(f"{self.server.url}/api/v1/{path}", params=params, timeout=60)


def await_ready(peer):
    peer.server.wait_ready()
    return peer


@contextlib.contextmanager
def started(command, folder, *, write=False, grpc=0):
    http, grpc, write_port = free_port(), grpc or free_port(), free_port() if write else 0
    arguments = [f"--http-address=127.0.0.1:{http}", f"--grpc-address=127.0.0.1:{grpc}"]
    if write:
        arguments.append(f"--remote-write.address=127.0.0.1:{write_port}")
    ports = {"http_port": http, "grpc_port": grpc, "write_port": write_port}
    with running(command[0], [*command, *arguments], folder / f"{http}.log", **ports) as server:
        yield Peer(server)


def real(*command):
    return [str(peer_program("thanos")), *command, "--log.level=warn"]


def ours(*command):
    return [*thanostack(), *command, "--log.level=warn"]


def receive_command(name, folder):
    capnproto = f"--receive.capnproto-address=127.0.0.1:{free_port()}"
    return ["receive", f'--label=replica="{name}"', f"--tsdb.path={folder / name}", capnproto]


def write(port, series):
    request = prometheus_remote_pb2.WriteRequest()
    for labels, samples in series:
        message = request.timeseries.add()
        for name in sorted(labels):
            message.labels.add(name=name, value=labels[name])
        for t, v in samples:
            message.samples.add(timestamp=t, value=v)
    body = bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    url = f"http://127.0.0.1:{port}/api/v1/receive"
    httpx.post(url, content=body, headers=headers).raise_for_status()


def replica_series(rng, start):
    """Yield what one replica scraped: counters with resets, gauges, gaps, and its own clock."""
    for i in range(12):
        instance = {"instance": f"host-{i:03}"}
        value, offset = rng.random() * 1000, rng.randrange(STEP_MS)
        counter = []
        for k in range(SAMPLES):
            value = 0.0 if rng.random() < 0.02 else value + rng.random() * 10
            if rng.random() > 0.08 and not (i == 3 and 60 < k < 90 and offset % 2):
                counter.append((start + offset + k * STEP_MS + rng.randrange(30), value))
        yield {"__name__": "requests_total", "code": "25"[i % 2] + "00", **instance}, counter
        gauge = [(t, math.sin(t / 1e6 + i) * 10.0 ** (9 * (i % 4) - 9)) for t, _ in counter]
        yield {"__name__": "gauge", "é": 'ü"\\', **instance}, gauge
        # The same timestamps on every replica: only bytes decide which chunk comes first.
        aligned = [(start + k * STEP_MS, rng.random()) for k in range(SAMPLES)]
        yield {"__name__": "aligned", **instance}, aligned
        shared = [(start + k * STEP_MS, float(k * i)) for k in range(SAMPLES) if rng.random() > 0.1]
        yield {"__name__": "shared_total", **instance}, shared


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three real receivers, ours, and queriers of both makes over them."""
    folder = tmp_path_factory.mktemp("query")
    start = (int(time.time()) // 15 * 15 - 3600) * 1000
    with contextlib.ExitStack() as stack:

        def begin(command, **options):
            return stack.enter_context(started(command, folder, **options))

        receivers = [
            begin(real(*receive_command(name, folder)), write=True) for name in ("a", "b", "c")
        ]
        receivers.append(begin(ours(*receive_command("d", folder)[:-1]), write=True))
        for number, receiver in enumerate(map(await_ready, receivers)):
            series = list(replica_series(random.Random(number), start))
            if number == 3:
                series = [({**labels, "source": "ours"}, samples) for labels, samples in series]
            write(receiver.server.write_port, series)
        endpoints = [f"--endpoint=127.0.0.1:{receiver.grpc}" for receiver in receivers]
        flags = [*endpoints, "--query.replica-label=replica"]
        queriers = {
            "real": begin(real("query", *flags)),
            "ours": begin(ours("query", *flags)),
            "real chain": begin(real("query", *flags, "--deduplication.func=chain")),
            "ours chain": begin(ours("query", *flags, "--deduplication.func=chain")),
        }
        for querier in queriers.values():
            await_ready(querier)
        over = [f"--endpoint=127.0.0.1:{queriers['ours'].grpc}", "--query.replica-label=replica"]
        queriers["real over ours"] = await_ready(begin(real("query", *over)))
        queriers["ours over ours"] = await_ready(begin(ours("query", *over)))
        under = f"--endpoint=127.0.0.1:{queriers['real'].grpc}"
        queriers["ours over real"] = await_ready(
            begin(ours("query", under, "--query.replica-label=replica"))
        )
        await_series(queriers)
        yield queriers, start // 1000


def await_series(queriers):
    """Wait until every querier has been told what its endpoints hold."""
    end = time.monotonic() + 60
    for querier in queriers.values():
        while True:
            answer = querier.get("label/instance/values", **{"match[]": '{source="ours"}'}).json()
            if len(answer["data"]) == 12 and len(querier.get("labels").json()["data"]) > 6:
                break
            assert time.monotonic() < end, "endpoints are not discovered"
            time.sleep(0.5)


EXPRESSIONS = [
    "requests_total",
    "gauge",
    "aligned",
    "shared_total",
    'rate(requests_total{source=""}[5m])',
    'increase(shared_total{source=""}[10m])',
    'irate(requests_total{source=""}[2m])',
    'sum by (code) (rate(requests_total{source=""}[1m]))',
    "avg_over_time(gauge[5m]) - gauge offset 10m",
    'rate(requests_total{source=""}[5m]) > on (instance) aligned{source=""}',
    "max by (instance) (aligned)",
    '{tenant_id=~".+", __name__=~"shared.*", source=""}',
    "nothing",
]
# Without replicas upstream evaluates these over running totals, which round differently.
WITHOUT_REPLICAS = [
    'rate(requests_total{source="ours"}[5m])',
    'irate(requests_total{source="ours"}[2m])',
    'increase(shared_total{source="ours"}[10m])',
]


def both(world, path, **params):
    queriers, _ = world
    return queriers["real"].get(path, **params), queriers["ours"].get(path, **params)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_range_query_is_the_same(world, expression):
    """A range query gives the real querier's bytes, deduplicated over three replicas."""
    start = world[1]
    params = {"query": expression, "start": start, "end": start + 3600, "step": 17}
    expected, got = both(world, "query_range", **params)
    assert expected.content == got.content


@pytest.mark.parametrize("expression", EXPRESSIONS[:4])
def test_replicas_are_shown_without_dedup(world, expression):
    """Each replica's own series come back, as the real querier gives them."""
    start = world[1]
    params = {"query": expression, "start": start, "end": start + 3600, "step": 17}
    expected, got = both(world, "query_range", **params, dedup="false")
    assert expected.content == got.content
    assert b'"replica":"b"' in got.content


@pytest.mark.parametrize("expression", WITHOUT_REPLICAS)
@pytest.mark.parametrize("dedup", ["true", "false"])
def test_counters_without_replicas_are_prometheuss(world, expression, dedup):
    """Raw counters are evaluated as Prometheus does; upstream's totals differ in the last bits."""
    start = world[1]
    params = {"query": expression, "start": start, "end": start + 3600, "step": 60}
    expected, got = both(world, "query_range", **params, dedup=dedup)
    pairs = zip(expected.json()["data"]["result"], got.json()["data"]["result"], strict=True)
    for real_series, ours_series in pairs:
        assert ours_series["metric"] == real_series["metric"]
        assert [t for t, _ in ours_series["values"]] == [t for t, _ in real_series["values"]]
        numbers = [float(v) for _, v in real_series["values"]]
        wanted = [float(v) for _, v in ours_series["values"]]
        equal = [a == pytest.approx(b, rel=1e-9) for a, b in zip(wanted, numbers, strict=True)]
        # Behind a reset the totals also hide that the counter began near zero.
        assert sum(equal) >= 0.9 * len(equal)
        assert wanted == pytest.approx(numbers, rel=0.1)


@pytest.mark.parametrize(
    "expression", [*EXPRESSIONS, "requests_total[20m]", "aligned[1h]", "1", '"x"']
)
def test_instant_query_is_the_same(world, expression):
    """An instant query gives the real querier's bytes."""
    expected, got = both(world, "query", query=expression, time=world[1] + 3000.25)
    assert expected.content == got.content


@pytest.mark.parametrize("expression", ["requests_total", "aligned", "shared_total", "gauge"])
def test_chain_is_the_same(world, expression):
    """Chain deduplication decides ties as upstream's heap does."""
    queriers, start = world
    params = {"query": f"{expression}[55m]", "time": start + 3500}
    expected = queriers["real chain"].get("query", **params)
    assert expected.content == queriers["ours chain"].get("query", **params).content


@pytest.mark.parametrize("name", ["real over ours", "ours over ours", "ours over real"])
@pytest.mark.parametrize("expression", EXPRESSIONS[:6])
def test_queriers_stack(world, name, expression):
    """A querier over a querier, of either make, answers as one over the receivers."""
    queriers, start = world
    params = {"query": expression, "start": start, "end": start + 3600, "step": 60}
    expected = queriers["real"].get("query_range", **params)
    assert expected.content == queriers[name].get("query_range", **params).content


METADATA = [
    ("labels", {}),
    ("labels", {"match[]": "gauge"}),
    ("label/replica/values", {}),
    ("label/tenant_id/values", {"match[]": "aligned"}),
    ("label/__name__/values", {"match[]": ["gauge", '{code="200"}']}),
    ("label/instance/values", {"limit": "2"}),
    ("series", {"match[]": "gauge"}),
    ("series", {"match[]": ["gauge", "aligned"], "dedup": "false"}),
    ("series", {"match[]": "gauge", "limit": "3"}),
]


@pytest.mark.parametrize(("path", "params"), METADATA)
def test_metadata_is_the_same(world, path, params):
    """Labels, values and series agree, limits and their warnings too."""
    expected, got = both(world, path, **params)
    assert expected.json() == got.json()
    assert expected.headers.get("cache-control") == got.headers.get("cache-control")


ERRORS = [
    ("query", {"query": "sum("}),
    ("query", {"query": "gauge", "time": "abc"}),
    ("query", {"query": "gauge", "timeout": "abc"}),
    ("query", {"query": "gauge", "dedup": "abc"}),
    ("query", {"query": "gauge", "engine": "abc"}),
    ("query", {"query": "gauge", "max_source_resolution": "-1s"}),
    ("query", {"query": "gauge", "lookback_delta": "zz"}),
    ("query", {"query": "gauge", "partial_response": "2"}),
    ("query_range", {"query": "gauge", "start": "x", "end": "2", "step": "1"}),
    ("query_range", {"query": "gauge", "start": "3", "end": "2", "step": "1"}),
    ("query_range", {"query": "gauge", "start": "1", "end": "2", "step": "0"}),
    ("query_range", {"query": "gauge", "start": "0", "end": "11001", "step": "1"}),
    ("series", {}),
    ("labels", {"start": "5", "end": "2"}),
    ("label/instance/values", {"limit": "-2"}),
]


@pytest.mark.parametrize(("path", "params"), ERRORS)
def test_errors_are_the_same(world, path, params):
    """Status, error type and text agree, letter for letter."""
    expected, got = both(world, path, **params)
    assert (expected.status_code, expected.content) == (got.status_code, got.content)


def test_store_matchers_choose_endpoints(world):
    """`storeMatch[]` looks at addresses only."""
    for matcher in ('{__address__=~".*:1"}', '{__address__=~".+"}', '{other="x"}'):
        params = {"query": "count(gauge)", "time": world[1] + 3000, "storeMatch[]": matcher}
        expected, got = both(world, "query", **params)
        assert expected.content == got.content


def test_resets_are_seen(world):
    """Upstream folds counter resets away before `resets` can count them; here it counts."""
    params = {"query": "max(resets(requests_total[40m]))", "time": world[1] + 3000}
    expected, got = both(world, "query", **params)
    assert expected.json()["data"]["result"][0]["value"][1] == "0"
    assert float(got.json()["data"]["result"][0]["value"][1]) > 0


def test_a_cycle_is_refused(world, tmp_path):
    """A querier that is its own endpoint says so instead of asking itself for ever."""
    port = free_port()
    command = ours("query", f"--endpoint=127.0.0.1:{port}", "--stack.id=me")
    with started(command, tmp_path, grpc=port) as peer:
        await_ready(peer)
        peer.get("labels")
        answer = asyncio.run(ask_itself(port))
        assert "query cycle" in answer


async def ask_itself(port):
    import grpc.aio

    from thanostack.lib.model.matchers import Matcher, MatchType
    from thanostack.lib.storeapi.requests import SeriesRequest, encode_series_request

    request = SeriesRequest((Matcher(MatchType.EQ, "a", "b"),), 0, 1, abort=True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream("/thanos.Store/Series", None, None)
        try:
            frames = [
                frame
                async for frame in call(
                    encode_series_request(request), metadata=(("thanostack-path", "other,me"),)
                )
            ]
        except grpc.aio.AioRpcError as error:
            return error.details()
    return str(frames)
