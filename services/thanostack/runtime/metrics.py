"""The metrics that every process has, on one registry that the wiring makes.

    process_*, python_gc_*, python_info       prometheus_client's own collectors
    thanos_build_info                         upstream's name, so that dashboards find it
    thanos_status{check}                      upstream's probes as metrics
    http_*                                    upstream's HTTP server metrics
    thanostack_event_loop_lag_seconds         how late the loop wakes; CPU work on it shows here

Nothing registers at import. Label values are bounded: handlers are route names, and tenants are
cut off at a number (`HTTPMetrics`).
"""

from __future__ import annotations

import asyncio
import platform
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from thanostack.runtime.tally import Tally, TallyHistogram
from thanostack.runtime.version import version

LAG_INTERVAL_S: Final = 0.25
TENANTS_LABELLED_MAX: Final = 10_000
OTHER_TENANTS: Final = "__other__"

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
# Upstream: the buckets of extprom/http, so that recorded quantiles stay comparable.
DURATION_BUCKETS: Final = (
    0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720,
)  # fmt: skip
_SIZE_BUCKETS = tuple(64 * 2**power for power in range(10))


def new_registry(component: str) -> CollectorRegistry:
    """Return a registry with what every process reports."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    Gauge(
        "thanos_build_info",
        "A metric with a constant '1' value labeled by version and runtime.",
        ["branch", "goarch", "goos", "goversion", "revision", "tags", "version", "program"],
        registry=registry,
    ).labels(
        branch="",
        goarch={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        goos=platform.system().lower(),
        # Upstream: the label is called goversion; ours says which Python it is.
        goversion=f"python{platform.python_version()}",
        revision="",
        tags=component,
        version=version(),
        program="thanostack",
    ).set(1)
    return registry


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """Return (body, content type) of `/metrics` in the form that a scraper asked for."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


async def watch_loop_lag(registry: CollectorRegistry) -> None:
    """Measure forever how late the running event loop wakes up."""
    lag = Histogram(
        "thanostack_event_loop_lag_seconds",
        "How much later than asked the event loop wakes.",
        buckets=_LAG_BUCKETS,
        registry=registry,
    )
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        lag.observe(max(0.0, loop.time() - due))


class RequestMetrics:
    """The bound metrics of one (handler, method, tenant, code)."""

    __slots__ = ("_count", "_duration", "_received", "_sent")

    def __init__(self, count: Counter, duration: Tally, received: Tally, sent: Tally) -> None:
        self._count, self._duration, self._received, self._sent = count, duration, received, sent

    def observe(self, duration_s: float, received_bytes: int, sent_bytes: int) -> None:
        """Record one finished request."""
        self._count.inc()
        self._duration.observe(duration_s)
        self._received.observe(received_bytes)
        self._sent.observe(sent_bytes)


class HTTPMetrics:
    """Upstream's HTTP server metrics by tenant, with bound children kept for the hot path.

    Args:
        registry: where they are registered.
        buckets: of durations, seconds.
    """

    def __init__(
        self, registry: CollectorRegistry, buckets: tuple[float, ...] = DURATION_BUCKETS
    ) -> None:
        labels = ["code", "handler", "method", "tenant"]
        self._count = Counter(
            "http_requests_total", "Tracks the number of HTTP requests.", labels, registry=registry
        )
        self._duration = TallyHistogram(
            "http_request_duration_seconds",
            "Tracks the latencies for HTTP requests.",
            labels,
            buckets=buckets,
            registry=registry,
        )
        self._received = TallyHistogram(
            "http_request_size_bytes",
            "Tracks the size of HTTP requests.",
            labels,
            buckets=_SIZE_BUCKETS,
            registry=registry,
        )
        self._sent = TallyHistogram(
            "http_response_size_bytes",
            "Tracks the size of HTTP responses.",
            labels,
            buckets=_SIZE_BUCKETS,
            registry=registry,
        )
        self._inflight = Gauge(
            "http_inflight_requests",
            "Current number of HTTP requests the handler is responding to.",
            ["handler", "method", "tenant"],
            registry=registry,
        )
        self._bound: dict[tuple[str, str, str, int], RequestMetrics] = {}
        self._tenants: set[str] = set()

    def bound(self, handler: str, method: str, tenant: str, code: int) -> RequestMetrics:
        """Return the metrics of requests of one kind; cheap when repeated."""
        key = (handler, method, tenant, code)
        found = self._bound.get(key)
        if found is None:
            found = self._bind(handler, method, tenant, code)
            if tenant in self._tenants:
                self._bound[key] = found
        return found

    def in_flight(self, handler: str, method: str, tenant: str) -> Gauge:
        """Return the gauge of requests of one kind that are being answered now."""
        return self._inflight.labels(handler, method, self.label_of(tenant))

    def _bind(self, handler: str, method: str, tenant: str, code: int) -> RequestMetrics:
        values = (str(code), handler, method, self.label_of(tenant))
        return RequestMetrics(
            self._count.labels(*values),
            self._duration.labels(*values),
            self._received.labels(*values),
            self._sent.labels(*values),
        )

    def label_of(self, tenant: str) -> str:
        """Return what labels show of a tenant's name."""
        # Bound: tenant names come from clients.
        if tenant not in self._tenants and len(self._tenants) >= TENANTS_LABELLED_MAX:
            return OTHER_TENANTS
        self._tenants.add(tenant)
        return tenant
