"""ServiceMonitors, for those who run prometheus-operator.

The job of a scrape is the label `app.kubernetes.io/name`, so that the stock alerts and dashboards,
which select `job=~".*thanos-receive.*"` and the like, find our components.
"""

from __future__ import annotations

from thanostack_operator.api.stack import ThanosStack

from .names import (
    INGESTOR,
    QUERY,
    ROUTER,
    Object,
    ingestor_name,
    metadata,
    query_name,
    receive_name,
    selector,
)


def service_monitors(stack: ThanosStack) -> list[Object]:
    """Return a ServiceMonitor for each Service of the stack, none if they are not asked for."""
    if not stack.spec.monitoring.service_monitor.enabled:
        return []
    rings = stack.spec.receive.rings
    return [
        *(
            _monitor(stack, ingestor_name(stack.name, ring.name), INGESTOR, ring.name)
            for ring in rings
        ),
        _monitor(stack, receive_name(stack.name), ROUTER),
        _monitor(stack, query_name(stack.name), QUERY),
    ]


def _monitor(stack: ThanosStack, name: str, component: str, ring: str | None = None) -> Object:
    settings = stack.spec.monitoring.service_monitor
    meta = metadata(stack, name, component, ring)
    meta["labels"] = dict(settings.labels) | meta["labels"]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": meta,
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": selector(stack.name, component, ring)},
            "endpoints": [{"port": "http", "interval": settings.interval}],
        },
    }
