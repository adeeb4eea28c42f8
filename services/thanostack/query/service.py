"""What the querier does for one request: queries, series, labels. Called from worker threads.

    QueryRequest ── parse ──> engine ── selectors ──> FanOutQueryable ──> QueryResult

Elsewhere: parameters and bodies (`http_api`), which endpoints (`endpoint_set`), calls (`fan_out`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, ParseError
from thanostack.lib.foundation.units import HOUR_MS, MINUTE_MS
from thanostack.lib.model.label_order import sort_runs, take_runs
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.promapi.envelope import TRUNCATED
from thanostack.lib.promql.ast import Expr
from thanostack.lib.promql.engine import Deadline, Engine, QueryResult
from thanostack.lib.promql.engine.result import MatrixResult, VectorResult
from thanostack.lib.promql.parser import ParserOptions, enforce_query, parse_expr
from thanostack.lib.storeapi.dedup import DedupMode
from thanostack.lib.storeapi.requests import LabelRequest, Shard
from thanostack.query.endpoints import Call
from thanostack.query.fan_out import FanOut
from thanostack.query.metrics import QueryMetrics
from thanostack.query.queryable import FanOutQueryable, SelectOptions, wait_for

_RESOLUTIONS_MS: Final = (HOUR_MS, 5 * MINUTE_MS)
TENANT_METADATA: Final = "thanos-tenant"
PATH_METADATA: Final = "thanostack-path"


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What holds for all requests.

    Args:
        timeout_s: longest time of a request.
        lookback_ms: how far selectors look back.
        dynamic_lookback: look back at least as far as the resolution asked for.
        dedup: how replicas become one where that is asked for.
        response_timeout_s: longest wait for an endpoint's next message; 0 is none.
        fetched_bytes_max: what one request may fetch.
        batch_size: series that endpoints may put into one message.
        enforced_label: label that must name the request's tenant; "" enforces nothing.
        stack_id: of this querier, in the guard against cycles.
    """

    timeout_s: float = 120.0
    lookback_ms: int = 5 * MINUTE_MS
    dynamic_lookback: bool = True
    dedup: DedupMode = DedupMode.PENALTY
    response_timeout_s: float = 0.0
    fetched_bytes_max: int = 4 << 30
    batch_size: int = 4096
    enforced_label: str = ""
    stack_id: str = ""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What one request says about the series that it wants.

    Args:
        tenant: whose request it is.
        dedup: whether replicas become one.
        replica_labels: labels that tell them apart.
        partial_response: whether an endpoint may fail.
        max_resolution_ms: coarsest data wanted.
        store_matchers: alternatives that choose endpoints.
        lookback_ms: 0 for the default.
        shard: part of the series.
        limit: most series; 0 is no limit.
    """

    tenant: str
    dedup: bool = True
    replica_labels: tuple[str, ...] = ()
    partial_response: bool = True
    max_resolution_ms: int = 0
    store_matchers: tuple[tuple[Matcher, ...], ...] = ()
    lookback_ms: int = 0
    shard: Shard | None = None
    limit: int = 0


class QueryService:
    """Answers requests from all endpoints.

    Args:
        engine: evaluates.
        fan_out: asks endpoints.
        loop: where calls run.
        options: what holds for all requests.
        parser: which parts of PromQL are on.
        metrics: told about evaluations.
    """

    def __init__(
        self,
        engine: Engine,
        fan_out: FanOut,
        loop: asyncio.AbstractEventLoop,
        options: ServiceOptions,
        parser: ParserOptions,
        metrics: QueryMetrics,
    ) -> None:
        self._metrics = metrics
        self._engine, self._fan_out, self._loop = engine, fan_out, loop
        self._options, self._parser = options, parser

    @property
    def timeout_s(self) -> float:
        """Return the longest time of a request."""
        return self._options.timeout_s

    def instant(
        self, query: str, time_ms: int, options: RequestOptions, deadline: Deadline
    ) -> QueryResult:
        """Return the value of a query at one time.

        Raises:
            ParseError: for a query that does not parse; InvalidInput where tenancy is enforced.
            QueryFailed, Unavailable, LimitExceeded: when it cannot be answered.
        """
        query, expr = self._parsed(query, options.tenant)
        return self._evaluated(
            lambda queryable: self._engine.instant(
                expr,
                queryable,
                time_ms,
                lookback_ms=self._lookback_ms(options),
                deadline=deadline,
                query=query,
            ),
            options,
            deadline,
        )

    def range(
        self,
        query: str,
        times: tuple[int, int, int],
        options: RequestOptions,
        deadline: Deadline,
    ) -> QueryResult:
        """Return the values of a query at (start, end, step), ms.

        Raises:
            ParseError: for a query that does not parse; InvalidInput where tenancy is enforced.
            QueryFailed, Unavailable, LimitExceeded: when it cannot be answered.
        """
        query, expr = self._parsed(query, options.tenant)
        return self._evaluated(
            lambda queryable: self._engine.range(
                expr,
                queryable,
                *times,
                lookback_ms=self._lookback_ms(options),
                deadline=deadline,
                query=query,
            ),
            options,
            deadline,
        )

    def _evaluated(
        self,
        evaluate: Callable[[FanOutQueryable], QueryResult],
        options: RequestOptions,
        deadline: Deadline,
    ) -> QueryResult:
        queryable, metrics = self._queryable(options, deadline), self._metrics
        started = time.monotonic()
        with metrics.engine.evaluating():
            result = evaluate(queryable)
        tenant = metrics.http.label_of(options.tenant)
        duration_s = time.monotonic() - started
        metrics.engine.evaluated(result, queryable.fetched, duration_s, tenant)
        return _limited(result, options.limit)

    def _lookback_ms(self, options: RequestOptions) -> int:
        if options.lookback_ms:
            return options.lookback_ms
        fitting = [ms for ms in _RESOLUTIONS_MS if ms <= options.max_resolution_ms]
        resolution = fitting[0] if fitting and self._options.dynamic_lookback else 0
        return max(self._options.lookback_ms, resolution)

    def _queryable(self, options: RequestOptions, deadline: Deadline) -> FanOutQueryable:
        replicas = options.replica_labels if options.dedup else ()
        select = SelectOptions(
            dedup=self._options.dedup if replicas else DedupMode.NONE,
            replica_labels=replicas,
            max_resolution_ms=options.max_resolution_ms,
            shard=options.shard,
            tenant=self._enforced(options.tenant),
            batch_size=self._options.batch_size,
        )
        return FanOutQueryable(self._fan_out, self._loop, select, self._call(options, deadline))

    @property
    def enforced_label(self) -> str:
        """Return the label that must name a request's tenant; "" enforces nothing."""
        return self._options.enforced_label

    def _enforced(self, tenant: str) -> Matcher | None:
        label = self._options.enforced_label
        return Matcher(MatchType.EQ, label, tenant) if label else None

    def _parsed(self, query: str, tenant: str) -> tuple[str, Expr]:
        """Return the query as it may be asked, as text and as tree."""
        matcher = self._enforced(tenant)
        if matcher is not None:
            try:
                query = enforce_query(query, matcher, self._parser)
            except ParseError as error:
                # Upstream: the text, its spelling included.
                text = f"error parsing query string, when enforcing tenenacy: {error}"
                raise InvalidInput(text) from error
        return query, parse_expr(query, self._parser)

    def _call(self, options: RequestOptions, deadline: Deadline) -> Call:
        return Call(
            deadline=deadline,
            metadata=(
                *tenant_metadata(options.tenant),
                (PATH_METADATA, self._options.stack_id),
            ),
            response_timeout_s=self._options.response_timeout_s,
            bytes_max=self._options.fetched_bytes_max,
            abort=not options.partial_response,
            store_matchers=options.store_matchers,
        )

    def series(
        self,
        selectors: Sequence[Sequence[Matcher]],
        times: tuple[int, int],
        options: RequestOptions,
        deadline: Deadline,
    ) -> tuple[LabelRuns, list[str]]:
        """Return the label sets that match any selector, ascending, and warnings.

        Raises:
            QueryFailed, Unavailable, LimitExceeded: when it cannot be answered.
        """
        queryable = self._queryable(options, deadline)
        # One more than asked for tells whether there are more.
        limit = options.limit + 1 if options.limit else 0
        found, warnings = [], dict[str, None]()
        for matchers in selectors:
            labels, texts = queryable.select_labels(matchers, *times, limit)
            found.append(labels)
            warnings |= dict.fromkeys(texts)
        merged = found[0] if len(found) == 1 else _union(found)
        if options.limit and len(merged) > options.limit:
            merged = take_runs(merged, np.arange(options.limit))
            warnings[TRUNCATED] = None
        return merged, list(warnings)

    def labels(
        self,
        name: str,
        selectors: Sequence[Sequence[Matcher]],
        times: tuple[int, int],
        options: RequestOptions,
        deadline: Deadline,
    ) -> tuple[list[str], list[str]]:
        """Return sorted label names, or the values of one label, and warnings.

        Args:
            name: whose values; "" for names.
            selectors: alternatives; none selects all series.
            times: ms, inclusive.
            options: of the request.
            deadline: when to give up.

        Raises:
            QueryFailed, Unavailable: when it cannot be answered.
        """
        queryable = self._queryable(options, deadline)
        select = queryable.options
        request = LabelRequest(
            name,
            (),
            *times,
            without_replica_labels=select.without_replica_labels,
            limit=options.limit + 1 if options.limit else 0,
            abort=not options.partial_response,
        )
        ask = self._fan_out.label_values if name else self._fan_out.label_names
        found: set[str] = set()
        warnings: dict[str, None] = {}
        for matchers in selectors or [()]:
            one = dataclasses.replace(request, matchers=select.enforced(matchers))
            texts, notes = wait_for(ask(one, queryable.call), self._loop, deadline)
            found.update(texts)
            warnings |= dict.fromkeys(notes)
        shown = sorted(found)
        if options.limit and len(shown) > options.limit:
            shown = shown[: options.limit]
            warnings[TRUNCATED] = None
        return shown, list(warnings)


def tenant_metadata(tenant: str) -> tuple[tuple[str, str], ...]:
    """Return what tells endpoints the tenant.

    A name that is not ASCII cannot travel so, and would end the call; endpoints only count by it.
    """
    return ((TENANT_METADATA, tenant),) if tenant.isascii() else ()


def _union(parts: Iterable[LabelRuns]) -> LabelRuns:
    runs = dict.fromkeys(part.run(i) for part in parts for i in range(len(part)))
    labels = LabelRuns.of(runs)
    return take_runs(labels, sort_runs(labels))


def _limited(result: QueryResult, limit: int) -> QueryResult:
    """Cut a result to its first series, with a warning."""
    value = result.value
    if not limit or not isinstance(value, VectorResult | MatrixResult) or len(value) <= limit:
        return result
    labels = take_runs(value.labels, np.arange(limit))
    if isinstance(value, VectorResult):
        cut: VectorResult | MatrixResult = VectorResult(
            labels, value.timestamps[:limit], value.values[:limit]
        )
    else:
        stop = int(value.offsets[limit])
        cut = MatrixResult(
            labels, value.offsets[: limit + 1], value.timestamps[:stop], value.values[:stop]
        )
    return dataclasses.replace(result, value=cut, warnings=(*result.warnings, TRUNCATED))
