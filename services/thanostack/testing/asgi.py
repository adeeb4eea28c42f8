"""Calling an ASGI application without a socket: one request, in as many pieces as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reply:
    """What an application answered; status 0 if it did not."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode()


async def call(
    application: Any,
    path: str,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    parts: Sequence[bytes] = (b"",),
    is_cut_off: bool = False,
) -> Reply:
    """Send one request and return the answer.

    Args:
        application: called once.
        path: without query.
        method: of HTTP.
        headers: in any case.
        parts: the body as it arrives.
        is_cut_off: whether the client goes away instead of sending an end.
    """
    reply = Reply()
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        if not waiting:
            return {"type": "http.disconnect"}
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or is_cut_off}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = dict(message.get("headers", ()))
        else:
            reply.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 19291),
    }
    await application(scope, receive, send)
    return reply
