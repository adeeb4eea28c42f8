"""The pages every container has, and plain answers without a framework.

    /metrics   /-/healthy   /-/ready       answered here
    anything else                          the application behind

`Answer` is a whole response; `send_answer` writes it to ASGI in two events. Raw ASGI callables (the
write path) use it too, as it costs a few microseconds where a framework's response costs tens, and
its import 10 MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry

from thanostack.runtime.error_mapping import error_text, retry_after_s
from thanostack.runtime.metrics import exposition
from thanostack.runtime.probes import Probes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
_NO_SNIFF = (b"x-content-type-options", b"nosniff")
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


def error_answer(status: int, text: str, *headers: tuple[bytes, bytes]) -> Answer:
    """Return an error as Go's servers give one: a line of text that is not to be sniffed at."""
    return Answer(status, f"{text}\n".encode(errors="replace"), headers=(*headers, _NO_SNIFF))


def failure_answer(status: int, error: Exception) -> Answer:
    """Return what is said of an error, and when to come back where that helps."""
    seconds = retry_after_s(error)
    retry = () if seconds is None else ((b"retry-after", b"%d" % seconds),)
    return error_answer(status, error_text(error), *retry)


_METHOD_NOT_ALLOWED: Final = error_answer(405, "Method Not Allowed", (b"allow", b"GET, HEAD"))


class CommonPages:
    """Metrics and probes of a container, before the application that has its other pages.

    Args:
        probes: shown.
        registry: exposed.
        behind: that application.
    """

    def __init__(self, probes: Probes, registry: CollectorRegistry, behind: ASGI) -> None:
        self._probes, self._registry, self._behind = probes, registry, behind
        self._pages: Final[Mapping[str, Callable[[Scope], Awaitable[Answer]]]] = {
            "/metrics": self._metrics,
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        page = None if scope["type"] != "http" else self._pages.get(scope["path"])
        if page is None:
            await self._behind(scope, receive, send)
        elif scope["method"] not in {"GET", "HEAD"}:  # the server leaves out the body of a HEAD
            await send_answer(send, _METHOD_NOT_ALLOWED)
        else:
            await send_answer(send, await page(scope))

    async def _healthy(self, _: Scope) -> Answer:
        return Answer(200, b"OK") if self._probes.is_healthy else Answer(503, b"not healthy")

    async def _ready(self, _: Scope) -> Answer:
        if self._probes.is_ready:
            return Answer(200, b"OK")
        return Answer(503, f"not ready: {self._probes.reason}".encode())

    async def _metrics(self, scope: Scope) -> Answer:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        # In a thread: collectors ask storage for its counters, which waits for its jobs.
        body, content_type = await asyncio.to_thread(
            exposition, self._registry, accept.decode("latin-1")
        )
        return Answer(200, body, content_type.encode())


class LateApplication:
    """An application that is made when it is first asked, and then kept.

    Many processes are asked for nothing but writes, metrics and probes, and a web framework is
    10 MiB.

    Args:
        make: called once, in a thread.
    """

    def __init__(self, make: Callable[[], ASGI]) -> None:
        self._make = make
        self._made: ASGI | None = None
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        async with self._one_at_a_time:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        await self._made(scope, receive, send)
