"""Which event loop these tests run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give the gRPC tests the loop of production, the others asyncio's own.

    uvloop hands over a new connection's bytes before the task that made the connection goes on;
    asyncio does not, and so hid a frame that was lost there.
    """
    if item.path.name.startswith("test_grpc_"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
