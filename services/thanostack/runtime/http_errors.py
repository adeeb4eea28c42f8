"""What an application answers where it has no route: plain text, as upstream does."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

_REFUSALS: Final = {404: "404 page not found"}


def plain_errors(pages: FastAPI) -> None:
    """Make an application answer what it has no route for as upstream does: in plain text."""

    @pages.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        text = _REFUSALS.get(error.status_code, error.detail)
        headers = {**(error.headers or {}), "X-Content-Type-Options": "nosniff"}
        return PlainTextResponse(f"{text}\n", error.status_code, headers)
