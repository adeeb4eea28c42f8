"""The end of a connection: what was said is delivered, and what still comes is forgotten.

    our last bytes ──> FIN ──> read and forget ──peer closes, or FAREWELL_S──> close

A kernel that closes a connection with bytes unread, or gets more of them afterwards, resets it: the
peer may lose what it was told last, and hears of an error. So whoever ends a connection while the
peer may still be speaking reads on for a while. uvloop's TLS does so by itself when it is closed,
but for half a minute.

Bounds: FAREWELL_S, from when the peer's kernel has all of our bytes; LINGER_S in all. Nothing that
is read is kept. TLS is uvloop's: that of asyncio's own loop delivers nothing behind `close`.

Source: grpc-go and net/http2 wait a second for the same reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Final

FAREWELL_S: Final = 1.0
LINGER_S: Final = 10.0
_LOOKS: Final = 8
"""In FAREWELL_S, whether the peer has all."""


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
        self._hang_up_at = self._loop.time() + FAREWELL_S
        self._look_later()
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

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(FAREWELL_S / _LOOKS, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if _n_unheard(self._transport):
            self._hang_up_at = now + FAREWELL_S
        if now >= min(self._hang_up_at, self._late):
            self._transport.abort()
        else:
            self._look_later()


def _n_unheard(transport: asyncio.Transport) -> int:
    """Return how many bytes are not with the peer's kernel, as far as can be seen.

    What uvloop's TLS holds back behind its buffer is there only while the kernel's is full.
    """
    try:
        number = transport.get_extra_info("socket").fileno()
        (unsent,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # it is closed
        return 0
    return transport.get_write_buffer_size() + int(unsent)
