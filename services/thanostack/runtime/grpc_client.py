"""Calls of one gRPC method on one peer, over one connection that is made when it is needed.

    call ──no connection──> waits ──dialled──> Http2Client ──> on_end
              └──cannot be dialled──> UNAVAILABLE

grpcio's client takes 330 to 450 µs of CPU for a message of 180 kB, half of it for its threads, and
cannot compress with snappy; this one takes 130 µs, nearly all of it the kernel's copy to the socket
(docs/decisions/0006). Answers are not kept: `WriteableStore` answers with an empty message.

A call that the peer has surely not answered, as its connection broke or the peer is going away, is
made once more on a new connection: whoever uses this sends what may be repeated. Thanos's keepalive
is kept: a ping after 10 s without a byte from the peer, and 5 s for its answer. Whoever suspects
sooner that a peer is gone asks with `probe`, which does not wait so long.

All of it runs on one event loop, whose thread alone may call.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Final, cast

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.dialling import Dial, Dialler, dial_plain
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_client import CallEnd, Http2Client, OnEnd
from thanostack.runtime.http2_frames import ConnectionFailed

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 10.0
KEEPALIVE_TIMEOUT_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 2.0
_ATTEMPTS: Final = 2
_LEFT: Final = "the peer left at once"

Refused = Callable[[str, Exception | None], str]
"""Says why a peer ended a connection before its first word: of its address and the error."""


class _Connection(asyncio.Protocol):
    """A machine on a transport, with keepalive.

    Args:
        refused: says why it was lost before the peer's first word; None if there is no more to say.
    """

    def __init__(self, refused: Callable[[Exception | None], str] | None = None) -> None:
        self.machine = Http2Client()
        self._refused = refused
        self.ending = ""
        """Why it has ended, once it has."""
        self._transport: asyncio.Transport | None = None
        self._heard_s = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._pong: asyncio.Future[bool] | None = None

    @property
    def is_usable(self) -> bool:
        """Return whether another call may begin."""
        return self._transport is not None and not self.machine.is_leaving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, unless it was given up while it was dialled."""
        self._transport = cast("asyncio.Transport", transport)
        if self.ending:
            self._transport.abort()
            return
        self._heard_s = time.monotonic()
        self._wait(KEEPALIVE_S)
        self.write()

    def data_received(self, data: bytes) -> None:
        """Feed the machine and write what it answers."""
        self._heard_s = time.monotonic()
        self._refused = None
        try:
            self.machine.receive(data, self._heard_s)
        except ConnectionFailed as failure:
            self.abort(f"the peer broke HTTP/2: {failure}")
            return
        self.write()
        if not self.machine.awaits_pong:
            self._answer_ping(True)
        if self.machine.is_leaving and not self.machine.n_streams:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End every call."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._answer_ping(False)
        if self._refused is not None:
            self.ending = self._refused(error)
        reason = f": {error}" if error else ""
        self.ending = self.ending or f"the connection was closed{reason}"
        self.machine.lose(self.ending)

    def pause_writing(self) -> None:
        """Hold data back."""
        self.machine.cork(True)

    def resume_writing(self) -> None:
        """Go on."""
        self.machine.cork(False)
        self.write()

    def write(self) -> None:
        """Write what the machine has to say."""
        if self._transport is not None and (pieces := self.machine.take_pieces()):
            self._transport.writelines(pieces)

    def close(self) -> None:
        """Close once everything is written."""
        self._refused = None
        if self._transport is not None:
            self._transport.close()

    def abort(self, text: str, *, may_repeat: bool = True) -> None:
        """Close at once and end every call."""
        self._refused, self.ending = None, text
        self.machine.lose(text, may_repeat=may_repeat)
        if self._transport is not None:
            self._transport.abort()

    async def is_answering(self, timeout_s: float) -> bool:
        """Return whether the peer answers a ping in time."""
        if self._pong is None:
            self._pong = asyncio.get_running_loop().create_future()
        if not self.machine.awaits_pong:
            self.machine.ping()
            self.write()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._pong)
        except TimeoutError:
            return False

    def _answer_ping(self, is_alive: bool) -> None:
        pong, self._pong = self._pong, None
        if pong is not None:
            pong.set_result(is_alive)

    def _wait(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._keep_alive)

    def _keep_alive(self) -> None:
        silent_s = time.monotonic() - self._heard_s
        if self.machine.awaits_pong and silent_s >= KEEPALIVE_S + KEEPALIVE_TIMEOUT_S:
            self.abort(f"keepalive: no answer to a ping within {KEEPALIVE_TIMEOUT_S:g} s")
        elif silent_s < KEEPALIVE_S:
            self._wait(KEEPALIVE_S - silent_s)
        else:
            if not self.machine.awaits_pong:
                self.machine.ping()
                self.write()
            self._wait(KEEPALIVE_TIMEOUT_S)


class Call:
    """One call, for whoever made it.

    Args:
        message: with gRPC's prefix.
        on_end: called once, on the loop.
    """

    __slots__ = ("_connection", "_on_end", "_stream_id", "attempts", "is_over", "message")

    def __init__(self, message: memoryview, on_end: OnEnd) -> None:
        self.message, self._on_end = message, on_end
        self.is_over = False
        self.attempts = 0
        self._connection: _Connection | None = None
        self._stream_id = 0

    def begin(self, connection: _Connection, block: bytes, on_end: OnEnd) -> None:
        """Send it; for the channel."""
        self.attempts += 1
        self._connection = connection
        self._stream_id = connection.machine.call(block, [self.message], on_end)
        connection.write()

    def finish(self, end: CallEnd) -> None:
        """Tell how it ended, the first time; for the channel."""
        if not self.is_over:
            self.is_over, self._connection = True, None
            self._on_end(end)

    def cancel(self, end: CallEnd) -> None:
        """Give it up, wherever it is; it ends with what is given."""
        connection = self._connection
        self.finish(end)
        if connection is not None:
            connection.machine.cancel(self._stream_id, end)
            connection.write()


class UnaryChannel:
    """Calls of one method on one peer.

    Args:
        address: `host:port`.
        method: the full name.
        timeout_s: sent along with every call; whoever calls keeps it by cancelling.
        encoding: that compressed messages are in: `identity` or `snappy`.
        dial: makes connections; with TLS unless it is `dial_plain`.
        refused: says why the peer ended one at once; None if there is no more to say.
    """

    def __init__(
        self,
        address: str,
        method: str,
        *,
        timeout_s: float,
        encoding: str = "identity",
        dial: Dial = dial_plain,
        refused: Refused | None = None,
    ) -> None:
        self.address, self._dialler = address, Dialler(dial, address)
        self._refused = None if refused is None else functools.partial(refused, address)
        scheme = b"http" if dial is dial_plain else b"https"
        self._block = _request_headers(scheme, address, method, timeout_s, encoding)
        self._connection: _Connection | None = None
        self._dialling: asyncio.Task[str] | None = None
        self._waiting: list[Call] = []
        self._is_closed = False

    def call(self, message: memoryview, on_end: OnEnd) -> Call:
        """Make a call.

        Args:
            message: with gRPC's prefix, which says whether it is compressed; must not change before
                `on_end` is told OK, and never after any other end.
            on_end: called once, perhaps before this returns.
        """
        call = Call(message, on_end)
        self._begin(call)
        return call

    async def probe(self) -> str:
        """Return why the peer cannot be reached, connecting if need be; empty if it answers.

        A connection on which it does not answer is given up, with all its calls.
        """
        if self._connection is None or not self._connection.is_usable:
            failure = await asyncio.shield(self._dial_now())
            if failure:
                return failure
        connection = self._connection
        if connection is None:
            return _LEFT
        if connection.is_usable and await connection.is_answering(PROBE_TIMEOUT_S):
            return ""
        if not connection.is_usable:
            return connection.ending or _LEFT
        text = f"no answer to a ping within {PROBE_TIMEOUT_S:g} s"
        connection.abort(text, may_repeat=False)
        return text

    async def is_answering(self, timeout_s: float) -> bool:
        """Return whether the peer says anything in time, be it that it wants no connection.

        Unlike a probe it gives nothing up.
        """
        connection = self._connection
        if connection is not None and connection.is_usable:
            return await connection.is_answering(timeout_s) or not connection.is_usable
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._dial_now())
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Take no further calls, and close the connection when the open ones have ended."""
        self._is_closed = True
        if self._dialling is not None:
            await asyncio.wait([self._dialling])
        if self._connection is not None:
            self._connection.machine.is_leaving = True
            if not self._connection.machine.n_streams:
                self._connection.close()

    def _begin(self, call: Call) -> None:
        connection = self._connection
        if call.is_over:
            return
        if connection is not None and connection.is_usable:
            call.begin(connection, self._block, lambda end: self._ended(call, end))
        elif self._is_closed:
            call.finish(CallEnd(GrpcCode.UNAVAILABLE, "the peer left the hashring"))
        else:
            self._waiting.append(call)
            self._dial_now()

    def _dial_now(self) -> asyncio.Task[str]:
        if self._dialling is None:
            self._dialling = asyncio.ensure_future(self._connect())
        return self._dialling

    def _ended(self, call: Call, end: CallEnd) -> None:
        if end.may_repeat and call.attempts < _ATTEMPTS and not call.is_over:
            # Not at once: what came with this end may say that the connection is of no use.
            asyncio.get_running_loop().call_soon(self._begin, call)
        else:
            call.finish(end)

    async def _connect(self) -> str:
        """Connect for the calls that wait; return why that cannot be done, empty if it was."""
        connection, failure = None, ""
        made: list[_Connection] = []

        def make() -> _Connection:
            made.append(_Connection(self._refused))
            return made[-1]

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._dialler.connect(make)
        except TimeoutError:
            failure = f"not connected within {CONNECT_TIMEOUT_S:g} s"
        except Exception as error:  # calls wait for an end, whatever went wrong
            failure = str(error) or type(error).__name__
        finally:
            self._dialling = None
            waiting, self._waiting = self._waiting, []
            for other in made:
                if other is not connection:
                    other.abort("given up while it was dialled")
        if connection is not None:
            self._connection = connection
        for call in waiting:
            if call.is_over:
                continue
            if connection is None:
                call.finish(CallEnd(GrpcCode.UNAVAILABLE, f"cannot connect: {failure}"))
            else:
                self._begin_on(connection, call)
        return failure

    def _begin_on(self, connection: _Connection, call: Call) -> None:
        if connection.is_usable:
            call.begin(connection, self._block, lambda end: self._ended(call, end))
        else:
            call.finish(CallEnd(GrpcCode.UNAVAILABLE, connection.ending or _LEFT))


def _request_headers(
    scheme: bytes, address: str, method: str, timeout_s: float, encoding: str
) -> bytes:
    return h2.encode_headers(
        [
            (b":method", b"POST"),
            (b":scheme", scheme),
            (b":path", method.encode()),
            (b":authority", address.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"user-agent", b"thanostack"),
            (b"grpc-timeout", b"%dm" % max(1, round(timeout_s * 1000))),
            *([(b"grpc-encoding", encoding.encode())] if encoding != "identity" else []),
        ]
    )
