"""The querier's series as PromQL asks for them; called from worker threads.

    select(requests)   one round of calls for all selectors of the query, on the event loop
                       then, in this thread: decode, merge

Two selectors that ask for the same are fetched once. While calls run, the thread looks at the
query's deadline ten times a second: a client that leaves stops the calls.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.model.queryable import SelectRequest, SeriesSource
from thanostack.lib.promql.engine.options import Deadline
from thanostack.lib.promql.parser import enforce_matchers
from thanostack.lib.storeapi.dedup import Dedup, DedupMode
from thanostack.lib.storeapi.requests import SeriesRequest, Shard, aggregates_of
from thanostack.lib.storeapi.series_source import MergedSeries
from thanostack.query.endpoints import Call
from thanostack.query.engine_metrics import Fetched
from thanostack.query.fan_out import FanOut

T = TypeVar("T")
_POLL_S: Final = 0.1
_TWO_SAMPLES: Final = frozenset(
    {
        "rate",
        "irate",
        "increase",
        "delta",
        "idelta",
        "deriv",
        "predict_linear",
        "holt_winters",
        "double_exponential_smoothing",
    }
)


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """How one request's series are fetched and read.

    Args:
        dedup: how replicas become one; NONE also when there are no replica labels.
        replica_labels: labels that tell replicas apart.
        max_resolution_ms: coarsest data wanted; 0 is raw.
        shard: part of the series; None for all.
        tenant: matcher that every series must fulfil; None enforces nothing.
        batch_size: series that endpoints may put into one message.
    """

    dedup: DedupMode = DedupMode.NONE
    replica_labels: tuple[str, ...] = ()
    max_resolution_ms: int = 0
    shard: Shard | None = None
    tenant: Matcher | None = None
    batch_size: int = 4096

    @property
    def without_replica_labels(self) -> tuple[str, ...]:
        """Return the labels that stores are asked to remove."""
        return () if self.dedup is DedupMode.NONE else self.replica_labels

    def enforced(self, matchers: Sequence[Matcher]) -> tuple[Matcher, ...]:
        """Return matchers that cannot leave the tenant: its own replaces any on that label."""
        if self.tenant is None:
            return tuple(matchers)
        return enforce_matchers(tuple(matchers), self.tenant)


def wait_for(
    work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, deadline: Deadline
) -> T:
    """Run a coroutine on the event loop from another thread; give up with the deadline.

    Raises:
        QueryFailed: when the deadline passes or the query is cancelled.
        ThanostackError: what the work itself raised.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        while True:
            deadline.check()
            done, _ = concurrent.futures.wait((future,), _POLL_S)
            if done:
                return future.result()
    finally:
        future.cancel()


@dataclass(frozen=True, slots=True)
class FanOutQueryable:
    """Series of all endpoints; implements `model.queryable.Queryable`.

    Args:
        fan_out: asks the endpoints.
        loop: where calls run.
        options: how series are fetched and read.
        call: goes with every call.
        fetched: counts what the query's selectors bring.
    """

    fan_out: FanOut
    loop: asyncio.AbstractEventLoop
    options: SelectOptions
    call: Call
    fetched: Fetched = field(default_factory=Fetched)

    def select(self, requests: Sequence[SelectRequest]) -> list[SeriesSource]:
        """Return one source a request, fetched concurrently.

        Raises:
            QueryFailed: when the deadline passes or the query is cancelled.
            EndpointUnavailable: when an endpoint fails and partial answers are not wanted.
        """
        wanted = [self._series_request(request) for request in requests]
        distinct = list(dict.fromkeys(wanted))
        merged = {}
        with self.fan_out.metrics.engine.selecting(len(distinct)):
            work = self.fan_out.gather_series(distinct, self.call)
            gathered = wait_for(work, self.loop, self.call.deadline)
            for request, answers in zip(distinct, gathered, strict=True):
                self.call.deadline.check()
                merged[request] = answers.merge()
                self.fetched.add(merged[request][0])
        # A fold depends on where it begins: upstream, the earliest time of the whole query.
        bounds = (min(r.mint for r in requests), max(r.maxt for r in requests))
        return [
            MergedSeries(
                merged[series][0],
                Dedup(self.options.dedup, *bounds, function=request.hints.function),
                merged[series][1],
            )
            for request, series in zip(requests, wanted, strict=True)
        ]

    def _series_request(self, request: SelectRequest) -> SeriesRequest:
        options, hints = self.options, request.hints
        resolution = options.max_resolution_ms
        if hints.range_ms and hints.function in _TWO_SAMPLES:
            resolution = min(resolution, hints.range_ms // 2)
        return SeriesRequest(
            matchers=options.enforced(request.matchers),
            mint=request.mint,
            maxt=request.maxt,
            without_replica_labels=options.without_replica_labels,
            aggregates=aggregates_of(hints.function),
            max_resolution_ms=resolution,
            abort=self.call.abort,
            shard=options.shard,
            batch_size=options.batch_size,
        )

    def select_labels(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, limit: int
    ) -> tuple[LabelRuns, tuple[str, ...]]:
        """Return (label runs, warnings) of the series that match, without their samples.

        Raises:
            QueryFailed: when the deadline passes or the query is cancelled.
            EndpointUnavailable: when an endpoint fails and partial answers are not wanted.
        """
        request = self._series_request(SelectRequest(tuple(matchers), mint, maxt))
        request = dataclasses.replace(request, skip_chunks=True, limit=limit)
        with self.fan_out.metrics.engine.selecting(1):
            work = self.fan_out.gather_series([request], self.call)
            (gathered,) = wait_for(work, self.loop, self.call.deadline)
            batch, warnings = gathered.merge()
        return batch.labels, warnings
