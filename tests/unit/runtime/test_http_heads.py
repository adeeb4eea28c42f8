"""Heads that do not end: refused before they are held, whatever the port and whatever they are."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from thanostack.runtime.http_common import Answer, send_answer
from thanostack.runtime.http_heads import HEAD_BYTES_MAX
from thanostack.runtime.http_server import HTTPServer, listen

PIECE = 64 << 10
HEAD = b"POST /write HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Port:
    """Answers everything at once, directly or as an application."""

    direct_paths = frozenset({b"/write"})

    def __init__(self, *, is_direct):
        direct = self if is_direct else None
        self.server = HTTPServer(self, listen("127.0.0.1:0", "x"), grace_s=1, direct=direct)

    def when_turn(self, _n_bytes, resume):
        resume(None)
        return True

    def answer_now(self, _headers, body, _refused):
        return Answer(200, b"%d" % len(body))

    async def __call__(self, _scope, receive, send):
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send_answer(send, Answer(200, b"%d" % length))


@contextlib.asynccontextmanager
async def connected(*, is_direct):
    port = Port(is_direct=is_direct)
    serving = asyncio.create_task(port.server.serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await port.server.stop()
        await serving


async def poured(writer, piece):
    """Send a piece until the other side has had enough; return how many bytes were taken."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 64 * HEAD_BYTES_MAX:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    return sent


@pytest.mark.parametrize("is_direct", [False, True])
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"POST /", b"a" * PIECE),
        (HEAD + b"X: ", b"a" * PIECE),
        (HEAD, b"X-A: a\r\n" * (PIECE // 8)),
        (CHUNKED + b"0\r\nX: ", b"a" * PIECE),
        (CHUNKED + b"1;", b"a" * PIECE),
    ],
    ids=["line", "value", "headers", "trailer", "extension"],
)
async def test_a_head_that_does_not_end_is_cut_off(is_direct, begin, piece):
    """What the kernel buffers on the way may be sent besides."""
    async with connected(is_direct=is_direct) as (_, writer):
        writer.write(begin)
        assert await asyncio.wait_for(poured(writer, piece), 20) < 16 * HEAD_BYTES_MAX


async def test_the_answer_says_why():
    """431, as Go's servers say."""
    async with connected(is_direct=False) as (reader, writer):
        writer.write(HEAD + b"X: " + b"a" * (HEAD_BYTES_MAX - 1000))
        await asyncio.sleep(0.2)
        writer.write(b"a" * 1000)
        answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in answer
    assert answer.endswith(b"request headers exceed the limit of 1048576 bytes\n")


@pytest.mark.parametrize("is_direct", [False, True])
async def test_a_connection_may_bring_more_than_one_head_may_have(is_direct):
    """Bodies and further requests count anew."""
    size = HEAD_BYTES_MAX // 2
    head = HEAD + b"X: " + b"a" * size + b"\r\nContent-Length: %d\r\n\r\n" % (3 * size)
    async with connected(is_direct=is_direct) as (reader, writer):
        for _ in range(4):
            writer.write(head)
            for _ in range(3):
                await asyncio.sleep(0)
                writer.write(b"b" * size)
            answer = await asyncio.wait_for(reader.readuntil(b"%d" % (3 * size)), 10)
            assert answer.startswith(b"HTTP/1.1 200 ")
