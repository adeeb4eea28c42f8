"""grpc.health.v1, as Thanos answers it: one status, that of the empty service name.

Both sides of the port have it. On grpcio's side it has a thread of its own, so that a probe is
answered while every other thread streams.

Source: Thanos `pkg/prober/grpc.go`; the protocol is grpc's `doc/health-checking.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure
from thanostack.runtime.grpc_call import CallContext

HEALTH_CHECK: Final = f"/{health.SERVICE_NAME}/Check"


class GrpcHealth:
    """The health service of one server; not serving at first."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="grpc-health")
        self._servicer = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=self.pool
        )
        self.set(is_serving=False)

    def set(self, *, is_serving: bool) -> None:
        """Set the status, and tell whoever watches. From any thread."""
        status = health_pb2.HealthCheckResponse
        self._status = status.SERVING if is_serving else status.NOT_SERVING
        self._servicer.set("", self._status)

    def check(self, request: bytes, _: CallContext) -> bytes:
        """Answer Health/Check.

        Raises:
            GrpcFailure: NOT_FOUND for a named service, as upstream.
        """
        return self._answer(request)

    def add_to(self, server: Any) -> None:
        """Register both methods with a grpcio server."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._checker()),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._servicer.Watch,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }
        handler = grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)
        server.add_generic_rpc_handlers([handler])

    def _checker(self) -> Callable[[bytes, Any], bytes]:
        def check(request: bytes, servicer: Any) -> bytes:
            try:
                return self._answer(request)
            except GrpcFailure as failure:
                servicer.abort(getattr(grpc.StatusCode, failure.code.name), str(failure))
                raise

        check.experimental_thread_pool = self.pool  # type: ignore[attr-defined]
        return check

    def _answer(self, request: bytes) -> bytes:
        try:
            service = health_pb2.HealthCheckRequest.FromString(request).service
        except DecodeError as error:
            raise GrpcFailure(GrpcCode.INTERNAL, "not a HealthCheckRequest") from error
        if service:
            raise GrpcFailure(GrpcCode.NOT_FOUND, f"unknown service {service}")
        answer: bytes = health_pb2.HealthCheckResponse(status=self._status).SerializeToString()
        return answer
