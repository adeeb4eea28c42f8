"""How many writes are worked on at once, and how many may wait for that.

    request ──slot free──► in                       ──► out
            └─ queue ──its turn──► in               ──► out
                    ├─ queue full ──► refused at once, come back
                    └─ waited too long ──► refused, come back

Upstream lets any number wait, without end; under overload all of them are answered after their
senders gave up, and are sent again. Here the wait is bounded both ways.

Used from the event loop only. Source: Thanos `pkg/gate`; Prometheus `util/gate`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from thanostack.lib.foundation.errors import Unavailable

WAITING_MAX: Final = 1000
WAIT_MAX_S: Final = 5.0
_RETRY_S: Final = 1
_PREFIX: Final = "thanos_receive_write_request_concurrent_gate_write_requests"
_BUCKETS = (0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720)


class WriteGate:
    """The gate; open to all until a concurrency is set.

    Args:
        registry: where its metrics are registered; None for nowhere.
        waiting_max: how many may wait.
        wait_max_s: how long each.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None,
        *,
        waiting_max: int = WAITING_MAX,
        wait_max_s: float = WAIT_MAX_S,
    ) -> None:
        self._waiting_max, self._wait_max_s = waiting_max, wait_max_s
        self._limit = self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._max = Gauge(
            f"{_PREFIX}_max", "Maximum number of concurrent write_requests.", registry=registry
        )
        Gauge(
            f"{_PREFIX}_in_flight",
            "Number of write_requests that are currently in flight.",
            registry=registry,
        ).set_function(lambda: self._running)
        Gauge(
            "thanostack_receive_write_gate_waiting",
            "Writes that wait for others to be done.",
            registry=registry,
        ).set_function(lambda: len(self._waiting))
        self._total = Counter(
            f"{_PREFIX}_total", "Total number of write_requests.", registry=registry
        )
        self._refused = Counter(
            "thanostack_receive_write_gate_refused_total",
            "Writes that were told to come back as too many waited, or they waited too long.",
            registry=registry,
        )
        self._duration = Histogram(
            f"{_PREFIX}_duration_seconds",
            "How many seconds it took for write_requests to wait at the gate.",
            buckets=_BUCKETS,
            registry=registry,
        )

    def set_limit(self, limit: int) -> None:
        """Let so many in at once; 0 lets all in."""
        self._limit = limit
        self._max.set(limit)
        self._let_in()

    def enter_now(self) -> bool:
        """Take a slot if one is free and nobody waits for it; return whether. It is not counted."""
        if not self._limit:
            self._running += 1
            return True
        if self._running >= self._limit or self._waiting:
            return False
        self._running += 1
        return True

    def count(self) -> None:
        """Count a request that had to pass; one that was tried at once in vain comes again."""
        if self._limit:
            self._total.inc()

    async def enter(self) -> None:
        """Wait for a slot; whoever has it must `leave`.

        Raises:
            Unavailable: if too many wait already, or none is free in time.
        """
        self.count()
        if self.enter_now():
            return
        if len(self._waiting) >= self._waiting_max:
            self._refused.inc()
            raise Unavailable("too many write requests are waiting", _RETRY_S)
        await self._wait()

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._wait_max_s):
                await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and not turn.cancelled():
                self.leave()  # let in at the very moment that it gave up
            if not isinstance(error, TimeoutError):
                raise
            self._refused.inc()
            text = f"no turn within {self._wait_max_s:g} s: too many write requests at once"
            raise Unavailable(text, _RETRY_S) from None
        finally:
            self._duration.observe(time.monotonic() - started)

    def leave(self) -> None:
        """Give a slot back."""
        self._running -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (not self._limit or self._running < self._limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)


class Turn:
    """One request's way through the gate."""

    __slots__ = ("_gate", "_is_in")

    def __init__(self, gate: WriteGate) -> None:
        self._gate, self._is_in = gate, False

    async def come(self) -> None:
        """Wait for it; see `WriteGate.enter`."""
        await self._gate.enter()
        self._is_in = True

    def come_now(self) -> bool:
        """Return whether it has come without waiting; see `WriteGate.enter_now`."""
        self._is_in = self._gate.enter_now()
        return self._is_in

    def count(self) -> None:
        """Count the request whose turn came at once, as it will not come again."""
        self._gate.count()

    def end(self) -> None:
        """Be over, if it came."""
        if self._is_in:
            self._is_in = False
            self._gate.leave()
