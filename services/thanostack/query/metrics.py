"""The querier's metrics, under upstream's names where upstream has them.

Source: Thanos `cmd/thanos/query.go`, `pkg/query/endpointset.go`, `pkg/gate`, `pkg/discovery/dns`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from thanostack.query.engine_metrics import EngineMetrics, TelemetryBuckets
from thanostack.runtime.metrics import HTTPMetrics

_SPAN_BUCKETS = tuple(15 * 60 * 2**power for power in range(12))
_GATE_BUCKETS = (0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720)


class QueryMetrics:
    """Everything the querier counts.

    Args:
        registry: where it is registered.
        http: HTTP metrics that the process already has; its own by default.
        buckets: of the telemetry of requests; upstream's by default.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        http: HTTPMetrics | None = None,
        buckets: TelemetryBuckets | None = None,
    ) -> None:
        self.http = http or HTTPMetrics(registry)
        self.engine = EngineMetrics(registry, buckets or TelemetryBuckets())
        self.range_seconds = Histogram(
            "thanos_query_range_requested_timespan_duration_seconds",
            "A histogram of the query range window in seconds",
            buckets=_SPAN_BUCKETS,
            registry=registry,
        )
        self.queries_in_flight = Gauge(
            "thanos_query_concurrent_gate_queries_in_flight",
            "Number of queries that are currently in flight.",
            registry=registry,
        )
        self.queries_max = Gauge(
            "thanos_query_concurrent_gate_queries_max",
            "Maximum number of concurrent queries.",
            registry=registry,
        )
        self.queries_total = Counter(
            "thanos_query_concurrent_gate_queries_total",
            "Total number of queries.",
            registry=registry,
        )
        self.gate_seconds = Histogram(
            "thanos_query_concurrent_gate_queries_duration_seconds",
            "How many seconds it took for queries to wait at the gate.",
            buckets=_GATE_BUCKETS,
            registry=registry,
        )
        self.dns_lookups = Counter(
            "thanos_query_endpoints_dns_lookups_total",
            "The number of DNS lookups resolutions attempts",
            registry=registry,
        )
        self.dns_failures = Counter(
            "thanos_query_endpoints_dns_failures_total",
            "The number of DNS lookup failures",
            registry=registry,
        )
        self.dns_results = Gauge(
            "thanos_query_endpoints_dns_provider_results",
            "The number of resolved endpoints for each configured address",
            ["addr"],
            registry=registry,
        )
        self.empty_streams = Counter(
            "thanos_proxy_store_empty_stream_responses_total",
            "Total number of empty responses received.",
            registry=registry,
        )
        self.fetched_bytes = Counter(
            "thanostack_query_fetched_bytes_total",
            "Bytes of Series messages that endpoints sent.",
            registry=registry,
        )
        self.endpoint_failures = Counter(
            "thanostack_query_endpoint_failures_total",
            "Calls to endpoints that did not succeed.",
            ["method"],
            registry=registry,
        )
