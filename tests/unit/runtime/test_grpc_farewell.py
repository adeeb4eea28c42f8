"""A connection that ends does so in peace, whatever its client is still saying.

The clients here are blocking sockets in a thread, so that nothing is read, nor the socket closed,
unless a test says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self, cast

import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import SystemClock
from thanostack.runtime import farewell
from thanostack.runtime import http2_frames as h2
from thanostack.runtime.farewell import Farewell
from thanostack.runtime.grpc_call import CallContext, Unary
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.runtime.tls_context import server_context
from thanostack.runtime.tls_options import ServerTLSOptions
from thanostack.runtime.tls_ports import TLS
from thanostack.testing.certificates import Authority
from thanostack.testing.h2_client import plain_message
from thanostack.testing.polling import eventually

WRITE = b"/thanos.WriteableStore/RemoteWrite"
HOLD = b"/test.Test/Hold"
REFLECTION = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
GREETING = h2.PREFACE + h2.pack_settings() + h2.pack_frame(h2.SETTINGS, h2.ACK, 0)
LARGE = b"x" * (3 << 20)
_HELD = threading.Semaphore(0)


def _answer(request: bytes, _: CallContext) -> bytes:
    return b"answer " + request[:1]


def _hold(_: bytes, context: CallContext) -> bytes:
    let_go = threading.Event()
    context.on_cancel(let_go.set)
    _HELD.release()
    assert let_go.wait(9)
    _HELD.release()
    return b""


def request(stream_id: int, path: bytes, body: bytes) -> bytes:
    """Return a whole request."""
    fields = [(b":method", b"POST"), (b":path", path), (b"content-type", b"application/grpc")]
    frames = [h2.pack_frame(h2.HEADERS, h2.END_HEADERS, stream_id, h2.encode_headers(fields))]
    message = plain_message(body)
    for start in range(0, len(message), 1 << 14):
        piece = message[start : start + (1 << 14)]
        frames.append(h2.pack_frame(h2.DATA, 0, stream_id, piece))
    return b"".join(frames) + h2.pack_frame(h2.DATA, h2.END_STREAM, stream_id)


class Client:
    """A connection that has greeted; `received` is what it has read so far."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(10)
        self.socket, self.received = connected, b""
        self.socket.sendall(GREETING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def write(self) -> None:
        """Make a call, and read its answer."""
        self.socket.sendall(request(1, WRITE, b"hello"))
        self.read_until(_is_answered)

    def read_until(self, is_there: Callable[[bytes], bool]) -> None:
        """Read, but not the end."""
        while not is_there(self.received):
            data = self.socket.recv(1 << 16)
            assert data, "ended early"
            self.received += data

    def read_to_end(self) -> None:
        """Read until the other side says in peace that it is over, or raise."""
        while data := self.socket.recv(1 << 16):
            self.received += data

    def go_on_speaking(self) -> None:
        """Send requests behind GOAWAY, with pauses in which a reset would come."""
        for stream_id in (3, 5, 7):
            self.socket.sendall(request(stream_id, WRITE, b"late"))
            time.sleep(0.1)


def goaways(received: bytes) -> list[tuple[int, int]]:
    """Return last stream and code of each GOAWAY."""
    found, position = [], 0
    while position + 9 <= len(received):
        end = position + 9 + int.from_bytes(received[position : position + 3], "big")
        if received[position + 3] == h2.GOAWAY and end <= len(received):
            last, code = received[position + 9 : position + 13], received[position + 13 : end][:4]
            found.append((int.from_bytes(last, "big"), int.from_bytes(code, "big")))
        position = end
    return found


def _is_answered(received: bytes) -> bool:
    return b"answer h" in received and b"grpc-status" in received


def _is_left(received: bytes) -> bool:
    return bool(goaways(received))


Dial = Callable[[], Client]


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    return Authority(tmp_path) if request.param else None


@pytest.fixture
async def server(authority: Authority | None) -> AsyncIterator[GrpcServer]:
    log, tls = structlog.get_logger(), None
    if authority is not None:
        options = ServerTLSOptions(*authority.issue("server").pems)
        tls = TLS(CollectorRegistry(), log, SystemClock()).server(options, "grpc", alpn="h2")
    handlers = {WRITE.decode(): Unary(_answer, is_queued=True), HOLD.decode(): Unary(_hold)}
    server = GrpcServer("127.0.0.1:0", handlers, log=log, tls=tls)
    await server.start()
    yield server
    await server.stop(0)


def secured(connected: socket.socket, authority: Authority | None) -> socket.socket:
    """Begin TLS if there is an authority; an end without TLS's own good-bye is an error."""
    if authority is None:
        return connected
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(connected, server_hostname="localhost", suppress_ragged_eofs=False)


@pytest.fixture
def dial(server: GrpcServer, authority: Authority | None) -> Dial:
    def connect() -> Client:
        return Client(secured(socket.create_connection(("127.0.0.1", server.port)), authority))

    return connect


def written(dial: Dial) -> Client:
    """Return a client whose first call is answered."""
    client = dial()
    client.write()
    return client


async def stop(server: GrpcServer, grace_s: float = 9.0) -> float:
    """Return how long it took."""
    started = time.monotonic()
    await server.stop(grace_s)
    return time.monotonic() - started


@pytest.fixture
def long_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "FAREWELL_S", 90.0)
    monkeypatch.setattr(farewell, "LINGER_S", 90.0)


async def stop_before_one_who_speaks_on(server: GrpcServer, client: Client) -> None:
    """Stop; the client asks for more behind GOAWAY, hears the end, and leaves only then."""

    def speak() -> None:
        client.read_until(_is_left)
        client.go_on_speaking()
        client.read_to_end()
        client.socket.close()

    speaking = asyncio.create_task(asyncio.to_thread(speak))
    assert await stop(server, 60.0) < 30
    await speaking


async def test_requests_behind_goaway_do_not_end_in_a_reset(
    server: GrpcServer, dial: Dial, long_farewells: None
) -> None:
    """The client keeps its answer, may say more, and hears of the end before it is left."""
    with await asyncio.to_thread(written, dial) as client:
        await stop_before_one_who_speaks_on(server, client)
    assert goaways(client.received) == [(1, 0)]
    assert client.received.count(b"answer") == 1


async def test_a_first_request_behind_goaway_does_not_end_in_a_reset(
    server: GrpcServer, dial: Dial, long_farewells: None
) -> None:
    """Of a client that had connected and not asked for anything when the server stopped."""
    with await asyncio.to_thread(dial) as client:
        await eventually(lambda: server.n_connections["undecided"] == 1)
        await asyncio.to_thread(client.read_until, bool)
        await stop_before_one_who_speaks_on(server, client)
        await eventually(lambda: server.n_connections["undecided"] == 0)
    assert goaways(client.received) == [(0, 0)]
    assert b"answer" not in client.received


@pytest.mark.parametrize("authority", [None])
async def test_who_connects_in_the_moment_of_a_stop_hears_goaway(
    server: GrpcServer, authority: None, long_farewells: None
) -> None:
    """Its connection waits to be accepted, its greeting and first request to be read."""
    # Nothing is awaited from here until the server stops.
    with Client(socket.create_connection(("127.0.0.1", server.port))) as client:
        client.socket.sendall(request(1, WRITE, b"hello"))
        await stop_before_one_who_speaks_on(server, client)
    assert goaways(client.received) == [(0, 0)]
    assert b"answer" not in client.received


async def test_a_large_call_that_is_given_back_does_not_end_in_a_reset(dial: Dial) -> None:
    """Most of it is still on its way when GOAWAY is sent."""

    def speak() -> None:
        client.socket.sendall(request(3, REFLECTION, LARGE))
        client.read_to_end()

    with await asyncio.to_thread(written, dial) as client:
        await asyncio.to_thread(speak)
    assert goaways(client.received) == [(1, 0)]


async def test_a_protocol_error_is_named_to_who_is_still_speaking(dial: Dial) -> None:
    """It may have sent much before it can read why."""

    def speak() -> None:
        broken = h2.pack_frame(h2.PING, 0, 0, b"short")
        client.socket.sendall(broken + request(3, WRITE, LARGE))
        client.read_to_end()

    with await asyncio.to_thread(written, dial) as client:
        await asyncio.to_thread(speak)
    assert goaways(client.received) == [(0, h2.H2Code.FRAME_SIZE_ERROR)]


async def test_a_protocol_error_in_the_handshake_is_named_to_who_is_still_speaking(
    dial: Dial,
) -> None:
    """Before its first request."""

    def speak() -> None:
        broken = h2.pack_frame(h2.PING, 0, 0, b"short")
        client.socket.sendall(broken + request(1, WRITE, LARGE))
        client.read_to_end()

    with await asyncio.to_thread(dial) as client:
        await asyncio.to_thread(speak)
    assert goaways(client.received) == [(0, h2.H2Code.FRAME_SIZE_ERROR)]


async def test_calls_of_a_client_that_breaks_the_protocol_are_cancelled_at_once(
    dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody will hear their answers, long as the farewell may last."""
    monkeypatch.setattr(farewell, "FAREWELL_S", 9.0)

    def speak() -> bool:
        client.socket.sendall(request(3, HOLD, b""))
        assert _HELD.acquire(timeout=5)
        client.socket.sendall(h2.pack_frame(h2.PING, 0, 0, b"short"))
        return _HELD.acquire(timeout=5)

    with await asyncio.to_thread(written, dial) as client:
        assert await asyncio.to_thread(speak)


@pytest.mark.parametrize("has_written", [True, False])
@pytest.mark.parametrize(("grace_s", "farewell_s"), [(0.0, 90.0), (0.3, 90.0), (90.0, 0.5)])
async def test_a_stop_waits_no_longer_for_who_stays(
    server: GrpcServer,
    dial: Dial,
    monkeypatch: pytest.MonkeyPatch,
    grace_s: float,
    farewell_s: float,
    *,
    has_written: bool,
) -> None:
    """Neither beyond its grace nor beyond the time of a farewell."""
    monkeypatch.setattr(farewell, "FAREWELL_S", farewell_s)
    monkeypatch.setattr(farewell, "LINGER_S", 90.0)
    with await asyncio.to_thread(written, dial) if has_written else await asyncio.to_thread(dial):
        assert -0.05 < await stop(server, grace_s) - min(grace_s, farewell_s) < 60
        await eventually(lambda: sum(server.n_connections.values()) == 0)


async def test_a_stop_is_over_when_the_clients_have_closed(
    server: GrpcServer, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of gRPC do as soon as GOAWAY has come and they have no calls."""
    monkeypatch.setattr(farewell, "FAREWELL_S", 9.0)

    def leave() -> None:
        client.read_until(_is_left)
        client.socket.close()

    with await asyncio.to_thread(written, dial) as client:
        leaving = asyncio.create_task(asyncio.to_thread(leave))
        assert await stop(server) < 6
        await leaving


async def part(said: bytes, authority: Authority | None) -> tuple[socket.socket, asyncio.Event]:
    """Tell a peer something, and begin a farewell; return the peer, and when it is over."""
    met, lost = asyncio.Event(), asyncio.Event()

    def accept() -> asyncio.Protocol:
        return _Parting(said, met, lost)

    context = None
    if authority is not None:
        context = server_context(ServerTLSOptions(*authority.issue("server").pems), alpn="h2")
    listening = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", ssl=context)
    peer = await asyncio.to_thread(_dial, listening.sockets[0].getsockname(), authority)
    await met.wait()
    listening.close()
    return peer, lost


def _dial(address: tuple[str, int], authority: Authority | None) -> socket.socket:
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    peer.settimeout(10)
    peer.connect(address)
    return secured(peer, authority)


class _Parting(asyncio.Protocol):
    def __init__(self, said: bytes, met: asyncio.Event, lost: asyncio.Event) -> None:
        self._said, self._met, self._lost = said, met, lost

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", made)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        transport.write(self._said)
        transport.pause_reading()  # as whoever is waiting for a turn does
        Farewell(transport, lambda _: self._lost.set())
        self._met.set()


@pytest.mark.parametrize("size", [100_000, len(LARGE)])
async def test_a_peer_that_reads_slowly_hears_all(
    authority: Authority | None, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The time of a farewell begins when our last bytes are with its kernel.

    The smaller size is what uvloop's TLS holds where its buffer seems empty.
    """
    monkeypatch.setattr(farewell, "FAREWELL_S", 0.8)
    monkeypatch.setattr(farewell, "LINGER_S", 90.0)
    peer, lost = await part(LARGE[:size], authority)
    await asyncio.sleep(1.2)
    # The rest need not hurry. The next look, which is due before the sleep ends, gives it so long.
    monkeypatch.setattr(farewell, "FAREWELL_S", 60.0)
    await asyncio.sleep(0.2)

    def read() -> bytes:
        with peer, peer.makefile("rb") as file:
            said = file.read(size)
            peer.sendall(b"thank you")
            time.sleep(0.1)
            return said + file.read()

    assert await asyncio.to_thread(read) == LARGE[:size]
    await asyncio.wait_for(lost.wait(), 20)


@pytest.mark.parametrize(("farewell_s", "linger_s", "said"), [(0.2, 90.0, b""), (0.1, 0.2, LARGE)])
async def test_a_peer_that_does_not_leave_is_left(
    monkeypatch: pytest.MonkeyPatch, farewell_s: float, linger_s: float, said: bytes
) -> None:
    """Whether it only speaks on for ever, or does not read besides."""
    monkeypatch.setattr(farewell, "FAREWELL_S", farewell_s)
    monkeypatch.setattr(farewell, "LINGER_S", linger_s)

    def speak() -> int:
        n_sent = 0
        with peer, contextlib.suppress(ConnectionError):
            while True:
                n_sent += peer.send(LARGE)
        return n_sent

    started = time.monotonic()
    peer, lost = await part(said, None)
    assert await asyncio.to_thread(speak) > len(LARGE), "more than a kernel holds"
    await asyncio.wait_for(lost.wait(), 20)
    assert 0.15 < time.monotonic() - started < 60
