"""`GET /api/v1/status/tsdb`: what each tenant's active series are made of.

    limit         entries of each list, 10; at most 10,000
    all_tenants   `true` for every tenant, each with its name
    the tenant header, else the default tenant

Counted slice by slice beside writers (`lib/tsdb/cardinality`). A tenant that has nothing here is
left out, so the answer may be an empty list.

Source: Thanos `pkg/receive/handler.go` (getStats), `pkg/api/status/v1.go`; Prometheus
`web/api/v1/api.go` (TSDBStatus).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from thanostack.lib.foundation.errors import InvalidInput, NotReady, ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.promapi.envelope import encode_error, encode_success
from thanostack.lib.tsdb.cardinality import Cardinality, cardinality
from thanostack.lib.tsdb.tsdb import TSDB
from thanostack.runtime.error_mapping import codes_of, error_text
from thanostack.runtime.http_errors import plain_errors
from thanostack.runtime.probes import Probes

DEFAULT_LIMIT: Final = 10
LIMIT_MAX: Final = 10_000
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_CORS: Final = {
    "Access-Control-Allow-Headers": "Accept, Accept-Encoding, Authorization, Content-Type, Origin",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Date",
}


def status_pages(
    tenants: Callable[[], Mapping[Tenant, TSDB]], probes: Probes, *, header: str, default: Tenant
) -> FastAPI:
    """Return the application that has the route, and no other.

    Args:
        tenants: returns the open tenants.
        probes: while not ready, there is no answer.
        header: that names the tenant.
        default: tenant of requests without it.
    """
    pages = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    plain_errors(pages)

    @pages.get("/api/v1/status/tsdb")
    def tsdb_status(request: Request) -> Response:
        # Not async: counting waits for jobs of the storage.
        try:
            if not probes.is_ready:
                raise NotReady("service unavailable")
            limit = _limit(request.query_params.get("limit", ""))
            chosen = _chosen(request, header, default, tenants())
            data = [_shown(name, cardinality(tsdb, limit)) for name, tsdb in chosen]
        except ThanostackError as error:
            return _failure(error)
        return _answer(200, encode_success(data))

    return pages


def _chosen(
    request: Request, header: str, default: Tenant, tenants: Mapping[Tenant, TSDB]
) -> list[tuple[Tenant, TSDB]]:
    name = request.headers.get(header, "")
    if request.query_params.get("all_tenants") != "true":
        tenant = Tenant(name) if name else default
        return [(tenant, tenants[tenant])] if tenant in tenants else []
    if name:
        raise InvalidInput(
            f"using both the all_tenants parameter and the {header} header is not supported"
        )
    return sorted(tenants.items())


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not _NUMBER.fullmatch(text):
        raise InvalidInput(
            "unable to parse 'limit' parameter: strconv.ParseInt: parsing "
            f"{json.dumps(text, ensure_ascii=False)}: invalid syntax"
        )
    if text.startswith("-"):
        raise InvalidInput("'limit' parameter must not be negative")
    return min(int(text), LIMIT_MAX)


def _shown(tenant: Tenant, found: Cardinality) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "headStats": {
            "numSeries": found.series,
            "numLabelPairs": found.label_pairs,
            "chunkCount": found.chunks,
            "minTime": found.mint,
            "maxTime": found.maxt,
        },
        "seriesCountByMetricName": _stats(found.series_by_metric),
        "labelValueCountByLabelName": _stats(found.values_by_label),
        "memoryInBytesByLabelName": _stats(found.bytes_by_label),
        "seriesCountByLabelValuePair": _stats(found.series_by_pair),
    }


def _stats(counts: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in counts]


def _failure(error: ThanostackError) -> Response:
    codes = codes_of(error)
    return _answer(codes.http, encode_error(codes.prometheus, error_text(error)))


def _answer(status: int, body: bytes) -> Response:
    return Response(body, status, _CORS, "application/json")
