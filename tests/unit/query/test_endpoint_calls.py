"""Endpoints over real sockets: discovery, selection, failures, deadlines, stacking, cycles."""

import asyncio
import functools
import inspect
import threading

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.foundation.errors import (
    EndpointUnavailable,
    InvalidInput,
    LimitExceeded,
    QueryCanceled,
    QueryTimeout,
)
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SelectHints, SelectRequest
from thanostack.lib.promql.engine import Deadline
from thanostack.lib.storeapi.codec import encode_warning
from thanostack.lib.storeapi.dedup import DedupMode
from thanostack.lib.storeapi.info import EndpointInfo, encode_info, parse_info
from thanostack.lib.storeapi.requests import LabelRequest, SeriesRequest, parse_series_request
from thanostack.lib.storeapi.server import LabeledStore, SelectLimits, StoreServer, external_run
from thanostack.query.discovery import EndpointSpec
from thanostack.query.endpoint_set import EndpointCollector, EndpointSet, EndpointTimes
from thanostack.query.endpoints import Call, LocalEndpoint, RemoteEndpoint
from thanostack.query.fan_out import FanOut
from thanostack.query.grpc_api import QueryServicer
from thanostack.query.metrics import QueryMetrics
from thanostack.query.queryable import FanOutQueryable, SelectOptions, wait_for
from thanostack.query.service import ServiceOptions
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure
from thanostack.runtime.grpc_call import CallContext
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.logs import configure
from thanostack.runtime.metrics import new_registry
from thanostack.runtime.store_server_metrics import StoreServerMetrics
from thanostack.testing.memory_store import MemoryStore

pytestmark = pytest.mark.enable_socket

LOG = configure("query", level="error", form="logfmt")
UP = Matcher(MatchType.EQ, "__name__", "up")
SAMPLES = [(1000, 1.0), (16_000, 2.0)]


def store_server(replica, *jobs, **options):
    rows = [({"__name__": "up", "job": job}, SAMPLES) for job in jobs]
    store = LabeledStore(external_run({"replica": replica}), MemoryStore(rows))
    return StoreServer(lambda: [store], **options)


class Peer:
    """A StoreAPI server on a socket, made of functions; what it was asked is kept."""

    def __init__(self, server, info=None):
        self.series, self.names = server.series, server.label_names
        self.values, self.info = server.label_values, info or server.info
        self.requests, self.metadata = [], []

    async def start(self):
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self._handlers(),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return self

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def _handlers(self):
        async def series(request, context):
            self.requests.append(parse_series_request(request))
            self.metadata.append(dict(context.invocation_metadata()))
            result = self.series(request)
            for frame in await result if inspect.isawaitable(result) else result:
                yield frame

        async def names(request, context):
            return self.names(request)

        async def values(request, context):
            return self.values(request)

        async def info(request, context):
            return self.info()

        unary = grpc.unary_unary_rpc_method_handler
        methods = {
            "/thanos.Store/Series": grpc.unary_stream_rpc_method_handler(series),
            "/thanos.Store/LabelNames": unary(names),
            "/thanos.Store/LabelValues": unary(values),
            "/thanos.info.Info/Info": unary(info),
        }

        class Handlers(grpc.GenericRpcHandler):
            def service(self, details):
                return methods.get(details.method)

        return Handlers()


class World:
    """An endpoint set over peers, and its fan-out."""

    def __init__(self, *peers, local=(), strict=(), selector=(), times=None):
        self.specs = {p.address: EndpointSpec(p.address) for p in peers}
        self.specs |= {address: EndpointSpec(address, strict=True) for address in strict}
        self.clock, self.registry = ManualClock(1_000_000), new_registry("query")
        self.metrics = QueryMetrics(self.registry)
        self.endpoints = EndpointSet(
            self.resolve,
            times=times or EndpointTimes(info_timeout_s=1, dns_interval_s=0),
            local=local,
            clock=self.clock,
            log=LOG,
            connect=functools.partial(
                RemoteEndpoint, observer=GrpcMetrics(self.registry, "client")
            ),
        )
        self.fan_out = FanOut(self.endpoints.stores, selector_labels=selector, metrics=self.metrics)

    async def resolve(self):
        return self.specs

    async def gather(self, request, **options):
        (gathered,) = await self.fan_out.gather_series([request], Call(**options))
        return gathered.merge()


@pytest.fixture
async def world():
    """Return a function that starts peers and asks them for Info."""
    made = []

    async def make(*peers, **options):
        started = [await peer.start() for peer in peers]
        found = World(*started, **options)
        await found.endpoints.update()
        made.append((found, started))
        return found

    yield make
    for found, peers in made:
        await found.endpoints.close()
        for peer in peers:
            await peer.server.stop(None)


def request(*matchers, mint=0, maxt=20_000, **options):
    return SeriesRequest(matchers or (UP,), mint, maxt, batch_size=64, **options)


def runs(batch):
    return [batch.labels.mapping(i) for i in range(len(batch.labels))]


async def test_answers_are_merged(world):
    """Series of several endpoints come in one order; remote and local are alike."""
    local = LocalEndpoint("local", store_server("c", "x", "y"))
    found = await world(Peer(store_server("a", "y")), Peer(store_server("b", "x")), local=[local])
    batch, warnings = await found.gather(request())
    expected = [("x", "b"), ("x", "c"), ("y", "a"), ("y", "c")]
    assert expected == [(labels["job"], labels["replica"]) for labels in runs(batch)]
    assert warnings == ()
    batch, _ = await found.gather(request(without_replica_labels=("replica",)))
    assert [labels["job"] for labels in runs(batch)] == ["x", "y"]
    # The replicas hold the same bytes.
    assert batch.chunk_offsets.tolist() == [0, 1, 2]


async def test_only_concerned_endpoints_are_asked(world):
    """Labels and times decide; contradicting ones are left alone."""
    peers = [Peer(store_server("a", "x")), Peer(store_server("b", "x"), lambda: late)]
    late = encode_info(EndpointInfo("store", ((),), mint=50_000, maxt=60_000))
    found = await world(*peers)
    await found.gather(request(UP, Matcher(MatchType.EQ, "replica", "a")))
    await found.gather(request(UP, Matcher(MatchType.EQ, "replica", "z")))
    assert [len(peer.requests) for peer in peers] == [1, 0]
    await found.gather(request(mint=55_000, maxt=70_000))
    assert [len(peer.requests) for peer in peers] == [2, 1]
    address = Matcher(MatchType.EQ, "__address__", peers[0].address)
    await found.gather(request(maxt=70_000), store_matchers=((address,),))
    assert [len(peer.requests) for peer in peers] == [3, 1]


async def test_endpoints_without_abilities_are_helped(world):
    """Replica labels are removed and shards taken here when the endpoint cannot."""
    server = store_server("a", *(str(i) for i in range(10)))
    old = lambda: encode_info(  # noqa: E731
        EndpointInfo("sidecar", supports_sharding=False, supports_without_replica_labels=False)
    )
    peer = Peer(server, old)
    plain = SeriesRequest((UP,), 0, 20_000)
    from thanostack.lib.storeapi.requests import Shard, encode_series_request

    peer.series = lambda _: server.series(encode_series_request(plain))
    found = await world(peer)
    options = {"without_replica_labels": ("replica",)}
    parts = [
        runs((await found.gather(request(shard=Shard(i, 2, by=False, labels=()), **options)))[0])
        for i in range(2)
    ]
    assert len(parts[0]) + len(parts[1]) == 10
    assert 0 < len(parts[0]) < 10
    assert all(set(labels) == {"__name__", "job"} for part in parts for labels in part)


async def test_warnings_pass_through_or_fail(world):
    """An endpoint's own warnings are told once, or end the request under ABORT."""
    peer = Peer(store_server("a", "x"))
    peer.series = lambda _: [encode_warning("disk is slow"), encode_warning("disk is slow")]
    found = await world(peer)
    assert (await found.gather(request()))[1] == ("disk is slow",)
    with pytest.raises(EndpointUnavailable, match=r"^disk is slow$"):
        await found.gather(request(abort=True), abort=True)


async def test_failures_are_warnings_or_the_end(world):
    """The text names the endpoint as upstream does."""

    def fails(_):
        raise ValueError("broken")

    good, bad = Peer(store_server("a", "x")), Peer(store_server("b", "x"))
    found = await world(good, bad)
    bad.series = fails
    batch, (warning,) = await found.gather(request())
    assert len(batch) == 1
    start = (
        f'receive series from Addr: {bad.address} LabelSets: {{replica="b"}} MinTime: 1000 MaxTime:'
    )
    assert warning.startswith(start)
    assert "rpc error: code = Unknown desc =" in warning
    with pytest.raises(EndpointUnavailable) as caught:
        await found.gather(request(abort=True), abort=True)
    assert str(caught.value).startswith(start)
    bad.series = lambda _: [b"\xff\xff"]
    (warning,) = (await found.gather(request()))[1]
    assert warning.endswith("sent a malformed series frame")


async def test_silent_endpoints_are_given_up(world):
    """`store.response-timeout` is the longest wait for the next message."""
    peer = Peer(store_server("a", "x"))
    peer.series = lambda _: asyncio.sleep(30, [])
    found = await world(peer)
    _, (warning,) = await found.gather(request(), response_timeout_s=0.2)
    assert warning.endswith("failed to receive any data in 0.2s")
    _, (warning,) = await found.gather(request(), deadline=Deadline.after(0.2))
    assert "code = DeadlineExceeded" in warning


async def test_fetched_bytes_are_bounded(world):
    """A query that fetches too much ends with the flag's name."""
    found = await world(Peer(store_server("a", "x")), Peer(store_server("b", "x")))
    with pytest.raises(LimitExceeded, match=r"query\.fetched-bytes-max"):
        await found.gather(request(), bytes_max=100)


async def test_label_requests_are_merged(world):
    """Names and values of all, sorted, with warnings of those that fail."""
    bad = Peer(store_server("c", "z"))
    local = LocalEndpoint("local", store_server("b", "y"))
    found = await world(Peer(store_server("a", "x")), bad, local=[local])
    bad.values = lambda _: 1 / 0
    names, warnings = await found.fan_out.label_names(LabelRequest("", (), 0, 9000), Call())
    assert (names, warnings) == (["__name__", "job", "replica"], [])
    wanted = LabelRequest("job", (UP,), 0, 9000)
    values, (warning,) = await found.fan_out.label_values(wanted, Call())
    assert values == ["x", "y"]
    assert warning.startswith(f"fetch label values from store Addr: {bad.address}")
    with pytest.raises(EndpointUnavailable):
        await found.fan_out.label_values(wanted, Call(abort=True))


async def test_selector_labels_are_settled_here(world):
    """Matchers on them choose this querier and go no further."""
    peer = Peer(store_server("a", "x"))
    found = await world(peer, selector=((b"zone", b"1"),))
    zone = Matcher(MatchType.EQ, "zone", "1")
    assert len((await found.gather(request(UP, zone)))[0]) == 1
    assert peer.requests[0].matchers == (UP,)
    assert len((await found.gather(request(UP, Matcher(MatchType.EQ, "zone", "2"))))[0]) == 0
    with pytest.raises(
        InvalidInput, match=r"^no matchers specified \(excluding selector labels\)$"
    ):
        await found.gather(request(zone))


async def test_endpoints_come_and_go(world):
    """Listed once they answer, unlisted after the timeout, gone with their configuration."""
    peer = Peer(store_server("a", "x"))
    found = await world(peer)
    found.specs["127.0.0.1:1"] = EndpointSpec("127.0.0.1:1")
    await found.endpoints.update()
    assert [peer.address] == [status.endpoint.name for status in found.endpoints.statuses()]
    peer.info = lambda: 1 / 0
    await found.endpoints.update()
    (status,) = found.endpoints.statuses()
    assert "code = Unknown" in status.error
    assert len(found.endpoints.stores()) == 1
    found.clock.advance(301_000)
    await found.endpoints.update()
    assert found.endpoints.statuses() == []
    peer.info = store_server("a", "x").info
    await found.endpoints.update()
    assert found.endpoints.statuses()[0].error == ""
    found.specs.clear()
    await found.endpoints.update()
    assert found.endpoints.statuses() == []


async def test_strict_endpoints_are_always_asked(world):
    """One that never answered is queried all the same, and warned about."""
    found = await world(strict=["127.0.0.1:1"])
    found.clock.advance(1_000_000)
    await found.endpoints.update()
    _, (warning,) = await found.gather(request())
    assert "Addr: 127.0.0.1:1" in warning
    assert "code = Unavailable" in warning


async def test_connections_are_a_metric(world):
    """By external labels and type, as upstream's dashboards read it."""
    found = await world(Peer(store_server("a", "x")), Peer(store_server("a", "x")))
    EndpointCollector(found.endpoints, ("external_labels", "store_type"), found.registry)
    labels = {"external_labels": '{replica="a"}', "store_type": "receive"}
    name = "thanos_store_nodes_grpc_connections"
    assert found.registry.get_sample_value(name, labels) == 2


async def test_calls_to_endpoints_are_counted(world):
    """As upstream's gRPC client counts them: each call, and how it ended."""
    found = await world(Peer(store_server("a", "x")), strict=["127.0.0.1:1"])
    await found.gather(request())
    series = {"grpc_type": "server_stream", "grpc_service": "thanos.Store", "grpc_method": "Series"}
    assert found.registry.get_sample_value("grpc_client_started_total", series) == 2
    for code in ("OK", "Unavailable"):
        labels = {**series, "grpc_code": code}
        assert found.registry.get_sample_value("grpc_client_handled_total", labels) == 1
    info = {"grpc_type": "unary", "grpc_service": "thanos.info.Info", "grpc_method": "Info"}
    assert found.registry.get_sample_value("grpc_client_handling_seconds_count", info) == 2
    for labels in (series, info):
        sent = found.registry.get_sample_value("grpc_client_msg_sent_total", labels)
        received = found.registry.get_sample_value("grpc_client_msg_received_total", labels)
        assert (sent, received) == (2, 1), "one endpoint does not answer"


async def test_queryable_fetches_equal_selectors_once(world):
    """From a worker thread; hints become aggregates, resolution and dedup."""
    peer = Peer(store_server("a", "x"))
    found = await world(peer)
    options = SelectOptions(DedupMode.PENALTY, ("replica",), max_resolution_ms=600_000)
    call = Call(metadata=(("thanos-tenant", "t"),))
    queryable = FanOutQueryable(found.fan_out, asyncio.get_running_loop(), options, call)
    rate = SelectRequest((UP,), 5000, 20_000, SelectHints(function="rate", range_ms=60_000))
    plain = SelectRequest((UP,), 0, 20_000)
    sources = await asyncio.to_thread(queryable.select, [rate, plain, rate])
    asked = {(r.without_replica_labels, r.aggregates, r.max_resolution_ms) for r in peer.requests}
    assert len(peer.requests) == 2
    assert asked == {(("replica",), (5,), 30_000), (("replica",), (1, 2), 600_000)}
    assert peer.metadata[0]["thanos-tenant"] == "t"
    assert (
        sources[0].dedup.mint, sources[0].dedup.maxt, sources[0].dedup.function,
    ) == (0, 20_000, "rate")  # fmt: skip
    assert runs(sources[0]) == [{"__name__": "up", "job": "x"}]
    assert sources[1].samples(0, 1, 0, 20_000).values.tolist() == [1.0, 2.0]


async def test_waiting_ends_with_the_deadline():
    """Cancelled or expired, within a poll; the work is cancelled too."""
    loop = asyncio.get_running_loop()
    for deadline, error in ((Deadline.after(0.2), QueryTimeout), (Deadline(), QueryCanceled)):
        ended = asyncio.Event()

        async def work(ended=ended):
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

        if error is QueryCanceled:
            threading.Timer(0.2, deadline.cancel).start()
        began = loop.time()
        with pytest.raises(error):
            await asyncio.to_thread(wait_for, work(), loop, deadline)
        await asyncio.wait_for(ended.wait(), 20)
        assert loop.time() - began < 20


def servicer(found, **options):
    return QueryServicer(
        found.fan_out,
        found.endpoints,
        asyncio.get_running_loop(),
        options=ServiceOptions(stack_id="me"),
        limits=options.pop("limits", SelectLimits()),
        selector_labels=options.pop("selector", ()),
        metrics=StoreServerMetrics(options.pop("registry", None) or CollectorRegistry()),
    )


async def test_queriers_stack(world):
    """The querier is an endpoint itself: merged series, warnings first, its own id in the path."""
    peer = Peer(store_server("a", "x"))
    found = await world(peer)
    asked = servicer(found, registry=found.registry)
    from thanostack.lib.storeapi.codec import decode_frames
    from thanostack.lib.storeapi.requests import encode_label_request, encode_series_request

    context = CallContext({"thanostack-path": "other", "thanos-tenant": "t"}, "peer")
    body = encode_series_request(request())
    frames = await asyncio.to_thread(lambda: list(asked.series(body, context)))
    assert runs(decode_frames(frames).batch) == [{"__name__": "up", "job": "x", "replica": "a"}]
    for what, total in (("series", 1), ("chunks", 1)):
        name = f"thanos_store_server_{what}_requested_sum"
        assert found.registry.get_sample_value(name) == total
    assert found.registry.get_sample_value("thanos_store_server_pending_series_requests") == 0
    assert peer.metadata[0]["thanostack-path"] == "other,me"
    assert peer.metadata[0]["thanos-tenant"] == "t"
    names = encode_label_request(LabelRequest("", (), 0, 9000))
    answer = await asyncio.to_thread(asked.label_names, names, CallContext({}, "peer"))
    assert b"replica" in answer
    values = encode_label_request(LabelRequest("job", (), 0, 9000))
    assert b"x" in await asyncio.to_thread(asked.label_values, values, CallContext({}, "peer"))


async def test_info_of_a_querier(world):
    """What all endpoints say, with the selector labels."""
    found = await world(Peer(store_server("b", "x")), Peer(store_server("a", "x")))
    info = parse_info(encode_info(servicer(found, selector=((b"zone", b"1"),)).describe()))
    assert info.component == "query"
    sets = [dict(labels) for labels in info.label_sets]
    assert [{b"replica": r, b"zone": b"1"} for r in (b"a", b"b")] == sets
    assert info.mint == 1000


async def test_cycles_are_refused(world):
    """A path through this querier, or through too many, ends here."""
    asked = servicer(await world())
    for path in ("a,me", ",".join(str(i) for i in range(9))):
        with pytest.raises(GrpcFailure, match=r"query cycle") as caught:
            asked._call(CallContext({"thanostack-path": path}, "peer"), abort=False)
        assert GrpcCode.FAILED_PRECONDITION is caught.value.code


async def test_querier_limits_and_aborts(world):
    """Limits hold for what is answered; a failed endpoint under ABORT is Aborted."""
    from thanostack.lib.storeapi.requests import encode_series_request

    found = await world(Peer(store_server("a", "x", "y")))
    limited = servicer(found, limits=SelectLimits(series=1))
    body = encode_series_request(request())
    with pytest.raises(LimitExceeded):
        await asyncio.to_thread(lambda: list(limited.series(body, CallContext({}, "p"))))
    nothing = servicer(await world())
    body = encode_series_request(request(abort=True))
    with pytest.raises(GrpcFailure, match=r"No StoreAPIs available") as caught:
        await asyncio.to_thread(lambda: list(nothing.series(body, CallContext({}, "p"))))
    assert GrpcCode.ABORTED is caught.value.code
