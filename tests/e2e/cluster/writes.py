"""Counted writes to a stack's router Service, and what its querier Service gives back.

    senders without retries ──> x-receive ──> routers ──> ingestors <── queriers <── x-query ── held

A phase is what is done to a stack while they write. Its tally says how many requests were sent,
acknowledged and refused, and how many acknowledged samples cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from thanostack.testing.held_samples import Held, bits, missing, n_missing, size
from thanostack.testing.write_senders import (
    ACKNOWLEDGED,
    NO_ENDPOINT,
    RESET,
    STEP_MS,
    Senders,
    Service,
    Write,
)

DEFAULT_TENANT = "default-tenant"
_TIMEOUT_S = 30
_READABLE_S = 60


@dataclass(frozen=True)
class Querier:
    """The HTTP API of a querier Service.

    Args:
        address: host and port.
        tenant: whom it is asked for.
    """

    address: tuple[str, int]
    tenant: str = DEFAULT_TENANT

    def query(self, expression: str, **parameters: Any) -> Any:
        """Return the result of an instant query.

        Raises:
            OSError: if there is no answer, or one that is not a success.
        """
        text = urllib.parse.urlencode({"query": expression, **parameters})
        url = f"http://{self.address[0]}:{self.address[1]}/api/v1/query?{text}"
        request = urllib.request.Request(url, headers={"THANOS-TENANT": self.tenant})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)["data"]["result"]

    def held(self, run: int, begin_ms: int, end_ms: int) -> Held:
        """Return the samples of a run's senders in [begin, end], of all replicas together.

        Raises:
            ValueError: if two replicas have different values at the same time.
        """
        expression = f'sent{{run="{run}"}}[{end_ms - begin_ms + 1}ms]'
        held: Held = {}
        for series in self.query(expression, time=end_ms / 1000, dedup="false"):
            labels = series["metric"]
            names = ("__name__", "run", "sender", "pod")
            into = held.setdefault(frozenset((name, labels[name]) for name in names), {})
            for seconds, value in series["values"]:
                t, pattern = round(seconds * 1000), bits(float(value))
                if into.setdefault(t, pattern) != pattern:
                    raise ValueError(f"replicas differ at {t}: {labels}")
        return held


@dataclass
class Tally:
    """What became of the writes of one phase.

    Args:
        phase: what was done meanwhile.
        sent: requests that were answered, or whose connection broke.
        acknowledged: of these, with 200.
        cut: of these, broken off or not connected while a router was dead; see
            `Writes.router_kill`.
        refused: the others, by outcome.
        samples: acknowledged.
        lost: acknowledged, and not readable.
        seconds: that it took.
        details: of refusals and losses.
    """

    phase: str
    sent: int = 0
    acknowledged: int = 0
    cut: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    lost: int = 0
    seconds: float = 0.0
    details: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        refused = sum(self.refused.values())
        cut = f" ({self.cut} cut by a killed router)" if self.cut else ""
        kinds = f" {dict(self.refused)}" if refused else ""
        return (
            f"{self.phase}: {self.sent} requests in {self.seconds:.0f} s, {self.acknowledged} "
            f"acknowledged, {refused} refused{kinds}{cut}; {self.samples} samples, {self.lost} lost"
        )


@dataclass
class Writes:
    """The senders of one run, and the querier that they are checked by.

    Args:
        senders: they write all the time.
        querier: that is asked.
        killed: monotonic seconds between which a router was killed and still had traffic.
    """

    senders: Senders
    querier: Querier
    killed: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def to(cls, routers: tuple[str, int], querier: Querier, run: int) -> Writes:
        """Begin to write to a router Service: one address, behind which Kubernetes chooses."""
        service = Service()
        service.add("service", routers)
        return cls(Senders(run, service, n_series=6, pause_s=0.08), querier)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Tally]:
        """Count the writes of a block; the tally is complete after it, and printed."""
        tally, mark, begun_s = Tally(name), self.senders.mark(), time.monotonic()
        self.senders.await_writes(2)
        yield tally
        self.senders.await_writes(4)
        tally.seconds = time.monotonic() - begun_s
        self._complete(tally, mark)

    def whole(self, name: str) -> Tally:
        """Return the tally of all writes since the beginning; senders may have halted."""
        tally = Tally(name)
        self._complete(tally, [0] * len(self.senders.senders))
        return tally

    @contextlib.contextmanager
    def router_kill(self, settle_s: float) -> Iterator[None]:
        """Tell of a router that the block kills: what breaks until ``settle_s`` later is cut."""
        begun_s = time.monotonic()
        yield
        self.killed.append((begun_s, time.monotonic() + settle_s))

    def _complete(self, tally: Tally, mark: list[int]) -> None:
        end = self.senders.mark()
        for write in self.senders.between(mark, end):
            self._count(tally, write)
        self._read(tally, mark, end)
        print(f"\n{tally}", flush=True)

    def _count(self, tally: Tally, write: Write) -> None:
        tally.sent += 1
        if write.outcome == ACKNOWLEDGED:
            tally.acknowledged += 1
        elif write.outcome in (RESET, NO_ENDPOINT) and self._is_cut(write):
            tally.cut += 1
        else:
            tally.refused[write.outcome] += 1
            tally.details.append(
                f"{write.outcome} after {write.ended_s - write.begun_s:.2f} s: {write.text}"
            )

    def _is_cut(self, write: Write) -> bool:
        return any(a < write.ended_s and write.begun_s < b for a, b in self.killed)

    def _read(self, tally: Tally, mark: list[int], end: list[int]) -> None:
        """Ask until everything acknowledged is there: a querier finds pods after a moment."""
        acknowledged = self.senders.acknowledged(mark, end)
        tally.samples = size(acknowledged)
        begin_ms = self.senders.begun_ms + min(mark) * STEP_MS
        end_ms = self.senders.begun_ms + max(end) * STEP_MS
        deadline = time.monotonic() + _READABLE_S
        while True:
            try:
                held = self.querier.held(self.senders.run, begin_ms, end_ms)
            except OSError as error:
                lost, lines = tally.samples, [repr(error)]
            else:
                lost, lines = n_missing(acknowledged, held), missing(acknowledged, held)
            if not lost or time.monotonic() > deadline:
                break
            time.sleep(1)
        tally.lost = lost
        tally.details += lines[:10]
