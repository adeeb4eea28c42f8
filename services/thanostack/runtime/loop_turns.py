"""Whose bytes are looked at next, when more have come than a round of the event loop should take.

    bytes ──time left in this round, nobody waits──> at once
      └──> [waiting connections] ──a piece each, in order──> their turn

One read brings fifty small requests. Without turns a round of the loop is as long as all that has
come takes, with sixteen routers two seconds in a fifth of a CPU; and a probe waits for three.

Used from the event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

TURN_S: Final = 0.002


class LoopTurns:
    """The turns of all connections of one server."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_round = False
        self._until = 0.0

    def has_time(self) -> bool:
        """Return whether one more piece may be looked at in this round."""
        now = time.monotonic()
        if not self._is_round:
            self._is_round, self._until = True, now + TURN_S
            asyncio.get_running_loop().call_soon(self._next_round)
        return now < self._until

    def is_free(self) -> bool:
        """Return whether nobody waits and there is time."""
        return not self._waiting and self.has_time()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have something called in its turn, for one piece."""
        self._waiting.append(go_on)
        self.has_time()

    def _next_round(self) -> None:
        self._is_round = False
        while self._waiting and self.has_time():
            self._waiting.popleft()()
