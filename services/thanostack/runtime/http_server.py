"""Uvicorn, embedded: several listeners in the loop that is already running.

Uvicorn's own signal handling is off, the supervisor's counts. Sockets are bound before anything
slow starts, so that a busy port is a clear error at once and not a crash minutes later.

    0.0.0.0:10902 and :10902 (all addresses, both families)   [::1]:10902   localhost:10902

With TLS, connections come from a `TLSListener`, and a client's verified certificate stands in each
request's scope under `CLIENT_CERTIFICATE`.

Kept-alive connections are not closed for being idle before senders do it themselves: a Prometheus
closes its own after five minutes.

A stop closes the port, once it has what the kernel has accepted. Running requests end within the
grace period. A connection that is idle may bring a request at this very moment, which nobody would
answer if it was closed: where that matters, it has a while for one more, and the response to that
says `Connection: close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
from collections.abc import Generator
from typing import Any, Final

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.backlog import accept_backlog
from thanostack.runtime.http_common import CLIENT_CERTIFICATE
from thanostack.runtime.http_direct import Direct, DirectProtocol
from thanostack.runtime.http_heads import LAST, BoundedHeads
from thanostack.runtime.lean_imports import uvicorn
from thanostack.runtime.tls_listener import TLSListener, client_certificate
from thanostack.runtime.tls_ports import ServerTLS

KEEP_ALIVE_S: Final = 330
BACKLOG: Final = 1024
_LOOK_S: Final = 0.05


def parse_address(text: str, flag: str) -> tuple[str, int]:
    """Return (host, port) of an address as Go writes them; no host means all addresses.

    Raises:
        SettingsInvalid: naming the flag, if it is not host:port.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_bracketed else host
    if not colon or (":" in bare and not is_bracketed) or not port.isascii() or not port.isdigit():
        raise SettingsInvalid(f"--{flag}: {text!r} is not an address; write host:port or :port")
    if int(port) > 65535:
        raise SettingsInvalid(f"--{flag}: port {port} is above 65535")
    return bare, int(port)


def listen(address: str, flag: str) -> socket.socket:
    """Return a bound, not yet listening socket.

    Raises:
        SettingsInvalid: naming the flag that chooses another address, if this one is not to be had.
    """
    host, port = parse_address(address, flag)
    try:
        return _bind(host, port)
    except socket.gaierror as error:
        raise SettingsInvalid(f"--{flag}: cannot resolve the host {host!r}: {error}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsInvalid(
                f"--{flag}: address {address} is already in use; stop the program that has it, "
                f"or choose another with --{flag}"
            ) from error
        raise SettingsInvalid(f"--{flag}: cannot listen on {address}: {error}") from error


def _bind(host: str, port: int) -> socket.socket:
    # Upstream: Go listens on both families for 0.0.0.0, the default, so that it works in a cluster
    # of IPv6 alone.
    if host in ("", "0.0.0.0") and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    # As bytes: text goes through a codec of its own, half a MiB for names that are ASCII anyway.
    known = host.encode() if host.isascii() else host
    family, _, _, _, target = socket.getaddrinfo(
        known or b"0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(target[:2], family=family, backlog=BACKLOG)


def port_of(bound: socket.socket) -> int:
    """Return the port that a socket was bound to."""
    port: int = bound.getsockname()[1]
    return port


class _WithCertificate(BoundedHeads):
    """Tells each request who its client is, by the certificate of its connection."""

    _certificate: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._certificate = client_certificate(transport)
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CLIENT_CERTIFICATE] = self._certificate  # type: ignore[literal-required]


class _Quiet(uvicorn.server.Server):
    """Leaves signals alone, and accepts through TLS where there is some."""

    tls: ServerTLS | None = None
    last_requests_s = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.tls is None or sockets is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for bound in sockets:
            # A socket of its own: uvicorn closes the other while ours is still accepted on.
            listener = TLSListener(bound.dup(), self.tls, self._protocol)
            listener.start()
            self.servers.append(listener)  # type: ignore[arg-type]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.tls is None:
            for bound in sockets or []:
                await accept_backlog(bound, self._plain_protocol)
        for server in self.servers:
            server.close()
        self.server_state.default_headers = [*self.server_state.default_headers, LAST]
        for connection in self.server_state.connections:
            cycle = connection.cycle  # type: ignore[union-attr]
            if cycle is not None and not cycle.response_complete:
                cycle.keep_alive = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.last_requests_s):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(_LOOK_S)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return _WithCertificate(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _plain_protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


class HTTPServer:
    """One ASGI application on one bound socket.

    Args:
        application: called for every request.
        bound: from `listen`; owned from here on.
        grace_s: how long running requests may take once the stop begins.
        tls: of the port, with ALPN http/1.1; None for plain text.
        direct: of a port in plain text, answers what it can before the application is asked.
        last_requests_s: how long idle connections have for one more request once the stop begins.
    """

    def __init__(
        self,
        application: Any,
        bound: socket.socket,
        *,
        grace_s: float,
        tls: ServerTLS | None = None,
        direct: Direct | None = None,
        last_requests_s: float = 0.0,
    ) -> None:
        assert tls is None or direct is None, "with TLS the application has to know the client"
        protocol: Any = functools.partial(DirectProtocol, direct) if direct else BoundedHeads
        self._bound = bound
        self._ended = asyncio.Event()
        self._server = _Quiet(
            uvicorn.config.Config(
                application,
                loop="none",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(grace_s)),
            )
        )
        self._server.tls = tls
        self._server.last_requests_s = min(last_requests_s, grace_s)

    @property
    def port(self) -> int:
        """Return the port, also when the system chose it."""
        return port_of(self._bound)

    @property
    def scheme(self) -> str:
        """Return http or https."""
        return "http" if self._server.tls is None else "https"

    async def serve(self) -> None:
        """Serve until `stop`."""
        try:
            await self._server.serve(sockets=[self._bound])
        finally:
            self._bound.close()
            self._ended.set()

    async def stop(self) -> None:
        """Accept no more, wait for running requests within the grace period, and close."""
        self._server.should_exit = True
        await self._ended.wait()
