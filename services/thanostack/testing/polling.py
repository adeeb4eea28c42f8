"""Waiting for what has no event, on an event loop; `processes.until` waits without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually(claim: Callable[[], object], within_s: float = 20) -> None:
    """Look again and again until a claim is true.

    Raises:
        AssertionError: if it is not in time.
    """
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)
