"""Whether the process is alive and whether it wants traffic: one state, many views.

    starting --set_healthy--> healthy, not ready --set_ready--> ready --set_stopping--> not ready
                                     ^----------set_not_ready(reason)---'

A process that stops wants no further traffic, but answers what comes until its ports are closed:
whoever sent it could not know yet.

`/-/healthy` and `/-/ready`, the gRPC health service and `thanos_status{check}` all show it. A
watcher is called with the new readiness whenever it may have changed.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from thanostack.runtime.logs import Logger


class Probes:
    """The state behind all probes of one process.

    Args:
        component: its name in the metric.
        registry: where `thanos_status` is registered.
        log: told about every change.
    """

    def __init__(self, component: str, registry: CollectorRegistry, log: Logger) -> None:
        self._log = log
        self._healthy = self._ready = self._was_ready = False
        self._reason = "starting"
        self._watchers: list[Callable[[bool], None]] = []
        status = Gauge(
            "thanos_status",
            "Represents status (0 indicates failure, 1 indicates success) of the component.",
            ["check", "component"],
            registry=registry,
        )
        self._gauges = {check: status.labels(check, component) for check in ("healthy", "ready")}

    @property
    def is_healthy(self) -> bool:
        """Return whether the process works at all."""
        return self._healthy

    @property
    def is_ready(self) -> bool:
        """Return whether it wants traffic."""
        return self._ready

    @property
    def takes_requests(self) -> bool:
        """Return whether it answers what comes: it is ready, or was until it began to stop."""
        return self._ready or self._was_ready

    @property
    def reason(self) -> str:
        """Return why it is not ready; empty when it is."""
        return self._reason

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Call `watcher(ready)` now and on every change."""
        self._watchers.append(watcher)
        watcher(self._ready)

    def set_healthy(self) -> None:
        """Say that the process works."""
        self._change(healthy=True, ready=self._ready, reason=self._reason)

    def set_ready(self) -> None:
        """Ask for traffic."""
        self._change(healthy=True, ready=True, reason="")

    def set_not_ready(self, reason: str) -> None:
        """Ask for no traffic, for a reason that the probe's answer shows."""
        self._change(healthy=self._healthy, ready=False, reason=reason)

    def set_stopping(self) -> None:
        """Ask for no traffic from now on; what still comes is answered if it would have been."""
        self._was_ready = self._ready
        self.set_not_ready("stopping")

    def _change(self, *, healthy: bool, ready: bool, reason: str) -> None:
        changed = (healthy, ready, reason) != (self._healthy, self._ready, self._reason)
        self._healthy, self._ready, self._reason = healthy, ready, reason
        self._gauges["healthy"].set(healthy)
        self._gauges["ready"].set(ready)
        if not changed:
            return
        status = "ready" if ready else "not-ready"
        self._log.info("changing probe status", status=status, healthy=healthy, reason=reason)
        for watcher in self._watchers:
            watcher(ready)
