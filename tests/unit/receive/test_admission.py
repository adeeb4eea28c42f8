"""What a write passes before it is distributed: its turn, limits, relabeling."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded, Unavailable
from thanostack.lib.pb import prometheus_remote_pb2
from thanostack.lib.relabel.config import parse_relabel_configs
from thanostack.receive import live_limits, meta_monitoring
from thanostack.receive.admission import Admission
from thanostack.receive.limit_metrics import LimitMetrics
from thanostack.receive.limits import Limits
from thanostack.receive.limits_file import HTTPClient, MetaMonitoring, parse_limits
from thanostack.receive.meta_monitoring import MetaMonitoringCounts, make_client
from thanostack.receive.overrides import Overrides
from thanostack.receive.relabeling import Relabeling
from thanostack.receive.settings import ReceiveSettings
from thanostack.receive.write_gate import Turn, WriteGate
from thanostack.runtime.command_line import split
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.testing.write_storage import write_request, write_request_v2


class Receiver:
    """An admission and its metrics."""

    def __init__(self, limits=b"", rules="", **gate):
        self.registry = CollectorRegistry()
        configs = parse_relabel_configs(rules)
        self.admission = Admission(
            WriteGate(self.registry, **gate),
            Relabeling(configs, self.registry, bytes_max=1 << 20),
            metrics=LimitMetrics(self.registry),
            log=structlog.get_logger(),
        )
        self.admission.set_limits(Limits(parse_limits(limits), Overrides()))

    async def admit(self, body, version=1, tenant="a"):
        return await self.admission.admit(tenant, np.frombuffer(body, np.uint8), version)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


def series(n, samples=1):
    return [({"a": str(i)}, [(t, 1.0) for t in range(samples)]) for i in range(n)]


LIMITS = b"""
write:
  default: {request: {series_limit: 3, samples_limit: 4, size_bytes_limit: 100}}
  tenants: {free: {request: {series_limit: 0, samples_limit: 0}}}
"""


@pytest.mark.parametrize(
    ("body", "version", "text", "kind", "beyond"),
    [
        (
            write_request(*series(5)),
            1,
            "too many timeseries: 5 exceeds the limit of 3",
            "series",
            2,
        ),
        (write_request(*series(2, 3)), 1, "too many samples: 6 exceeds", "samples", 2),
        (write_request_v2(*series(5)), 2, "too many timeseries: 5 exceeds", "series", 2),
        (write_request_v2(*series(3, 3)), 2, "too many samples: 9 exceeds", "samples", 5),
    ],
)
async def test_requests_beyond_limits(body, version, text, kind, beyond):
    """In upstream's words and with the numbers; how much beyond is counted."""
    receiver = Receiver(LIMITS)
    with pytest.raises(LimitExceeded) as caught:
        await receiver.admit(body, version)
    assert str(caught.value).startswith(text)
    labels = {"tenant": "a", "limit": kind}
    assert receiver.value("thanos_receive_write_limits_hit_count", **labels) == 1
    assert receiver.value("thanos_receive_write_limits_hit_sum", **labels) == beyond
    assert (await receiver.admit(body, version, tenant="free")).body.tobytes() == body


async def test_histograms_are_samples():
    """Upstream forgets to count them."""
    request = prometheus_remote_pb2.WriteRequest()
    entry = request.timeseries.add()
    for t in range(3):
        entry.samples.add(timestamp=t)
        entry.histograms.add(timestamp=t)
    with pytest.raises(LimitExceeded, match="too many samples: 6 exceeds the limit of 4"):
        await Receiver(LIMITS).admit(request.SerializeToString())


def test_sizes():
    """At the limit a request passes, beyond it does not."""
    receiver = Receiver(LIMITS)
    receiver.admission.check_size("a", 100)
    with pytest.raises(
        LimitExceeded, match="write request too large: 101 exceeds the limit of 100"
    ):
        receiver.admission.check_size("a", 101)
    assert receiver.value("thanos_receive_write_limits", tenant="", limit="body_size") == 100
    assert receiver.value("thanos_receive_write_limits", tenant="free", limit="series") == 0


def test_limits_that_change_take_their_metrics_along():
    """A tenant that is no longer named is no longer shown, and listeners hear of it."""
    receiver, heard = Receiver(LIMITS), []
    receiver.admission.when_changed(heard.append)
    receiver.admission.set_limits(Limits(parse_limits(b""), Overrides()))
    assert receiver.value("thanos_receive_write_limits", tenant="free", limit="series") is None
    assert receiver.value("thanos_receive_head_series_limit", tenant="") == 0
    assert [limits.default.series_limit for limits in heard] == [3, 0]


RULES = "- {source_labels: [a], regex: '1|3', action: drop}\n- {target_label: x, replacement: y}"


@pytest.mark.parametrize("n", [4, 100])
async def test_relabeling_comes_after_the_limits(n):
    """Few new series on the loop, many in a thread: the same; what is dropped was counted."""
    receiver = Receiver(b"write: {default: {request: {series_limit: 100}}}", RULES)
    for _ in range(2):
        admitted = await receiver.admit(write_request(*series(n)))
        found = prometheus_remote_pb2.WriteRequest.FromString(admitted.body.tobytes())
        assert len(found.timeseries) == n - 2
        assert {
            label.value for s in found.timeseries for label in s.labels if label.name == "x"
        } == {"y"}
    assert receiver.value("thanostack_receive_relabel_dropped_series_total") == 4
    assert receiver.value("thanostack_receive_relabel_cache_misses_total") == n
    assert receiver.value("thanostack_receive_relabel_cache_bytes") > 0
    with pytest.raises(LimitExceeded):
        await receiver.admit(write_request(*series(101)))


async def test_what_is_dropped_on_purpose_counts_as_written():
    """A 2.0 sender would take fewer written samples than it sent for a failure."""
    receiver = Receiver(rules=RULES)
    admitted = await receiver.admit(write_request_v2(*series(5, samples=2)), version=2)
    assert (admitted.dropped_samples, admitted.dropped_histograms) == (4, 0)


async def test_malformed_requests_are_refused():
    """By whichever step reads them first."""
    for receiver in (Receiver(LIMITS), Receiver(rules=RULES)):
        with pytest.raises(InvalidInput):
            await receiver.admit(b"\x0a\x05\x0a")


async def test_the_gate_bounds_what_runs_and_what_waits():
    """One in, one waiting, the third is told to come back; order is kept."""
    receiver = Receiver(b"write: {global: {max_concurrency: 1}}", waiting_max=1, wait_max_s=30)
    first, second, third = (receiver.admission.turn() for _ in range(3))
    await first.come()
    waiting = asyncio.create_task(second.come())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many write requests are waiting") as caught:
        await third.come()
    assert caught.value.retry_after_s == 1
    third.end()
    assert not waiting.done()
    first.end()
    await asyncio.wait_for(waiting, 10)
    first.end()
    prefix = "thanos_receive_write_request_concurrent_gate_write_requests"
    assert receiver.value(f"{prefix}_in_flight") == 1
    assert receiver.value(f"{prefix}_max") == 1
    second.end()
    assert receiver.value(f"{prefix}_in_flight") == 0
    assert receiver.value("thanostack_receive_write_gate_refused_total") == 1


async def test_a_wait_has_an_end():
    """Whoever waited too long, or went away, leaves no trace."""
    gate = WriteGate(None, wait_max_s=0.02)
    gate.set_limit(1)
    first, second, third = Turn(gate), Turn(gate), Turn(gate)
    await first.come()
    with pytest.raises(Unavailable, match=r"no turn within 0\.02 s"):
        await second.come()
    gone = asyncio.create_task(third.come())
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    first.end()
    await asyncio.wait_for(second.come(), 10)
    second.end()
    assert (gate._running, list(gate._waiting)) == (0, [])


async def test_a_turn_that_came_too_late_is_passed_on():
    """A waiter that is cancelled at the moment it is let in gives its slot to the next."""
    gate = WriteGate(None)
    gate.set_limit(1)
    first, second, third = Turn(gate), Turn(gate), Turn(gate)
    await first.come()
    tasks = [asyncio.create_task(turn.come()) for turn in (second, third)]
    await asyncio.sleep(0)
    first.end()
    tasks[0].cancel()
    await asyncio.wait_for(tasks[1], 10)
    assert (tasks[0].cancelled(), gate._running) == (True, 1)
    second.end()
    third.end()
    assert gate._running == 0


async def test_a_raised_limit_lets_the_waiting_in():
    """And no limit lets all in."""
    gate = WriteGate(None)
    gate.set_limit(1)
    turns = [Turn(gate) for _ in range(4)]
    tasks = [asyncio.create_task(turn.come()) for turn in turns]
    await asyncio.sleep(0)
    gate.set_limit(2)
    await asyncio.sleep(0.01)
    assert sum(task.done() for task in tasks) == 2
    gate.set_limit(0)
    await asyncio.wait_for(asyncio.gather(*tasks), 10)


def meta(monkeypatch, answers):
    """Return counts over a server that gives these answers, and the requests it had."""
    requests, failures = [], []

    def handle(request):
        requests.append(request)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    monkeypatch.setattr(
        meta_monitoring,
        "make_client",
        lambda _: httpx.AsyncClient(transport=httpx.MockTransport(handle)),
    )
    counts = MetaMonitoringCounts(failures.append)
    counts.ask(MetaMonitoring("http://meta:9090/prefix/", "q"))
    return counts, requests, failures


def vector(**tenants):
    result = [{"metric": {"tenant": t}, "value": [1, str(v)]} for t, v in tenants.items()]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


async def test_meta_monitoring_limits_a_tenant(monkeypatch):
    """A tenant at its limit is refused; one that is not named, or while polling fails, passes."""
    receiver = Receiver(b"write: {default: {head_series_limit: 10}}")
    broken = httpx.Response(500, text="broken")
    counts, requests, failures = meta(monkeypatch, [vector(a=10, b=9), broken, vector(a=10)])
    receiver.admission.meta_monitoring = counts
    await counts.poll()
    assert str(requests[0].url).startswith("http://meta:9090/prefix/api/v1/query?query=q&time=")
    with pytest.raises(LimitExceeded) as caught:
        receiver.admission.check_active_series("a")
    assert str(caught.value).startswith("tenant is above active series limit: 10 exceeds")
    name = "thanos_receive_head_series_limited_requests_total"
    assert receiver.value(name, tenant="a") == 1
    receiver.admission.check_active_series("b")
    receiver.admission.check_active_series("c")
    await counts.poll()
    assert "answered 500: broken" in str(failures[0])
    receiver.admission.check_active_series("a")
    await counts.poll()
    with pytest.raises(LimitExceeded):
        receiver.admission.check_active_series("a")


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "success", "data": {"resultType": "matrix", "result": []}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": 1}]}},
        {"data": {"resultType": "vector", "result": [{"metric": {"tenant": "a"}, "value": []}]}},
        {"other": 1},
        httpx.Response(200, text="no json"),
    ],
)
async def test_strange_answers_are_failures(monkeypatch, answer):
    """Whatever answers, nobody is limited by it."""
    counts, _, failures = meta(monkeypatch, [answer])
    await counts.poll()
    assert (len(failures), counts.series) == (1, {})


@pytest.mark.parametrize(
    ("error", "text"),
    [(httpx.ConnectError("refused"), "refused"), (httpx.ReadTimeout(""), "ReadTimeout")],
)
async def test_a_poll_that_gets_no_answer_names_the_server(monkeypatch, error, text):
    """It was "All connection attempts failed", or nothing at all."""
    counts, _, failures = meta(monkeypatch, [error])
    await counts.poll()
    assert [f"http://meta:9090/prefix/: {text}"] == [str(failure) for failure in failures]


async def test_the_servers_certificate_bears_the_name_that_is_given(monkeypatch):
    """tls_config.server_name; else the host of the URL."""
    counts, requests, failures = meta(monkeypatch, [vector(a=1), vector(a=1)])
    await counts.poll()
    counts.ask(MetaMonitoring("https://10.0.0.1", "q", HTTPClient(server_name="meta")))
    await counts.poll()
    asked = [request.extensions.get("sni_hostname") for request in requests]
    assert (asked, failures) == ([None, "meta"], [])


@pytest.mark.parametrize("url", ["http://a:b", "http://a\0/"])
async def test_a_place_that_cannot_be_asked_is_refused(monkeypatch, url):
    """What was asked before stays."""
    counts, requests, _ = meta(monkeypatch, [vector(a=1)])
    with pytest.raises(InvalidInput, match="is not a valid meta-monitoring URL"):
        counts.ask(MetaMonitoring(url, "q"))
    await counts.poll()
    assert (counts.series, len(requests)) == ({"a": 1}, 1)


async def test_a_host_that_cannot_be_encoded_is_a_failure():
    """It is found out when it is asked, and ends no process."""
    failures = []
    counts = MetaMonitoringCounts(failures.append)
    counts.ask(MetaMonitoring("http://xn--/", "q"))
    await counts.poll()
    assert (len(failures), counts.series) == (1, {})


async def test_polling_begins_at_once_and_when_asked_elsewhere(monkeypatch):
    """Not only after the first interval."""
    counts, requests, _ = meta(monkeypatch, [vector(a=1), vector(a=2)])
    polling = asyncio.create_task(counts.poll_forever())

    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(requests) == 1:
            counts.ask(MetaMonitoring("http://elsewhere:1"))
    assert requests[1].url.host == "elsewhere"
    polling.cancel()


def test_clients(tmp_path):
    """Credentials from the file or beside it; what cannot be read stops."""
    (tmp_path / "secret").write_text("s3\n")
    client = make_client(HTTPClient(bearer_token_file=str(tmp_path / "secret")))
    assert client.headers["authorization"] == "Bearer s3"
    assert make_client(HTTPClient("u", password_file=str(tmp_path / "secret"))).auth is not None
    for options in (
        HTTPClient(bearer_token_file="/no/such"),
        HTTPClient(ca_file="/no/such"),
        HTTPClient(proxy_url="nonsense"),
    ):
        with pytest.raises(InvalidInput, match="improper http client config"):
            make_client(options)


def test_json_of_the_fake_is_json():
    """The answers above are what Prometheus sends."""
    assert json.loads(json.dumps(vector(a=1)))["data"]["result"][0]["value"] == [1, "1"]


async def test_the_gate_and_the_memory_of_relabeling_have_the_flags_bounds(monkeypatch):
    """--receive.write-queue-max, --receive.write-queue-wait and --receive.relabel-cache-bytes."""
    seen = {}

    def gate(registry, *, waiting_max, wait_max_s):
        seen.update(waiting_max=waiting_max, wait_max_s=wait_max_s)
        return WriteGate(registry, waiting_max=waiting_max, wait_max_s=wait_max_s)

    def relabeling(rules, registry, *, bytes_max):
        seen.update(bytes_max=bytes_max)
        return Relabeling(rules, registry, bytes_max=bytes_max)

    monkeypatch.setattr(live_limits, "WriteGate", gate)
    monkeypatch.setattr(live_limits, "Relabeling", relabeling)
    arguments = [
        '--label=replica="0"', "--receive.write-queue-max=3", "--receive.write-queue-wait=7s",
        "--receive.relabel-cache-bytes=5MB",
    ]  # fmt: skip
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    live_limits.LiveLimits(settings, process, LimitMetrics(process.registry))
    assert seen == {"waiting_max": 3, "wait_max_s": 7, "bytes_max": 5 << 20}


async def has(requests, n):
    for _ in range(1000):
        if len(requests) == n:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(requests)


async def test_clients_that_are_not_asked_any_more_are_closed(monkeypatch):
    """After a reload, the old one between two polls, and the last one in the end."""
    counts, requests, _ = meta(monkeypatch, [vector(a=1), vector(a=2)])
    made = [counts._client]
    polling = asyncio.create_task(counts.poll_forever())
    await has(requests, 1)
    counts.ask(MetaMonitoring("http://other:9090", "q"))
    made.append(counts._client)
    await has(requests, 2)
    assert [client.is_closed for client in made] == [True, False]
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
    assert [client.is_closed for client in made] == [True, True]
