"""The end of a connection: what was said is delivered, and what still comes is forgotten.

    our last bytes ──> FIN ──> read and forget ──peer closes, or FAREWELL_S──> close

A kernel that closes a connection with bytes unread, or gets more of them afterwards, resets it: the
peer may lose what it was told last, and hears of an error. So whoever ends a connection while the
peer may still be speaking reads on for a while. uvloop's TLS does so by itself when it is closed,
but for half a minute.

Bounds: FAREWELL_S, from when our last bytes are with the kernel (with TLS: in uvloop's last 64
KiB); LINGER_S for them. Nothing that is read is kept.

Source: grpc-go and net/http2 wait a second for the same reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

FAREWELL_S: Final = 1.0
LINGER_S: Final = 10.0


class Farewell(asyncio.Protocol):
    """Takes over a transport to which all has been written, and ends it.

    Args:
        transport: its protocol is replaced, and hears nothing more.
        when_lost: called when the connection has ended, with the error if there was one.
    """

    def __init__(
        self, transport: asyncio.Transport, when_lost: Callable[[Exception | None], None]
    ) -> None:
        self._transport, self._when_lost = transport, when_lost
        self._loop = asyncio.get_running_loop()
        self._late = self._loop.time() + LINGER_S
        self._timer = self._loop.call_later(FAREWELL_S, self._hang_up)
        transport.set_protocol(self)
        transport.resume_reading()
        if not transport.can_write_eof():
            transport.close()
        elif not transport.is_closing():
            with contextlib.suppress(OSError):  # asyncio's own loop: the peer has gone already
                transport.write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whose connection it was."""
        self._timer.cancel()
        self._when_lost(error)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _hang_up(self) -> None:
        if self._transport.get_write_buffer_size() and self._loop.time() < self._late:
            self._timer = self._loop.call_later(FAREWELL_S, self._hang_up)
        else:
            self._transport.abort()
