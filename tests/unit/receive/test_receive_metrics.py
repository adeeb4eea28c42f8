"""Receive's metrics, as they are exposed."""

from __future__ import annotations

import dataclasses

from prometheus_client import CollectorRegistry, generate_latest

from thanostack.lib.tsdb.options import TSDBStats, WriteResult
from thanostack.receive.metrics import STATS, ReceiveMetrics, TSDBCollector
from thanostack.receive.service import Outcome


def test_every_figure_of_storage_is_a_metric():
    """A new figure needs a name before it is forgotten."""
    assert [field.name for field in dataclasses.fields(TSDBStats)] == list(STATS)


def test_storage_is_read_when_someone_scrapes():
    """Each tenant is a label value; counters, gauges and summaries have upstream's names."""
    registry = CollectorRegistry()
    tenants = {}
    registry.register(TSDBCollector(lambda: tenants, lambda: {"bad": "corrupt"}))
    tenants["a"] = TSDBStats(
        head_series=5, samples_appended=7, wal_fsyncs=2, wal_fsync_duration_s=0.5, blocks_bytes=9
    )
    tenants["a"].head_gc_duration_s.observe([0.25, 0.5])
    tenants["a"].compaction_duration_s.observe([3, 5])
    text = generate_latest(registry).decode()
    for line in (
        'prometheus_tsdb_head_series{tenant="a"} 5.0',
        'prometheus_tsdb_head_samples_appended_total{tenant="a",type="float"} 7.0',
        'prometheus_tsdb_wal_fsync_duration_seconds_count{tenant="a"} 2.0',
        'prometheus_tsdb_wal_fsync_duration_seconds_sum{tenant="a"} 0.5',
        'prometheus_tsdb_storage_blocks_bytes{tenant="a"} 9.0',
        'prometheus_tsdb_head_gc_duration_seconds_count{tenant="a"} 2.0',
        'prometheus_tsdb_head_gc_duration_seconds_sum{tenant="a"} 0.75',
        'prometheus_tsdb_compaction_duration_seconds_bucket{le="4.0",tenant="a"} 1.0',
        'prometheus_tsdb_compaction_duration_seconds_bucket{le="+Inf",tenant="a"} 2.0',
        'prometheus_tsdb_compaction_duration_seconds_sum{tenant="a"} 8.0',
        'prometheus_tsdb_reloads_failures_total{tenant="a"} 0.0',
        "thanostack_receive_tenants 1.0",
        "thanostack_receive_quarantined_tenants 1.0",
    ):
        assert line in text.replace('type="float",tenant="a"', 'tenant="a",type="float"')


def test_requests_are_counted_by_tenant_and_code():
    """Series and samples of a request, and what was refused by reason."""
    registry = CollectorRegistry()
    metrics = ReceiveMetrics(registry, inflight_bytes_max=1)
    result = WriteResult(samples=60, rejected={"out_of_order": 4})
    metrics.observe(Outcome([("a", 20, result), ("b", 1, RuntimeError("bug"))]), 409)
    value = registry.get_sample_value
    labels = {"code": "409", "tenant": "a"}
    assert value("thanos_receive_write_timeseries_bucket", {**labels, "le": "50.0"}) == 1
    assert value("thanos_receive_write_timeseries_bucket", {**labels, "le": "10.0"}) == 0
    assert value("thanos_receive_write_samples_sum", labels) == 60
    refused = {"tenant": "a", "reason": "out_of_order"}
    assert value("thanostack_receive_refused_samples_total", refused) == 4
    assert value("thanos_receive_write_timeseries_count", {"code": "409", "tenant": "b"}) == 1
