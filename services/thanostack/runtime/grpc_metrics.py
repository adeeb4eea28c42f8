"""Upstream's gRPC server metrics, fed by the server's observer of finished calls.

Source: go-grpc-middleware `providers/prometheus`, as Thanos registers it.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_call import FinishedCall

_LABELS = ["grpc_type", "grpc_service", "grpc_method"]
# Upstream: the buckets of pkg/server/grpc.
_BUCKETS = (0.001, 0.01, 0.1, 0.3, 0.6, 1, 2, 3, 6, 9, 20, 30, 60, 90, 120)


class GrpcMetrics:
    """`grpc_server_*` of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter(
            "grpc_server_handled_total",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            [*_LABELS, "grpc_code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Histogram of response latency (seconds) of gRPC that had been handled by the server.",
            _LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )

    def observe(self, call: FinishedCall) -> None:
        """Count one call; safe from any thread."""
        _, service, method = call.method.split("/", 2)
        kind = "server_stream" if call.is_stream else "unary"
        self._handled.labels(kind, service, method, code_name(call.code)).inc()
        self._seconds.labels(kind, service, method).observe(call.duration_s)


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
