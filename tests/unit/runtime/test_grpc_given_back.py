"""A connection that begins with a write is ours; what only grpcio serves still comes to grpcio.

grpcio's own client stands for others here: as grpc-go does, it repeats a call by itself that the
server says it has not looked at.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from thanostack.runtime import grpc_front
from thanostack.runtime.grpc_call import CallContext, ServerStream, Unary
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.testing.h2_client import H2Client
from thanostack.testing.polling import eventually

WRITE = "/thanos.WriteableStore/RemoteWrite"
NAMES = "/thanos.Store/LabelNames"
SERIES = "/thanos.Store/Series"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
GATE = threading.Event()


def _write(request: bytes, _: CallContext) -> bytes:
    if request == b"slow":
        GATE.wait(10)
    return request


def _series(request: bytes, _: CallContext) -> Iterator[bytes]:
    yield from (request, request)


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    server = GrpcServer(
        "127.0.0.1:0",
        {
            WRITE: Unary(_write, is_queued=True),
            NAMES: Unary(lambda request, _: request),
            SERIES: ServerStream(_series),
        },
        log=structlog.get_logger(),
    )
    await server.start()
    server.set_serving(True)
    GATE.clear()
    yield server
    GATE.set()
    await server.stop(0)


def _reflects(channel: Any) -> None:
    assert "thanos.WriteableStore" in ProtoReflectionDescriptorDatabase(channel).get_services()


def _watches(channel: Any) -> None:
    stream = channel.unary_stream(WATCH)(b"", timeout=10)
    status = health_pb2.HealthCheckResponse.FromString(next(stream)).status
    stream.cancel()
    assert status == health_pb2.HealthCheckResponse.SERVING


def _deflates(channel: Any) -> None:
    names = channel.unary_unary(NAMES)
    assert names(b"x" * 5000, timeout=10, compression=grpc.Compression.Deflate) == b"x" * 5000


def _deflates_writes(channel: Any) -> None:
    write = channel.unary_unary(WRITE)
    assert write(b"x" * 5000, timeout=10, compression=grpc.Compression.Deflate) == b"x" * 5000


async def ask(server: GrpcServer, client: Callable[[Any], None]) -> None:
    """Write, run a blocking client on the same channel, and write again."""

    def run() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            for asks in (_writes, client, _writes):
                asks(channel)

    await asyncio.to_thread(run)


def _writes(channel: Any) -> None:
    write = channel.unary_unary(WRITE)
    for compression in (None, grpc.Compression.Gzip):
        assert write(b"x" * 5000, timeout=10, compression=compression) == b"x" * 5000


@pytest.mark.parametrize("client", [_reflects, _watches, _deflates, _deflates_writes])
async def test_a_client_that_wrote_may_ask_for_all_else(
    server: GrpcServer, client: Callable[[Any], None]
) -> None:
    """It does not notice that its call is repeated on a new connection, which is grpcio's."""
    n_before = []

    def asks(channel: Any) -> None:
        n_before.append(dict(server.n_connections))
        client(channel)
        after = {"undecided": 0, "ours": 0, "grpcio": 1}  # once it has closed the other one
        asyncio.run(eventually(lambda: server.n_connections == after))

    await ask(server, asks)
    assert n_before == [{"undecided": 0, "ours": 1, "grpcio": 0}]


async def test_what_a_querier_asks_is_served_beside_writes(server: GrpcServer) -> None:
    """On the same connection, as a proxy that joins the calls of many does it."""

    def asks(channel: Any) -> None:
        assert channel.unary_unary(NAMES)(b"n", timeout=10) == b"n"
        assert list(channel.unary_stream(SERIES)(b"s", timeout=10)) == [b"s", b"s"]
        assert channel.unary_unary(CHECK)(b"", timeout=10) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/thanos.Nope/Nope")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.n_connections == {"undecided": 0, "ours": 1, "grpcio": 0}

    await ask(server, asks)


async def test_calls_that_are_open_are_answered_behind_one_that_is_given_back(
    server: GrpcServer,
) -> None:
    """GOAWAY says which that is: the one behind the last that is served."""
    async with H2Client(server.port) as client:
        slow = asyncio.ensure_future(client.call(WRITE, b"slow", encoding=None))
        await eventually(lambda: server.n_connections["ours"] == 1)
        last_id = client.h2.highest_outbound_stream_id
        client.begin(REFLECTION, None)
        await eventually(lambda: client.goaway_code is not None)
        assert (client.goaway_last, client.goaway_code) == (last_id, 0)
        assert not slow.done()
        GATE.set()
        assert (await slow).messages == [b"slow"]
        await asyncio.wait_for(client.closed.wait(), 10)


@pytest.mark.parametrize(("back_s", "served_by"), [(3600.0, "grpcio"), (0.0, "ours")])
async def test_the_next_connections_of_a_host_that_was_given_back_are_grpcios(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch, back_s: float, served_by: str
) -> None:
    """A call is repeated once, and a write may be the first of the connection it comes on."""
    monkeypatch.setattr(grpc_front, "_BACK_S", back_s)
    async with H2Client(server.port) as client:
        assert (await client.call(WRITE, b"x", encoding=None)).messages == [b"x"]
        client.begin(REFLECTION, None)
        await asyncio.wait_for(client.closed.wait(), 10)
    await eventually(lambda: not any(server.n_connections.values()))
    async with H2Client(server.port) as client:
        assert (await client.call(WRITE, b"y", encoding=None)).messages == [b"y"]
        assert server.n_connections == {"undecided": 0, "ours": 0, "grpcio": 0} | {served_by: 1}
    async with H2Client(server.port) as client:
        assert (await client.call(WRITE, b"z")).messages == [b"z"]
        assert server.n_connections["ours"] > 0, "grpcio knows no snappy"


async def test_what_no_side_can_serve_is_said(server: GrpcServer) -> None:
    """Reflection with snappy would be given back for ever."""
    async with H2Client(server.port) as client:
        answer = await client.call(REFLECTION, b"")
        assert (answer.status, answer.text) == (
            12,
            f"method {REFLECTION} is not served here with snappy",
        )
        assert (await client.call(WRITE, b"x")).messages == [b"x"]
