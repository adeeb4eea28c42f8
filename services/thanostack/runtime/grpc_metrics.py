"""Upstream's gRPC metrics, of a server and of its clients, fed by observing calls.

Source: go-grpc-middleware `providers/prometheus`, as Thanos registers it.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_call import FinishedCall, Handlers, Observer, ServerStream
from thanostack.runtime.tally import TallyHistogram

_LABELS = ["grpc_type", "grpc_service", "grpc_method"]
# Upstream: the buckets of pkg/server/grpc.
_BUCKETS = (0.001, 0.01, 0.1, 0.3, 0.6, 1, 2, 3, 6, 9, 20, 30, 60, 90, 120)


class GrpcMetrics(Observer):
    """`grpc_server_*` or `grpc_client_*` of one process.

    Args:
        registry: where they are registered.
        side: which of the two.
        handlers: what is served; each method is there from the start, at zero, as upstream: an
            alert on `rate()` misses a counter's first increment otherwise.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        side: Literal["server", "client"] = "server",
        handlers: Handlers | None = None,
    ) -> None:
        self._started = Counter(
            f"grpc_{side}_started_total",
            f"Total number of RPCs started on the {side}.",
            _LABELS,
            registry=registry,
        )
        self._handled = Counter(
            f"grpc_{side}_handled_total",
            f"Total number of RPCs completed on the {side}, regardless of success or failure.",
            [*_LABELS, "grpc_code"],
            registry=registry,
        )
        self._received = Counter(
            f"grpc_{side}_msg_received_total",
            f"Total number of RPC stream messages received on the {side}.",
            _LABELS,
            registry=registry,
        )
        self._sent = Counter(
            f"grpc_{side}_msg_sent_total",
            f"Total number of gRPC stream messages sent by the {side}.",
            _LABELS,
            registry=registry,
        )
        self._seconds = TallyHistogram(
            f"grpc_{side}_handling_seconds",
            f"Histogram of response latency (seconds) of gRPC calls, as the {side} sees them.",
            _LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._bugs = (
            Counter(
                "grpc_req_panics_recovered_total",
                "Calls that hit a bug, and were answered with Internal.",
                registry=registry,
            )
            if side == "server"
            else None
        )
        for method, handler in (handlers or {}).items():
            labels = _labels(method, is_stream=isinstance(handler, ServerStream))
            for metric in (self._started, self._received, self._sent, self._seconds):
                metric.labels(*labels)
            for code in GrpcCode:
                self._handled.labels(*labels, code_name(code))

    def unary(self, method: str) -> UnaryCalls:
        """Return what counts the calls of one method, for callers that make very many."""
        return UnaryCalls(
            _labels(method, is_stream=False),
            (self._started, self._handled, self._received, self._sent),
            self._seconds,
        )

    def started(self, method: str, *, is_stream: bool) -> None:
        """Count a call that begins."""
        self._started.labels(*_labels(method, is_stream=is_stream)).inc()

    def ended(self, call: FinishedCall) -> None:
        """Count a call that has ended, and its messages."""
        labels = _labels(call.method, is_stream=call.is_stream)
        self._handled.labels(*labels, code_name(call.code)).inc()
        self._received.labels(*labels).inc(call.n_received)
        self._sent.labels(*labels).inc(call.n_sent)
        self._seconds.labels(*labels).observe(call.duration_s)

    def hit_bug(self) -> None:
        """Count a bug that a call hit; of a server."""
        if self._bugs is not None:
            self._bugs.inc()


class UnaryCalls:
    """The metrics of one method, looked up once: looking them up costs more than counting.

    Args:
        labels: of the method.
        counters: calls started and handled, messages received and sent.
        seconds: how long calls took.
    """

    def __init__(
        self,
        labels: tuple[str, str, str],
        counters: tuple[Counter, Counter, Counter, Counter],
        seconds: TallyHistogram,
    ) -> None:
        started, handled, received, sent = counters
        self._started, self._received, self._sent = (
            counter.labels(*labels) for counter in (started, received, sent)
        )
        self._handled = {code: handled.labels(*labels, code_name(code)) for code in GrpcCode}
        self._seconds = seconds.labels(*labels)

    def started(self) -> None:
        """Count a call that begins."""
        self._started.inc()

    def ended(self, code: GrpcCode, duration_s: float) -> None:
        """Count a call that has ended, and its messages; a good one was answered with one."""
        self._handled[code].inc()
        self._sent.inc()
        if code is GrpcCode.OK:
            self._received.inc()
        self._seconds.observe(duration_s)


def _labels(method: str, *, is_stream: bool) -> tuple[str, str, str]:
    _, service, name = method.split("/", 2)
    return ("server_stream" if is_stream else "unary", service, name)


def code_name(code: GrpcCode) -> str:
    """Return a status code as Go spells it, such as `ResourceExhausted`.

    Example:
        >>> code_name(GrpcCode.OK), code_name(GrpcCode.NOT_FOUND)
        ('OK', 'NotFound')
    """
    if code is GrpcCode.OK:
        return "OK"
    if code is GrpcCode.CANCELLED:
        return "Canceled"
    return "".join(word.capitalize() for word in code.name.split("_"))
