"""Requests that are answered as they are read, and those that go to the application after all."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from thanostack.lib.foundation.errors import Unavailable
from thanostack.runtime import http_direct
from thanostack.runtime.http_common import Answer, send_answer
from thanostack.runtime.http_server import HTTPServer, listen

POST = b"POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n"


class Port:
    """A server that says who answered, and how long the body was."""

    direct_paths = frozenset({b"/write"})

    def __init__(self):
        self.refuses = self.is_busy = False
        self.is_full = False
        self.headers, self.waiting = [], []
        self.server = HTTPServer(self, listen("127.0.0.1:0", "x"), grace_s=5, direct=self)

    def when_turn(self, n_bytes, resume):
        if self.is_busy:
            self.waiting.append((n_bytes, resume))
        else:
            resume(None)
        return not self.is_full

    def answer_now(self, headers, body, refused):
        self.headers = headers
        if refused is not None:
            return Answer(503, b"%s, held %d" % (str(refused).encode(), len(body)))
        if self.refuses:
            return None
        return Answer(202, b"direct %d" % len(body), headers=((b"x-y", b"z"),))

    async def __call__(self, _scope, receive, send):
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send_answer(send, Answer(200, b"application %d" % length))


@contextlib.asynccontextmanager
async def served():
    port = Port()
    serving = asyncio.create_task(port.server.serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    try:
        yield port, reader, writer
    finally:
        writer.close()
        await port.server.stop()
        await serving


async def answer(reader):
    """Return (status line, headers, body) of the next response of a connection."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:-2])
    return head[0], headers, await reader.readexactly(int(headers["content-length"]))


async def test_a_whole_post_is_answered_directly():
    """Status, body and all headers, the server's too; the connection goes on."""
    async with served() as (port, reader, writer):
        for size in (3, 0, 40_000):
            writer.write(POST % (size, b"X-A: b\r\n") + b"a" * size)
            status, headers, body = await answer(reader)
            assert (status, b"direct %d" % size) == ("HTTP/1.1 202 Accepted", body)
            assert {
                "x-y": "z",
                "content-type": "text/plain; charset=utf-8",
            }.items() <= headers.items()
            assert "date" in headers
            assert (b"x-a", b"b") in port.headers


async def test_a_body_may_come_in_parts():
    """Headers first, then the body in pieces, or chunked: the same."""
    async with served() as (_port, reader, writer):
        for piece in (POST % (6, b""), b"abc", b"def"):
            writer.write(piece)
            await asyncio.sleep(0.02)
        assert (await answer(reader))[2] == b"direct 6"
        writer.write(
            b"POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        await asyncio.sleep(0.02)
        writer.write(b"2\r\nde\r\n0\r\n\r\n")
        assert (await answer(reader))[2] == b"direct 5"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /write HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /write?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /write HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        POST % (3, b"Connection: close\r\n") + b"abc",
    ],
)
async def test_what_is_not_plain_goes_to_the_application(request_bytes):
    """Other methods, paths, versions, and a connection that is to be closed."""
    async with served() as (_port, reader, writer):
        writer.write(request_bytes)
        assert (await answer(reader))[2] == b"application 3"


async def test_a_client_that_waits_to_be_asked_is_asked():
    """`Expect: 100-continue` is the application's."""
    async with served() as (_port, reader, writer):
        writer.write(POST % (3, b"Expect: 100-continue\r\n"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await answer(reader))[2] == b"application 3"


async def test_what_cannot_be_answered_now_goes_to_the_application():
    """With all of its body; the next request of the connection is asked about again."""
    async with served() as (port, reader, writer):
        port.refuses = True
        writer.write(POST % (4, b"") + b"abcd")
        assert (await answer(reader))[2] == b"application 4"
        port.refuses = False
        writer.write(POST % (4, b"") + b"abcd")
        assert (await answer(reader))[2] == b"direct 4"


async def test_requests_of_one_connection_are_answered_in_order():
    """A request behind one that the application has waits for it."""
    async with served() as (_port, reader, writer):
        get = b"GET /write HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(POST % (1, b"") + b"a" + get + POST % (2, b"") + b"ab")
        bodies = [(await answer(reader))[2] for _ in range(3)]
        assert [b"direct 1", b"application 0", b"application 2"] == bodies


async def test_a_large_body_goes_to_the_application_as_it_comes():
    """No more is kept back than the bound and what one read brings."""
    async with served() as (_port, reader, writer):
        size = 3 * http_direct.WHOLE_BYTES_MAX
        writer.write(POST % (size, b"") + b"a" * (size - 1))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"a")
        assert (await answer(reader))[2] == b"application %d" % size


async def test_a_slow_body_goes_to_the_application(monkeypatch):
    """Which has the rules for those who never send the rest."""
    monkeypatch.setattr(http_direct, "PATIENCE_S", 0.05)
    async with served() as (_port, reader, writer):
        writer.write(POST % (2, b"") + b"a")
        await asyncio.sleep(0.3)
        writer.write(b"b")
        assert (await answer(reader))[2] == b"application 2"


async def test_a_request_that_has_begun_ends_though_the_server_stops():
    """Half a body is not cut off by a graceful stop."""
    async with served() as (port, reader, writer):
        writer.write(POST % (2, b"") + b"a")
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(port.server.stop())
        await asyncio.sleep(0.3)
        writer.write(b"b")
        _, headers, body = await answer(reader)
        assert (b"application 2", "close") == (body, headers["connection"])
        await stopping


@pytest.mark.parametrize("rest", [b"x\0y: no header\r\n\r\n", None])
async def test_broken_requests_leave_nothing_behind(rest):
    """A malformed request is 400; a client that goes away with half a body is forgotten."""
    async with served() as (port, reader, writer):
        if rest is None:
            writer.write(POST % (9, b"") + b"a")
            await asyncio.sleep(0.05)
            writer.close()
        else:
            chunked = b"POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            writer.write(chunked + rest)
            assert (await answer(reader))[0] == "HTTP/1.1 400 Bad Request"
        _, second = await asyncio.open_connection("127.0.0.1", port.server.port)
        second.close()


async def waits(port, count=1):
    for _ in range(5000):
        if len(port.waiting) >= count:
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def test_a_request_waits_for_its_turn():
    """Nothing more is read of its connection, others are answered, and then it is."""
    async with served() as (port, reader, writer):
        port.is_busy = True
        writer.write(POST % (3, b"") + b"abc")
        await waits(port)
        assert port.waiting[0][0] == 3
        writer.write(POST % (4, b"") + b"abcd")
        await asyncio.sleep(0.02)
        assert len(port.waiting) == 1
        port.is_busy = False
        other, other_writer = await asyncio.open_connection("127.0.0.1", port.server.port)
        other_writer.write(POST % (5, b"") + b"abcde")
        assert (await answer(other))[2] == b"direct 5"
        other_writer.close()
        port.waiting[0][1](None)
        assert (await answer(reader))[2] == b"direct 3"
        assert (await answer(reader))[2] == b"direct 4"


async def test_a_turn_that_does_not_come_is_told():
    """A request that is refused lets its body go before it is answered; one in vain later."""
    async with served() as (port, reader, writer):
        for port.is_busy, port.is_full, held in ((True, True, b"0"), (True, False, b"3")):
            port.waiting.clear()
            writer.write(POST % (3, b"") + b"abc")
            await waits(port)
            port.waiting[0][1](Unavailable("later"))
            status, _, body = await answer(reader)
            assert (status.split()[1], body) == ("503", b"later, held " + held)
        port.is_busy = False
        writer.write(POST % (3, b"") + b"abc")
        assert (await answer(reader))[2] == b"direct 3"


async def test_a_request_may_go_to_the_application_after_its_turn():
    """With its whole body."""
    async with served() as (port, reader, writer):
        port.is_busy = port.refuses = True
        writer.write(POST % (3, b"") + b"abc")
        await waits(port)
        port.waiting[0][1](None)
        assert (await answer(reader))[2] == b"application 3"


async def test_a_pipeline_is_answered_in_order():
    """The request behind one that waits does not wait longer than that."""
    async with served() as (port, reader, writer):
        port.is_busy = True
        writer.write(POST % (3, b"") + b"abc" + POST % (4, b"") + b"abcd")
        await waits(port, 2)
        assert (await answer(reader))[2] == b"direct 3"
        port.waiting[0][1](None)
        port.waiting[1][1](None)
        assert (await answer(reader))[2] == b"direct 4"


async def test_a_stop_answers_what_waits():
    """It has arrived whole."""
    async with served() as (port, reader, writer):
        port.is_busy = True
        writer.write(POST % (3, b"") + b"abc")
        await waits(port)
        stopping = asyncio.create_task(port.server.stop())
        assert (await answer(reader))[2] == b"direct 3"
        await stopping
        port.waiting[0][1](None)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_what_waits_to_be_refused_is_refused_by_a_stop_or_the_next_request(pipelined):
    """Its body was let go: without it the application would call it a bad request."""
    async with served() as (port, reader, writer):
        port.is_busy = port.is_full = True
        writer.write((POST % (3, b"") + b"abc") * (2 if pipelined else 1))
        await waits(port)
        stopping = asyncio.create_task(port.server.stop())
        assert "503" in (await answer(reader))[0]
        await stopping


async def test_a_turn_may_come_after_the_client_has_gone():
    """Nothing happens then."""
    async with served() as (port, _reader, writer):
        port.is_busy = True
        writer.write(POST % (3, b"") + b"abc")
        await waits(port)
        writer.transport.abort()
        await asyncio.sleep(0.02)
        port.waiting[0][1](None)
        port.is_busy = False
        reader, other = await asyncio.open_connection("127.0.0.1", port.server.port)
        other.write(POST % (4, b"") + b"abcd")
        assert (await answer(reader))[2] == b"direct 4"
        other.close()
