"""WriteableStore as routers use it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from thanostack.lib.foundation.errors import (
    InvalidInput,
    InvalidTenant,
    LimitExceeded,
    NotReady,
    SampleRejected,
    StorageUnwritable,
)
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.pb import store_pb2
from thanostack.lib.storeapi.requests import SeriesRequest, encode_series_request
from thanostack.lib.storeapi.server import LabeledStore, StoreServer, external_run
from thanostack.receive.grpc_api import ReceiveServicer, of_router, of_storage
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.service import WriteService
from thanostack.runtime.error_mapping import GrpcCode, grpc_code
from thanostack.runtime.grpc_call import CallContext, ServerStream, Unary
from thanostack.runtime.probes import Probes
from thanostack.testing.memory_store import MemoryStore
from thanostack.testing.ring_nodes import Cluster
from thanostack.testing.write_storage import RememberingStorage, RememberingTSDB

METHOD = "/thanos.WriteableStore/RemoteWrite"


class Ingestor:
    """The servicer over a storage that remembers."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        self.probes = Probes("receive", registry, structlog.get_logger())
        self.probes.set_ready()
        self.storage = RememberingStorage()
        self.stores = []
        self.handlers = ReceiveServicer(
            of_storage(WriteService(self.storage, ThreadPoolExecutor(1)), "default-tenant"),
            lambda: StoreServer(lambda: self.stores),
            metrics=ReceiveMetrics(registry, inflight_bytes_max=1),
            probes=self.probes,
            log=structlog.get_logger(),
        ).handlers()

    def write(self, request):
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return self.handlers[METHOD].handle(data, CallContext({}, "test"))


@pytest.fixture
def ingestor():
    return Ingestor()


def fill(target, *samples):
    series = target.add()
    series.labels.add(name="__name__", value="up")
    for timestamp, value in samples:
        series.samples.add(timestamp=timestamp, value=value)


def old_request(tenant, *samples):
    request = store_pb2.WriteRequest(tenant=tenant, replica=2)
    fill(request.timeseries, *samples)
    return request


class Routed:
    """The servicer of a router over three nodes, whose loop runs in a thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.storage = RememberingStorage()
        self.cluster = asyncio.run_coroutine_threadsafe(self.make(), self.loop).result()

    async def make(self):
        local = WriteService(self.storage, ThreadPoolExecutor(1))
        return Cluster(
            ["a:1", "b:1", "c:1"], local=local, local_endpoint="a:1", replication_factor=3
        )

    def write(self, request):
        data = np.frombuffer(request.SerializeToString(), np.uint8)
        return of_router(self.cluster.router, "default-tenant", self.loop)(data)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def routed():
    routed = Routed()
    yield routed
    routed.close()


def test_a_router_routes_what_is_forwarded_to_it(routed):
    """A request that is no replica goes to all of its nodes, one that is goes to one."""
    request = store_pb2.WriteRequest()
    for tenant in ("", "b"):
        fill(request.timeseriesTenantData.add(tenant=tenant).timeseries, (1, 1.0))
    assert routed.write(request).error() is None
    tenants = {key[0] for key in routed.cluster.copies()}
    assert tenants | set(routed.storage.opened) == {"default-tenant", "b"}
    before = sum(len(node.requests) for node in routed.cluster.nodes.values())
    assert routed.write(old_request("c", (1, 1.0))).error() is None
    after = sum(len(node.requests) for node in routed.cluster.nodes.values())
    assert after - before + ("c" in routed.storage.opened) == 1


@pytest.mark.parametrize("replica", [4, 1 << 40, -1])
def test_a_replica_that_cannot_be_is_invalid(routed, replica):
    """Above the replication factor, or negative."""
    request = old_request("a", (1, 1.0))
    request.replica = replica
    with pytest.raises(InvalidInput):
        routed.write(request)


def test_old_and_new_requests_are_stored_by_tenant(ingestor):
    """Fields 1 to 3, and field 4 with several tenants; the answer is empty."""
    assert ingestor.write(old_request("a", (1, 1.0))) == b""
    request = store_pb2.WriteRequest()
    for tenant in ("a", "b"):
        fill(request.timeseriesTenantData.add(tenant=tenant).timeseries, (2, 2.0))
    assert ingestor.write(request) == b""
    stored = {name: tsdb.series for name, tsdb in ingestor.storage.opened.items()}
    key = (("__name__", "up"),)
    assert stored == {"a": {key: {1: 1.0, 2: 2.0}}, "b": {key: {2: 2.0}}}


def test_no_tenant_is_the_default_tenant(ingestor):
    """A request that names none is not lost."""
    ingestor.write(old_request("", (1, 1.0)))
    assert list(ingestor.storage.opened) == ["default-tenant"]


def test_an_empty_request_is_success(ingestor):
    """Routers may send nothing."""
    assert ingestor.write(b"") == b""
    assert ingestor.storage.opened == {}


def test_refused_samples_are_already_exists(ingestor):
    """A conflict names its reasons; the rest is stored, a repetition is success."""
    ingestor.write(old_request("a", (5, 1.0)))
    ingestor.write(old_request("a", (5, 1.0)))
    refused = pytest.raises(SampleRejected, match="out_of_order: 1; 1 of 2 samples")
    with capture_logs() as lines, refused as caught:
        ingestor.write(old_request("a", (4, 1.0), (6, 1.0)))
    assert grpc_code(caught.value) is GrpcCode.ALREADY_EXISTS
    said = [(line["event"], line["tenant"], line["reasons"]) for line in lines]
    assert said == [("samples are refused", "a", "out_of_order: 1")]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (StorageUnwritable("full"), GrpcCode.UNAVAILABLE),
        (LimitExceeded("series_max", 1, 2), GrpcCode.RESOURCE_EXHAUSTED),
        (InvalidInput("malformed"), GrpcCode.INVALID_ARGUMENT),
    ],
)
def test_failures_have_upstreams_codes(ingestor, failure, code):
    """What a router should retry is Unavailable, what it should not is something else."""
    ingestor.storage.opened["a"] = RememberingTSDB(failure=failure)
    with pytest.raises(type(failure)) as caught:
        ingestor.write(old_request("a", (1, 1.0)))
    assert grpc_code(caught.value) is code


def test_a_retryable_failure_of_one_tenant_speaks_for_all(ingestor):
    """Conflict in one, disk full in another: Unavailable, and the third is stored."""
    ingestor.write(old_request("a", (5, 1.0)))
    ingestor.storage.opened["b"] = RememberingTSDB(failure=StorageUnwritable("full"))
    request = store_pb2.WriteRequest()
    for tenant in ("a", "b", "c"):
        fill(request.timeseriesTenantData.add(tenant=tenant).timeseries, (4, 2.0))
    with pytest.raises(StorageUnwritable):
        ingestor.write(request)
    assert len(ingestor.storage.opened["c"].series) == 1


def test_a_tenant_that_is_no_folder_writes_nothing(ingestor):
    """One bad name refuses the request before any tenant is written."""
    request = store_pb2.WriteRequest()
    for tenant in ("a", "../b"):
        fill(request.timeseriesTenantData.add(tenant=tenant).timeseries, (4, 2.0))
    with pytest.raises(InvalidTenant):
        ingestor.write(request)
    assert ingestor.storage.opened == {}


@pytest.mark.parametrize("data", [b"\x0a\x05a", b"\x22\x03\x0a\x09", b"\xff" * 30])
def test_hostile_bytes_are_invalid_argument(ingestor, data):
    """A lying length is the client's fault."""
    with pytest.raises(InvalidInput):
        ingestor.write(data)


def test_while_not_ready_writes_are_unavailable(ingestor):
    """A router goes elsewhere while this one replays or stops."""
    ingestor.probes.set_not_ready("stopping")
    with pytest.raises(NotReady):
        ingestor.write(old_request("a", (1, 1.0)))


def test_the_store_api_is_served(ingestor):
    """Store and Info are there under upstream's names."""
    kinds = {name: type(handler) for name, handler in ingestor.handlers.items()}
    assert kinds == {
        METHOD: Unary,
        "/thanos.Store/Series": ServerStream,
        "/thanos.Store/LabelNames": Unary,
        "/thanos.Store/LabelValues": Unary,
        "/thanos.info.Info/Info": Unary,
    }
    info = ingestor.handlers["/thanos.info.Info/Info"].handle(b"", CallContext({}, "test"))
    assert b"receive" in info


def test_series_calls_are_counted(ingestor):
    """As upstream's instrumented StoreServer does: what was asked for, and who still waits."""
    rows = [({"__name__": "up", "job": job}, [(1000, 1.0)]) for job in "xy"]
    ingestor.stores.append(LabeledStore(external_run({"team": "a"}), MemoryStore(rows)))
    pending = "thanos_store_server_pending_series_requests"
    request = SeriesRequest((Matcher(MatchType.EQ, "__name__", "up"),), 0, 9000)
    series = ingestor.handlers["/thanos.Store/Series"].handle
    frames = series(encode_series_request(request), CallContext({}, "test"))
    next(frames)
    assert ingestor.registry.get_sample_value(pending) == 1
    assert len(list(frames)) == 1
    assert ingestor.registry.get_sample_value(pending) == 0
    for what in ("series", "chunks"):
        name = f"thanos_store_server_{what}_requested"
        assert ingestor.registry.get_sample_value(f"{name}_sum") == 2
        assert ingestor.registry.get_sample_value(f"{name}_count") == 1
