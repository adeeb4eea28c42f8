"""`/-/drain` on the HTTP port: what an operator calls before it takes a receiver away.

    POST     begin, or try again after a failure     202 and the state
    GET                                              200 and the state
    DELETE   take writes again                       200 and the state

    {"state": "drained", "tenants": {"a": {"blocks": ["01J…"], "uploaded": false}}, "error": null}

Each may be repeated. 503 with `Retry-After` while the storage is being opened, or if the disk does
not take the note; 404 with a hint where there is nothing to drain or it is not enabled.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.receive.drain import Drain
from thanostack.runtime.error_mapping import error_text, http_status, retry_after_s

PATH = "/-/drain"


def drain_routes(drain: Drain) -> APIRouter:
    """Return the routes of a receiver that may be drained."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    def show() -> Response:
        # Not async, and elsewhere in a thread: there may be thousands of tenants.
        return _shown(drain, 200)

    @router.post(PATH)
    async def begin() -> Response:
        try:
            await drain.begin()
        except ThanostackError as error:
            return _refusal(error)
        return await asyncio.to_thread(_shown, drain, 202)

    @router.delete(PATH)
    async def end() -> Response:
        try:
            await drain.end()
        except ThanostackError as error:
            return _refusal(error)
        return await asyncio.to_thread(_shown, drain, 200)

    return router


def no_drain_routes(reason: str) -> APIRouter:
    """Return routes that say why there is no drain."""
    router = APIRouter(include_in_schema=False)

    @router.api_route(PATH, methods=["GET", "POST", "DELETE"])
    async def refuse(_: Request) -> Response:
        return PlainTextResponse(f"{reason}\n", 404)

    return router


def _shown(drain: Drain, status: int) -> Response:
    return JSONResponse(drain.status(), status)


def _refusal(error: ThanostackError) -> Response:
    seconds = retry_after_s(error)
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return PlainTextResponse(f"{error_text(error)}\n", http_status(error), headers)
