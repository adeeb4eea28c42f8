"""Remote write over HTTP: what is answered, what is stored, and what a sender can make us hold."""

from __future__ import annotations

import asyncio
import os
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cramjam
import pytest
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.errors import (
    InvalidInput,
    LimitExceeded,
    NoHashring,
    Quarantined,
    QuorumNotReached,
    ReplicasExhausted,
    SampleRejected,
    StorageUnwritable,
)
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.lib.tsdb.options import WriteResult
from thanostack.receive.http_api import WriteAPI, WriteOptions
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.request_body import BodyLimits
from thanostack.receive.service import INLINE_BYTES_MAX, Outcome, WriteService
from thanostack.runtime.http_common import headers_of
from thanostack.runtime.probes import Probes
from thanostack.testing.asgi import Reply, call
from thanostack.testing.write_storage import (
    RememberingStorage,
    RememberingTSDB,
    write_request,
    write_request_v2,
)

PATH = "/api/v1/receive"
V2 = {
    "X-Prometheus-Remote-Write-Version": "2.0.0",
    "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    "Content-Encoding": "snappy",
}
UP = {"__name__": "up", "job": "a"}


def snappy(body):
    return bytes(cramjam.snappy.compress_raw(body))


class Ingestor:
    """A write port over a storage that remembers."""

    is_direct = False

    def __init__(self, pool, *, split_label="", decoded_max=1 << 20, inflight_max=4 << 20):
        self.registry = CollectorRegistry()
        log = structlog.get_logger()
        self.probes = Probes("receive", self.registry, log)
        self.probes.set_ready()
        self.storage = RememberingStorage()
        self.api = WriteAPI(
            WriteService(self.storage, pool, split_label=split_label),
            WriteOptions(TenantRule(), BodyLimits(decoded_max, inflight_max, arrival_max_s=0.05)),
            metrics=ReceiveMetrics(self.registry, inflight_bytes_max=inflight_max),
            probes=self.probes,
            log=log,
            pages=FastAPI(),
        )

    async def write(self, body, headers=None, path=PATH):
        block = snappy(body)
        headers = {"Content-Length": str(len(block)), **(headers or {})}
        if self.is_direct and (reply := self.write_now(block, headers)):
            return reply
        return await call(self.api, path, headers=headers, parts=[block])

    def write_now(self, block, headers):
        """Ask as the server does that has read a whole request; None if there is no answer yet."""
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        answer = self.api.answer_now(pairs, block)
        return answer and Reply(answer.status, dict(headers_of(answer)), answer.body)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(params=["application", "direct"])
def ingestor(pool, request):
    """Every test below holds for both ways that a request can take."""
    ingestor = Ingestor(pool)
    ingestor.is_direct = request.param == "direct"
    return ingestor


@pytest.mark.parametrize("path", [PATH, "/api/v1/write"])
async def test_samples_are_stored_for_the_default_tenant(ingestor, path):
    """A write without a tenant is the default tenant's, on both paths; 200 without a body."""
    reply = await ingestor.write(write_request((UP, [(1, 1.0), (2, 2.0)])), path=path)
    assert (reply.status, reply.body) == (200, b"")
    assert {tuple(UP.items()): {1: 1.0, 2: 2.0}} == ingestor.storage.opened["default-tenant"].series


async def test_the_header_names_the_tenant(ingestor):
    """The tenant's header decides, and metrics carry the tenant."""
    assert (
        await ingestor.write(write_request((UP, [(1, 1.0)])), {"THANOS-TENANT": "a"})
    ).status == 200
    assert list(ingestor.storage.opened) == ["a"]
    assert ingestor.value("thanos_receive_write_samples_count", code="200", tenant="a") == 1
    assert (
        ingestor.value(
            "http_requests_total", code="200", handler="receive", method="post", tenant="a"
        )
        == 1
    )
    assert (
        ingestor.value("http_inflight_requests", handler="receive", method="post", tenant="a") == 0
    )


class Router:
    """A target that remembers the replica it is told."""

    def __init__(self, outcome=None):
        self.replicas, self.outcome = [], outcome or Outcome()

    async def write(self, tenant, body, version, replica=0):
        self.replicas.append(replica)
        return self.outcome


def with_target(pool, target):
    ingestor = Ingestor(pool)
    ingestor.api._target = target
    return ingestor


@pytest.mark.parametrize(
    ("value", "replica"), [("", 0), ("0", 0), ("3", 3), ("9" * 19, 10**19 - 1)]
)
async def test_the_replica_is_handed_on(pool, value, replica):
    """As a number, whatever a target makes of it."""
    target = Router()
    reply = await with_target(pool, target).write(b"", {"THANOS-REPLICA": value})
    assert (reply.status, target.replicas) == (200, [replica])


@pytest.mark.parametrize("value", ["-1", "x", "1.5", " 1", "\u00b2"])
async def test_a_replica_that_is_no_number_is_400(ingestor, value):
    """Also for an ingestor, which does not look at it further, as upstream."""
    reply = await ingestor.write(write_request((UP, [(1, 1.0)])), {"THANOS-REPLICA": value})
    assert (reply.status, ingestor.storage.opened) == (400, {})


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (QuorumNotReached("no quorum"), 503, b"5"),
        (ReplicasExhausted("series_max"), 429, b"5"),
        (NoHashring("t"), 500, None),
        (SampleRejected("conflict"), 409, None),
        (InvalidInput("bad"), 400, None),
    ],
)
async def test_what_a_router_fails_with_is_told(pool, failure, status, retry_after):
    """With the reason in the body, and when to come back where that is of use."""
    target = Router(Outcome([("t", 3, WriteResult(samples=3))], failure=failure))
    reply = await with_target(pool, target).write(write_request((UP, [(1, 1.0)])))
    assert (reply.status, reply.headers.get(b"retry-after")) == (status, retry_after)
    assert str(failure) in reply.text


async def test_written_headers_count_what_has_a_quorum(pool):
    """A failed 2.0 request says how much of it is stored."""
    result = WriteResult(samples=5, stored=2, histograms=1)
    target = Router(Outcome([("t", 3, result)], failure=SampleRejected("conflict")))
    reply = await with_target(pool, target).write(write_request_v2((UP, [(1, 1.0)])), V2)
    assert reply.status == 400
    assert reply.headers[b"x-prometheus-remote-write-samples-written"] == b"2"
    assert reply.headers[b"x-prometheus-remote-write-histograms-written"] == b"1"


async def test_the_first_header_of_a_name_counts(ingestor):
    """As upstream, and as in the querier: a proxy may have put its own before a client's."""
    headers = {"THANOS-TENANT": "a", "thanos-tenant": "b"}
    for _ in range(2):
        assert (await ingestor.write(write_request((UP, [(1, 1.0)])), headers)).status == 200
    assert list(ingestor.storage.opened) == ["a"]


@pytest.mark.parametrize("tenant", ["..", ".", "a/b", "/", "lost+found", "x" * 256])
async def test_a_tenant_that_is_no_folder_is_400(ingestor, tenant):
    """A name that could leave its folder never reaches storage."""
    reply = await ingestor.write(write_request((UP, [(1, 1.0)])), {"THANOS-TENANT": tenant})
    assert reply.status == 400
    assert "tenant name not valid" in reply.text
    assert ingestor.storage.opened == {}


async def test_an_exact_duplicate_is_success(ingestor):
    """Sending the same again is 200 in both versions."""
    body = write_request((UP, [(5, 1.0)]))
    assert [(await ingestor.write(body)).status for _ in range(2)] == [200, 200]
    reply = await ingestor.write(write_request_v2((UP, [(5, 1.0)])), V2)
    assert reply.status == 200
    assert reply.headers[b"x-prometheus-remote-write-samples-written"] == b"1"


async def test_refused_samples_are_409_and_the_others_stay(ingestor):
    """A partly good 1.0 request stores what it can and says what it could not, by reason."""
    await ingestor.write(write_request((UP, [(10, 1.0)])))
    with structlog.testing.capture_logs() as lines:
        reply = await ingestor.write(write_request((UP, [(5, 1.0), (10, 7.0), (11, 1.0)])))
    assert reply.status == 409
    assert ["samples are refused"] == [line["event"] for line in lines]
    assert "refused: conflict: 1, out_of_order: 1; 1 of 3 samples are stored" in reply.text
    assert 11 in ingestor.storage.opened["default-tenant"].series[tuple(UP.items())]
    assert (
        ingestor.value(
            "thanostack_receive_refused_samples_total", tenant="default-tenant", reason="conflict"
        )
        == 1
    )


async def test_refused_samples_of_version_2_are_400_with_counts(ingestor):
    """A partly good 2.0 request is 400, and the headers count what is stored."""
    await ingestor.write(write_request_v2((UP, [(10, 1.0)])), V2)
    reply = await ingestor.write(write_request_v2((UP, [(5, 1.0), (11, 1.0)])), V2)
    assert reply.status == 400
    assert reply.headers[b"x-prometheus-remote-write-samples-written"] == b"1"
    assert reply.headers[b"x-prometheus-remote-write-histograms-written"] == b"0"
    assert reply.headers[b"x-prometheus-remote-write-exemplars-written"] == b"0"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Prometheus-Remote-Write-Version": "2.0.0"}, 400),
        (V2 | {"Content-Type": "application/json"}, 415),
        (V2 | {"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": V2["Content-Type"]}, 400),
        ({}, 400),
    ],
)
async def test_a_version_2_body_under_other_headers_is_never_lost_silently(
    ingestor, headers, status
):
    """Upstream answers 200 to some of these and stores nothing; here each is refused."""
    reply = await ingestor.write(write_request_v2((UP, [(1, 1.0)])), headers)
    assert status == reply.status
    assert ingestor.storage.opened == {}


@pytest.mark.parametrize("body", [write_request((UP, [(1, 1.0)])), b"\x1a\x02\x08\x01"])
async def test_a_version_1_body_under_version_2_headers_is_never_lost_silently(ingestor, body):
    """Upstream answers 200, with headers that count nothing; senders would drop the samples."""
    reply = await ingestor.write(body, V2)
    assert reply.status == 400
    assert "the body is a remote write 1.0 message" in reply.text
    assert ingestor.storage.opened == {}
    v1 = V2 | {"Content-Type": "application/x-protobuf;proto=prometheus.WriteRequest"}
    assert (await ingestor.write(body, v1)).status == 200
    other = await ingestor.write(write_request_v2((UP, [(1, 1.0)])), v1)
    assert (other.status, "2.0 message" in other.text) == (400, True)


@pytest.mark.parametrize("body", [b"", b"\x1a\x02\x08\x01"])
async def test_empty_and_metadata_only_requests_are_success(ingestor, body):
    """Nothing to store is 200, and makes no tenant."""
    assert (await ingestor.write(body)).status == 200
    assert ingestor.storage.opened == {}


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "²", "9" * 20, "9" * 5000])
async def test_a_replica_header_must_be_a_number(ingestor, value):
    """An ingestor ignores the number, but not what is none."""
    body = write_request((UP, [(1, 1.0)]))
    assert (await ingestor.write(body, {"THANOS-REPLICA": value})).status == 400
    assert (await ingestor.write(body, {"THANOS-REPLICA": "3"})).status == 200


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (StorageUnwritable("disk is full", 30), 503, b"30"),
        (Quarantined("a", "corrupt WAL"), 503, b"5"),
        (LimitExceeded("series_limit_of_tenant", 5, 6), 429, b"5"),
    ],
)
async def test_failures_worth_a_retry_say_when(ingestor, failure, status, retry_after):
    """503 and 429 carry Retry-After, from storage as a whole and from one TSDB."""
    body = write_request((UP, [(1, 1.0)]))
    ingestor.storage.failure = failure
    first = await ingestor.write(body)
    ingestor.storage.failure = None
    ingestor.storage.opened["default-tenant"] = RememberingTSDB(failure=failure)
    second = await ingestor.write(body)
    assert [(status, retry_after)] * 2 == [
        (reply.status, reply.headers[b"retry-after"]) for reply in (first, second)
    ]


async def test_while_not_ready_writes_are_503(ingestor):
    """Before replay is done and while stopping, senders are asked to come back."""
    ingestor.probes.set_not_ready("stopping")
    reply = await ingestor.write(write_request((UP, [(1, 1.0)])))
    assert (reply.status, reply.text) == (503, "not ready: stopping\n")
    assert b"retry-after" in reply.headers


async def test_other_methods_and_pages_are_answered(ingestor):
    """GET on the write path is 405 as upstream; other paths belong to the application behind."""
    reply = await call(ingestor.api, PATH, method="GET")
    assert (reply.status, reply.headers[b"allow"]) == (405, b"OPTIONS, POST")
    reply = await call(ingestor.api, PATH, method="OPTIONS")
    assert (reply.status, reply.headers[b"allow"]) == (200, b"OPTIONS, POST")
    assert (await call(ingestor.api, "/other", method="GET")).status == 404


@pytest.mark.parametrize("path", [f"{PATH}/", f"/{PATH}", "/api//v1/receive", "/API/v1/Receive"])
async def test_a_write_to_nearly_the_right_path_is_sent_on(ingestor, path):
    """As upstream, by a status that keeps method and body; no other method is."""
    reply = await call(ingestor.api, path, parts=[b"x"])
    assert (reply.status, reply.headers[b"location"]) == (307, PATH.encode())
    assert (await call(ingestor.api, path, method="GET")).status == 404


def test_an_answer_at_once(pool):
    """A known tenant's write is answered, counted, and holds nothing afterwards."""
    ingestor = Ingestor(pool)
    ingestor.storage.tsdb("default-tenant")
    reply = ingestor.write_now(snappy(write_request((UP, [(1, 1.0), (2, 2.0)]))), {})
    assert (reply.status, reply.body) == (200, b"")
    labels = {"code": "200", "tenant": "default-tenant"}
    assert (1, 2) == tuple(
        ingestor.value(f"thanos_receive_write_{name}_sum", **labels)
        for name in ("timeseries", "samples")
    )
    assert ingestor.value("thanostack_receive_inflight_bytes") == 0
    assert ingestor.write_now(b"\x80\x80", {}).status == 400
    malformed = ingestor.write_now(snappy(b"\x0a\x05a"), {})
    assert (400, 0) == (malformed.status, ingestor.value("thanostack_receive_inflight_bytes"))


@pytest.mark.parametrize("why", ["unknown tenant", "split label", "large", "busy"])
def test_no_answer_at_once(pool, why):
    """Then nothing was stored or counted, and nothing is held: the application does it all."""
    ingestor = Ingestor(pool, split_label="team" if why == "split label" else "", decoded_max=0)
    if why != "unknown tenant":
        ingestor.storage.opened["default-tenant"] = RememberingTSDB(answers_elsewhere=why == "busy")
    labels = {"x": "a" * (INLINE_BYTES_MAX + 1)} if why == "large" else UP
    assert ingestor.write_now(snappy(write_request((labels, [(1, 1.0)]))), {}) is None
    assert not any(tsdb.series for tsdb in ingestor.storage.opened.values())
    assert ingestor.value("thanostack_receive_inflight_bytes") == 0


async def test_storage_may_answer_from_another_thread(ingestor):
    """An answer that comes later, elsewhere, reaches the sender."""
    ingestor.storage.opened["default-tenant"] = RememberingTSDB(answers_elsewhere=True)
    assert (await ingestor.write(write_request((UP, [(1, 1.0)])))).status == 200


async def test_series_are_split_by_label(pool):
    """The split label names the tenant and is removed; series without it keep the request's."""
    ingestor = Ingestor(pool, split_label="team")
    body = write_request(
        ({"__name__": "up", "team": "red"}, [(1, 1.0)]),
        ({"__name__": "up"}, [(1, 2.0)]),
        ({"__name__": "up", "team": "red", "x": "y"}, [(1, 3.0)]),
    )
    assert (await ingestor.write(body, {"THANOS-TENANT": "rest"})).status == 200
    stored = {tenant: list(tsdb.series) for tenant, tsdb in ingestor.storage.opened.items()}
    assert stored == {
        "red": [(("__name__", "up"),), (("__name__", "up"), ("x", "y"))],
        "rest": [(("__name__", "up"),)],
    }


async def test_a_split_label_cannot_leave_the_folder(pool):
    """A series whose label is no tenant refuses the request, before anything is stored."""
    ingestor = Ingestor(pool, split_label="team")
    body = write_request(
        ({"__name__": "up", "team": "ok"}, [(1, 1.0)]), ({"team": "../x"}, [(1, 1.0)])
    )
    assert (await ingestor.write(body)).status == 400
    assert ingestor.storage.opened == {}


async def test_version_2_is_split_by_label_too(pool):
    """References to the label go, the other labels stay."""
    ingestor = Ingestor(pool, split_label="team")
    body = write_request_v2(
        ({"__name__": "up", "team": "red"}, [(1, 1.0)]), ({"__name__": "up"}, [(1, 2.0)])
    )
    reply = await ingestor.write(body, V2)
    assert (reply.status, reply.headers[b"x-prometheus-remote-write-samples-written"]) == (
        200,
        b"2",
    )
    stored = {tenant: tsdb.series for tenant, tsdb in ingestor.storage.opened.items()}
    key = (("__name__", "up"),)
    assert stored == {"red": {key: {1: 1.0}}, "default-tenant": {key: {1: 2.0}}}


async def test_one_tenants_failure_does_not_stop_the_others(pool):
    """The answer asks for a retry, and what could be stored is."""
    ingestor = Ingestor(pool, split_label="team")
    ingestor.storage.opened["red"] = RememberingTSDB(failure=StorageUnwritable("full"))
    body = write_request(({"a": "1", "team": "red"}, [(1, 1.0)]), ({"a": "2"}, [(1, 1.0)]))
    assert (await ingestor.write(body)).status == 503
    assert len(ingestor.storage.opened["default-tenant"].series) == 1


async def test_a_compressed_body_above_the_cap_is_413_unread(pool):
    """A declared length above the cap is refused before a byte of the body is read."""
    ingestor = Ingestor(pool, decoded_max=1000)
    reply = await call(ingestor.api, PATH, headers={"Content-Length": "100000"}, parts=[])
    assert reply.status == 413


async def test_a_chunked_body_is_bounded_while_it_is_read(pool):
    """Without a declared length the cap holds as parts arrive."""
    ingestor = Ingestor(pool, decoded_max=1000)
    reply = await call(ingestor.api, PATH, parts=[os.urandom(500)] * 100)
    assert reply.status == 413


async def test_a_chunked_body_is_put_together(ingestor):
    """A body in pieces is the same as in one."""
    block = snappy(write_request((UP, [(1, 1.0)])))
    reply = await call(ingestor.api, PATH, parts=[block[:5], block[5:9], b"", block[9:]])
    assert reply.status == 200


async def test_a_decoded_body_above_the_cap_is_413(pool):
    """What only grows when decompressed is measured by its declared length."""
    ingestor = Ingestor(pool, decoded_max=1000)
    reply = await ingestor.write(write_request((UP | {"x": "a" * 2000}, [(1, 1.0)])))
    assert reply.status == 413


@pytest.mark.parametrize(
    "block",
    [
        b"\xff\xff\xff\xff\x0f" + b"a" * 100,
        b"\xff\xff\xff\xff\xff\xff\x7f",
        b"\x80\x80\x80",
        snappy(b"a" * 5000)[:-3],
        b"\x05" + snappy(b"a" * 100)[1:],
        b"\x08\xfc\xff\xff\xff\xff",
        b"",
    ],
)
async def test_lying_snappy_is_400_in_little_memory(ingestor, block):
    """A block that declares what it cannot hold takes no memory for it."""
    tracemalloc.start()
    reply = await call(ingestor.api, PATH, parts=[block])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.status == 400
    assert "snappy" in reply.text
    assert peak < 1 << 20


async def test_random_and_cut_bodies_are_4xx(ingestor):
    """Hostile bytes are the sender's fault, never a 5xx, whatever they decode to."""
    randomness = random.Random(4)
    good = write_request((UP, [(1, 1.0)] * 3), ({"a": "b"}, [(1, 2.0)]))
    for _ in range(200):
        body = bytearray(good)
        for _ in range(randomness.randint(1, 4)):
            body[randomness.randrange(len(body))] = randomness.randrange(256)
        del body[randomness.randint(1, len(body)) :]
        reply = await ingestor.write(bytes(body))
        assert reply.status in {200, 400, 409}
        reply = await call(ingestor.api, PATH, parts=[randomness.randbytes(50)])
        assert 400 <= reply.status < 500


async def test_bytes_in_flight_are_bounded(pool):
    """With others in flight, a body beyond the bound is asked to come back; alone it passes."""
    ingestor = Ingestor(pool, inflight_max=1000)
    body = write_request((UP | {"x": "a" * 2000}, [(1, 1.0)]))
    assert (await ingestor.write(body)).status == 200
    ingestor.api._inflight.held += 1
    reply = await ingestor.write(body)
    ingestor.api._inflight.held -= 1
    assert (reply.status, reply.headers[b"retry-after"]) == (503, b"1")
    assert ingestor.value("thanostack_receive_inflight_bytes") == 0


async def test_a_client_that_leaves_holds_nothing(ingestor):
    """A body that never ends is forgotten with its sender, without an answer."""
    reply = await call(ingestor.api, PATH, parts=[b"abc"], is_cut_off=True)
    assert reply.status == 0
    assert ingestor.value("thanostack_receive_inflight_bytes") == 0
    assert ingestor.value("thanos_receive_pending_write_requests") == 0


async def test_a_body_that_trickles_in_is_refused(ingestor):
    """A sender that keeps a body open holds no bytes for longer than the arrival time."""
    sent = []

    async def receive():
        if sent:
            await asyncio.sleep(3600)
        sent.append(1)
        return {"type": "http.request", "body": b"abc", "more_body": True}

    answered = []

    async def send(message):
        answered.append(message)

    scope = {"type": "http", "path": PATH, "method": "POST", "headers": []}
    await asyncio.wait_for(ingestor.api(scope, receive, send), 20)
    assert answered[0]["status"] == 503
    assert (b"retry-after", b"1") in answered[0]["headers"]
    assert b"did not arrive" in answered[1]["body"]
    assert ingestor.value("thanostack_receive_inflight_bytes") == 0


async def test_a_declared_length_alone_takes_nothing_from_others(pool):
    """Only bytes that arrived are counted."""
    ingestor = Ingestor(pool, inflight_max=1000)
    slow = asyncio.Event()

    async def receive():
        await slow.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "path": PATH,
        "method": "POST",
        "headers": [(b"content-length", b"900")],
    }
    waiting = asyncio.create_task(ingestor.api(scope, receive, None))
    await asyncio.sleep(0)
    assert ingestor.value("thanos_receive_pending_write_requests") == 1
    assert (await ingestor.write(write_request((UP | {"x": "a" * 800}, [(1, 1.0)])))).status == 200
    slow.set()
    await waiting
