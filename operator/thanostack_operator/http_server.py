"""The operator's own HTTP port: `/metrics`, and `/healthz`, which fails when the event loop hangs.

Served while waiting for the Lease as well: a follower is healthy.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serving(metrics: Metrics, port: int) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port, which ``port`` 0 leaves to the kernel.

    Raises:
        OSError: if the port is taken.
    """

    async def exposition(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", exposition), web.get("/healthz", health)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, _bound(port)).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _bound(port: int) -> socket.socket:
    """Return a socket on all addresses: the kubelet probes from outside, by the pod's family."""
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("", port))
    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
