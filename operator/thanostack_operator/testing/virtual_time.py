"""An event loop on which waiting costs no time: its clock jumps to what is due next.

For tasks that wait for nothing but each other and timers. Nothing of the machine's load shows, so a
test may say to the millisecond when something happens.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Selector(selectors.SelectSelector):
    """Lets time pass where a real one would wait."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready; a wait that nothing cuts short is skipped."""
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.skipped_s += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the sum of what its tasks waited for, from 0."""

    def __init__(self) -> None:
        self._skipping = _Selector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the seconds that were waited for."""
        return self._skipping.skipped_s
