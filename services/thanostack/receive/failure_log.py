"""Lines about writes that went wrong: of a full disk one a minute, not one a write.

The first failure of a kind is said at once. Those within a minute of the last line are counted, and
the next line says how many they were. A kind is a class of errors, so there are few. Bugs are all
said: each may be another one.

Samples that are refused are the sender's fault, and its answer says which; here one line a minute
and tenant says that some are, as senders' logs are often somebody else's. Tenants are whatever
senders name: beyond KINDS_MAX in a minute no more are said.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import Counter

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.runtime.logs import Logger

INTERVAL_S: Final = 60.0
KINDS_MAX: Final = 4096


class FailureLog:
    """Says and counts failures of writes, from any thread.

    Args:
        log: where lines go.
        failures: raised by every failure; its label is the kind.
        monotonic_s: a clock that never goes back.
    """

    def __init__(
        self, log: Logger, failures: Counter, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._failures, self._monotonic_s = log, failures, monotonic_s
        self._lock = threading.Lock()
        # Bound: KINDS_MAX, and the classes of errors; the one said longest ago comes first.
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def add(self, tenant: Tenant, error: Exception) -> None:
        """Take note of one failure."""
        kind = type(error).__name__
        if not isinstance(error, ThanostackError):
            self._failures.labels("bug").inc()
            self._log.error("write went wrong", tenant=tenant, err=error, exc_info=error)
            return
        self._failures.labels(kind).inc()
        more = self._due(kind)
        if more is not None:
            self._log.error("write went wrong", tenant=tenant, err=error, **more)

    def refused(self, tenant: Tenant, reasons: Mapping[str, int]) -> None:
        """Take note of a write some of whose samples were refused.

        Args:
            tenant: whose.
            reasons: of the refusals, with the number of samples.
        """
        more = self._due(f"refused {tenant}", is_of_many=True)
        if more is not None:
            text = ", ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items()))
            self._log.warning("samples are refused", tenant=tenant, reasons=text, **more)

    def _due(self, kind: str, *, is_of_many: bool = False) -> dict[str, int] | None:
        """Return what to add to a line of this kind, None if it is too early for one.

        Args:
            kind: of failure.
            is_of_many: of as many as senders like, so that some are not said if there are too many.
        """
        now = self._monotonic_s()
        with self._lock:
            if now - self._said.get(kind, -math.inf) < INTERVAL_S:
                self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
                return None
            unsaid = self._unsaid.pop(kind, 0)
            self._said.pop(kind, None)
            if is_of_many and len(self._said) >= KINDS_MAX:
                oldest = next(iter(self._said))
                if now - self._said[oldest] < INTERVAL_S:
                    return None
                del self._said[oldest]
                self._unsaid.pop(oldest, None)
            self._said[kind] = now
        return {"more_since": unsaid} if unsaid else {}
