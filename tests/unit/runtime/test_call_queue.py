"""Calls that are queued: few run, few wait, the others are refused; nothing else has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial

import grpc
import pytest
import structlog

from thanostack.runtime.call_queue import FULL
from thanostack.runtime.grpc_call import CallContext, FinishedCall, Observer, ServerStream, Unary
from thanostack.runtime.grpc_server import GrpcOptions, GrpcServer
from thanostack.testing import polling
from thanostack.testing.h2_client import H2Client

WRITE = "/thanos.WriteableStore/RemoteWrite"
NAMES = "/thanos.Store/LabelNames"
SERIES = "/thanos.Store/Series"
CHECK = "/grpc.health.v1.Health/Check"
UNAVAILABLE = 14
RUNNING, WAITING = 2, 3
eventually = partial(polling.eventually, within_s=10)


class Service(Observer):
    """Writes that end when a test says so."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.finished: list[FinishedCall] = []
        self.lock = threading.Lock()
        self.n_writing = self.n_written = self.most = 0

    def ended(self, call: FinishedCall) -> None:
        with self.lock:
            self.finished.append(call)

    def write(self, _: bytes, __: CallContext) -> bytes:
        with self.lock:
            self.n_writing += 1
            self.most = max(self.most, self.n_writing)
        self.gate.wait(20)
        with self.lock:
            self.n_writing -= 1
            self.n_written += 1
        return b""

    def names(self, request: bytes, _: CallContext) -> bytes:
        return request

    def series(self, request: bytes, _: CallContext) -> Iterator[bytes]:
        yield request
        self.gate.wait(20)


@contextlib.asynccontextmanager
async def served(service: Service) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(
        "127.0.0.1:0",
        {
            WRITE: Unary(service.write, is_queued=True),
            NAMES: Unary(service.names),
            SERIES: ServerStream(service.series),
        },
        log=structlog.get_logger(),
        options=GrpcOptions(threads=1, queued_threads=RUNNING, queued_max=WAITING),
        observer=service,
    )
    await server.start()
    server.set_serving(True)
    try:
        yield server
    finally:
        service.gate.set()
        await server.stop(0)


@pytest.mark.parametrize("encoding", ["snappy", "identity", None])
async def test_what_is_beyond_the_queue_is_refused_at_once(encoding: str | None) -> None:
    """Before its request has come, and others are answered; those that wait have their turn."""
    service = Service()
    async with served(service) as server, H2Client(server.port) as client:
        write = partial(client.call, WRITE, b"x", encoding=encoding)
        calls = [asyncio.ensure_future(write()) for _ in range(RUNNING + WAITING)]
        await eventually(lambda: (service.n_writing, server.n_queued) == (RUNNING, WAITING))
        assert server.n_connections["ours"] == 1
        _, unfinished = client.begin(WRITE, encoding)
        await asyncio.wait_for(unfinished.done.wait(), 10)
        assert (unfinished.status, unfinished.text) == (UNAVAILABLE, FULL)
        assert (await client.call(NAMES, b"y")).messages == [b"y"]
        assert (await client.call(CHECK, b"")).status == 0
        service.gate.set()
        assert [(await call).status for call in calls] == [0] * (RUNNING + WAITING)
    assert (service.n_written, service.most) == (RUNNING + WAITING, RUNNING)
    codes = [call.code for call in service.finished if call.method == WRITE]
    assert sorted(codes) == [0] * (RUNNING + WAITING) + [UNAVAILABLE]


async def test_a_request_that_was_long_in_coming_is_refused_too() -> None:
    """There was room when it began."""
    service = Service()
    async with served(service) as server, H2Client(server.port) as client:
        await client.call(NAMES, b"decides the route")
        stream_id, late = client.begin(WRITE, None)
        calls = [asyncio.ensure_future(client.call(WRITE, b"x")) for _ in range(RUNNING + WAITING)]
        await eventually(lambda: (service.n_writing, server.n_queued) == (RUNNING, WAITING))
        await client.send(stream_id, bytes(5))
        await asyncio.wait_for(late.done.wait(), 10)
        assert (late.status, late.text) == (UNAVAILABLE, FULL)
        service.gate.set()
        await asyncio.gather(*calls)


async def test_a_stream_takes_no_thread_of_writes() -> None:
    """Nor a write one of streams; the only thread of the others is with a slow reader here."""
    service = Service()
    async with served(service) as server, H2Client(server.port) as client:
        await client.call(NAMES, b"decides the route")
        stream_id, answer = client.begin(SERIES, None)
        await client.send(stream_id, bytes(5))
        await eventually(lambda: bool(answer.body))
        write = asyncio.ensure_future(client.call(WRITE, b"x"))
        await eventually(lambda: service.n_writing == 1)
        service.gate.set()
        assert (await write).status == 0


async def test_grpcio_refuses_as_well() -> None:
    """Clients that begin with something else share the queue, and read and probe as ever."""
    service = Service()
    async with served(service) as server:
        target = f"127.0.0.1:{server.port}"
        with grpc.insecure_channel(target) as channel:
            first = channel.unary_unary(NAMES).future(b"decides the route", timeout=10)
            await asyncio.to_thread(first.result)
            assert server.n_connections["grpcio"] == 1
            write = channel.unary_unary(WRITE)
            kept = [write.future(b"x", timeout=20) for _ in range(RUNNING + WAITING)]
            await eventually(lambda: (service.n_writing, server.n_queued) == (RUNNING, WAITING))
            for _ in range(3):
                refused = await asyncio.to_thread(write.future(b"x", timeout=10).exception)
                assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, FULL)
            names = channel.unary_unary(NAMES).future(b"y", timeout=10)
            assert await asyncio.to_thread(names.result) == b"y"
            check = channel.unary_unary(CHECK).future(b"", timeout=10)
            assert await asyncio.to_thread(check.result) == b"\x08\x01"
            service.gate.set()
            assert [await asyncio.to_thread(call.result) for call in kept] == [b""] * len(kept)
    codes = [call.code for call in service.finished if call.method == WRITE]
    assert sorted(codes) == [0] * (RUNNING + WAITING) + [UNAVAILABLE] * 3
