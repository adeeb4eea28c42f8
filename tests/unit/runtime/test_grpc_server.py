"""One port, seen by grpcio's own client: plain and gzip calls, health, reflection, the stop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from structlog.testing import capture_logs

from thanostack.lib.foundation import errors
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure
from thanostack.runtime.grpc_call import (
    CallContext,
    FinishedCall,
    Observer,
    ServerStream,
    Unary,
)
from thanostack.runtime.grpc_server import GrpcOptions, GrpcServer
from thanostack.testing.h2_client import H2Client
from thanostack.testing.polling import eventually
from thanostack.testing.ports import free_port

ECHO = "/thanos.Store/LabelNames"
FAIL = "/thanos.Store/LabelValues"
SERIES = "/thanos.Store/Series"
QUERY = "/thanos.Query/Query"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


class Service(Observer):
    """Handlers that tests steer."""

    def __init__(self) -> None:
        self.contexts: list[CallContext] = []
        self.begun: list[tuple[str, bool]] = []
        self.finished: list[FinishedCall] = []
        self.error: Exception = errors.NotReady("starting")
        self.cancelled = threading.Event()
        self.closed = threading.Event()
        self.gate = threading.Event()
        self.n_pulled = 0
        self.n_bugs = 0

    def started(self, method: str, *, is_stream: bool) -> None:
        self.begun.append((method, is_stream))

    def ended(self, call: FinishedCall) -> None:
        self.finished.append(call)

    def hit_bug(self) -> None:
        self.n_bugs += 1

    def echo(self, request: bytes, context: CallContext) -> bytes:
        self.contexts.append(context)
        return request

    def fail(self, _: bytes, __: CallContext) -> bytes:
        raise self.error

    def series(self, request: bytes, context: CallContext) -> Iterator[bytes]:
        context.on_cancel(self.cancelled.set)
        try:
            for _ in range(int(request)):
                self.n_pulled += 1
                yield b"x" * 1000
        finally:
            self.closed.set()

    def wait(self, _: bytes, context: CallContext) -> Iterator[bytes]:
        context.on_cancel(self.gate.set)
        yield b"first"
        self.gate.wait(10)
        yield b"last"


@pytest.fixture
def service() -> Service:
    return Service()


async def served(service: Service, options: GrpcOptions | None = None, port: int = 0) -> GrpcServer:
    server = GrpcServer(
        f"127.0.0.1:{port}",
        {
            ECHO: Unary(service.echo),
            FAIL: Unary(service.fail),
            SERIES: ServerStream(service.series),
            QUERY: ServerStream(service.wait),
        },
        log=structlog.get_logger(),
        options=options,
        observer=service,
    )
    await server.start()
    return server


@pytest.fixture
async def server(service: Service) -> AsyncIterator[GrpcServer]:
    server = await served(service, GrpcOptions(threads=4, message_bytes_max=8 << 20))
    yield server
    await server.stop(0)


async def ask(server: GrpcServer, client: Callable[[Any], Any]) -> Any:
    """Run a blocking client against the server, in a thread."""

    def run() -> Any:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            return client(channel)

    return await asyncio.to_thread(run)


def _echo(channel: Any, body: bytes, compression: Any) -> bytes:
    answer: bytes = channel.unary_unary(ECHO)(body, timeout=10, compression=compression)
    return answer


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
async def test_unary(server: GrpcServer, compression: Any, size: int) -> None:
    """Bytes go through unchanged, whatever grpcio does to them on the way."""
    body = bytes(range(256)) * (size // 256) + b"tail"[: size % 256]
    assert await ask(server, partial(_echo, body=body, compression=compression)) == body
    assert server.n_connections["ours"] == 0


@pytest.mark.parametrize(("allowed_s", "code"), [(0.01, None), (60, 11)])
async def test_clients_may_ping_as_often_as_said(
    service: Service, allowed_s: float, code: int | None
) -> None:
    """Four times without a call between; who pings more often than allowed is sent away."""
    server = await served(service, GrpcOptions(threads=2, ping_interval_s=allowed_s))
    try:
        async with H2Client(server.port) as client:
            await client.call(ECHO, b"", encoding=None)
            for _ in range(4):
                client.h2.ping(b"thanos10")
                client.flush()
                await asyncio.sleep(0.1)
            await eventually(lambda: client.pongs == 4 or client.closed.is_set())
            assert client.goaway_code == code
    finally:
        await server.stop(0)


async def test_context(server: GrpcServer, service: Service) -> None:
    """A handler sees metadata, the client's real address and its deadline."""
    sent = (("thanostack-path", "a,b"), ("trace-bin", b"\x00\xff"))
    await ask(server, lambda c: c.unary_unary(ECHO)(b"", timeout=7, metadata=sent))
    await ask(server, lambda c: c.unary_unary(ECHO)(b""))
    with_deadline, without = service.contexts
    assert with_deadline.metadata["thanostack-path"] == "a,b"
    assert "trace-bin" not in with_deadline.metadata
    host, _, port = with_deadline.peer.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    remaining_s = with_deadline.time_remaining_s()
    assert remaining_s is not None
    assert 0 < remaining_s < 7.5  # grpcio has a clock of its own
    assert without.time_remaining_s() is None
    assert not without.is_active()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.NotReady("starting"), "UNAVAILABLE", "starting"),
        (errors.LimitExceeded("series", 5, 6), "RESOURCE_EXHAUSTED", "series: 6 exceeds"),
        (GrpcFailure(GrpcCode.FAILED_PRECONDITION, "cycle: 100 %"), "FAILED_PRECONDITION", "100 %"),
        (ZeroDivisionError("oops"), "INTERNAL", "ZeroDivisionError: oops"),
    ],
)
async def test_errors(
    server: GrpcServer, service: Service, error: Exception, code: str, text: str
) -> None:
    """Our errors come out with their codes; only bugs are logged and counted."""
    service.error = error
    with capture_logs() as logs, pytest.raises(grpc.RpcError) as caught:
        await ask(server, lambda c: c.unary_unary(FAIL)(b"", timeout=5))
    assert caught.value.code().name == code
    assert text in caught.value.details()
    assert len(logs) == service.n_bugs == isinstance(error, ZeroDivisionError)
    assert service.begun == [(FAIL, False)]
    assert [(FAIL, GrpcCode[code])] == [(call.method, call.code) for call in service.finished]
    assert [(1, 0)] == [(call.n_received, call.n_sent) for call in service.finished]


async def test_unknown_methods(server: GrpcServer) -> None:
    """What is not served is UNIMPLEMENTED."""
    with pytest.raises(grpc.RpcError) as caught:
        await ask(server, lambda c: c.unary_unary("/thanos.Store/Nope")(b"", timeout=5))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_requests_above_the_limit_are_refused(server: GrpcServer, service: Service) -> None:
    """Size is checked on the wire and after decompression."""
    body = b"\0" * (9 << 20)
    for compression in (None, grpc.Compression.Gzip):
        call = partial(_echo, body=body, compression=compression)
        with pytest.raises(grpc.RpcError) as caught:
            await ask(server, call)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.contexts == []


async def test_slow_readers_hold_a_stream_back(server: GrpcServer, service: Service) -> None:
    """A handler is pulled as fast as the client reads, through the splice."""

    def client(channel: Any) -> int:
        stream = channel.unary_stream(SERIES)(b"100000")
        next(stream)
        time.sleep(0.3)
        pulled = service.n_pulled
        stream.cancel()
        return pulled

    assert await ask(server, client) < 50_000
    await eventually(service.closed.is_set)
    assert service.cancelled.is_set()


async def test_deadlines_cancel_handlers(server: GrpcServer, service: Service) -> None:
    """A handler that waits is told when the client's time is over."""
    with pytest.raises(grpc.RpcError) as caught:
        await ask(server, lambda c: list(c.unary_stream(QUERY)(b"", timeout=0.2)))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(service.gate.is_set)


async def test_many_calls_at_once(server: GrpcServer) -> None:
    """More calls than threads, on several connections, all come to an end."""

    def client(channel: Any) -> list[bytes]:
        calls = [channel.unary_unary(ECHO).future(b"%d" % i, timeout=20) for i in range(200)]
        return [call.result() for call in calls]

    for answers in await asyncio.gather(*(ask(server, client) for _ in range(3))):
        assert answers == [b"%d" % i for i in range(200)]


async def test_health(server: GrpcServer, service: Service) -> None:
    """Health follows set_serving, also while every thread is taken."""

    def check(channel: Any, name: str = "") -> Any:
        return channel.unary_unary(
            CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service=name), timeout=5).status

    assert await ask(server, check) == health_pb2.HealthCheckResponse.NOT_SERVING
    server.set_serving(True)

    def with_busy_threads(channel: Any) -> Any:
        streams = [channel.unary_stream(QUERY)(b"") for _ in range(4)]
        for stream in streams:
            next(stream)
        status = check(channel)
        service.gate.set()
        assert [list(stream) for stream in streams] == [[b"last"]] * 4
        return status

    assert await ask(server, with_busy_threads) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        await ask(server, lambda c: check(c, "thanos.Store"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_watch(server: GrpcServer) -> None:
    """A watcher hears of every change."""

    def watch(channel: Any) -> list[int]:
        stream = channel.unary_stream(
            WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(), timeout=10)
        seen = [next(stream).status]
        server.set_serving(True)
        seen.append(next(stream).status)
        stream.cancel()
        return seen

    assert await ask(server, watch) == [2, 1]


async def test_reflection_lists_our_services(server: GrpcServer) -> None:
    """Services and their messages can be looked up by name, as on a real Thanos."""

    def reflect(channel: Any) -> tuple[set[str], Any]:
        database = ProtoReflectionDescriptorDatabase(channel)
        return set(database.get_services()), database.FindFileContainingSymbol("thanos.Store")

    services, file = await ask(server, reflect)
    assert {"thanos.Store", "thanos.Query", "grpc.health.v1.Health"} <= services
    assert [method.name for method in file.service[0].method] == [
        "Series",
        "LabelNames",
        "LabelValues",
    ]


async def test_stop_lets_calls_finish(service: Service) -> None:
    """With grace a running stream ends well, new calls are refused, and the port is free."""
    server = await served(service, port=free_port())

    def client(channel: Any) -> list[bytes]:
        stream = channel.unary_stream(QUERY)(b"")
        first = next(stream)
        started.set()
        return [first, *stream]

    started = threading.Event()
    asking = asyncio.create_task(ask(server, client))
    await eventually(started.is_set)
    stopping = asyncio.create_task(server.stop(60))
    await asyncio.sleep(0.1)
    assert not stopping.done()
    service.gate.set()
    assert await asking == [b"first", b"last"]
    await asyncio.wait_for(stopping, 20)
    with socket.create_server(("127.0.0.1", server.port)):
        pass


async def test_stop_without_grace_cancels(service: Service) -> None:
    """With no time left, calls end with UNAVAILABLE or CANCELLED, and soon."""
    server = await served(service)
    asking = asyncio.create_task(ask(server, lambda c: list(c.unary_stream(QUERY)(b""))))
    await eventually(lambda: server.n_connections["grpcio"] == 1)
    await asyncio.sleep(0.1)
    await asyncio.wait_for(server.stop(0), 20)
    with pytest.raises(grpc.RpcError) as caught:
        await asking
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_busy_port_is_an_error_before_anything_starts() -> None:
    """The flag is named, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.SettingsInvalid, match="--grpc-address"):
            GrpcServer(address, {}, log=structlog.get_logger())


async def test_grpcio_is_started_by_the_first_client_that_needs_it(service: Service) -> None:
    """Clients that come at the same time wait for the same start; a server may never need it."""
    server = await served(service, GrpcOptions(is_rarely_asked=True))
    assert server._grpcio is None

    def client(channel: Any) -> bytes:
        return _echo(channel, b"x", None)

    assert await asyncio.gather(*(ask(server, client) for _ in range(3))) == [b"x"] * 3
    assert server._grpcio is not None
    await server.stop(0)
    unused = await served(service, GrpcOptions(is_rarely_asked=True))
    await unused.stop(0)
    assert unused._grpcio is None


async def test_a_start_of_grpcio_in_vain_refuses_clients(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is told in the log; nobody waits for ever."""
    server = await served(service, GrpcOptions(is_rarely_asked=True))

    def fails(_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(server, "_make_grpcio", fails)
    with capture_logs() as logs, pytest.raises(grpc.RpcError) as caught:
        await ask(server, lambda channel: channel.unary_unary(ECHO)(b"x", timeout=10))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "grpcio cannot be started" in {log["event"] for log in logs}
    await server.stop(0)
