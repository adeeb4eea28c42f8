"""Metrics of every process: HTTP, tallies, event-loop lag, bounded labels."""

from __future__ import annotations

import asyncio
import contextlib
import time

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from thanostack.runtime import metrics
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_call import FinishedCall, ServerStream, Unary
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.metrics import HTTPMetrics, watch_loop_lag
from thanostack.runtime.tally import TallyHistogram

VALUES = (0.0, 0.5, 1.0, 1.0000001, 2.5, 10.0, 11.0, float("inf"))


def test_a_tally_is_exposed_as_the_librarys_histogram():
    """Same buckets, same text, bounds inclusive."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = TallyHistogram("x", "Help.", ["a"], buckets=(0.5, 1, 2.5, 10), registry=ours).labels(
        "v"
    )
    histogram = Histogram("x", "Help.", ["a"], buckets=(0.5, 1, 2.5, 10), registry=theirs)
    for value in VALUES:
        tally.observe(value)
        histogram.labels("v").observe(value)
    shown = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == shown


def test_http_metrics_have_upstreams_names_and_labels():
    """Counts, durations and sizes by code, handler, method and tenant."""
    registry = CollectorRegistry()
    http = HTTPMetrics(registry)
    http.bound("receive", "post", "a", 200).observe(0.05, 300, 0)
    labels = {"code": "200", "handler": "receive", "method": "post", "tenant": "a"}
    assert registry.get_sample_value("http_requests_total", labels) == 1
    name = "http_request_duration_seconds_bucket"
    assert registry.get_sample_value(name, {**labels, "le": "0.1"}) == 1
    assert registry.get_sample_value("http_request_size_bytes_sum", labels) == 300
    with http.in_flight("receive", "post", "a").track_inprogress():
        flying = {"handler": "receive", "method": "post", "tenant": "a"}
        assert registry.get_sample_value("http_inflight_requests", flying) == 1
    assert registry.get_sample_value("http_inflight_requests", flying) == 0
    assert http.bound("receive", "post", "a", 200) is http.bound("receive", "post", "a", 200)


def test_tenants_in_labels_are_bounded(monkeypatch):
    """Beyond the bound, tenants share one label value."""
    monkeypatch.setattr(metrics, "TENANTS_LABELLED_MAX", 2)
    registry = CollectorRegistry()
    http = HTTPMetrics(registry)
    for tenant in ("a", "b", "c", "d", "a"):
        http.bound("receive", "post", tenant, 200).observe(0, 0, 0)
    counts = {
        sample.labels["tenant"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "http_requests_total"
    }
    assert counts == {"a": 2, "b": 1, "__other__": 2}


async def test_work_on_the_loop_shows_as_lag(monkeypatch):
    """A blocked loop is seen in the histogram."""
    monkeypatch.setattr(metrics, "LAG_INTERVAL_S", 0.01)
    registry = CollectorRegistry()
    watching = asyncio.create_task(watch_loop_lag(registry))
    await asyncio.sleep(0.005)
    time.sleep(0.1)  # noqa: ASYNC251 - blocking is the point
    await asyncio.sleep(0.03)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert registry.get_sample_value("thanostack_event_loop_lag_seconds_sum") > 0.05


def test_grpc_calls_are_counted_as_upstream_names_them():
    """Type, service, method, and Go's name of the code."""
    registry = CollectorRegistry()
    grpc_metrics = GrpcMetrics(registry)
    grpc_metrics.started("/thanos.Store/Series", is_stream=True)
    grpc_metrics.started("/thanos.Store/Series", is_stream=True)
    code = GrpcCode.RESOURCE_EXHAUSTED
    grpc_metrics.ended(FinishedCall("/thanos.Store/Series", True, code, 0.2, 1, 5))
    labels = {"grpc_type": "server_stream", "grpc_service": "thanos.Store", "grpc_method": "Series"}
    handled = {**labels, "grpc_code": "ResourceExhausted"}
    assert registry.get_sample_value("grpc_server_started_total", labels) == 2
    assert registry.get_sample_value("grpc_server_handled_total", handled) == 1
    assert registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 1
    assert registry.get_sample_value("grpc_server_msg_received_total", labels) == 1
    assert registry.get_sample_value("grpc_server_msg_sent_total", labels) == 5
    assert registry.get_sample_value("grpc_req_panics_recovered_total") == 0
    grpc_metrics.hit_bug()
    assert registry.get_sample_value("grpc_req_panics_recovered_total") == 1


def test_grpc_methods_are_there_before_their_first_call():
    """At zero, with every code, as upstream: else `rate()` does not see the first failure."""
    registry = CollectorRegistry()
    handlers = {
        "/thanos.Store/Series": ServerStream(lambda *_: iter(())),
        "/thanos.info.Info/Info": Unary(lambda *_: b""),
    }
    GrpcMetrics(registry, handlers=handlers)
    info = {"grpc_type": "unary", "grpc_service": "thanos.info.Info", "grpc_method": "Info"}
    assert registry.get_sample_value("grpc_server_started_total", info) == 0
    assert registry.get_sample_value("grpc_server_handling_seconds_count", info) == 0
    assert registry.get_sample_value("grpc_server_msg_received_total", info) == 0
    assert registry.get_sample_value("grpc_server_msg_sent_total", info) == 0
    for code in ("OK", "Unavailable", "Internal"):
        labels = {**info, "grpc_code": code}
        assert registry.get_sample_value("grpc_server_handled_total", labels) == 0
