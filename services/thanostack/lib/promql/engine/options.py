"""What an engine is told once, and what a query is told on its way: options and deadline."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from thanostack.lib.foundation.errors import QueryCanceled, QueryTimeout

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine evaluates; the defaults are Prometheus's, except where it has no bound.

    Args:
        lookback_ms: how far an instant selector looks back.
        default_step_ms: resolution of a subquery that names none.
        bytes_max: live matrices and decoded samples of one query; it decides the slices of a
            range query, and what does not fit at one step is refused.
        samples_max: points held at once, as upstream counts them; None is no bound.
        delayed_name_removal: drop metric names at the end of the query rather than at once.
        type_and_unit_labels: judge counters by `__type__` rather than by the name's suffix.
    """

    lookback_ms: int = 300_000
    default_step_ms: int = 60_000
    bytes_max: int = 512 * _MIB
    samples_max: int | None = 50_000_000
    delayed_name_removal: bool = False
    type_and_unit_labels: bool = False


@dataclass(slots=True)
class Deadline:
    """When a query must be over, and whether its client still wants it.

    Args:
        expires_s: on the monotonic clock; None never expires.

    Cost: a check is one clock read; the engine makes one a batch of series.
    """

    expires_s: float | None = None
    _canceled: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def after(timeout_s: float) -> Deadline:
        """Return a deadline this many seconds from now."""
        return Deadline(time.monotonic() + timeout_s)

    def cancel(self) -> None:
        """Make every later check fail; callable from any thread."""
        self._canceled.set()

    def check(self) -> None:
        """Return if the query may go on.

        Raises:
            QueryCanceled: after `cancel`.
            QueryTimeout: when the time is over.
        """
        if self._canceled.is_set():
            raise QueryCanceled("query was canceled in expression evaluation")
        if self.expires_s is not None and time.monotonic() >= self.expires_s:
            raise QueryTimeout("query timed out in expression evaluation")
