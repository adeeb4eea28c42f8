"""Which event loop these tests run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from thanostack_operator.testing.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give all of them a clock that jumps: back-offs take no time and are exact."""
    del item
    return {"virtual": VirtualTimeLoop}
