"""Requests that are answered as they are read: no task, no events, one write.

    headers ──POST to a direct path──> its body ──whole──> its turn ──> answer_now ──> response
                  │ else                  │ large, or slow                  │ None
                  └───────────────────────┴─────> the ASGI application <────┘

A write takes a tenth of a millisecond; a task with its events and messages takes as much again.
What is not plain goes to the application, which also has the rules for large and slow bodies.

Bound: a body that no task has yet is at most what one read brings beyond WHOLE_BYTES_MAX, which is
as much as uvicorn itself reads ahead. While a request waits for its turn, its connection is not
read.
"""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from thanostack.lib.foundation.errors import Unavailable
from thanostack.runtime.http_common import Answer
from thanostack.runtime.http_heads import LAST, BoundedHeads

WHOLE_BYTES_MAX: Final = 64 << 10
PATIENCE_S: Final = 1.0
Header = tuple[bytes, bytes]


class Direct(Protocol):
    """What can answer at once.

    Args:
        direct_paths: where it is asked, as they stand in the request line.
    """

    direct_paths: frozenset[bytes]

    def when_turn(self, n_bytes: int, resume: Callable[[Unavailable | None], None]) -> bool:
        """Call back when a request's turn has come, perhaps at once, or with why it never will.

        Args:
            n_bytes: of its body.
            resume: called once.

        Returns:
            Whether the body will be needed.
        """

    def answer_now(
        self, headers: Sequence[Header], body: bytes, refused: Unavailable | None
    ) -> Answer | None:
        """Return the answer to a POST, or None if the application has to find it; never raises.

        Args:
            headers: names in lower case.
            body: all of it.
            refused: why its turn does not come.
        """


class DirectProtocol(BoundedHeads):
    """One connection.

    Args:
        direct: asked first.
        arguments: of uvicorn.
    """

    def __init__(self, direct: Direct, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._direct = direct
        self._parts: list[bytes] | None = None
        self._held = 0
        self._patience: TimerHandle | None = None
        self._is_waiting = self._is_dropped = False

    def data_received(self, data: bytes) -> None:
        """Take what was read; a request that is not whole by then waits, but not long."""
        super().data_received(data)
        if self._parts is None or self._is_waiting:
            return
        if self.transport.is_closing():
            self._let_go()
        elif self._held > WHOLE_BYTES_MAX:
            self._hand_over()
        elif self._patience is None:
            self._patience = self.loop.call_later(PATIENCE_S, self._hand_over)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what had arrived."""
        self._let_go()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Let a request that has begun end, as uvicorn does."""
        if self._is_waiting:
            self._answer(None)
        elif self._parts is not None:
            self._hand_over()
        super().shutdown()

    def on_message_begin(self) -> None:
        """Answer the request before first: of a pipeline it may not have had its turn yet."""
        if self._is_waiting:
            self._answer(None)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Keep a plain POST back until its body is there."""
        if self._is_plain():
            self.is_moving = True
            self._parts, self._held = [], 0
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self.is_moving = True
            self._parts.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        """Answer, when its turn comes."""
        if self._parts is None:
            super().on_message_complete()
            return
        self._is_waiting = True
        if not self._direct.when_turn(self._held, self._answer):
            self._parts, self._is_dropped = [], True
        if self._is_waiting:
            self._stop_patience()
            self.flow.pause_reading()

    def _answer(self, refused: Unavailable | None) -> None:
        if not self._is_waiting:  # answered out of turn, or gone
            return
        self._is_waiting = False
        self.flow.resume_reading()
        assert self._parts is not None
        if refused is None and self._is_dropped:
            # Answered before its refusal had its turn; without its body it can be nothing else.
            refused = Unavailable("too many writes wait: come back later")
        answer = self._direct.answer_now(self.headers, b"".join(self._parts), refused)
        if answer is None:
            self._hand_over()
            super().on_message_complete()
            return
        self._let_go()
        self.transport.write(self.encoded(answer))
        self.on_response_complete()

    def _is_plain(self) -> bool:
        parser = self.parser
        return (
            self.url in self._direct.direct_paths
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            # Requests of one connection are answered in order.
            and (self.cycle is None or self.cycle.response_complete)  # type: ignore[redundant-expr]
            and not self.flow.write_paused
            and LAST not in self.server_state.default_headers
        )

    def _hand_over(self) -> None:
        """Give the request to the application, with what has arrived of its body."""
        parts = self._let_go()
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def _let_go(self) -> list[bytes]:
        parts, self._parts = self._parts or [], None
        self._is_waiting = self._is_dropped = False
        self._stop_patience()
        return parts

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
