"""Accepts connections on a TLS port: each has a context of its own, made of the files as they are.

    accept ──> handshake, in a task, within a time ──good──> protocol.connection_made
                                                   └─bad───> counted, logged, closed

A connection that ends before it says anything is no handshake, and nobody is told: load balancers
look in this way whether a port is open.

asyncio's `create_server(ssl=…)` keeps one context for ever and says nothing about handshakes that
fail; `start_tls` on an accepted transport loses the first bytes under uvloop, which reads before it
can be paused. So we accept ourselves.

Bounds: handshakes at once; the time of each.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from thanostack.runtime.tls_errors import explain
from thanostack.runtime.tls_ports import ServerTLS

HANDSHAKE_TIMEOUT_S: Final = 10.0
HANDSHAKES_MAX: Final = 1024
_BACKLOG: Final = 1024
_PAUSE_S: Final = 0.5


class TLSListener:
    """The accepting side of a TLS port; closes as an `asyncio.Server` does.

    Args:
        bound: a bound socket; owned from here on.
        tls: contexts, and who is told about failures.
        make_protocol: called for each connection whose handshake succeeded.
        timeout_s: of a handshake.
    """

    def __init__(
        self,
        bound: socket.socket,
        tls: ServerTLS,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self._bound, self._tls, self._make_protocol = bound, tls, make_protocol
        self._timeout_s = timeout_s
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to accept, in the running loop."""
        self._bound.setblocking(False)
        self._bound.listen(_BACKLOG)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept no more, and free the port; handshakes under way are given up."""
        for task in self._handshakes:
            task.cancel()
        if self._accepting is None:
            self._bound.close()
            return
        # Not before the loop has let go of it.
        self._accepting.add_done_callback(lambda _: self._bound.close())
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        """Return when nothing is accepted any more and the port is free."""
        tasks = [task for task in (self._accepting, *self._handshakes) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, address = await loop.sock_accept(self._bound)
            except OSError as error:  # out of file descriptors, most likely
                self._tls.failed("unknown", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._handshakes) >= HANDSHAKES_MAX:
                self._tls.failed(_text(address), "too many handshakes at once")
                connected.close()
                continue
            task = loop.create_task(self._shake_hands(connected, _text(address)))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connected: socket.socket, peer: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                if not await _says_something(connected):
                    connected.close()
                    return
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Admission(self._tls, self._make_protocol, peer),
                connected,
                ssl=self._tls.context(),
                ssl_handshake_timeout=self._timeout_s,
            )
        except (OSError, ValueError) as error:
            self._tls.failed(peer, explain(error))
            connected.close()
        except BaseException:
            connected.close()
            raise


class _Admission(asyncio.Protocol):
    """Looks at the client's certificate once, and gives the connection to its protocol."""

    def __init__(
        self, tls: ServerTLS, make_protocol: Callable[[], asyncio.BaseProtocol], peer: str
    ) -> None:
        self._tls, self._make_protocol, self._peer = tls, make_protocol, peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connected = cast("asyncio.Transport", transport)
        allowed = self._tls.allowed_sans
        if allowed and not bears_one_of(connected.get_extra_info("ssl_object"), allowed):
            names = ", ".join(allowed)
            self._tls.failed(self._peer, f"the client's certificate bears none of: {names}")
            connected.abort()
            return
        protocol = self._make_protocol()
        connected.set_protocol(protocol)
        protocol.connection_made(connected)


async def _says_something(connected: socket.socket) -> bool:
    """Wait for the first byte, without taking it; False if the connection ends instead."""
    loop = asyncio.get_running_loop()
    is_readable = loop.create_future()
    loop.add_reader(connected, _settle, is_readable)
    try:
        await is_readable
    finally:
        loop.remove_reader(connected)
    try:
        return bool(connected.recv(1, socket.MSG_PEEK))
    except ConnectionError:
        return False


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def client_certificate(transport: asyncio.BaseTransport) -> bytes | None:
    """Return the client's verified certificate, DER; None for plain text or a client without."""
    secured: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return None if secured is None else secured.getpeercert(binary_form=True)


def bears_one_of(secured: Any, allowed: tuple[str, ...]) -> bool:
    """Return whether the peer's certificate has one of some subject alternative names."""
    shown = secured.getpeercert() or {}
    wanted = {_plain(name) for name in allowed}
    return any(_plain(name) in wanted for _, name in shown.get("subjectAltName", ()))


def _plain(name: str) -> str:
    """Return an IP address in its one shortest form, anything else as it is."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _text(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
