"""Connections whose request lines, headers and trailers are bounded.

Neither the parser nor uvicorn bounds them: a header that does not end would be kept as it comes,
and be copied anew with each read, which holds the event loop for minutes. Go's servers have the
same bound and the same answer, 431.

Bound: HEAD_BYTES_MAX, and what one read brings. Bodies are the application's to bound.
"""

from __future__ import annotations

from typing import Final

from thanostack.runtime.http_common import Answer, error_answer, headers_of
from thanostack.runtime.lean_imports import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES_MAX: Final = 1 << 20
LAST: Final = (b"connection", b"close")
"""Among the headers of a response that is the last of its connection."""
_TOO_LARGE: Final = error_answer(
    431, f"request headers exceed the limit of {HEAD_BYTES_MAX} bytes", LAST
)


class BoundedHeads(HttpToolsProtocol):
    """One connection.

    Invariants: whoever overrides `on_headers_complete` or `on_body` without calling these here sets
    `is_moving`.
    """

    is_moving = False
    _n_unfinished = 0

    def data_received(self, data: bytes) -> None:
        """Take what was read; cut the connection off if it has brought nothing but heads."""
        self.is_moving = False
        super().data_received(data)
        self._n_unfinished = 0 if self.is_moving else self._n_unfinished + len(data)
        if self._n_unfinished > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """Note that a head has ended."""
        self.is_moving = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that a body goes on."""
        self.is_moving = True
        super().on_body(body)

    def encoded(self, answer: Answer) -> bytes:
        """Return a whole response as it goes over the wire."""
        lines = [STATUS_LINE[answer.status]]
        for name, value in (*self.server_state.default_headers, *headers_of(answer)):
            lines += [name, b": ", value, b"\r\n"]
        return b"".join((*lines, b"\r\n", answer.body))

    def _refuse(self) -> None:
        # The response to the request before may be on its way: there is no place for another.
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]
            self.transport.write(self.encoded(_TOO_LARGE))
        self.transport.close()
