"""No answers from a storage that is not open yet: an empty one would be a wrong one.

The HTTP port serves from the start, for the page, probes and metrics. Until storage is open the
query API is answered 503 with the reason; the page tries again by itself.
"""

from __future__ import annotations

from thanostack.lib.promapi.envelope import encode_error
from thanostack.runtime.http_common import ASGI, JSON, Answer, Receive, Scope, Send, send_answer
from thanostack.runtime.probes import Probes


class StartGate:
    """Stands before an application until it is opened.

    Args:
        application: answers everything but the API, and that too once the gate is open.
        prefix: of the API's paths.
        probes: know why the process is not ready.
    """

    def __init__(self, application: ASGI, prefix: str, probes: Probes) -> None:
        self._application, self._prefix, self._probes = application, prefix, probes
        self._is_open = False

    def open(self) -> None:
        """Let everything through from now on."""
        self._is_open = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        is_query = scope["type"] == "http" and scope["path"].startswith(f"{self._prefix}/api/")
        if self._is_open or not is_query:
            await self._application(scope, receive, send)
            return
        body = encode_error("unavailable", f"not ready: {self._probes.reason}")
        headers = ((b"cache-control", b"no-store"), (b"retry-after", b"2"))
        await send_answer(send, Answer(503, body, JSON, headers))
