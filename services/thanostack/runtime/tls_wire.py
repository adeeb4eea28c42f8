"""How a gRPC client of ours reaches an address: plainly, or through TLS of our own.

    grpcio channel ──plain──> Unix socket in a private folder ── splice ── TLS ──> host:port

A grpcio client dials by it, with TLS or without (a client with a protocol of its own takes
`ClientTLS.connect`):

    wire = open_wire("host:10901", tls)          # tls: ClientTLS, or None for plain text
    channel = grpc.aio.insecure_channel(wire.target, [*options, *wire.options])
    …
    raise EndpointUnavailable(wire.explain(error.details()))
    …
    await channel.close()
    await wire.close()

grpcio's own TLS cannot be told a least version, not to verify, or to read a certificate again, and
its errors say little (docs/decisions/0007-tls-is-ours.md). Here every connection takes the context
of the files as they are, and what went wrong is told by `explain`. A channel may be of either kind,
`grpc.aio` or threaded; the wire itself lives on the event loop that opened it.

Several members behind one name are several sockets in one target, which a round-robin channel goes
round. Excluded: looking names up for members, and what a failed call means.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from thanostack.runtime.splice import Splice
from thanostack.runtime.tls_ports import ClientTLS


class Wire:
    """The way to one address without TLS: grpcio goes it alone.

    Args:
        target: what a channel is made with.
        options: that the channel needs.
    """

    def __init__(self, target: str, options: tuple[tuple[str, Any], ...] = ()) -> None:
        self.target, self.options = target, options

    def explain(self, details: str) -> str:
        """Return what grpcio said about a failed call, with what is known here."""
        return details

    async def close(self) -> None:
        """Close what the wire holds; the channel is closed before."""


def open_wire(address: str, tls: ClientTLS | None, *, members: Sequence[str] = ()) -> Wire:
    """Return the way to an address; call it on the event loop that serves it.

    Args:
        address: host:port, or a target of grpcio where there is no TLS.
        tls: towards it; None for plain text.
        members: addresses that stand behind `address`, if it is only a name for several.
    """
    return Wire(address) if tls is None else TLSWire(address, tls, members or (address,))


class TLSWire(Wire):
    """The way to one address through TLS.

    Args:
        address: host:port; the authority that servers and proxies see, unless a name is given.
        tls: context and name for every connection.
        members: where connections go, one socket each.
    """

    def __init__(self, address: str, tls: ClientTLS, members: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="thanostack-tls-"))  # mode 0700
        paths = [self._folder / str(i) for i in range(len(members))]
        authority = tls.options.server_name or address
        super().__init__(
            "unix:" + ",".join(map(str, paths)), (("grpc.default_authority", authority),)
        )
        self._tls, self._error = tls, ""
        # Upstream: members of a group must bear the group's name.
        self._name = address.rpartition(":")[0].strip("[]")
        self._splices: set[Splice] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._listening = asyncio.ensure_future(
            self._listen(
                [(_bound(path), member) for path, member in zip(paths, members, strict=True)]
            )
        )

    def explain(self, details: str) -> str:
        """Return what grpcio said, and why the last connection failed if it did."""
        return f"{details} ({self._error})" if self._error else details

    async def close(self) -> None:
        """Close the sockets and all connections."""
        for server in await self._listening:
            server.close()
        for task in list(self._dials):
            task.cancel()
        for splice in list(self._splices):
            splice.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _listen(self, sockets: list[tuple[socket.socket, str]]) -> list[asyncio.Server]:
        loop = asyncio.get_running_loop()
        return [
            await loop.create_unix_server(
                lambda member=member: _Arrival(self, member),  # type: ignore[misc]
                sock=bound,
            )
            for bound, member in sockets
        ]

    def dial(self, member: str, transport: asyncio.Transport, received: bytes) -> None:
        """Join a connection of grpcio's to a new one of ours."""
        task = asyncio.ensure_future(self._dial(member, transport, received))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, member: str, transport: asyncio.Transport, received: bytes) -> None:
        splice = Splice(transport, lambda closed: self._forget(closed, member))
        self._splices.add(splice)
        transport.set_protocol(splice.client)
        try:
            await self._tls.connect(lambda: splice.upstream, member, name=self._name)
        except OSError as error:
            self._error = str(error)
            splice.close()
        except asyncio.CancelledError:
            splice.close()
            raise
        else:
            self._error = ""
            splice.begin(received)

    def _forget(self, splice: Splice, member: str) -> None:
        self._splices.discard(splice)
        if splice.upstream.has_heard or self._error or not splice.has_begun:
            return
        self._error = self._tls.refused(member, splice.upstream.error)


class _Arrival(asyncio.Protocol):
    """A connection of grpcio's that has not said anything yet."""

    def __init__(self, wire: TLSWire, member: str) -> None:
        self._wire, self._member = wire, member
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        # Not before: under uvloop a transport cannot be paused until it has read.
        assert self._transport is not None
        self._transport.pause_reading()
        self._wire.dial(self._member, self._transport, data)


def _bound(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    bound.listen()
    bound.setblocking(False)
    return bound
