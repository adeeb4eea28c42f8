"""Loopback ports for the servers of tests, of several test processes at a time."""

from __future__ import annotations

import atexit
import contextlib
import random
import socket
from collections.abc import Iterator

_FIRST, _END, _BLOCK = 20_000, 30_000, 100
# Tests seed the other source, and would get the same ports again.
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """Return a loopback port nobody listens on, and that no test was given before or will be.

    Not one that the kernel hands out: before a server binds it, a connection may have it by then.
    Nor one of another test process: its server may be about to bind it, or may be stopped to be
    started again there.

    Raises:
        RuntimeError: if tests want thousands.
    """
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port is left between {_FIRST} and {_END}")


def _claimed() -> Iterator[int]:
    """Yield the ports of blocks whose names this process holds until it ends."""
    blocks = range(_FIRST, _END, _BLOCK)
    for first in _RANDOM.sample(blocks, len(blocks)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0thanostack.testing.ports.{first}")
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        yield from _RANDOM.sample(range(first, first + _BLOCK), _BLOCK)


_PORTS = _claimed()
