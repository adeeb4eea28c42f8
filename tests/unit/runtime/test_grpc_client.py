"""Calls on a peer: our own gRPC server, one that goes away, and none at all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable

import pytest
import structlog

from thanostack.lib.foundation.errors import SampleRejected
from thanostack.runtime import grpc_client
from thanostack.runtime import http2_frames as frames
from thanostack.runtime.dialling import Dial, dial_plain
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_call import CallContext, Unary
from thanostack.runtime.grpc_client import UnaryChannel
from thanostack.runtime.grpc_messages import frame_message
from thanostack.runtime.grpc_server import GrpcOptions, GrpcServer
from thanostack.runtime.http2_client import CallEnd
from thanostack.runtime.http2_frames import H2Code
from thanostack.testing.h2_client import snappy_message
from thanostack.testing.ports import free_port

METHOD = "/thanos.WriteableStore/RemoteWrite"


class Service:
    """Remembers what it is sent."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.timeouts: list[float | None] = []

    def write(self, request: bytes, context: CallContext) -> bytes:
        self.requests.append(request)
        self.timeouts.append(context.time_remaining_s())
        if request.startswith(b"refuse"):
            raise SampleRejected("refused: 1")
        return b""


@contextlib.asynccontextmanager
async def served(
    service: Service, port: int = 0, options: GrpcOptions | None = None
) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(
        f"127.0.0.1:{port}",
        {METHOD: Unary(service.write)},
        log=structlog.get_logger(),
        options=options,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


def channel_to(port: int, encoding: str = "identity") -> UnaryChannel:
    return UnaryChannel(f"127.0.0.1:{port}", METHOD, timeout_s=5.0, encoding=encoding)


async def ask(channel: UnaryChannel, body: bytes, encode=frame_message) -> CallEnd:
    end: asyncio.Future[CallEnd] = asyncio.get_running_loop().create_future()
    channel.call(memoryview(encode(body)), end.set_result)
    return await asyncio.wait_for(end, 20)


@pytest.mark.parametrize("encoding", ["identity", "snappy"])
async def test_calls_arrive_whatever_their_size(encoding: str) -> None:
    """Small and large ones at once, plain or compressed, with the deadline they were made with."""
    service = Service()
    bodies = [b"", b"x" * 10, bytes(range(256)) * 4000, b"refuse"]
    async with served(service) as server:
        channel = channel_to(server.port, encoding)
        encode = snappy_message if encoding == "snappy" else frame_message
        ends = await asyncio.gather(*(ask(channel, body, encode) for body in bodies))
        await channel.close()
    assert [end.code for end in ends] == [GrpcCode.OK] * 3 + [GrpcCode.ALREADY_EXISTS]
    assert ends[3].text == "refused: 1"
    assert sorted(bodies) == sorted(service.requests)
    assert all(0 < timeout <= 5 for timeout in service.timeouts)


@pytest.mark.parametrize("encoding", ["identity", "snappy"])
async def test_a_server_says_what_it_is(encoding: str) -> None:
    """With success and with failure, on both of its sides; nothing unless it is told to."""
    encode = snappy_message if encoding == "snappy" else frame_message
    for role in ("IngestorOnly", ""):
        async with served(Service(), options=GrpcOptions(role=role)) as server:
            channel = channel_to(server.port, encoding)
            ends = [await ask(channel, body, encode) for body in (b"x", b"y", b"refuse")]
            await channel.close()
        assert [end.role for end in ends] == [role] * 3


async def test_one_connection_serves_all_calls() -> None:
    """Calls that come while it is made wait for it."""
    service = Service()
    async with served(service) as server:
        channel = channel_to(server.port)
        await asyncio.gather(*(ask(channel, b"x") for _ in range(20)))
        assert sum(server.n_connections.values()) == 1
        await channel.close()


async def dial_slowly(
    protocol: Callable[[], asyncio.Protocol], address: str, *, name: str
) -> asyncio.BaseTransport:
    """Connect, and say so when the peer has long had its say."""
    transport = await dial_plain(protocol, address, name=name)
    await asyncio.sleep(0.1)
    return transport


@pytest.mark.parametrize("dial", [dial_plain, dial_slowly])
async def test_a_connection_that_ends_before_the_first_word_is_explained(dial: Dial) -> None:
    """By whoever knows what the peer may have wanted; not where it was talked to before.

    Be it before a call has begun on it or after.
    """
    asked: list[str] = []

    def refused(address: str, _: Exception | None) -> str:
        asked.append(address)
        return "it wants a certificate"

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    channel = UnaryChannel(address, METHOD, timeout_s=5.0, refused=refused, dial=dial)
    end = await ask(channel, b"x")
    probed = await channel.probe() if dial is dial_slowly else end.text
    await channel.close()
    server.close()
    assert (end.code, end.text) == (GrpcCode.UNAVAILABLE, "it wants a certificate")
    assert probed == end.text
    asked.clear()
    async with served(Service()) as talking:
        channel = UnaryChannel(f"127.0.0.1:{talking.port}", METHOD, timeout_s=5.0, refused=refused)
        assert (await ask(channel, b"x")).code is GrpcCode.OK
    await channel.close()
    assert asked == []


@contextlib.asynccontextmanager
async def mute_peer() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Run a peer that says nothing; yield its address, and when it was left."""
    left = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", left
    server.close()


async def dial_for_ever(
    protocol: Callable[[], asyncio.Protocol], address: str, *, name: str
) -> asyncio.BaseTransport:
    """Connect, and never say so."""
    await dial_plain(protocol, address, name=name)
    return await asyncio.Event().wait()  # type: ignore[return-value]


@pytest.mark.parametrize("end", ["a probe in vain", "close", "a dial that is given up"])
async def test_who_leaves_a_mute_peer_was_not_refused(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a connection left behind."""
    asked: list[str] = []
    monkeypatch.setattr(grpc_client, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(grpc_client, "CONNECT_TIMEOUT_S", 0.3)

    def refused(address: str, _: Exception | None) -> str:
        asked.append(address)
        return "refused"

    dial = dial_for_ever if end == "a dial that is given up" else dial_plain
    async with mute_peer() as (address, left):
        channel = UnaryChannel(address, METHOD, timeout_s=5.0, refused=refused, dial=dial)
        if end == "close":
            assert await channel.is_answering(5), "it takes connections"
            assert not await channel.is_answering(0.1)
            await channel.close()
        else:
            said = "not connected" if dial is dial_for_ever else "no answer to a ping"
            assert said in await channel.probe()
        await asyncio.wait_for(left.wait(), 20)
        await channel.close()
    assert asked == []


async def test_a_peer_that_speaks_something_else_is_named_so() -> None:
    """By the call, and by a probe of a connection that has ended for it."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    channel = UnaryChannel(f"127.0.0.1:{port}", METHOD, timeout_s=5.0, dial=dial_slowly)
    texts = [(await ask(channel, b"x")).text, await channel.probe()]
    await channel.close()
    server.close()
    assert ["the peer broke HTTP/2" in text for text in texts] == [True, True]


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    """At once, with the reason; and it is tried again by the next call."""
    port = free_port()
    channel = channel_to(port)
    end = await ask(channel, b"x")
    assert end.code is GrpcCode.UNAVAILABLE
    assert "cannot connect" in end.text
    service = Service()
    async with served(service, port):
        assert (await ask(channel, b"x")).code is GrpcCode.OK
        await channel.close()


@pytest.mark.parametrize("address", ["a..b:10901", f"{'a' * 64}:10901", "no-port"])
async def test_an_address_that_cannot_be_dialled_is_unavailable(address: str) -> None:
    """At once too: a name that no resolver takes raises what is no OSError."""
    channel = UnaryChannel(address, METHOD, timeout_s=60.0)
    end = await asyncio.wait_for(ask(channel, b"x"), 20)
    assert (end.code, end.text[:15]) == (GrpcCode.UNAVAILABLE, "cannot connect:")
    await channel.close()


async def test_a_call_goes_on_elsewhere_when_the_server_leaves() -> None:
    """A server that restarts between two calls, or ends connections by age, costs no call."""
    service = Service()
    port = free_port()
    async with served(service, port):
        channel = channel_to(port)
        await ask(channel, b"first")
    async with served(service, port):
        assert (await ask(channel, b"second")).code is GrpcCode.OK
        await channel.close()
    assert service.requests == [b"first", b"second"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_scheme_is_that_of_the_connection(scheme: str) -> None:
    """`https` wherever it is not dialled plainly, as servers and proxies may look at it."""
    peer = Peer(ANSWER)
    tls: dict[str, Dial] = {"http": dial_plain, "https": functools.partial(dial_plain)}
    async with scripted(peer) as port:
        channel = UnaryChannel(f"127.0.0.1:{port}", METHOD, timeout_s=5.0, dial=tls[scheme])
        await ask(channel, b"x")
        await channel.close()
    begin = frames.encode_headers([(b":method", b"POST"), (b":scheme", scheme.encode())])
    assert begin in peer.received


class Peer(asyncio.Protocol):
    """A server that greets and then does as it is told."""

    def __init__(self, then: bytes = b"", *, hangs_up: bool = False) -> None:
        self.then, self.hangs_up = then, hangs_up
        self.received = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(frames.pack_settings())

    def data_received(self, data: bytes) -> None:
        self.received += data
        if METHOD.encode() in data:
            self.transport.write(self.then)
            if self.hangs_up:
                self.transport.close()


@contextlib.asynccontextmanager
async def scripted(*peers: Peer) -> AsyncIterator[int]:
    waiting = list(peers)
    server = await asyncio.get_running_loop().create_server(lambda: waiting.pop(0), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


ANSWER = frames.pack_frame(
    frames.HEADERS,
    frames.END_HEADERS | frames.END_STREAM,
    1,
    frames.encode_headers([(b":status", b"200"), (b"grpc-status", b"0")]),
)


@pytest.mark.parametrize(
    "first",
    [
        Peer(hangs_up=True),
        Peer(frames.pack_goaway(0, H2Code.NO_ERROR)),
        Peer(frames.pack_rst_stream(1, H2Code.REFUSED_STREAM) + frames.pack_goaway(1, 0)),
    ],
    ids=["hangs up", "goes away", "refuses"],
)
async def test_a_call_that_was_not_answered_is_made_once_more(first: Peer) -> None:
    """On a new connection."""
    async with scripted(first, Peer(ANSWER)) as port:
        channel = channel_to(port)
        assert (await ask(channel, b"x")).code is GrpcCode.OK
        await channel.close()


async def test_a_call_is_not_made_a_third_time() -> None:
    """Two connections that break are enough to know."""
    async with scripted(Peer(hangs_up=True), Peer(hangs_up=True)) as port:
        channel = channel_to(port)
        assert (await ask(channel, b"x")).code is GrpcCode.UNAVAILABLE
        await channel.close()


async def test_a_silent_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is pinged when nothing comes from it, and given up when it does not answer."""
    monkeypatch.setattr(grpc_client, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(grpc_client, "KEEPALIVE_TIMEOUT_S", 0.05)
    async with scripted(Peer(), Peer()) as port:
        channel = channel_to(port)
        end = await ask(channel, b"x")
        await channel.close()
    assert end.code is GrpcCode.UNAVAILABLE
    assert "keepalive" in end.text


async def test_a_call_that_is_given_up_is_over() -> None:
    """It ends with what is given, waiting or running, and the connection lives on."""
    async with scripted(Peer()) as port:
        channel = channel_to(port)
        ends: list[CallEnd] = []
        given = CallEnd(GrpcCode.DEADLINE_EXCEEDED, "too late")
        waiting = channel.call(memoryview(frame_message(b"x")), ends.append)
        waiting.cancel(given)
        running = channel.call(memoryview(frame_message(b"x")), ends.append)
        await asyncio.sleep(0.1)
        running.cancel(given)
        running.cancel(given)
        assert ends == [given, given]
        await channel.close()


async def test_closing_lets_open_calls_end() -> None:
    """A closed channel takes no further call, and its last call is answered."""
    service = Service()
    async with served(service) as server:
        channel = channel_to(server.port)
        await ask(channel, b"connect")
        ends: list[CallEnd] = []
        channel.call(memoryview(frame_message(b"last")), ends.append)
        await channel.close()
        refused = await ask(channel, b"more")
        for _ in range(100):
            if ends:
                break
            await asyncio.sleep(0.01)
    assert [end.code for end in ends] == [GrpcCode.OK]
    assert refused.code is GrpcCode.UNAVAILABLE
    assert service.requests == [b"connect", b"last"]


class Alive(Peer):
    """One that answers pings."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        at = data.find(b"thanosta")
        if at >= 0:
            pong = frames.pack_frame(frames.PING, frames.ACK, 0, data[at : at + 8])
            self.transport.write(pong)


async def test_a_probe_connects_and_asks() -> None:
    """A peer that answers is reached, and its connection is kept for calls."""
    async with scripted(Alive(ANSWER)) as port:
        channel = channel_to(port)
        assert await channel.probe() == ""
        assert await channel.probe() == ""
        assert (await ask(channel, b"x")).code is GrpcCode.OK
        await channel.close()


async def test_a_probe_says_why_a_peer_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, or whoever does says nothing."""
    monkeypatch.setattr(grpc_client, "PROBE_TIMEOUT_S", 0.05)
    async with scripted(Peer(), Alive()) as port:
        channel = channel_to(port)
        assert "no answer to a ping" in await channel.probe()
        monkeypatch.setattr(grpc_client, "PROBE_TIMEOUT_S", 20)
        assert await channel.probe() == ""
        await channel.close()
    refused = channel_to(free_port())
    assert "onnect" in await refused.probe()


async def test_a_probe_in_vain_ends_the_calls_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once and for all: another try would wait for the same peer."""
    monkeypatch.setattr(grpc_client, "PROBE_TIMEOUT_S", 0.05)
    async with scripted(Peer(), Alive(ANSWER)) as port:
        channel = channel_to(port)
        ends: list[CallEnd] = []
        channel.call(memoryview(frame_message(b"x")), ends.append)
        await asyncio.sleep(0.05)
        assert await channel.probe()
        assert [end.code for end in ends] == [GrpcCode.UNAVAILABLE]
        assert (await ask(channel, b"y")).code is GrpcCode.OK
        await channel.close()


async def test_who_is_asked_whether_it_answers_loses_nothing() -> None:
    """Silence is no answer, and its calls go on; a refusal is one, and so is the end."""
    async with scripted(Peer()) as port:
        channel = channel_to(port)
        ends: list[CallEnd] = []
        call = channel.call(memoryview(frame_message(b"x")), ends.append)
        await channel.is_answering(5)
        silent = [channel.is_answering(0.05) for _ in range(2)]
        assert await asyncio.gather(*silent) == [False, False]
        assert ends == []
        call.cancel(CallEnd(GrpcCode.CANCELLED))
        await channel.close()
    assert await channel_to(port).is_answering(5)
    async with scripted(Alive(ANSWER)) as port:
        channel = channel_to(port)
        assert await channel.is_answering(5)
        assert await asyncio.gather(*(channel.is_answering(5) for _ in range(2))) == [True, True]
        assert (await ask(channel, b"x")).code is GrpcCode.OK
        await channel.close()


async def test_a_connection_that_is_lost_is_no_silence() -> None:
    """Whoever asks meanwhile hears of it at once."""
    peer = Peer()
    async with scripted(peer) as port:
        channel = channel_to(port)
        await channel.is_answering(5)
        asking = asyncio.ensure_future(channel.is_answering(60))
        await asyncio.sleep(0.05)
        peer.transport.abort()
        assert await asyncio.wait_for(asking, 20)
        await channel.close()
