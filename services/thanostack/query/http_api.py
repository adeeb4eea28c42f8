"""Prometheus's query API over HTTP, with Thanos's parameters.

    query  query_range  series  labels                GET, POST (form)
    label/<name>/values  stores  status/…             GET
    rules  alerts  targets  metadata  query_exemplars GET: empty, see endpoint_apis

A request is decoded on the event loop, answered in a bounded pool of threads, and its body is made
there too: up to one piece at once, a longer one streamed piece by piece. A client that leaves
cancels its query.

| what went wrong | status · errorType |
|---|---|
| parameters, query text | 400 · bad_data |
| evaluation, a limit | 422 · execution |
| an endpoint, on `query` | 500 · internal |
| an endpoint, elsewhere | 422 · execution |
| deadline, client gone | 503 · timeout, canceled |
| an API that is not offered yet | 501 · unavailable |
| another method | 405, plain text |

Source: Thanos `pkg/api/query/v1.go`; Prometheus `web/api/v1/api.go`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse, StreamingResponse

from thanostack.lib.foundation.errors import (
    Corruption,
    InvalidInput,
    ParseError,
    QueryCanceled,
    Unavailable,
)
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.promapi.compression import GZIP_BYTES_MIN, accepts_gzip, compress
from thanostack.lib.promapi.envelope import closing, encode_error, encode_success, is_cacheable
from thanostack.lib.promapi.parameters import Parameters, parse_duration
from thanostack.lib.promapi.results import POINTS_PER_PIECE, stream_labels, stream_result
from thanostack.lib.promql.engine import Deadline, QueryResult
from thanostack.lib.promql.parser import parse_metric_selector
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.query.endpoint_apis import ENDPOINT_APIS
from thanostack.query.endpoint_set import EndpointSet
from thanostack.query.metrics import QueryMetrics
from thanostack.query.service import QueryService, RequestOptions
from thanostack.query.status import StatusPages, stores_page
from thanostack.runtime.error_mapping import codes_of, error_text
from thanostack.runtime.http_common import CLIENT_CERTIFICATE
from thanostack.runtime.process import Process

_CORS: Final = {
    "Access-Control-Allow-Headers": "Accept, Accept-Encoding, Authorization, Content-Type, Origin",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Date",
}
_NOT_OFFERED: Final = ("status/tsdb", "query_explain", "query_range_explain")
_OF_ENDPOINTS: Final = tuple(ENDPOINT_APIS.items())
_FORM_BYTES_MAX: Final = 10 << 20
_ESCAPED: Final = re.compile("_([0-9a-fA-F]{1,5})_|__")
_FORM: Final = "application/x-www-form-urlencoded"
_PARTS: Final = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class APIOptions:
    """Defaults of parameters, and which headers are sent.

    Args:
        replica_labels: where a request names none.
        partial_response: whether endpoints may fail where a request does not say.
        auto_downsampling: whether `max_source_resolution=auto` is the default.
        instant_resolution_ms: what `auto` is for instant queries.
        default_step_ms: least step of range queries that name none.
        metadata_range_ms: range of label and series requests that name none; 0 is all time.
        cors: whether browsers of other sites may ask.
        prefix: path before all routes.
    """

    replica_labels: tuple[str, ...] = ()
    partial_response: bool = True
    auto_downsampling: bool = False
    instant_resolution_ms: int = 0
    default_step_ms: int = 1000
    metadata_range_ms: int = 0
    cors: bool = True
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class _Answered:
    """A body in pieces, and what its headers depend on."""

    pieces: Iterator[bytes]
    cacheable: bool = True
    one_piece: bool = True


class QueryAPI:
    """The routes of one querier.

    Args:
        service: answers.
        endpoints: shown by `stores`.
        pool: threads for queries; its size is how many run at once.
        options: defaults.
        tenants: finds a request's tenant.
        pages: flags, build and runtime information.
        metrics: told about requests.
        process: its clock says what is now, its log is told about bugs.
    """

    def __init__(
        self,
        service: QueryService,
        endpoints: EndpointSet,
        pool: ThreadPoolExecutor,
        *,
        options: APIOptions,
        tenants: TenantRule,
        pages: StatusPages,
        metrics: QueryMetrics,
        process: Process,
    ) -> None:
        self._service, self._endpoints, self._pool = service, endpoints, pool
        self._options, self._tenants, self._pages = options, tenants, pages
        self._metrics, self._clock, self._log = metrics, process.clock, process.log

    def router(self) -> APIRouter:
        """Return all routes; included by the application."""
        router = APIRouter(prefix=f"{self._options.prefix}/api/v1")
        both, get = ["GET", "POST"], ["GET"]
        for path, name, handle, methods in (
            ("/query", "query", self._query, both),
            ("/query_range", "query_range", self._query_range, both),
            ("/series", "series", self._series, both),
            ("/labels", "label_names", self._label_names, both),
            ("/label/{name:path}/values", "label_values", self._label_values, get),
            ("/stores", "stores", self._stores, get),
            ("/status/{page}", "status", self._status, get),
            *((f"/{path}", path, self._not_offered, both) for path in _NOT_OFFERED),
            *((f"/{name}", name, self._of_endpoints, a.methods) for name, a in _OF_ENDPOINTS),
        ):
            # The first route that matches wins: status/tsdb is registered before status/{page}.
            at = 0 if handle == self._not_offered else len(router.routes)
            router.add_api_route(path, self._instrumented(name, handle), methods=[*methods])
            router.routes.insert(at, router.routes.pop())
            if "POST" not in methods:  # else it came to the route of what is not there at all
                refuse = self._instrumented(name, _wrong_method)
                router.add_api_route(path, refuse, methods=["POST"])
        router.add_api_route(
            "/{path:path}", self._instrumented("options", _options), methods=["OPTIONS"]
        )
        router.add_api_route("/{path:path}", self._instrumented("unknown", _unknown), methods=both)
        return router

    # Around every route

    def _instrumented(
        self, name: str, handle: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def route(request: Request) -> Response:
            started = time.monotonic()
            tenant = request.headers.get(self._tenants.header, self._tenants.default)
            with self._metrics.http.in_flight(
                name, request.method.lower(), tenant
            ).track_inprogress():
                try:
                    response = await handle(request)
                except Exception as error:  # every error has a body of ours
                    response = self._failure(name, error)
            if self._options.cors:
                response.headers.update(_CORS)
            size = len(getattr(response, "body", b"")) or 0
            received = int(request.headers.get("content-length") or 0)
            self._metrics.http.bound(
                name, request.method.lower(), tenant, response.status_code
            ).observe(time.monotonic() - started, received, size)
            return response

        return route

    def _failure(self, name: str, error: Exception) -> Response:
        status, kind = _status_of(name, error)
        if kind == "internal" and codes_of(error).http == 500:
            self._log.error("request went wrong", route=name, err=error, exc_info=True)
        return _json(encode_error(kind, error_text(error)), status, {"Cache-Control": "no-store"})

    async def _run(self, request: Request, deadline: Deadline, work: Callable[[], Any]) -> Any:
        """Run work in the pool; cancel it if the client goes away."""
        waiting = time.monotonic()

        def measured() -> Any:
            self._metrics.gate_seconds.observe(time.monotonic() - waiting)
            self._metrics.queries_total.inc()
            deadline.check()
            with self._metrics.queries_in_flight.track_inprogress():
                return work()

        future = asyncio.get_running_loop().run_in_executor(self._pool, measured)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                deadline.cancel()
                future.cancel()
                raise QueryCanceled("the client went away")
            return await future
        finally:
            gone.cancel()

    async def _respond(self, request: Request, answered: _Answered) -> Response:
        headers = {} if answered.cacheable else {"Cache-Control": "no-store"}
        packed = accepts_gzip(request.headers.get("accept-encoding", ""))
        if answered.one_piece:
            body = b"".join(answered.pieces)
            if packed and len(body) >= GZIP_BYTES_MIN:
                body = b"".join(compress([body]))
                headers |= _GZIP
            return _json(body, 200, headers)
        pieces = compress(answered.pieces) if packed else answered.pieces
        if packed:
            headers |= _GZIP
        return StreamingResponse(
            self._in_pool(pieces), media_type="application/json", headers=headers
        )

    async def _in_pool(self, pieces: Iterator[bytes]) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            piece = await loop.run_in_executor(None, next, pieces, None)
            if piece is None:
                return
            yield piece

    # Parameters that several routes have

    def _request_options(self, request: Request, given: Parameters) -> RequestOptions:
        replicas = tuple(given.texts("replicaLabels[]")) or self._options.replica_labels
        return RequestOptions(
            tenant=self._tenant_of(request),
            dedup=given.switch("dedup", default=True),
            replica_labels=replicas,
            partial_response=given.switch("partial_response", self._options.partial_response),
            store_matchers=tuple(
                parse_metric_selector(text) for text in given.texts("storeMatch[]")
            ),
            # 0 is the default, which a part of a millisecond is not.
            lookback_ms=max(given.duration("lookback_delta", least_ms=1) or 0, 0),
            shard=given.shard(),
            limit=given.limit(),
        )

    def _tenant_of(self, request: Request) -> Tenant:
        headers = dict(reversed(request.headers.raw))  # the first of a name counts
        return self._tenants.tenant_of(headers, request.scope.get(CLIENT_CERTIFICATE))

    def _deadline(self, given: Parameters) -> Deadline:
        text = given.text("timeout")
        timeout_ms = parse_duration(text) if text else None
        limit_s = self._service.timeout_s
        return Deadline.after(limit_s if timeout_ms is None else min(timeout_ms / 1000, limit_s))

    # Routes

    async def _query(self, request: Request) -> Response:
        given = await _parameters(request)
        now_ms = self._clock.now_ms()
        given.engine()
        time_ms = given.time("time", now_ms)
        resolution = given.max_source_resolution(
            self._options.instant_resolution_ms, automatic=self._options.auto_downsampling
        )
        options = self._request_options(request, given)
        options = dataclasses.replace(options, max_resolution_ms=resolution)
        deadline = self._deadline(given)
        answered = await self._run(
            request,
            deadline,
            lambda: _answered(
                lambda: self._service.instant(given.text("query"), time_ms, options, deadline),
                stats=bool(given.text("stats")),
            ),
        )
        return await self._respond(request, answered)

    async def _query_range(self, request: Request) -> Response:
        given = await _parameters(request)
        given.engine()
        times = given.step_range(self._options.default_step_ms)
        resolution = given.max_source_resolution(
            times[2] // 5, automatic=self._options.auto_downsampling
        )
        options = self._request_options(request, given)
        options = dataclasses.replace(options, max_resolution_ms=resolution)
        deadline = self._deadline(given)
        self._metrics.range_seconds.observe((times[1] - times[0]) / 1000)
        answered = await self._run(
            request,
            deadline,
            lambda: _answered(
                lambda: self._service.range(given.text("query"), times, options, deadline),
                stats=bool(given.text("stats")),
            ),
        )
        return await self._respond(request, answered)

    async def _series(self, request: Request) -> Response:
        given = await _parameters(request)
        if not given.texts("match[]"):
            raise InvalidInput("no match[] parameter provided")
        times = given.metadata_range(self._clock.now_ms(), self._options.metadata_range_ms)
        selectors = [parse_metric_selector(text) for text in given.texts("match[]")]
        options, deadline = self._request_options(request, given), self._deadline(given)
        labels, warnings = await self._run(
            request, deadline, lambda: self._service.series(selectors, times, options, deadline)
        )

        def pieces() -> Iterator[bytes]:
            yield b'{"status":"success","data":'
            yield from stream_labels(labels)
            yield closing(warnings, ())

        answered = _Answered(pieces(), is_cacheable(warnings), one_piece=len(labels) < 1000)
        return await self._respond(request, answered)

    async def _label_names(self, request: Request) -> Response:
        return await self._labels(request, "")

    async def _label_values(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:
            raise InvalidInput('invalid label name: ""')
        return await self._labels(request, _unescaped(name))

    async def _labels(self, request: Request, name: str) -> Response:
        given = await _parameters(request)
        times = given.metadata_range(self._clock.now_ms(), self._options.metadata_range_ms)
        selectors = [parse_metric_selector(text) for text in given.texts("match[]")]
        options, deadline = self._request_options(request, given), self._deadline(given)
        if not given.texts("replicaLabels[]"):
            # Upstream: label requests show replica labels; naming them here hides them.
            options = dataclasses.replace(options, replica_labels=())
        texts, warnings = await self._run(
            request,
            deadline,
            lambda: self._service.labels(name, selectors, times, options, deadline),
        )
        body = iter([encode_success(texts, warnings)])
        return await self._respond(request, _Answered(body, is_cacheable(warnings)))

    async def _stores(self, request: Request) -> Response:
        label = self._service.enforced_label
        tenant = (label, self._tenant_of(request)) if label else None
        body = encode_success(stores_page(self._endpoints.statuses(), tenant))
        return await self._respond(request, _Answered(iter([body])))

    async def _status(self, request: Request) -> Response:
        body = encode_success(self._pages.page(request.path_params["page"]))
        return await self._respond(request, _Answered(iter([body])))

    async def _of_endpoints(self, request: Request) -> Response:
        path = request.url.path.removeprefix(self._options.prefix)
        api = ENDPOINT_APIS[path.rpartition("/")[2]]
        n_having = api.count(status.endpoint.info for status in self._endpoints.statuses())
        if n_having:
            text = f"{path} of endpoints is not passed on yet: ask those that have it ({n_having})"
            return _json(encode_error("unavailable", text), 501)
        return _json(encode_success(api.nothing), 200)

    async def _not_offered(self, request: Request) -> Response:
        path = request.url.path.removeprefix(self._options.prefix)
        return _json(encode_error("unavailable", f"{path} is not offered yet"), 501)


_GZIP: Final = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}


def _answered(run: Callable[[], QueryResult], *, stats: bool) -> _Answered:
    """Run a query and begin its body, in the thread that ran it."""
    started = time.monotonic()
    result = run()
    shown = _stats(result, time.monotonic() - started) if stats else None
    pieces = stream_result(result, stats=shown)
    n_points = len(getattr(result.value, "values", ()))
    if n_points <= POINTS_PER_PIECE:
        pieces = iter([b"".join(pieces)])
    return _Answered(pieces, is_cacheable(result.warnings), n_points <= POINTS_PER_PIECE)


def _stats(result: QueryResult, duration_s: float) -> dict[str, Any]:
    return {
        "timings": {
            "evalTotalTime": duration_s,
            "resultSortTime": 0,
            "queryPreparationTime": 0,
            "innerEvalTime": duration_s,
            "execQueueTime": 0,
            "execTotalTime": duration_s,
        },
        "samples": {
            "totalQueryableSamples": result.stats.samples_read,
            "peakSamples": result.stats.points_peak,
        },
    }


def _status_of(name: str, error: Exception) -> tuple[int, str]:
    """Return (HTTP status, errorType); what endpoints do to a query depends on the route."""
    if isinstance(error, Unavailable | Corruption):
        # Upstream: a storage error is internal on an instant query and execution elsewhere.
        return (500, "internal") if name == "query" else (422, "execution")
    if isinstance(error, ParseError):
        return 400, "bad_data"
    codes = codes_of(error)
    return codes.http, codes.prometheus


async def _parameters(request: Request) -> Parameters:
    """Return the parameters of the form and of the URL.

    Raises:
        InvalidInput: for a form that is too large, or in parts.
    """
    values: dict[str, list[str]] = {}
    if request.method == "POST" and request.headers.get("content-type", "").startswith(_PARTS):
        # Upstream reads them; a parser of them in every querier is much for what nobody sends.
        raise InvalidInput(f"a form has to be sent as {_FORM}, {_PARTS} is not read")
    if request.method == "POST" and request.headers.get("content-type", "").startswith(_FORM):
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _FORM_BYTES_MAX:
                raise InvalidInput(f"a form may have {_FORM_BYTES_MAX} bytes at most")
        values = parse_qs(body.decode(errors="replace"), keep_blank_values=True)
    for name, texts in parse_qs(request.url.query, keep_blank_values=True).items():
        values.setdefault(name, []).extend(texts)
    return Parameters(values)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(body: bytes, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


async def _options(_: Request) -> Response:
    return Response(status_code=204)


async def _wrong_method(_: Request) -> Response:
    headers = {"Allow": "GET, OPTIONS", "X-Content-Type-Options": "nosniff"}
    return PlainTextResponse("Method Not Allowed\n", 405, headers)


async def _unknown(request: Request) -> Response:
    path = request.url.path
    text = f"no such API: {path}"
    if path.endswith(("/api/v1/receive", "/api/v1/write")):
        text += "; writes go to the port of receive's --remote-write.address"
    return _json(encode_error("not_found", text), 404)


def _unescaped(name: str) -> str:
    """Return a label name of the path: `U__` begins an escaped UTF-8 name, as Prometheus has it.

    Example:
        >>> _unescaped("U__a_2e_b__c"), _unescaped("job")
        ('a.b_c', 'job')
    """
    if not name.startswith("U__"):
        return name
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)) if m[1] else "_", name.removeprefix("U__"))
