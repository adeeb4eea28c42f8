"""The one TCP port for gRPC, in front of two servers.

                         ┌─ plain, gzip ───────> spliced, byte for byte ──> grpcio on a Unix socket
    client ── Handshake ─┤
                         └─ snappy, or writes ─> our own HTTP/2 side, in this process

grpcio fails on `grpc-encoding: snappy` while it parses the headers, before any handler of ours
could decide, and snappy is what a real Thanos router sends unless told otherwise. Nor can it refuse
a write before it has taken it apart. So the first request's headers are read here, and the
connection is given to whoever can serve it (docs/decisions/0001-one-grpc-port.md).

The Unix socket of a splice has a name of its own (Linux abstract autobind), by which grpcio tells
its handlers who calls; `peer_of` translates it back to the client's address.

Bounds: connections at once; time to the end of the handshake; time without a first request. A
connection that breaks one is closed, the others are not affected. Its end is a farewell
(`farewell`): until that is over, a second as a rule, it counts as undecided.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.backlog import accept_backlog
from thanostack.runtime.farewell import Farewell
from thanostack.runtime.grpc_handshake import Handshake, Route
from thanostack.runtime.grpc_http2_call import Http2Service
from thanostack.runtime.grpc_http2_server import Http2ServerProtocol
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code
from thanostack.runtime.splice import BUFFER_BYTES, Splice
from thanostack.runtime.tls_listener import TLSListener
from thanostack.runtime.tls_ports import ServerTLS

_BACKLOG: Final = 1024
# How long a host whose call was given back is grpcio's, and how many hosts are known.
_BACK_S: Final = 10.0
_GIVEN_BACK_MAX: Final = 1024
_LAST_WORDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """What a client may do before it is given to a server.

    Args:
        connections_max: at once; more are closed on arrival.
        handshake_timeout_s: for preface and settings.
        idle_timeout_s: from there to the first request. Clients that connect early then connect
            again when they need it: they are told with GOAWAY.
    """

    connections_max: int = 4096
    handshake_timeout_s: float = 20.0
    idle_timeout_s: float = 300.0


class Upstream:
    """The server behind the port, which is started when a client first needs it.

    Args:
        path: the Unix socket that it listens on.
        start: returns when it listens.
    """

    def __init__(self, path: Path, start: Callable[[], Awaitable[None]]) -> None:
        self._path, self._start = path, start
        self._starting: asyncio.Future[None] | None = None

    async def ready(self) -> Path:
        """Return where it listens, once it does; what hindered it hinders everyone."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)
        return self._path

    async def settle(self) -> None:
        """Wait until it has started or could not, if anybody asked for it."""
        if self._starting is not None:
            await asyncio.wait([self._starting])


class Front:
    """Accepts connections and gives each to one of two servers.

    Args:
        bound: a bound socket; owned from here on.
        upstream: grpcio.
        service: what our own HTTP/2 side serves.
        limits: for connections that nobody has yet.
        tls: of the port, with ALPN h2; None for plain text.
    """

    def __init__(
        self,
        bound: socket.socket,
        upstream: Upstream,
        service: Http2Service,
        *,
        limits: FrontLimits | None = None,
        tls: ServerTLS | None = None,
    ) -> None:
        self._bound, self._upstream, self._service, self._tls = bound, upstream, service, tls
        self._limits = limits or FrontLimits()
        handlers = service.handlers.items()
        self._queued = frozenset(name.encode() for name, kind in handlers if kind.is_queued)
        # When a client of a host was last given back. Bound: _GIVEN_BACK_MAX.
        self._given_back: dict[str, float] = {}
        self._waiting: set[_Undecided] = set()
        self._ours: set[Http2ServerProtocol] = set()
        self._splices: set[Splice] = set()
        self._no_splices = asyncio.Event()
        self.is_leaving = False
        self._peers: dict[str, str] = {}
        self._server: asyncio.Server | TLSListener | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def n_by_route(self) -> dict[str, int]:
        """Return how many clients are connected, by who serves them."""
        return {
            "undecided": len(self._waiting),
            Route.OURS.value: len(self._ours),
            Route.GRPCIO.value: len(self._splices),
        }

    def peer_of(self, name: str) -> str:
        """Return the client's address for the peer that grpcio reports; `unix` if unknown."""
        return self._peers.get(name.rpartition(":")[2], "unix")

    async def start(self) -> None:
        """Begin to accept."""
        if self._tls is not None:
            self._server = TLSListener(self._bound, self._tls, self._undecided)
            self._server.start()
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._undecided, sock=self._bound, backlog=_BACKLOG)

    def _undecided(self) -> _Undecided:
        return _Undecided(self, self._limits)

    async def stop_accepting(self) -> None:
        """Close the port, and ask clients to finish and leave, those too that are just coming."""
        self.is_leaving = True
        if self._tls is None:
            await accept_backlog(self._bound, self._undecided)
        if self._server is not None:
            self._server.close()
        for undecided in list(self._waiting):
            undecided.leave()
        for protocol in list(self._ours):
            protocol.go_away()

    async def finish(self, grace_s: float) -> None:
        """Wait, for a while, until calls of our own side are answered and their clients gone."""
        clients: list[Http2ServerProtocol | _Undecided] = [*self._ours, *self._waiting]
        if clients:
            closing = [asyncio.ensure_future(client.closed.wait()) for client in clients]
            _, late = await asyncio.wait(closing, timeout=grace_s)
            for waiter in late:
                waiter.cancel()

    async def close(self) -> None:
        """Close all connections; what grpcio said last is still delivered, if it can be soon."""
        if self._splices:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._no_splices.wait(), _LAST_WORDS_S)
        for task in list(self._tasks):
            task.cancel()
        for undecided in list(self._waiting):
            undecided.close()
        for protocol in list(self._ours):
            protocol.close()
        for splice in list(self._splices):
            splice.close()
        if self._server is not None:
            await self._server.wait_closed()

    def has_room(self) -> bool:
        """Return whether one more client may connect."""
        return sum(self.n_by_route().values()) < self._limits.connections_max

    def handshake(self, transport: asyncio.Transport) -> Handshake:
        """Return the handshake of a new connection: writes are ours unless its host was given back.

        Whose call was given back repeats it on the next connection, and once only. By then other
        calls of its own, or of those whose calls a proxy joins, may come before it there.
        """
        is_back = time.monotonic() - self._given_back.get(_host(transport), -math.inf) < _BACK_S
        return Handshake(frozenset() if is_back else self._queued)

    def _note_given_back(self, host: str) -> None:
        if len(self._given_back) >= _GIVEN_BACK_MAX:
            self._given_back.clear()
        self._given_back[host] = time.monotonic()

    def joined(self, undecided: _Undecided) -> None:
        """Note a new connection."""
        self._waiting.add(undecided)

    def left(self, undecided: _Undecided) -> None:
        """Note that a connection ended, or was given to a server."""
        self._waiting.discard(undecided)

    def give(self, transport: asyncio.Transport, handshake: Handshake) -> None:
        """Give a connection to the server that its first request chose."""
        if handshake.route is Route.OURS:
            host = _host(transport)
            protocol = Http2ServerProtocol(
                self._service, _address(transport), lambda: self._note_given_back(host)
            )
            protocol.when_closed(self._ours.discard)
            self._ours.add(protocol)
            protocol.take_over(transport, handshake.held)
            return
        transport.pause_reading()
        task = asyncio.ensure_future(self._splice(transport, handshake.held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _splice(self, transport: asyncio.Transport, received: bytes) -> None:
        splice = Splice(transport, self._forget_splice)
        self._splices.add(splice)
        self._no_splices.clear()
        transport.set_protocol(splice.client)
        try:
            await self._connect(splice, _address(transport))
        except (OSError, asyncio.CancelledError):
            splice.close()
            return
        splice.begin(received)

    async def _connect(self, splice: Splice, peer: str) -> None:
        """Connect to grpcio under a name of our own, and note whose it is."""
        loop, path = asyncio.get_running_loop(), await self._upstream.ready()
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream.setblocking(False)
        try:
            with contextlib.suppress(OSError):  # only Linux has abstract names
                upstream.bind(b"")
                splice.name = upstream.getsockname()[1:].decode()
                self._peers[splice.name] = peer
            await loop.sock_connect(upstream, str(path))
            await loop.create_unix_connection(lambda: splice.upstream, sock=upstream)
        except BaseException:
            upstream.close()
            raise

    def _forget_splice(self, splice: Splice) -> None:
        self._splices.discard(splice)
        if not self._splices:
            self._no_splices.set()
        self._peers.pop(splice.name, None)


class _Undecided(asyncio.Protocol):
    """A connection in its handshake, and its farewell if it ends before a request came."""

    def __init__(self, front: Front, limits: FrontLimits) -> None:
        self._front, self._limits = front, limits
        self._handshake: Handshake  # from `connection_made` on
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_greeted = False
        self._farewell: Farewell | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._front.has_room():
            self._transport.abort()
            return
        _tune(self._transport)
        self._handshake = self._front.handshake(self._transport)
        self._front.joined(self)
        self._restart_timer(self._limits.handshake_timeout_s)
        if self._front.is_leaving:
            self.leave()

    def data_received(self, data: bytes) -> None:
        transport, handshake = self._transport, self._handshake
        if transport is None or transport.is_closing():
            return
        try:
            handshake.feed(data)
        except ConnectionFailed as failure:
            self._end(failure.code)
            return
        reply = handshake.take_reply()
        if reply:
            transport.write(reply)
        if handshake.route is not None:
            self._leave_front()
            self._front.give(transport, handshake)
        elif handshake.is_settled and not self._is_greeted:
            self._is_greeted = True
            self._restart_timer(self._limits.idle_timeout_s)

    def connection_lost(self, _error: Exception | None) -> None:
        self._leave_front()

    def pause_writing(self) -> None:
        # Nothing is sent here but answers to pings: whoever does not read those is up to no good.
        self.close()

    def leave(self) -> None:
        """Tell the client to connect again elsewhere or later, and close.

        Without knowing that it speaks HTTP/2: its first request may be on its way.
        """
        if self._transport is not None and not self._handshake.has_preface:
            self._transport.write(h2.pack_settings() + h2.pack_goaway(0, H2Code.NO_ERROR))
        self._end(H2Code.NO_ERROR)

    def close(self) -> None:
        """Close at once."""
        ending = self._transport or self._farewell
        if ending is not None:
            ending.abort()

    def _end(self, code: H2Code) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._handshake.has_preface:
            transport.write(h2.pack_goaway(0, code))
        self._detach()
        self._farewell = Farewell(transport, self.connection_lost)

    def _leave_front(self) -> None:
        self._detach()
        self._front.left(self)
        self.closed.set()

    def _detach(self) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def _restart_timer(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, self._end, H2Code.NO_ERROR)


def _tune(transport: asyncio.Transport) -> None:
    """Send small frames at once, notice dead peers, and bound what is buffered."""
    transport.set_write_buffer_limits(high=BUFFER_BYTES)
    connected = transport.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _host(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else "unknown"


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    if not name:
        return "unknown"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
