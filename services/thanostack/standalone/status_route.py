"""`GET /api/v1/status/tsdb` on the HTTP port: a querier has none, the storage beside it has."""

from __future__ import annotations

from typing import Final

from thanostack.runtime.http_common import ASGI, Receive, Scope, Send

_PATH: Final = "/api/v1/status/tsdb"


class StatusRoute:
    """Sends one path of an application to another.

    Args:
        application: answers everything else.
        status: has the route, without a prefix.
        prefix: of the application's paths.
    """

    def __init__(self, application: ASGI, status: ASGI, prefix: str) -> None:
        self._application, self._status, self._path = application, status, f"{prefix}{_PATH}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", self._path):
            own = {**scope, "path": _PATH, "raw_path": _PATH.encode()}
            await self._status(own, receive, send)
        else:
            await self._application(scope, receive, send)
