"""Connections that the kernel has accepted and the loop has not, when a port is to be closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable


async def accept_backlog(
    bound: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]
) -> None:
    """Take them all: a port that is closed resets them, and their clients' first requests fail.

    Args:
        bound: a socket that listens; does not block from here on.
        make_protocol: called for each connection.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # no more, or no more file descriptors
        bound.setblocking(False)
        while True:
            accepted, _ = bound.accept()
            await loop.connect_accepted_socket(make_protocol, accepted)
