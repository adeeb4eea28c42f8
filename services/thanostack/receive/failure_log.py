"""Lines about writes that went wrong: of a full disk one a minute, not one a write.

The first failure of a kind is said at once. Those within a minute of the last line are counted, and
the next line says how many they were. A kind is a class of errors, so there are few. Bugs are all
said: each may be another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.runtime.logs import Logger

INTERVAL_S: Final = 60.0


class FailureLog:
    """Says and counts failures of writes; used from one thread.

    Args:
        log: where lines go.
        failures: raised by every failure; its label is the kind.
        monotonic_s: a clock that never goes back.
    """

    def __init__(
        self, log: Logger, failures: Counter, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._failures, self._monotonic_s = log, failures, monotonic_s
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
        now = self._monotonic_s()
        if now - self._said.get(kind, -math.inf) < INTERVAL_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        more = {"more_since": unsaid} if unsaid else {}
        self._log.error("write went wrong", tenant=tenant, err=error, **more)
