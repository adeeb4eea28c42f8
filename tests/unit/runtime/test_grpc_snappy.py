"""The same port, seen by a client that compresses with snappy, and by clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from thanostack.lib.foundation import errors
from thanostack.lib.foundation.clock import SystemClock
from thanostack.runtime import http2_frames as frames
from thanostack.runtime.grpc_call import (
    CallContext,
    FinishedCall,
    Observer,
    ServerStream,
    Unary,
)
from thanostack.runtime.grpc_front import FrontLimits
from thanostack.runtime.grpc_server import GrpcOptions, GrpcServer
from thanostack.runtime.tls_options import ServerTLSOptions
from thanostack.runtime.tls_ports import TLS, ServerTLS
from thanostack.testing.certificates import Authority
from thanostack.testing.h2_client import Answer, H2Client, plain_message, snappy_message
from thanostack.testing.polling import eventually

WRITE = "/thanos.WriteableStore/RemoteWrite"
POOLED = "/thanos.Store/LabelNames"
SERIES = "/thanos.Store/Series"
MESSAGE_MAX = 2 << 20


class Service(Observer):
    """Handlers that tests steer."""

    def __init__(self) -> None:
        self.contexts: list[CallContext] = []
        self.threads: set[str] = set()
        self.begun: list[tuple[str, bool]] = []
        self.finished: list[FinishedCall] = []
        self.error: Exception | None = None
        self.entered, self.cancelled, self.closed = (threading.Event() for _ in range(3))
        self.gate = threading.Event()
        self.gate.set()
        self.n_pulled = 0

    def started(self, method: str, *, is_stream: bool) -> None:
        self.begun.append((method, is_stream))

    def ended(self, call: FinishedCall) -> None:
        self.finished.append(call)

    def write(self, request: bytes, context: CallContext) -> bytes:
        self.contexts.append(context)
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return request[:16]

    def pooled(self, request: bytes, context: CallContext) -> bytes:
        context.on_cancel(self.cancelled.set)
        self.entered.set()
        self.gate.wait(10)
        return self.write(request, context)

    def series(self, request: bytes, context: CallContext) -> Iterator[bytes]:
        context.on_cancel(self.cancelled.set)
        try:
            for index in range(int(request)):
                self.n_pulled += 1
                yield b"%d" % index * 1000
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()


@pytest.fixture
def service() -> Service:
    return Service()


def make(service: Service, **arguments: object) -> GrpcServer:
    defaults = {"threads": 4, "message_bytes_max": MESSAGE_MAX, "requests_bytes_max": 5 << 20}
    tls = arguments.pop("tls", None)
    assert tls is None or isinstance(tls, ServerTLS)
    return GrpcServer(
        "127.0.0.1:0",
        {
            WRITE: Unary(service.write, inline=True),
            POOLED: Unary(service.pooled),
            SERIES: ServerStream(service.series),
        },
        log=structlog.get_logger(),
        options=GrpcOptions(**{**defaults, **arguments}),  # type: ignore[arg-type]
        observer=service,
        tls=tls,
    )


Serve = Callable[..., Awaitable[GrpcServer]]


@pytest.fixture
async def serve(service: Service) -> AsyncIterator[Serve]:
    """Start servers, and stop them whatever became of the test."""
    servers: list[GrpcServer] = []

    async def start(**arguments: object) -> GrpcServer:
        servers.append(make(service, **arguments))
        await servers[-1].start()
        return servers[-1]

    yield start
    service.gate.set()
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def server(serve: Serve) -> GrpcServer:
    return await serve()


def budget_used(server: GrpcServer) -> int:
    assert server._front is not None
    return server._front._service.budget.used


@pytest.mark.parametrize("path", [WRITE, POOLED])
@pytest.mark.parametrize("size", [0, 1, 100_000, MESSAGE_MAX - 1000])
async def test_snappy_calls(server: GrpcServer, service: Service, path: str, size: int) -> None:
    """Small calls run inline if they may, large and other ones in the pool; bytes are right."""
    body = random.Random(size).randbytes(size)
    async with H2Client(server.port) as client:
        answer = await client.call(path, body)
        assert server.n_connections["ours"] == 1
    assert answer.status == 0, answer.text
    assert answer.messages == [body[:16]]
    is_inline = service.threads == {threading.main_thread().name}
    assert is_inline == (path == WRITE and size <= 1 << 20)
    assert budget_used(server) == 0


async def test_mixed_compression_on_one_connection(server: GrpcServer) -> None:
    """Plain, gzip, and uncompressed messages may follow a snappy call, health checks too."""
    server.set_serving(True)
    async with H2Client(server.port) as client:
        assert (await client.call(WRITE, b"first")).messages == [b"first"]
        assert (await client.call(WRITE, b"plain", encoding=None)).messages == [b"plain"]
        assert (await client.call(WRITE, b"plain", encoding="identity")).messages == [b"plain"]
        stream_id, answer = client.begin(WRITE, "snappy")
        await client.send(stream_id, plain_message(b"flag 0"))
        await answer.done.wait()
        assert answer.messages == [b"flag 0"]
        stream_id, answer = client.begin(WRITE, "gzip")
        packed = gzip.compress(b"zipped")
        await client.send(stream_id, b"\x01" + len(packed).to_bytes(4, "big") + packed)
        await answer.done.wait()
        assert answer.messages == [b"zipped"]
        checked = await client.call("/grpc.health.v1.Health/Check", b"", encoding=None)
        status = health_pb2.HealthCheckResponse.FromString(checked.messages[0]).status
        assert status == health_pb2.HealthCheckResponse.SERVING


async def test_context(server: GrpcServer, service: Service) -> None:
    """Metadata, peer and deadline are those of the request."""
    extra = (("grpc-timeout", "7S"), ("thanostack-path", "a,b"), ("x-bin", "AAEC"))
    async with H2Client(server.port) as client:
        await client.call(WRITE, b"", extra=extra)
        local = client.writer.get_extra_info("sockname")
    (context,) = service.contexts
    assert dict(context.metadata) == {"thanostack-path": "a,b"}
    assert context.peer == f"127.0.0.1:{local[1]}"
    assert 0 < (context.time_remaining_s() or 0) <= 7


async def test_errors(server: GrpcServer, service: Service) -> None:
    """Codes and texts are as on the other side of the port; only bugs are logged."""
    cases = [(errors.OutOfOrder("späť: 100 %"), 6), (errors.NotReady("x"), 14), (KeyError("k"), 13)]
    async with H2Client(server.port) as client:
        for error, code in cases:
            service.error = error
            with capture_logs() as logs:
                answer = await client.call(WRITE, b"")
            assert answer.status == code
            assert str(error) in answer.text
            assert len(logs) == isinstance(error, KeyError)
    assert [call.code for call in service.finished] == [code for _, code in cases]


async def test_requests_that_cannot_be_served(server: GrpcServer) -> None:
    """Each gets a status that says why, and the connection goes on."""
    async with H2Client(server.port) as client:
        assert (await client.call("/thanos.Nope/Nope", b"")).status == 12
        assert (await client.call(WRITE, b"", encoding="zstd")).status == 12
        too_big = await client.call(WRITE, b"\0" * (MESSAGE_MAX + 1))
        assert (too_big.status, str(MESSAGE_MAX) in too_big.text) == (8, True)
        for body, status in (
            (b"", 13),
            (b"\0\0\0", 13),
            (b"\0\0\0\0\x05abc", 13),
            (b"\x07\0\0\0\0", 13),
            (b"\x01\0\0\0\x03abc", 13),
            (b"\0\xff\xff\xff\xff", 8),
            (plain_message(b"one") + plain_message(b"two"), 12),
        ):
            stream_id, answer = client.begin(WRITE)
            await client.send(stream_id, body)
            await answer.done.wait()
            assert answer.status == status, (body, answer.text)
        stream_id, answer = client.begin(WRITE, None)
        await client.send(stream_id, b"\x01\0\0\0\x03abc")
        await answer.done.wait()
        assert answer.status == 13
        assert (await client.call(WRITE, b"still here")).messages == [b"still here"]
    assert budget_used(server) == 0


async def test_no_grpc_is_told_so(server: GrpcServer) -> None:
    """An HTTP/2 client that speaks no gRPC gets 415."""
    async with H2Client(server.port) as client:
        await client.call(WRITE, b"")
        client.h2.send_headers(
            3,
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
            end_stream=True,
        )
        answer = client.answers[3] = Answer()
        client.flush()
        await answer.done.wait()
        assert answer.headers[":status"] == "415"


async def test_streams(server: GrpcServer, service: Service) -> None:
    """A stream comes whole and in order, an empty one too, and may end in an error."""
    async with H2Client(server.port) as client:
        answer = await client.call(SERIES, b"500")
        assert answer.messages == [b"%d" % index * 1000 for index in range(500)]
        assert answer.status == 0
        assert (await client.call(SERIES, b"0")).status == 0
        service.error = errors.NotReady("half-way")
        answer = await client.call(SERIES, b"3")
        assert (len(answer.messages), answer.status, answer.text) == (3, 14, "half-way")
    counts = [(call.n_received, call.n_sent) for call in service.finished]
    assert counts == [(1, 500), (1, 0), (1, 3)]


async def test_slow_readers_hold_a_stream_back(server: GrpcServer, service: Service) -> None:
    """A handler goes on only as its answer is read; a reset lets it go."""
    async with H2Client(server.port, window=50_000) as client:
        client._handle = lambda _: None  # type: ignore[method-assign] # gives no credit
        stream_id, _ = client.begin(SERIES)
        await client.send(stream_id, snappy_message(b"10000000"))
        await eventually(lambda: service.n_pulled > 100)
        await asyncio.sleep(0.2)
        assert service.n_pulled < 5000
        client.h2.reset_stream(stream_id)
        client.flush()
        await eventually(service.closed.is_set)
        assert service.cancelled.is_set()
    assert [call.code for call in service.finished] == [1]


async def test_a_client_that_does_not_read_costs_little(
    server: GrpcServer, service: Service
) -> None:
    """Large windows do not help: the socket's own back-pressure counts as well."""
    async with H2Client(server.port, window=1 << 30, reads=False) as client:
        client.h2.increment_flow_control_window(1 << 30)
        stream_id, _ = client.begin(SERIES)
        await client.send(stream_id, snappy_message(b"10000000"))
        # The greeting must be acknowledged for the request to be looked at.
        client.write(frames.pack_frame(frames.SETTINGS, frames.ACK, 0))
        await eventually(lambda: service.n_pulled > 100)
        await asyncio.sleep(0.3)
        n_pulled = service.n_pulled
        await asyncio.sleep(0.2)
        assert service.n_pulled == n_pulled
        assert n_pulled < 20_000
    await eventually(service.closed.is_set)


async def test_many_calls_at_once(server: GrpcServer) -> None:
    """More calls than threads, interleaved on several connections, each get their own answer."""
    async with H2Client(server.port) as one, H2Client(server.port) as two:
        bodies = [b"%d:" % index + b"x" * 5000 * (index % 7) for index in range(150)]
        calls = [
            client.call(path, body)
            for body in bodies
            for client, path in ((one, WRITE), (two, POOLED))
        ]
        answers = await asyncio.gather(*calls)
    assert [a.messages for a in answers] == [[body[:16]] for body in bodies for _ in range(2)]
    assert budget_used(server) == 0


async def test_deadline_and_reset_reach_the_handler(server: GrpcServer, service: Service) -> None:
    """A call that nobody waits for any more is told so, while it runs."""
    service.gate.clear()
    async with H2Client(server.port) as client:
        started = time.monotonic()
        call = client.call(POOLED, b"", extra=(("grpc-timeout", "1000m"),))
        answer = await asyncio.wait_for(call, 20)
        assert answer.status == 4
        assert time.monotonic() - started > 0.9
        await eventually(service.cancelled.is_set)
        service.cancelled.clear()
        service.entered.clear()
        stream_id, _ = client.begin(POOLED)
        await client.send(stream_id, snappy_message(b"x" * 1000))
        await eventually(service.entered.is_set)
        client.h2.reset_stream(stream_id)
        client.flush()
        await eventually(service.cancelled.is_set)
        assert budget_used(server) > 0, "the job still holds its request"
        service.gate.set()
        await eventually(lambda: budget_used(server) == 0)
    assert [call.code for call in service.finished] == [4, 1]
    assert [call.method for call in service.finished] == [method for method, _ in service.begun]


async def test_requests_in_flight_are_bounded(server: GrpcServer, service: Service) -> None:
    """Bytes of all requests together have a limit; what does not fit is refused, not kept."""
    service.gate.clear()
    body = random.Random(1).randbytes(MESSAGE_MAX - 100)
    async with H2Client(server.port) as client:
        await client.call(WRITE, b"decides the route")
        kept = [client.begin(POOLED, None) for _ in range(2)]
        for stream_id, _ in kept:
            await client.send(stream_id, plain_message(body))
        refused = await client.call(POOLED, body, encoding=None)
        assert (refused.status, "in flight" in refused.text) == (14, True)
        service.gate.set()
        for _, answer in kept:
            await answer.done.wait()
            assert answer.status == 0
        assert (await client.call(POOLED, body, encoding=None)).status == 0
    assert budget_used(server) == 0


async def test_stop_lets_calls_finish(server: GrpcServer, service: Service) -> None:
    """On stop the client gets GOAWAY, its running call an answer, and then the end."""
    service.gate.clear()
    async with H2Client(server.port) as client:
        call = asyncio.create_task(client.call(POOLED, b"last"))
        await eventually(lambda: budget_used(server) > 0)
        stopping = asyncio.create_task(server.stop(60))
        await eventually(lambda: client.goaway_code is not None)
        assert not stopping.done()
        service.gate.set()
        assert (await call).messages == [b"last"]
        await asyncio.wait_for(stopping, 20)
        await asyncio.wait_for(client.closed.wait(), 20)


async def test_stop_without_grace_cancels(server: GrpcServer, service: Service) -> None:
    """With no time left, connections of either kind end at once."""
    service.gate.clear()
    async with H2Client(server.port) as busy, H2Client(server.port) as idle:
        stream_id, _ = busy.begin(POOLED)
        await busy.send(stream_id, snappy_message(b""))
        await eventually(service.entered.is_set)
        assert server.n_connections["ours"] == 1
        await asyncio.wait_for(server.stop(0), 20)
        await asyncio.wait_for(busy.closed.wait(), 20)
        await asyncio.wait_for(idle.closed.wait(), 20)
        assert idle.goaway_code is not None
    assert service.cancelled.is_set()


async def test_idle_clients_are_kept_alive_and_then_asked_to_leave(serve: Serve) -> None:
    """A client without a request has its pings answered, and gets GOAWAY after a while."""
    server = await serve(front=FrontLimits(handshake_timeout_s=60, idle_timeout_s=3))
    async with H2Client(server.port) as client:
        client.h2.ping(b"12345678")
        client.flush()
        await eventually(lambda: client.pongs == 1)
        assert server.n_connections == {"undecided": 1, "ours": 0, "grpcio": 0}
        await asyncio.wait_for(client.closed.wait(), 20)
        assert client.goaway_code == 0


async def connect(server: GrpcServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def test_surplus_connections_are_closed(serve: Serve) -> None:
    """Who comes when all places are taken is shown the door; the others stay."""
    server = await serve(front=FrontLimits(connections_max=2, handshake_timeout_s=60))
    silent = [await connect(server) for _ in range(2)]
    silent[0][1].write(frames.PREFACE[:10])
    await eventually(lambda: server.n_connections["undecided"] == 2)
    reader, writer = await connect(server)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 20)
    assert server.n_connections["undecided"] == 2
    for _, used in [*silent, (reader, writer)]:
        used.close()


async def test_slow_handshakes_are_ended(serve: Serve) -> None:
    """Who says nothing, or only begins to, is shown the door, but not at once."""
    server = await serve(front=FrontLimits(handshake_timeout_s=0.3))
    started = time.monotonic()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    silent[0].sendall(frames.PREFACE[:10])
    for connected in silent:
        reader, writer = await asyncio.open_connection(sock=connected)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    assert time.monotonic() - started > 0.2


async def test_requests_that_never_end_are_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is not complete in time gives its bytes back."""
    monkeypatch.setattr("thanostack.runtime.grpc_http2_server._SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr("thanostack.runtime.grpc_http2_call.REQUEST_TIMEOUT_S", 0.2)
    server = await serve()
    async with H2Client(server.port) as client:
        stream_id, answer = client.begin(WRITE)
        await client.send(stream_id, b"\0\0\0\x10\0abc", end=False)
        await asyncio.wait_for(answer.done.wait(), 20)
        assert answer.status == 4
        assert budget_used(server) == 0


async def test_old_connections_are_asked_to_leave(
    serve: Serve, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the connection's age new calls go elsewhere, while running ones finish."""
    monkeypatch.setattr("thanostack.runtime.grpc_http2_server._SWEEP_INTERVAL_S", 0.05)
    server = await serve(connection_age_s=0.3)
    service.gate.clear()
    async with H2Client(server.port) as client:
        call = asyncio.create_task(client.call(POOLED, b"running"))
        await eventually(lambda: client.goaway_code is not None)
        service.gate.set()
        assert (await call).messages == [b"running"]
        await asyncio.wait_for(client.closed.wait(), 20)


async def test_hostile_bytes_end_their_connection_only(server: GrpcServer) -> None:
    """Random and mutated connections are survived; others are served meanwhile."""
    source = random.Random(5)
    good = bytearray()
    async with H2Client(server.port) as client:
        original = client.writer.write
        client.writer.write = lambda data: (good.extend(data), original(data))[1]  # type: ignore[method-assign]
        await client.call(WRITE, b"x" * 3000)
        await client.call(SERIES, b"3")
    start = frames.PREFACE + frames.pack_settings() + frames.pack_frame(frames.SETTINGS, 1, 0)
    async with H2Client(server.port) as steady:
        for _ in range(60):
            bad = bytearray(start + bytes(good))
            for _ in range(source.randrange(1, 10)):
                bad[source.randrange(len(start), len(bad))] = source.randrange(256)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(bad)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 20)
            writer.close()
        assert (await steady.call(WRITE, b"steady")).messages == [b"steady"]
    await eventually(lambda: sum(server.n_connections.values()) == 0)
    assert budget_used(server) == 0


async def test_protocol_errors_name_their_code(server: GrpcServer) -> None:
    """A client that breaks the protocol is told how in GOAWAY."""
    async with H2Client(server.port) as client:
        await client.call(WRITE, b"")
        client.write(frames.pack_frame(frames.PING, 0, 0, b"short"))
        await asyncio.wait_for(client.closed.wait(), 20)
        assert client.goaway_code == frames.H2Code.FRAME_SIZE_ERROR


async def test_tls(serve: Serve, tmp_path: Path) -> None:
    """With TLS the port speaks ALPN h2, for grpcio's side as well."""
    authority = Authority(tmp_path)
    tls = TLS(CollectorRegistry(), structlog.get_logger(), SystemClock())
    options = ServerTLSOptions(*authority.issue("server").pems)
    server = await serve(tls=tls.server(options, "grpc", alpn="h2"))
    roots = authority.file.read_bytes()

    def ask() -> bytes:
        credentials = grpc.ssl_channel_credentials(roots)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            answer: bytes = channel.unary_unary(WRITE)(b"over TLS", timeout=10)
            return answer

    assert await asyncio.to_thread(ask) == b"over TLS"
