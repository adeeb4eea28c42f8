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
from typing import TYPE_CHECKING, Final

import orjson

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.runtime.error_mapping import http_status
from thanostack.runtime.http_common import (
    ASGI,
    JSON,
    Answer,
    Receive,
    Scope,
    Send,
    error_answer,
    failure_answer,
    send_answer,
)

if TYPE_CHECKING:
    from thanostack.receive.drain import Drain

PATH: Final = "/-/drain"
_METHOD_NOT_ALLOWED: Final = error_answer(
    405, "Method Not Allowed", (b"allow", b"DELETE, GET, POST")
)


class DrainPages:
    """The path, before the application that has all others.

    Args:
        drain: of the receiver, or in words why there is none.
        behind: that application.
    """

    def __init__(self, drain: Drain | str, behind: ASGI) -> None:
        self._drain, self._behind = drain, behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._behind(scope, receive, send)
        elif isinstance(self._drain, str):
            await send_answer(send, error_answer(404, self._drain))
        else:
            await send_answer(send, await _answer(self._drain, scope["method"]))


async def _answer(drain: Drain, method: str) -> Answer:
    try:
        if method == "POST":
            await drain.begin()
        elif method == "DELETE":
            await drain.end()
        elif method != "GET":
            return _METHOD_NOT_ALLOWED
    except ThanostackError as error:
        return failure_answer(http_status(error), error)
    # In a thread: there may be thousands of tenants.
    body = await asyncio.to_thread(lambda: orjson.dumps(drain.status()))
    return Answer(202 if method == "POST" else 200, body, JSON)
