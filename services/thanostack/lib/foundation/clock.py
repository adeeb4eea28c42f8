"""Time as an injected value: the system clock, and one that tests turn by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Wall-clock milliseconds and monotonic seconds."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


@dataclass
class ManualClock:
    """A clock that stands still until told; for tests."""

    time_ms: int = 0

    def now_ms(self) -> int:
        """Return the time last set."""
        return self.time_ms

    def monotonic_s(self) -> float:
        """Return the same time in seconds."""
        return self.time_ms / 1000

    def advance(self, duration_ms: int) -> None:
        """Move on by a duration in ms."""
        self.time_ms += duration_ms
