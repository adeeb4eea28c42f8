"""grpc.health.v1, as Thanos answers it: one status, that of the empty service name.

Both sides of the port have it. On grpcio's side it has a thread of its own, so that a probe is
answered while every other thread streams.

Source: Thanos `pkg/prober/grpc.go`; the protocol is grpc's `doc/health-checking.md`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure
from thanostack.runtime.grpc_call import CallContext

SERVICE: Final = "grpc.health.v1.Health"
HEALTH_CHECK: Final = f"/{SERVICE}/Check"
HEALTH_WATCH: Final = f"/{SERVICE}/Watch"


class GrpcHealth:
    """The health service of one server; not serving at first."""

    def __init__(self) -> None:
        self._is_serving = False
        self._pool: ThreadPoolExecutor | None = None
        self._watched: Any = None
        self._lock = threading.Lock()

    def set(self, *, is_serving: bool) -> None:
        """Set the status, and tell whoever watches. From any thread."""
        with self._lock:
            self._is_serving = is_serving
            if self._watched is not None:
                self._watched.set("", self._status())

    def check(self, request: bytes, _: CallContext) -> bytes:
        """Answer Health/Check.

        Raises:
            GrpcFailure: NOT_FOUND for a named service, as upstream.
        """
        return self._answer(request)

    def add_to(self, server: Any) -> None:
        """Register both methods with a grpcio server."""
        import grpc
        from grpc_health.v1 import health, health_pb2

        pool = ThreadPoolExecutor(1, thread_name_prefix="grpc-health")
        watched = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=pool
        )
        with self._lock:
            self._pool, self._watched = pool, watched
            watched.set("", self._status())
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._checker(pool)),
            "Watch": grpc.unary_stream_rpc_method_handler(
                watched.Watch,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }
        handler = grpc.method_handlers_generic_handler(SERVICE, methods)
        server.add_generic_rpc_handlers([handler])

    def close(self) -> None:
        """Let go of the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _checker(self, pool: ThreadPoolExecutor) -> Callable[[bytes, Any], bytes]:
        import grpc

        def check(request: bytes, servicer: Any) -> bytes:
            try:
                return self._answer(request)
            except GrpcFailure as failure:
                servicer.abort(getattr(grpc.StatusCode, failure.code.name), str(failure))
                raise

        check.experimental_thread_pool = pool  # type: ignore[attr-defined]
        return check

    def _status(self) -> int:
        from grpc_health.v1 import health_pb2

        status = health_pb2.HealthCheckResponse
        return int(status.SERVING if self._is_serving else status.NOT_SERVING)

    def _answer(self, request: bytes) -> bytes:
        from google.protobuf.message import DecodeError
        from grpc_health.v1 import health_pb2

        try:
            service = health_pb2.HealthCheckRequest.FromString(request).service
        except DecodeError as error:
            raise GrpcFailure(GrpcCode.INTERNAL, "not a HealthCheckRequest") from error
        if service:
            raise GrpcFailure(GrpcCode.NOT_FOUND, f"unknown service {service}")
        answer = health_pb2.HealthCheckResponse(status=self._status())
        return bytes(answer.SerializeToString())
