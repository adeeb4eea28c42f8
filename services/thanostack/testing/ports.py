"""Loopback ports for the servers of tests, of several test processes at a time."""

from __future__ import annotations

import atexit
import contextlib
import errno
import random
import socket

_FIRST, _END, _BLOCK = 20_000, 30_000, 100
# Tests seed the other source, and would get the same ports again.
_RANDOM = random.SystemRandom()
_LEFT: list[int] = []


def free_port() -> int:
    """Return a loopback port nobody listens on, and that no test was given before or will be.

    Not one that the kernel hands out: before a server binds it, a connection may have it by then.
    Nor one of another test process: its server may be about to bind it, or may be stopped to be
    started again there.

    Raises:
        RuntimeError: if tests want thousands.
    """
    while _LEFT or _claim():
        port = _LEFT.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port is left between {_FIRST} and {_END}")


def _claim() -> bool:
    """Take the ports of a block whose name this process holds until it ends; False if none is left.

    Raises:
        OSError: if no name can be held.
    """
    blocks = range(_FIRST, _END, _BLOCK)
    for first in _RANDOM.sample(blocks, len(blocks)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0thanostack.testing.ports.{first}")
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        atexit.register(claim.close)
        _LEFT.extend(_RANDOM.sample(range(first, first + _BLOCK), _BLOCK))
        return True
    return False
