"""How many writes the event loop takes on before it looks at everything else.

    write ──nobody waits, turn has room──> at once
       ├──> [queue] ──at most 8 a turn──> its turn
       │        └──waited too long──> refused, come back
       └──queue full, or too many bytes──> [refusals] ──about 2 a turn──> refused, come back

Writes that wait for storage or peers after their turn are bounded as well: more than peers answer
within the forward timeout would only time out, all of them.

A turn is one round of the event loop. Without it a thousand writes that have arrived are worked on
in one go, and a probe waits for all of them, several times over. With it probes, queriers and peers
come in between, what waits is bounded, and what is beyond is refused before anything was done for
it. Senders that wait for their answers are slowed down before they are refused.

Refusing costs as well: reading and answering is a third of storing a small request. A sender that
is refused and comes again at once would leave time for little else, so refusals are answered in
turns too, a quarter as many as there are writes, unless they have waited as long as a write may;
what they held is let go before. A connection is not read while it waits for its answer, so senders
come back only as fast as they are answered.

Used from the event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from thanostack.lib.foundation.errors import Unavailable
from thanostack.receive.request_body import InflightBytes
from thanostack.receive.write_gate import WAIT_MAX_S, WAITING_MAX

WRITES_A_TURN: Final = 8
"""A write on the loop takes a tenth of a millisecond, two at most."""
AT_ONCE_MAX: Final = 256
"""25,000 writes a second at 10 ms each; at 100 a second still done within a forward's timeout."""
REFUSALS_A_TURN: Final = 2
_RETRY_S: Final = 1

Resume = Callable[[Unavailable | None], None]
"""Goes on with a write, or refuses it if it is given why."""


class WritePace:
    """The turns of one receiver.

    Args:
        registry: where its metrics are registered; None for nowhere.
        inflight: counts the bytes of those that wait.
        waiting_max: how many may wait.
        wait_max_s: how long each.
        at_once_max: how many that had their turn may not be over yet.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None,
        inflight: InflightBytes,
        *,
        waiting_max: int = WAITING_MAX,
        wait_max_s: float = WAIT_MAX_S,
        at_once_max: int = AT_ONCE_MAX,
    ) -> None:
        self.inflight = inflight
        self._waiting_max, self._wait_max_s = waiting_max, wait_max_s
        self._waiting: deque[tuple[Resume, int, float]] = deque()
        self._refusals: deque[tuple[Resume, Unavailable | None, float]] = deque()
        self._at_once_max, self._running = at_once_max, 0
        self._left = WRITES_A_TURN
        self._is_scheduled = False
        Gauge(
            "thanostack_receive_writes_waiting",
            "Writes that have arrived and wait for the event loop.",
            registry=registry,
        ).set_function(lambda: len(self._waiting))
        self._refused = Counter(
            "thanostack_receive_writes_refused_total",
            "Writes that were told to come back as too many or too large ones waited for the event "
            "loop, or they waited too long.",
            registry=registry,
        )

    def when_turn(self, n_bytes: int, resume: Resume) -> bool:
        """Go on with a write at once or in a later turn, or refuse it in a later turn.

        Args:
            n_bytes: that it holds while it waits and that nobody has counted.
            resume: called once.

        Returns:
            Whether it needs what it holds; False if it is refused.
        """
        error = self._enter(n_bytes, resume)
        if error is not None:
            self._refusals.append((resume, error, time.monotonic()))
        return error is None

    async def come(self) -> None:
        """Wait for a turn; whoever had it must `leave`.

        Raises:
            Unavailable: if too many wait already, or it does not come in time.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def resume(error: Unavailable | None) -> None:
            if turn.done():  # given up
                return
            if error is None:
                self._running += 1
                turn.set_result(None)
            else:
                turn.set_exception(error)

        error = self._enter(0, resume)
        if error is not None:
            raise error
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # it came at the very moment that it was given up
            raise

    def leave(self) -> None:
        """Be over."""
        self._running -= 1
        if self._waiting:
            self._schedule()

    async def to_refuse(self) -> None:
        """Wait until a refusal may be answered."""
        turn = asyncio.Event()
        self._refusals.append((lambda _: turn.set(), None, time.monotonic()))
        self._schedule()
        await turn.wait()

    def _enter(self, n_bytes: int, resume: Resume) -> Unavailable | None:
        self._schedule()
        if self._may_begin and not self._waiting:
            self._left -= 1
            resume(None)
        elif len(self._waiting) >= self._waiting_max or not self.inflight.has_room(n_bytes):
            return self._refusal("too many write requests are waiting")
        else:
            self.inflight.held += n_bytes
            self._waiting.append((resume, n_bytes, time.monotonic()))
        return None

    @property
    def _may_begin(self) -> bool:
        return self._left > 0 and self._running < self._at_once_max

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        self._left = WRITES_A_TURN
        if self._refusals or (self._waiting and self._may_begin):
            self._schedule()
        oldest = time.monotonic() - self._wait_max_s
        for n in range(len(self._refusals)):
            if n >= REFUSALS_A_TURN and self._refusals[0][2] > oldest:
                break
            refuse, error, _ = self._refusals.popleft()
            refuse(error)
        while self._waiting and (self._may_begin or self._waiting[0][2] < oldest):
            resume, n_bytes, since = self._waiting.popleft()
            self.inflight.held -= n_bytes
            if since < oldest:
                text = f"no turn within {self._wait_max_s:g} s: too many write requests at once"
                resume(self._refusal(text))
            else:
                self._left -= 1
                resume(None)

    def _refusal(self, text: str) -> Unavailable:
        self._refused.inc()
        return Unavailable(text, _RETRY_S)
