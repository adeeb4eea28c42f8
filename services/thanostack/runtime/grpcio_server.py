"""The half of a gRPC port that grpcio serves, on a Unix socket behind the `Front`.

    GrpcServer ── the first client that needs it ──> GrpcioServer

Importing this imports grpcio and protobuf, some 20 MiB: a router that is only written
to never does.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.runtime.call_queue import FULL, CallQueue, CallThreads
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure, error_text, grpc_code
from thanostack.runtime.grpc_call import (
    ROLE_FIELD,
    CallContext,
    FinishedCall,
    Handlers,
    Observer,
    Report,
    ServerStream,
    Unary,
)
from thanostack.runtime.grpc_health import GrpcHealth
from thanostack.runtime.grpc_options import GrpcOptions

_FOREVER_S: Final = 1e9
_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_MODULE_OF_SERVICE: Final = {
    "thanos.Store": "store_pb2",
    "thanos.WriteableStore": "store_pb2",
    "thanos.Query": "query_pb2",
    "thanos.Rules": "rules_pb2",
    "thanos.Targets": "targets_pb2",
    "thanos.Metadata": "metadata_pb2",
    "thanos.Exemplars": "exemplars_pb2",
    "thanos.Status": "status_pb2",
    "thanos.info.Info": "info_pb2",
}


class GrpcioServer:
    """Handlers on grpcio's threaded server.

    Args:
        path: of the Unix socket.
        handlers: by full method name.
        threads: run them.
        checks: health, answered on a thread of its own.
        observer: told about every call.
        report: told about exceptions that are bugs.
        peer_of: returns the client's address for the peer that grpcio reports.
        options: bounds and times.

    Raises:
        OSError: if the socket cannot be had.
    """

    def __init__(
        self,
        path: Path,
        handlers: Handlers,
        *,
        threads: CallThreads,
        checks: GrpcHealth,
        observer: Observer,
        report: Report,
        peer_of: Callable[[str], str],
        options: GrpcOptions,
    ) -> None:
        self._handlers, self._observer, self._report = handlers, observer, report
        self._peer_of, self._role = peer_of, options.role
        self._queue = threads.queue
        # They only say no: one that has not come whole is not waited for.
        self._refusers = ThreadPoolExecutor(1, thread_name_prefix="grpcio-refuse")
        self._server = self._made(path, threads.others, checks, options)

    def start(self) -> None:
        """Begin to serve, in threads."""
        self._server.start()

    def stop(self, grace_s: float) -> threading.Event:
        """Accept no more, let calls finish for a while; return what is set when all is over."""
        ended: threading.Event = self._server.stop(grace_s)
        return ended

    def close(self) -> None:
        """Let go of the thread that refuses; all must be over."""
        self._refusers.shutdown(wait=False)

    def _made(
        self, path: Path, pool: ThreadPoolExecutor, checks: GrpcHealth, options: GrpcOptions
    ) -> Any:
        server = grpc.server(pool, options=_channel_options(options))
        server.add_generic_rpc_handlers([_Refusals(self._refusing(), self._queue)])
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(service, self._wrap_all(service, methods))
                for service, methods in _by_service(self._handlers).items()
            ]
        )
        checks.add_to(server)
        services = [*_by_service(self._handlers), health.SERVICE_NAME, reflection.SERVICE_NAME]
        for service in services:
            if service in _MODULE_OF_SERVICE:  # registers its descriptors for reflection
                importlib.import_module(f"thanostack.lib.pb.{_MODULE_OF_SERVICE[service]}")
        reflection.enable_server_reflection(services, server)
        if not server.add_insecure_port(f"unix:{path}"):
            raise OSError(f"grpcio cannot listen on {path}")
        return server

    def _wrap_all(self, service: str, methods: Iterable[str]) -> dict[str, Any]:
        wrapped = {}
        for method in methods:
            name = f"/{service}/{method}"
            handler = self._handlers[name]
            if isinstance(handler, ServerStream):
                wrapped[method] = grpc.unary_stream_rpc_method_handler(
                    self._wrap_stream(name, handler)
                )
            else:
                answer = self._wrap_unary(name, handler)
                if handler.is_queued:
                    answer.experimental_thread_pool = self._queue  # type: ignore[attr-defined]
                wrapped[method] = grpc.unary_unary_rpc_method_handler(answer)
        return wrapped

    def _refusing(self) -> dict[str, Any]:
        """Return, by the names of queued methods, handlers that refuse a call."""
        queued = [name for name, handler in self._handlers.items() if handler.is_queued]
        return {name: grpc.stream_unary_rpc_method_handler(self._refuser(name)) for name in queued}

    def _refuser(self, name: str) -> Callable[[Iterator[bytes], Any], bytes]:
        # Of a stream, so that the request is not waited for, nor read.
        def refuse(_: Iterator[bytes], servicer: grpc.ServicerContext) -> bytes:
            self._observer.started(name, is_stream=False)
            self._observer.ended(FinishedCall(name, False, GrpcCode.UNAVAILABLE, 0.0))
            servicer.abort(grpc.StatusCode.UNAVAILABLE, FULL)
            raise AssertionError("abort raises")

        refuse.experimental_thread_pool = self._refusers  # type: ignore[attr-defined]
        return refuse

    def _wrap_unary(self, name: str, handler: Unary) -> Callable[[bytes, Any], bytes]:
        def answer(request: bytes, servicer: grpc.ServicerContext) -> bytes:
            context, started = self._context(servicer), time.monotonic()
            self._observer.started(name, is_stream=False)
            if self._role:
                servicer.set_trailing_metadata(((ROLE_FIELD, self._role),))
            try:
                body = handler.handle(request, context)
            except Exception as error:  # whatever a handler raises is an answer
                self._abort(servicer, name, error, started, is_stream=False)
                raise  # not reached: abort raises
            context.finish()
            self._finished(name, GrpcCode.OK, started, is_stream=False, n_sent=1)
            return body

        return answer

    def _wrap_stream(
        self, name: str, handler: ServerStream
    ) -> Callable[[bytes, Any], Iterator[bytes]]:
        def answer(request: bytes, servicer: grpc.ServicerContext) -> Iterator[bytes]:
            context, started = self._context(servicer), time.monotonic()
            self._observer.started(name, is_stream=True)
            code = GrpcCode.CANCELLED  # unless it comes to an end
            n_sent = 0
            try:
                answers = handler.handle(request, context)
                with contextlib.closing(answers):  # type: ignore[type-var]
                    for body in answers:
                        n_sent += 1
                        yield body
                code = GrpcCode.OK
            except Exception as error:  # whatever a handler raises is an answer
                code = grpc_code(error)
                self._abort(servicer, name, error, None, is_stream=True)
            finally:
                context.finish()
                self._finished(name, code, started, is_stream=True, n_sent=n_sent)

        return answer

    def _abort(
        self,
        servicer: grpc.ServicerContext,
        name: str,
        error: Exception,
        started: float | None,
        *,
        is_stream: bool,
    ) -> None:
        if not isinstance(error, ThanostackError | GrpcFailure):
            self._report(name, error)
        code = grpc_code(error)
        if started is not None:
            self._finished(name, code, started, is_stream=is_stream)
        servicer.abort(_STATUS_CODES[code], error_text(error))

    def _context(self, servicer: grpc.ServicerContext) -> CallContext:
        metadata = {
            key: value for key, value in servicer.invocation_metadata() if isinstance(value, str)
        }
        remaining_s = servicer.time_remaining()
        # grpcio says some 300 years, or None, when there is no deadline.
        timeout_s = remaining_s if (remaining_s or _FOREVER_S) < _FOREVER_S else None
        context = CallContext(metadata, self._peer_of(servicer.peer()), timeout_s)
        if not servicer.add_callback(context.cancel):
            context.cancel()
        return context

    def _finished(
        self, name: str, code: GrpcCode, started: float, *, is_stream: bool, n_sent: int = 0
    ) -> None:
        # grpcio calls a handler once the request is whole.
        duration_s = time.monotonic() - started
        self._observer.ended(FinishedCall(name, is_stream, code, duration_s, 1, n_sent))


class _Refusals(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Handles calls of queued methods while their queue is full, by refusing them.

    Args:
        refusing: handlers that do so, by method.
        queue: of the methods.
    """

    def __init__(self, refusing: dict[str, Any], queue: CallQueue) -> None:
        self._refusing, self._queue = refusing, queue

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call that is to be refused, None if there is room for it."""
        if not self._queue.is_full:
            return None
        return self._refusing.get(handler_call_details.method)


def _by_service(handlers: Handlers) -> dict[str, list[str]]:
    services: dict[str, list[str]] = {}
    for name in handlers:
        _, service, method = name.split("/")
        services.setdefault(service, []).append(method)
    return services


def _channel_options(options: GrpcOptions) -> list[tuple[str, int]]:
    age_ms = int(options.connection_age_s * 1000)
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.max_concurrent_streams", 1000),
        # Without "recv", unlike the constant's name: grpcio ignores a name that it does not know,
        # and then allows one ping in five minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", int(options.ping_interval_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        *([("grpc.max_connection_age_ms", age_ms)] if age_ms else []),
    ]
