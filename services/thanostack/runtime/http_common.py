"""The routes every container has, and plain answers without a framework.

    /metrics   /-/healthy   /-/ready
    anything else              404 page not found, as Go says it

`Answer` is a whole response; `send` writes it to ASGI in two events. Raw ASGI callables (the write
path) use it too, as it costs a few microseconds where a framework's response costs tens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from thanostack.runtime.metrics import exposition
from thanostack.runtime.probes import Probes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
_REFUSALS = {404: "404 page not found"}
CLIENT_CERTIFICATE = "thanostack.client_certificate"
"""Key of a request's scope: the client's verified certificate, DER, or None; only over TLS."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, body, content type and further headers."""

    status: int
    body: bytes = b""
    content_type: bytes = TEXT
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return all headers of a response but those that the server adds."""
    return [
        (b"content-length", b"%d" % len(answer.body)),
        (b"content-type", answer.content_type),
        *answer.headers,
    ]


async def send_answer(send: Send, answer: Answer) -> None:
    """Write a whole response."""
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": headers_of(answer),
        },
    )
    await send({"type": "http.response.body", "body": answer.body})


def plain_errors(pages: FastAPI) -> None:
    """Make an application answer what it has no route for as upstream does: in plain text."""

    @pages.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        text = _REFUSALS.get(error.status_code, error.detail)
        headers = {**(error.headers or {}), "X-Content-Type-Options": "nosniff"}
        return PlainTextResponse(f"{text}\n", error.status_code, headers)


def common_routes(probes: Probes, registry: CollectorRegistry) -> APIRouter:
    """Return the routes for metrics and probes; included by every container's application."""
    router = APIRouter(include_in_schema=False)

    @router.get("/-/healthy")
    async def healthy() -> Response:
        if probes.is_healthy:
            return Response("OK", media_type="text/plain")
        return Response("not healthy", 503, media_type="text/plain")

    @router.get("/-/ready")
    async def ready() -> Response:
        if probes.is_ready:
            return Response("OK", media_type="text/plain")
        return Response(f"not ready: {probes.reason}", 503, media_type="text/plain")

    @router.get("/metrics")
    def metrics(request: Request) -> Response:
        # Not async: collectors ask storage for its counters, off the loop.
        body, content_type = exposition(registry, request.headers.get("accept", ""))
        return Response(body, media_type=None, headers={"content-type": content_type})

    return router
