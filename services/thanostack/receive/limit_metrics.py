"""What limits are set, and how often they were met, under upstream's names.

Source: Thanos `pkg/receive/request_limiter.go`, `head_series_limiter.go`, `limiter.go`.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary

from thanostack.receive.limits import Limits, TenantLimits
from thanostack.runtime.metrics import OTHER_TENANTS, TENANTS_LABELLED_MAX

REQUEST_LIMITS: Final = {
    "body_size": "size_bytes_limit",
    "series": "series_limit",
    "samples": "samples_limit",
}
"""Upstream's names of the limits in metrics, and those in the files."""


class LimitMetrics:
    """The metrics of limits.

    Args:
        registry: where they are registered; None for nowhere.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._limits = Gauge(
            "thanos_receive_write_limits",
            "The configured write limits.",
            ["tenant", "limit"],
            registry=registry,
        )
        self._hit = Summary(
            "thanos_receive_write_limits_hit",
            "Summary of how much beyond the limit a refused remote write request was.",
            ["tenant", "limit"],
            registry=registry,
        )
        self._head_series = Gauge(
            "thanos_receive_head_series_limit",
            "The configured limit for active (head) series of tenants.",
            ["tenant"],
            registry=registry,
        )
        self._limited = Counter(
            "thanos_receive_head_series_limited_requests_total",
            "The total number of remote write requests that have been dropped due to active series "
            "limiting.",
            ["tenant"],
            registry=registry,
        )
        self.meta_monitoring_failed = Counter(
            "thanos_receive_metamonitoring_failed_queries_total",
            "The total number of meta-monitoring queries that failed while limiting.",
            registry=registry,
        )
        self.reloads = Counter(
            "thanos_receive_limits_config_reload_total",
            "How many times the limit configuration was reloaded",
            registry=registry,
        )
        self.reloads_failed = Counter(
            "thanos_receive_limits_config_reload_err_total",
            "How many times the limit configuration failed to reload.",
            registry=registry,
        )
        self.overrides_reloads = Counter(
            "thanostack_receive_overrides_reload_total",
            "How many times the overrides file was read again.",
            registry=registry,
        )
        self.overrides_reloads_failed = Counter(
            "thanostack_receive_overrides_reload_err_total",
            "How many times a changed overrides file could not be used.",
            registry=registry,
        )
        self._tenants: set[str] = set()

    def show(self, limits: Limits) -> None:
        """Show the limits that hold from now on; the default's tenant is empty, as upstream."""
        self._limits.clear()
        self._head_series.clear()
        self._show("", limits.default)
        for tenant, own in limits.tenants.items():
            self._show(tenant, own)

    def _show(self, tenant: str, limits: TenantLimits) -> None:
        for shown, name in REQUEST_LIMITS.items():
            self._limits.labels(tenant, shown).set(getattr(limits, name))
        self._head_series.labels(tenant).set(limits.head_series_limit)

    def hit(self, tenant: str, limit: str, beyond: float) -> None:
        """Count a request that is beyond a limit, and by how much."""
        self._hit.labels(self._label(tenant), limit).observe(beyond)

    def limited(self, tenant: str) -> None:
        """Count a request that has series beyond the limit of active ones."""
        self._limited.labels(self._label(tenant)).inc()

    def _label(self, tenant: str) -> str:
        # Bound: tenant names come from clients.
        if tenant not in self._tenants:
            if len(self._tenants) >= TENANTS_LABELLED_MAX:
                return OTHER_TENANTS
            self._tenants.add(tenant)
        return tenant
