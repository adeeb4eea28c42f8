"""Times in the status: text to seconds and back, and timers that outlive a restart.

A timer is an item of `status.transitions`. A plan asks for it by name as long as what it measures
goes on; one that no plan asks for is gone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from thanostack_operator.manifests.args import duration_ms


def timestamp(now: float) -> str:
    """Return seconds since the epoch as Kubernetes writes a time: RFC 3339, whole seconds."""
    return dt.datetime.fromtimestamp(int(now), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: object) -> float | None:
    """Return a time's seconds since the epoch; None if it is no time, as an edited status has."""
    try:
        found = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or dt.UTC).timestamp()


def duration_s(text: str) -> float:
    """Return the seconds of one of Prometheus's durations, such as `1h30m` or `0`."""
    return duration_ms(text) / 1000


class Timers:
    """What began when: the former transitions, and those that this plan goes on with.

    Args:
        former: `status.transitions` as last written; what is malformed is forgotten.
        now: seconds since the epoch.
    """

    def __init__(self, former: Iterable[Any], now: float) -> None:
        self._now = now
        self._began: dict[str, float] = {}
        self._kept: dict[str, float] = {}
        for item in former:
            if isinstance(item, Mapping) and (began := seconds(item.get("since"))) is not None:
                self._began[str(item.get("name"))] = min(began, now)

    def elapsed_s(self, name: str) -> float:
        """Return how long ago a timer was started, starting it if it does not run."""
        # Started times are whole seconds, so that the status says exactly what the plan knows.
        self._kept[name] = self._began.get(name, float(int(self._now)))
        return self._now - self._kept[name]

    def keep(self, name: str) -> float | None:
        """Return how long ago a timer was started and let it run on; None if it does not run."""
        return self.elapsed_s(name) if name in self._began else None

    def keep_all(self) -> None:
        """Let every timer run on, as a plan does that looks at nothing."""
        self._kept = dict(self._began)

    def transitions(self) -> list[dict[str, str]]:
        """Return the timers that go on, as the status has them."""
        return [{"name": n, "since": timestamp(self._kept[n])} for n in sorted(self._kept)]
