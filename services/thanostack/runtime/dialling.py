"""How connections to a peer are made, whatever happens to its name meanwhile.

    look up ──addresses──> dial one after another ──connected──> done
     │   ^ no answer: those        └──takes long──> look up each second ──others──> dial those
     └───┘ of the last time

A pod that was just replaced has another address under its name. Whoever dials the old one, which
caches of DNS give for some seconds, hears nothing, not even a refusal. And DNS that does not answer
must not keep a peer away that was restarted in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from thanostack.runtime.http_server import parse_address

LOOK_UP_TIMEOUT_S: Final = 2.0
LOOK_UP_AGAIN_S: Final = 1.0
P = TypeVar("P", bound=asyncio.Protocol)


class Dial(Protocol):
    """How a connection is made: plain here, and with TLS by whoever has certificates."""

    def __call__(
        self, protocol: Callable[[], asyncio.Protocol], address: str, *, name: str
    ) -> Awaitable[asyncio.BaseTransport]:
        """Connect a protocol to `address:port`; raises OSError if that cannot be done.

        `name` is what the peer is known by.
        """


async def dial_plain(
    protocol: Callable[[], asyncio.Protocol],
    address: str,
    *,
    name: str,  # noqa: ARG001
) -> asyncio.BaseTransport:
    """Connect without TLS, which asks for no name."""
    host, port = parse_address(address, "receive.hashrings")
    transport, _ = await asyncio.get_running_loop().create_connection(protocol, host, port)
    return transport


class Dialler:
    """Makes connections to one peer.

    Args:
        dial: how.
        address: `host:port`.
    """

    def __init__(self, dial: Dial, address: str) -> None:
        self._dial, self._address = dial, address
        self._addresses: tuple[str, ...] = ()

    async def connect(self, protocol: Callable[[], P]) -> P:
        """Connect to where the name leads; takes for ever if nobody answers there.

        Args:
            protocol: makes the protocol of each attempt; returned is the one that is connected.

        Raises:
            OSError, SettingsInvalid: the address is none, its name is unknown, or of the last of
                its addresses as `dial` says.
        """
        addresses = await self._look_up()
        while True:
            dialling = asyncio.ensure_future(self._dial_any(protocol, addresses))
            moving = asyncio.ensure_future(self._others(addresses))
            try:
                await asyncio.wait([dialling, moving], return_when=asyncio.FIRST_COMPLETED)
                if dialling.done():
                    return dialling.result()
                addresses = moving.result()
            finally:
                dialling.cancel()
                moving.cancel()

    async def _dial_any(self, protocol: Callable[[], P], addresses: tuple[str, ...]) -> P:
        failure = OSError(f"{self._address}: the name has no address")
        for address in addresses:
            try:
                return await self._dial_one(protocol(), address)
            except OSError as error:
                failure = error
        raise failure

    async def _dial_one(self, made: P, address: str) -> P:
        host, port = parse_address(self._address, "receive.hashrings")
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        await self._dial(lambda: made, where, name=host)
        return made

    async def _others(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return where the name leads once that is elsewhere, looking each second."""
        while True:
            await asyncio.sleep(LOOK_UP_AGAIN_S)
            with contextlib.suppress(OSError):  # TimeoutError is one
                found = await self._look_up()
                if set(found) != set(known):
                    return found

    async def _look_up(self) -> tuple[str, ...]:
        """Return where the name leads, or led when DNS last answered."""
        host, port = parse_address(self._address, "receive.hashrings")
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except OSError as error:
            is_unanswered = isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN
            if is_unanswered and self._addresses:
                return self._addresses
            if isinstance(error, TimeoutError):
                raise OSError(f"{host}: no answer of DNS within {LOOK_UP_TIMEOUT_S:g} s") from error
            raise
        self._addresses = tuple(dict.fromkeys(str(target[0]) for *_, target in found))
        return self._addresses
