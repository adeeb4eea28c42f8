"""What a write request passes between its tenant and its distribution, in upstream's order.

    turn            most writes at once, if that is limited
    active series   of all receivers together, if a meta-monitoring counts them → 429
    size            declared, then decoded → 413
    counts          series, then samples → 413
    relabeling      may drop series, or all of them

The limits of new series are storage's (`lib/tsdb/series_limits`): only there it is known which are
new. A request that is partly over is partly stored, and answered 429.

Limits come from two files (`limits`), which are read again when they change, all or nothing: then a
new `Limits` takes the place of the old one between two requests.

Source: Thanos `pkg/receive/handler.go`, receiveHTTP and handleV1HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thanostack.lib.foundation.errors import LimitExceeded
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.relabel.rewriting import Relabeled
from thanostack.lib.remotewrite.negotiation import Version
from thanostack.lib.remotewrite.snappy_body import TOO_LARGE
from thanostack.lib.remotewrite.split import count_all, count_series
from thanostack.receive.limit_metrics import REQUEST_LIMITS, LimitMetrics
from thanostack.receive.limits import Limits
from thanostack.receive.limits_file import LimitsFile
from thanostack.receive.meta_monitoring import MetaMonitoringCounts
from thanostack.receive.overrides import Overrides
from thanostack.receive.relabeling import Relabeling
from thanostack.receive.write_gate import Turn, WriteGate
from thanostack.runtime.logs import Logger

ABOVE_SERIES_LIMIT = "tenant is above active series limit"
_TEXTS = {
    "body_size": TOO_LARGE,
    "series": "too many timeseries",
    "samples": "too many samples",
}

LimitsChanged = Callable[[Limits], None]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may be distributed.

    Args:
        body: of the version that it came in.
        dropped_samples, dropped_histograms: what relabeling took out of a 2.0 request, which says
            how much was written: what is dropped on purpose counts as written.
        dropped_series: how many relabeling took out.
    """

    body: Uint8Array
    dropped_samples: int = 0
    dropped_histograms: int = 0
    dropped_series: int = 0


class Admission:
    """The limits and the relabeling of one receiver.

    Args:
        gate: how many writes at once.
        relabeling: the rules.
        metrics: told about limits met.
        log: told about limits that changed.
    """

    def __init__(
        self, gate: WriteGate, relabeling: Relabeling, *, metrics: LimitMetrics, log: Logger
    ) -> None:
        self._gate, self._relabeling, self._metrics, self._log = gate, relabeling, metrics, log
        self._limits = Limits(LimitsFile(), Overrides())
        self._changed: list[LimitsChanged] = []
        self.meta_monitoring = MetaMonitoringCounts(self._poll_failed)

    @property
    def limits(self) -> Limits:
        """Return the limits that hold now."""
        return self._limits

    def when_changed(self, changed: LimitsChanged) -> None:
        """Call something with the limits, now and when they change."""
        self._changed.append(changed)
        changed(self._limits)

    def set_limits(self, limits: Limits) -> None:
        """Let other limits hold from now on.

        Raises:
            InvalidInput: if the client of the meta-monitoring cannot be made; nothing changes then.
        """
        self.meta_monitoring.ask(limits.file.meta_monitoring)
        self._limits = limits
        self._gate.set_limit(limits.file.max_concurrency)
        self._metrics.show(limits)
        for changed in self._changed:
            changed(limits)

    def turn(self) -> Turn:
        """Return a request's turn; it must come to it and end it."""
        return Turn(self._gate)

    def check_active_series(self, tenant: Tenant) -> None:
        """Raise LimitExceeded if all receivers together have too many series of a tenant."""
        limit = self._limits.of(tenant).head_series_limit
        series = self.meta_monitoring.series.get(tenant, 0)
        if limit and series >= limit:
            self._metrics.limited(tenant)
            raise LimitExceeded("head_series_limit", limit, series, text=ABOVE_SERIES_LIMIT)

    def check_size(self, tenant: Tenant, size: int) -> None:
        """Raise LimitExceeded for a request of too many bytes, declared or decoded."""
        self._check(tenant, "body_size", size)

    def _check(self, tenant: Tenant, kind: str, actual: int) -> None:
        name = REQUEST_LIMITS[kind]
        limit = getattr(self._limits.of(tenant), name)
        if limit and actual > limit:
            self._metrics.hit(tenant, kind, actual - limit)
            raise LimitExceeded(name, limit, actual, text=_TEXTS[kind])

    def admit_now(self, tenant: Tenant, body: Uint8Array, version: Version) -> Admitted | None:
        """Return what is left of a decoded request, None if that would take long; as `admit`.

        It may be that nothing comes of it; if something does, `used` is told.
        """
        series = self._count(tenant, body, version)
        if series is None:
            return Admitted(body)
        result = self._relabeling.relabel_now(body, series, version)
        return None if result is None else _admitted(body, result, version)

    def used(self, admitted: Admitted) -> None:
        """Count what was dropped of a request that `admit_now` returned."""
        self._relabeling.count_dropped(admitted.dropped_series)

    async def admit(self, tenant: Tenant, body: Uint8Array, version: Version) -> Admitted:
        """Return what is left of a decoded request.

        Args:
            tenant: of the request, not of a split label.
            body: uint8[n]; must not change meanwhile.
            version: of remote write.

        Raises:
            LimitExceeded: for too many series or samples; native histograms are samples.
            InvalidInput: if it is malformed.
        """
        series = self._count(tenant, body, version)
        if series is None:
            return Admitted(body)
        return _admitted(body, await self._relabeling.relabel(body, series, version), version)

    def _count(self, tenant: Tenant, body: Uint8Array, version: Version) -> int | None:
        """Return how many series a request has, None if nothing here wants to know."""
        limits = self._limits.of(tenant)
        if not (limits.series_limit or limits.samples_limit or self._relabeling.is_on):
            return None
        series = count_series(body, version)
        self._check(tenant, "series", series)
        if limits.samples_limit:
            counts = count_all(body, version)
            self._check(tenant, "samples", counts.samples + counts.histograms)
        return series

    def _poll_failed(self, error: Exception) -> None:
        self._metrics.meta_monitoring_failed.inc()
        self._log.warning(
            "meta-monitoring does not answer; series of all receivers are not limited", err=error
        )


def _admitted(body: Uint8Array, result: Relabeled, version: Version) -> Admitted:
    if version == 1 or not result.dropped:
        return Admitted(result.body, dropped_series=result.dropped)
    before, after = count_all(body, version), count_all(result.body, version)
    return Admitted(
        result.body,
        before.samples - after.samples,
        before.histograms - after.histograms,
        result.dropped,
    )


def open_to_all(log: Logger) -> Admission:
    """Return an admission without limits and rules, which counts for nobody."""
    return Admission(
        WriteGate(None), Relabeling((), None, bytes_max=1), metrics=LimitMetrics(None), log=log
    )
