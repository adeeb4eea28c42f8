"""Two connections joined: what one says the other hears, no faster than it can listen.

    client ── Pipe ⇄ Pipe ── upstream

Either side may be a Unix socket, TCP or TLS. Both ends close once what was said has been heard.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, cast

BUFFER_BYTES: Final = 256 << 10
_LINGER_S: Final = 10.0


class Splice:
    """Two sockets joined: what one says the other hears, no faster than it can listen."""

    def __init__(self, client: asyncio.Transport, when_closed: Callable[[Splice], None]) -> None:
        self.name, self.has_begun = "", False
        self.client, self.upstream = Pipe(self), Pipe(self)
        # Joined from the start: grpcio's SETTINGS may come before the connecting task goes on.
        self.client.target, self.upstream.target = self.upstream, self.client
        self.client.connection_made(client)
        self._when_closed: Callable[[Splice], None] | None = when_closed

    def begin(self, received: bytes) -> None:
        """Let the client's bytes flow, first those that were read already."""
        if self.client.transport is None or self.upstream.transport is None:
            self.close()
            return
        self.has_begun = True
        self.upstream.write(received)
        self.client.transport.resume_reading()

    def close(self) -> None:
        """Close both sides once what was said has been heard."""
        for pipe in (self.client, self.upstream):
            if pipe.transport is not None:
                close_soon(pipe.transport)
        if self._when_closed is not None:
            self._when_closed(self)
            self._when_closed = None


class Pipe(asyncio.Protocol):
    """One end of a splice.

    `error` is why it was lost, if not in peace; `has_heard` whether the other side said anything.
    """

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self.error: Exception | None = None
        self.has_heard = False
        self.transport: asyncio.Transport | None = None
        self.target: Pipe | None = None
        self._hang_up = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve this transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        # No events asked for: only that the other end has closed is told.
        self._hang_up.register(self.transport.get_extra_info("socket").fileno(), 0)

    def data_received(self, data: bytes) -> None:
        """Pass what was heard to the other end."""
        self.has_heard = True
        if self.target is not None:
            self.target.write(data)

    def write(self, data: bytes) -> None:
        """Pass bytes on, unless the other end has closed.

        A write to a closed socket ends the transport at once, and with it what the other end said
        last and we have not read yet: grpcio closes as soon as it has answered its last call, while
        the client still acknowledges.
        """
        if self.transport is not None and not self._hang_up.poll(0):
            self.transport.write(data)

    def pause_writing(self) -> None:
        """Hold the other end back."""
        if self.target is not None and self.target.transport is not None:
            self.target.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other end go on."""
        if self.target is not None and self.target.transport is not None:
            self.target.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other end too."""
        self.transport, self.error = None, error
        self._splice.close()


def close_soon(transport: asyncio.Transport) -> None:
    """Close once all is written, or after a while if the other side does not read."""
    transport.close()
    if transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)
