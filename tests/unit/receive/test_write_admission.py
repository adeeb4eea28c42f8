"""The write port with limits and rules: codes, texts, headers, and nothing left held."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import cramjam
import pytest
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.errors import LimitExceeded, Unavailable
from thanostack.lib.relabel.config import parse_relabel_configs
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.lib.tsdb.options import WriteResult
from thanostack.receive.admission import Admission
from thanostack.receive.http_api import WriteAPI, WriteOptions, answer_of
from thanostack.receive.limits import Limits
from thanostack.receive.limits_file import parse_limits
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.overrides import Overrides
from thanostack.receive.relabeling import Relabeling
from thanostack.receive.request_body import BodyLimits
from thanostack.receive.service import Outcome, WriteService
from thanostack.receive.write_gate import WriteGate
from thanostack.runtime.probes import Probes
from thanostack.testing.asgi import call
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
}


class Receiver:
    """A write port with an admission, over a storage that remembers."""

    def __init__(self, pool, limits="", rules="", **gate):
        self.registry = CollectorRegistry()
        log = structlog.get_logger()
        probes = Probes("receive", self.registry, log)
        probes.set_ready()
        self.storage = RememberingStorage()
        metrics = ReceiveMetrics(self.registry, inflight_bytes_max=1 << 20)
        self.gate = WriteGate(self.registry, **gate)
        relabeling = Relabeling(parse_relabel_configs(rules), self.registry, bytes_max=1 << 20)
        self.admission = Admission(self.gate, relabeling, metrics=metrics.limits, log=log)
        self.admission.set_limits(Limits(parse_limits(limits.encode()), Overrides()))
        self.api = WriteAPI(
            WriteService(self.storage, pool),
            WriteOptions(TenantRule(), BodyLimits(1 << 20, 1 << 20)),
            metrics=metrics,
            probes=probes,
            log=log,
            pages=FastAPI(),
            admission=self.admission,
        )

    async def write(self, body, **headers):
        block = bytes(cramjam.snappy.compress_raw(body))
        headers = {"Content-Length": str(len(block)), **headers}
        return await call(self.api, PATH, headers=headers, parts=[block])


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def series(n):
    return [({"i": str(i)}, [(1, 1.0)]) for i in range(n)]


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("size_bytes_limit: 30", "write request too large"),
        ("series_limit: 4", "too many timeseries"),
        ("samples_limit: 4", "too many samples"),
    ],
)
async def test_beyond_a_limit_of_requests(pool, limit, text):
    """413 without Retry-After, nothing is stored, and no turn is kept."""
    limits = f"write: {{global: {{max_concurrency: 1}}, default: {{request: {{{limit}}}}}}}"
    receiver = Receiver(pool, limits)
    for _ in range(2):
        reply = await receiver.write(write_request(*series(5)))
        assert (reply.status, reply.text.split(":")[0]) == (413, text)
        assert b"retry-after" not in reply.headers
    assert receiver.storage.opened == {}
    assert (await receiver.write(write_request(*series(1)))).status == 200


async def test_a_full_gate_is_503(pool):
    """With Retry-After, and only while it is full."""
    limits = "write: {global: {max_concurrency: 1}}"
    receiver = Receiver(pool, limits, waiting_max=0)
    receiver.storage.opened["default-tenant"] = RememberingTSDB(answers_elsewhere=True)
    body = write_request(*series(1))
    replies = await asyncio.gather(*(receiver.write(body) for _ in range(3)))
    assert sorted(reply.status for reply in replies) == [200, 503, 503]
    refused = next(reply for reply in replies if reply.status == 503)
    assert (refused.headers[b"retry-after"], refused.text) == (
        b"1",
        "too many write requests are waiting\n",
    )
    assert (await receiver.write(body)).status == 200


async def test_relabeling_over_the_port(pool):
    """Dropped series are not stored, and all dropped is success, which 2.0 counts as written."""
    rules = "- {source_labels: [i], regex: '[1-9]', action: drop}"
    receiver = Receiver(pool, rules=rules)
    assert (await receiver.write(write_request(*series(3)))).status == 200
    stored = receiver.storage.opened["default-tenant"].series
    assert list(stored) == [(("i", "0"),)]
    reply = await receiver.write(write_request(*series(3)[1:]))
    assert (reply.status, len(receiver.storage.opened["default-tenant"].bodies)) == (200, 1)
    reply = await receiver.write(write_request_v2(*series(3)), **V2)
    assert (reply.status, reply.headers[b"x-prometheus-remote-write-samples-written"]) == (
        200,
        b"3",
    )


async def test_what_is_dropped_counts_once(pool):
    """Also of a write that was tried at once in vain: its tenant has no storage yet."""
    receiver = Receiver(pool, rules="- {source_labels: [i], regex: '[1-9]', action: drop}")
    body = write_request(*series(3))
    block = bytes(cramjam.snappy.compress_raw(body))
    dropped = "thanostack_receive_relabel_dropped_series_total"
    assert receiver.api.answer_now([], block) is None
    assert (await receiver.write(body)).status == 200
    assert receiver.registry.get_sample_value(dropped) == 2
    assert receiver.api.answer_now([], block).status == 200
    assert receiver.registry.get_sample_value(dropped) == 4


async def test_a_write_counts_once_at_the_gate(pool):
    """Also one that was tried at once in vain, as its tenant has no storage yet."""
    receiver = Receiver(pool, "write: {global: {max_concurrency: 5}}")
    total = "thanos_receive_write_request_concurrent_gate_write_requests_total"
    body = write_request(*series(3))
    block = bytes(cramjam.snappy.compress_raw(body))
    assert receiver.api.answer_now([], block) is None
    assert (await receiver.write(body)).status == 200
    assert receiver.registry.get_sample_value(total) == 1
    assert receiver.api.answer_now([], block).status == 200
    assert receiver.registry.get_sample_value(total) == 2


async def test_a_refusal_without_a_task_is_503():
    """With the tenant counted, and nothing written or held."""
    receiver = Receiver(None)
    refused = Unavailable("too many write requests are waiting", 1)
    answer = receiver.api.answer_now([(b"thanos-tenant", b"a")], b"", refused)
    assert (answer.status, dict(answer.headers)[b"retry-after"]) == (503, b"1")
    assert receiver.storage.opened == {}
    count = receiver.registry.get_sample_value(
        "http_requests_total",
        {"code": "503", "handler": "receive", "method": "post", "tenant": "a"},
    )
    assert count == 1


@pytest.mark.parametrize("version", [1, 2])
def test_partly_above_the_limit_of_series(version):
    """429 with the counts: it goes before other refusals, which are named too."""
    result = WriteResult(10, 6, rejected={"series_limit": 3, "out_of_order": 1}, series_limit=5)
    outcome = Outcome([("a", 10, result), ("b", 1, WriteResult(1, 1))])
    answer = answer_of(outcome, version)
    assert isinstance(outcome.error(), LimitExceeded)
    assert (answer.status, dict(answer.headers)[b"retry-after"]) == (429, b"5")
    assert answer.body.decode() == (
        "tenant is above active series limit: 6 exceeds the limit of 5; "
        "refused: out_of_order: 1, series_limit: 3; 7 of 11 samples are stored\n"
    )
