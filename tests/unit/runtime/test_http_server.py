"""Listening: addresses, busy ports, several servers in one loop, and the graceful stop."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.http_common import Answer, send_answer
from thanostack.runtime.http_server import HTTPServer, listen, parse_address, port_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:10902", ("0.0.0.0", 10902)),
        (":10902", ("", 10902)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("10902", None),
        ("host:", None),
        ("host:http", None),
        ("host:70000", None),
        ("::1:80", None),
        ("host:²", None),
    ],
)
def test_addresses_are_go_addresses(text, expected):
    """host:port, :port and [v6]:port; anything else names the flag."""
    if expected is None:
        with pytest.raises(SettingsInvalid, match="--http-address"):
            parse_address(text, "http-address")
    else:
        assert parse_address(text, "http-address") == expected


def test_a_busy_port_names_the_flag_that_changes_it():
    """Whoever starts two on one host learns what to write."""
    with (
        listen("127.0.0.1:0", "http-address") as first,
        pytest.raises(SettingsInvalid, match=r"already in use.*--grpc-address"),
    ):
        listen(f"127.0.0.1:{port_of(first)}", "grpc-address")


def test_an_unknown_host_is_an_error_of_the_flag():
    """A name that does not resolve is said, and which flag has it."""
    with pytest.raises(SettingsInvalid, match="--http-address: cannot resolve"):
        listen("does-not-exist.invalid:1", "http-address")


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_address_is_one_of_either_family(address, host):
    """As Go has it: `0.0.0.0`, the default, would not answer in a cluster of IPv6 alone."""
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen(address, "http-address") as bound:
        socket.create_connection((host, port_of(bound)), 5).close()


async def test_a_stop_waits_for_running_requests():
    """Requests that were begun end well; new connections are refused; the loop lives on."""
    begun, finish = asyncio.Event(), asyncio.Event()

    async def application(_scope, _receive, send):
        begun.set()
        await finish.wait()
        await send_answer(send, Answer(200, b"done"))

    servers = [HTTPServer(application, listen("127.0.0.1:0", "x"), grace_s=10) for _ in range(2)]
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    url = f"http://127.0.0.1:{servers[0].port}/"
    async with httpx.AsyncClient() as client:
        request = asyncio.create_task(client.get(url))
        await begun.wait()
        stopping = asyncio.create_task(servers[0].stop())
        await asyncio.sleep(0.3)
        assert not stopping.done()
        finish.set()
        assert (await request).text == "done"
        await asyncio.gather(stopping, servers[1].stop())
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    await asyncio.gather(*tasks)


async def test_the_grace_period_is_kept():
    """A request that does not end is cancelled after the grace period."""
    begun = asyncio.Event()

    async def application(_scope, _receive, _send):
        begun.set()
        await asyncio.sleep(3600)

    server = HTTPServer(application, listen("127.0.0.1:0", "x"), grace_s=1)
    serving = asyncio.create_task(server.serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await begun.wait()
    await asyncio.wait_for(server.stop(), 20)
    await serving
    writer.close()
    assert b"200" not in await reader.read()


class Idle:
    """A server that stops while a connection is idle, and that connection."""

    direct_paths = frozenset({b"/"})

    def __init__(self, *, is_direct=False, last_requests_s=60.0):
        self.server = HTTPServer(
            self, listen("127.0.0.1:0", "x"), grace_s=60, direct=self if is_direct else None,
            last_requests_s=last_requests_s,
        )  # fmt: skip
        self.serving = asyncio.create_task(self.server.serve())

    async def __call__(self, _scope, _receive, send):
        await send_answer(send, Answer(200, b"done"))

    def when_turn(self, _n_bytes, resume):
        resume(None)
        return True

    def answer_now(self, _headers, _body, _refused):
        return Answer(200, b"done")

    async def connect(self):
        """Return a connection that has had one response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        assert b"close" not in await self.ask(reader, writer)
        return reader, writer

    async def ask(self, reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert (head[:15], await reader.readexactly(4)) == (b"HTTP/1.1 200 OK", b"done")
        return head


@pytest.mark.parametrize("is_direct", [False, True])
async def test_an_idle_connection_has_one_more_request(is_direct):
    """It may be on its way already; the response says that there will be no other."""
    idle = Idle(is_direct=is_direct)
    reader, writer = await idle.connect()
    stopping = asyncio.create_task(idle.server.stop())
    await asyncio.sleep(0.3)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", idle.server.port)
    assert b"\r\nconnection: close\r\n" in await idle.ask(reader, writer)
    assert await reader.read() == b""
    await asyncio.wait_for(stopping, 20)
    await idle.serving
    writer.close()


async def test_a_connection_that_stays_idle_is_closed():
    """After the time it has."""
    idle = Idle(last_requests_s=0.2)
    reader, writer = await idle.connect()
    await asyncio.wait_for(idle.server.stop(), 20)
    assert await reader.read() == b""
    await idle.serving
    writer.close()


async def test_a_stop_answers_connections_that_were_not_accepted_yet():
    """The kernel has them, and would reset them with the port."""
    idle = Idle()
    (await idle.connect())[1].close()
    with socket.create_connection(("127.0.0.1", idle.server.port), 5) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        # The loop has not run since: this is the very moment of the stop.
        stopping = asyncio.create_task(idle.server._server.shutdown([idle.server._bound]))
        answer = await asyncio.to_thread(waiting.recv, 100)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    await stopping
    await idle.server.stop()
    await idle.serving
