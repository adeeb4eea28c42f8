"""How connections to peers are made, and made anew where a name leads elsewhere meanwhile.

    dial ──connected──> done
     ^ └──takes long──> look the name up each second ──other addresses──┐
     └──────────────────────────────────────────────────────────────────┘

A pod that was just replaced has another address under its name. Whoever dials the old one, which
caches of DNS give for some seconds, hears nothing, not even a refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from thanostack.runtime.http_server import parse_address

LOOK_UP_AGAIN_S: Final = 1.0
P = TypeVar("P", bound=asyncio.Protocol)


class Dial(Protocol):
    """How a connection is made: plain here, and with TLS by whoever has certificates."""

    def __call__(
        self, protocol: Callable[[], asyncio.Protocol], address: str
    ) -> Awaitable[asyncio.BaseTransport]:
        """Connect a protocol to `host:port`; raises OSError if that cannot be done."""


async def dial_plain(
    protocol: Callable[[], asyncio.Protocol], address: str
) -> asyncio.BaseTransport:
    """Connect without TLS; the name is resolved anew each time."""
    host, port = parse_address(address, "receive.hashrings")
    transport, _ = await asyncio.get_running_loop().create_connection(protocol, host, port)
    return transport


async def dial_where_it_leads(dial: Dial, protocol: Callable[[], P], address: str) -> P:
    """Connect, beginning anew when the name leads elsewhere; for ever if nobody answers.

    The first look-up finds out where it leads at all, so one beginning may be in vain.

    Args:
        dial: makes connections.
        protocol: makes the protocol of each.
        address: `host:port`.

    Raises:
        OSError: as `dial` says.
    """
    known: frozenset[str] = frozenset()
    while True:
        dialling = asyncio.ensure_future(_dial(dial, protocol(), address))
        moving = asyncio.ensure_future(_new_addresses(address, known))
        try:
            await asyncio.wait([dialling, moving], return_when=asyncio.FIRST_COMPLETED)
            if dialling.done():
                return dialling.result()
            known = moving.result()
        finally:
            dialling.cancel()
            moving.cancel()


async def _dial(dial: Dial, protocol: P, address: str) -> P:
    await dial(lambda: protocol, address)
    return protocol


async def _new_addresses(address: str, known: frozenset[str]) -> frozenset[str]:
    """Return where a name leads once that is elsewhere than was known, looking each second."""
    host, port = parse_address(address, "receive.hashrings")
    while True:
        await asyncio.sleep(LOOK_UP_AGAIN_S)
        with contextlib.suppress(OSError):  # no answer: what was known may still be right
            found = await _look_up(host, port)
            if found != known:
                return found


async def _look_up(host: str, port: int) -> frozenset[str]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return frozenset(str(target[0]) for *_, target in infos)
