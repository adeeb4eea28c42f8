"""TLS of this process: a context for every new connection, from files as they are then.

    TLS ── server(options) ──> ServerTLS ── context() ──> one handshake
        └─ client(options) ──> ClientTLS ── connect() ──> one handshake

A certificate, key or CA that changes on disk holds from the next connection on; connections that
are there keep what they began with. Files that turn bad are told once and change nothing: the
certificate before them goes on serving. A handshake that goes wrong is counted and, once a second
at most, logged.

    thanostack_tls_handshake_failures_total{port}
    thanostack_tls_reloads_total{port, result}
    thanostack_tls_certificate_not_after_timestamp_seconds{port}
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from thanostack.lib.foundation.clock import Clock
from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.logs import Logger
from thanostack.runtime.reloading import Reloading
from thanostack.runtime.tls_errors import explain
from thanostack.runtime.tls_options import GRPC_ALPN, PEM, ClientTLSOptions, ServerTLSOptions

_LOG_INTERVAL_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 20.0
_HANDSHAKE_TIMEOUT_S: Final = 10.0
_HANDSHAKE_ERRORS: Final = (ssl.SSLError, ValueError, ConnectionResetError, ConnectionAbortedError)


class _Port:
    """What is told about the TLS of one port, or of one kind of client."""

    def __init__(self, tls: TLS, name: str) -> None:
        self._tls, self._name = tls, name
        self._logged_s, self._unlogged = float("-inf"), 0

    def failed(self, peer: str, error: object) -> None:
        """Count a handshake that went wrong, and log it unless one was logged just now."""
        self._tls.failures.labels(self._name).inc()
        now_s = self._tls.clock.monotonic_s()
        if now_s - self._logged_s < _LOG_INTERVAL_S:
            self._unlogged += 1
            return
        self._tls.log.warning(
            "TLS handshake failed",
            port=self._name,
            peer=peer,
            err=error,
            not_logged=self._unlogged or None,
        )
        self._logged_s, self._unlogged = now_s, 0

    def _made(self, context: ssl.SSLContext, cert: PEM) -> ssl.SSLContext:
        if cert:
            from thanostack.runtime.tls_context import not_after

            self._tls.not_after.labels(self._name).set(not_after(cert))
        return context

    def _told(self, error: SettingsInvalid | None) -> None:
        result = "success" if error is None else "failure"
        self._tls.reloads.labels(self._name, result).inc()
        if error is None:
            self._tls.log.info("TLS files reloaded", port=self._name)
        else:
            self._tls.log.error(
                "TLS files are bad, keeping those before", port=self._name, err=error
            )


class ServerTLS(_Port):
    """TLS of one port.

    Args:
        tls: of the process.
        name: of the port, in metrics and logs.
        alpn: the one protocol that is spoken.
        options: returns what is asked for now.
        files: further files that the options come from.

    Raises:
        SettingsInvalid: if a file is bad at the start.
    """

    def __init__(
        self,
        tls: TLS,
        name: str,
        *,
        alpn: str,
        options: Callable[[], ServerTLSOptions],
        files: tuple[str, ...] = (),
    ) -> None:
        super().__init__(tls, name)
        self._options = options
        self._context = Reloading(
            lambda: (*files, *_paths(options())),
            lambda: self._make(alpn),
            self._told,
        )

    def _make(self, alpn: str) -> ssl.SSLContext:
        from thanostack.runtime.tls_context import server_context  # heavy, and rarely needed

        options = self._options()
        return self._made(server_context(options, alpn=alpn), options.cert)

    def context(self) -> ssl.SSLContext:
        """Return the context for a connection that begins now."""
        return self._context.current()

    @property
    def allowed_sans(self) -> tuple[str, ...]:
        """Return the names of which a client's certificate must bear one; none is any."""
        return self._options().allowed_sans


class ClientTLS(_Port):
    """TLS towards gRPC servers, under one set of options.

    Args:
        tls: of the process.
        name: of what is connected to, in metrics and logs.
        options: what is asked for.

    Raises:
        SettingsInvalid: if a file is bad at the start.
    """

    def __init__(self, tls: TLS, name: str, *, options: ClientTLSOptions) -> None:
        super().__init__(tls, name)
        self.options = options
        self._context = Reloading(
            lambda: _paths(options),
            self._make,
            self._told,
        )

    def _make(self) -> ssl.SSLContext:
        from thanostack.runtime.tls_context import client_context  # heavy, and rarely needed

        return self._made(client_context(self.options, alpn=GRPC_ALPN), self.options.cert)

    async def connect(
        self, protocol: Callable[[], asyncio.Protocol], address: str, *, name: str = ""
    ) -> asyncio.BaseTransport:
        """Connect a protocol through TLS; the context is of the files as they are now.

        Args:
            protocol: made once the handshake has succeeded.
            address: host:port.
            name: that the certificate must bear where no server name is configured; the host of
                the address by default.

        Raises:
            OSError: saying why not, in words; a bad handshake is counted and logged.
        """
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise OSError(f"{address}: missing port in address")
        host = host.strip("[]")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    protocol,
                    host,
                    int(port),
                    ssl=self._context.current(),
                    server_hostname=self.options.server_name or name or host,
                    ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
                )
        except _HANDSHAKE_ERRORS as error:
            self.failed(address, explain(error))
            raise OSError(f"TLS with {address}: {explain(error)}") from error
        except OSError as error:
            text = str(error) or "it takes too long"
            raise OSError(f"connecting to {address}: {text}") from error
        return transport

    def refused(self, address: str, error: Exception | None) -> str:
        """Return why a connection ended before the server said anything; it is counted and logged.

        With TLS 1.3 a server refuses our certificate only when the handshake is over for us.

        Args:
            address: host:port.
            error: that the connection ended with, if not in peace.
        """
        why = "the server closed the connection at once"
        if isinstance(error, ssl.SSLError):
            why = explain(error)
        elif not self.options.cert:
            why += "; it may ask for a certificate, and none is configured"
        else:
            why += "; it may not accept our certificate"
        self.failed(address, why)
        return f"TLS with {address}: {why}"


class TLS:
    """Makes the TLS of ports and clients, with the metrics that a process can have once only.

    Args:
        registry: where metrics are registered.
        log: told about reloads and bad handshakes.
        clock: tells when.
    """

    def __init__(self, registry: CollectorRegistry, log: Logger, clock: Clock) -> None:
        self.log, self.clock = log, clock
        self.failures = Counter(
            "thanostack_tls_handshake_failures_total",
            "TLS handshakes that did not succeed.",
            ["port"],
            registry=registry,
        )
        self.reloads = Counter(
            "thanostack_tls_reloads_total",
            "Times that changed certificates, keys or CAs were read again.",
            ["port", "result"],
            registry=registry,
        )
        self.not_after = Gauge(
            "thanostack_tls_certificate_not_after_timestamp_seconds",
            "When the certificate in use expires.",
            ["port"],
            registry=registry,
        )

    def server(self, options: ServerTLSOptions | None, name: str, *, alpn: str) -> ServerTLS | None:
        """Return the TLS of a port; None for plain text.

        Raises:
            SettingsInvalid: if a file is bad.
        """
        if options is None:
            return None
        return ServerTLS(self, name, alpn=alpn, options=lambda: options)

    def client(self, options: ClientTLSOptions | None, name: str) -> ClientTLS | None:
        """Return the TLS towards gRPC servers; None for plain text.

        What a router dials with is `client(settings.forward_tls, "receivers").connect`, or its own
        plain connection where that is None.

        Raises:
            SettingsInvalid: if a file is bad.
        """
        return None if options is None else ClientTLS(self, name, options=options)


def _paths(options: ServerTLSOptions | ClientTLSOptions) -> Iterator[str]:
    ca = options.client_ca if isinstance(options, ServerTLSOptions) else options.ca
    for pem in (options.cert, options.key, ca):
        if pem.path:
            yield pem.path
