"""The client's side of one HTTP/2 connection: gRPC calls of one message each way.

    call ──HEADERS, DATA, END_STREAM──>
                 <──HEADERS, DATA, trailers──  on_end(CallEnd), once and whatever happens

Messages leave in the pieces they are handed over in, never copied: whoever owns them must leave
them alone until the call has ended *well*. After any other end some of their bytes may still be on
their way, and changing them would change a message that the server might yet complete.

An answer's body is not kept: `WriteableStore` answers with an empty message.

A call that the server says it has not looked at (a stream above GOAWAY's last, REFUSED_STREAM) ends
with `may_repeat`, as does one on a connection that was lost, which the server may have carried out.

Source: gRPC "PROTOCOL-HTTP2", "http-grpc-status-mapping"; RFC 9113.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_call import ROLE_FIELD
from thanostack.runtime.http2_answer import KnownAnswer, known_answer
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code
from thanostack.runtime.http2_machine import (
    CONNECTION_WINDOW,
    FRAME_BYTES_MAX,
    Headers,
    Http2Machine,
    Stream,
    require_connection,
)

# Bound: a server sends a few for each call that we make, so what it may send follows from that.
_CONTROL_FRAMES_MAX: Final = 200_000
# Answers that are looked at until one is found that can be known again.
_LESSONS: Final = 64
_LAST_STREAM: Final = (1 << 31) - 1
_ROLE: Final = ROLE_FIELD.encode()
_PING_PAYLOAD: Final = b"thanosta"
_CODE_OF_HTTP: Final = {
    400: GrpcCode.INTERNAL,
    401: GrpcCode.UNAUTHENTICATED,
    403: GrpcCode.PERMISSION_DENIED,
    404: GrpcCode.UNIMPLEMENTED,
    429: GrpcCode.UNAVAILABLE,
    502: GrpcCode.UNAVAILABLE,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.UNAVAILABLE,
}
_CODE_OF_RESET: Final[dict[int, GrpcCode]] = {
    H2Code.REFUSED_STREAM: GrpcCode.UNAVAILABLE,
    H2Code.CANCEL: GrpcCode.CANCELLED,
    H2Code.ENHANCE_YOUR_CALM: GrpcCode.RESOURCE_EXHAUSTED,
}


class CallEnd(NamedTuple):
    """How a call ended.

    Args:
        code: of gRPC.
        text: what the server, or this side, says about it.
        may_repeat: the server did not answer, so that a call that may be repeated should be.
        role: what the server says that it is (`grpc_call.ROLE_FIELD`); empty if it says nothing.
    """

    code: GrpcCode
    text: str = ""
    may_repeat: bool = False
    role: str = ""


OnEnd = Callable[[CallEnd], None]
OK_END: Final = CallEnd(GrpcCode.OK)


class _Call(Stream):
    __slots__ = ("http_status", "on_end")

    def __init__(self, window: int, on_end: OnEnd) -> None:
        super().__init__(window)
        self.on_end = on_end
        self.http_status = 0


class Http2Client(Http2Machine[_Call]):
    """One connection, from our preface on."""

    def __init__(self) -> None:
        settings = [
            (h2.SETTING_ENABLE_PUSH, 0),
            (h2.SETTING_MAX_FRAME_SIZE, FRAME_BYTES_MAX),
            (h2.SETTING_MAX_HEADER_LIST_SIZE, h2.HEADER_LIST_BYTES_MAX),
        ]
        credit = h2.pack_window_update(0, CONNECTION_WINDOW - h2.DEFAULT_WINDOW)
        super().__init__(
            [h2.PREFACE, h2.pack_settings(settings), credit], control_frames_max=_CONTROL_FRAMES_MAX
        )
        self._next = 1
        self._handlers[h2.GOAWAY] = self._goaway
        self._handlers[h2.PING] = self._pong
        self.is_leaving = False
        """Whether the server wants no further calls on this connection."""
        self.awaits_pong = False
        """Whether a ping of ours is not answered yet."""
        self._usual: tuple[KnownAnswer, CallEnd] | None = None
        self._lessons = _LESSONS

    def call(self, block: bytes, message: Iterable[memoryview], on_end: OnEnd) -> int:
        """Begin a call and return its stream.

        Args:
            block: the encoded request headers.
            message: with gRPC's prefix, in pieces that are not empty.
            on_end: called once, from inside of `receive`, `cancel` or `lose`.
        """
        assert not self.is_leaving
        stream_id, self._next = self._next, self._next + 2
        self._highest = stream_id
        if self._next > _LAST_STREAM:
            self.is_leaving = True
        call = _Call(self._initial_window, on_end)
        call.queue.extend(message)
        self._streams[stream_id] = call
        self._out.append(h2.pack_frame(h2.HEADERS, h2.END_HEADERS, stream_id, block))
        self._flush(stream_id, call)
        return stream_id

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the server; as `Http2Machine.receive`."""
        if self._tail or self._block is not None:
            super().receive(data, now)
            return
        rest = data if self._usual is None else data[self._take_usual(data, *self._usual) :]
        if not rest:
            return
        n_streams = len(self._streams)
        super().receive(rest, now)
        if self._usual is None and self._lessons and len(self._streams) == n_streams - 1:
            self._learn(rest)

    def _take_usual(self, data: bytes, usual: KnownAnswer, end: CallEnd) -> int:
        """End the calls whose answers are the usual one; return where others begin."""
        if not all(block in self._known_blocks for block in usual.blocks):
            self._usual = None  # the compression table changed: the same bytes mean something else
            return 0
        position = 0
        while stream_id := usual.stream_of(data, position):
            call = self._streams.get(stream_id)
            if call is None or call.queue:
                break
            position += usual.size
            self._credit(usual.n_data)
            del self._streams[stream_id]
            call.on_end(end)
        return position

    def _learn(self, data: bytes) -> None:
        """Remember an answer that was good, to know it again."""
        self._lessons -= 1
        found = known_answer(data, self._known_blocks)
        if found is None:
            return
        first, last = (dict(self._known_blocks[block]) for block in found.blocks)
        end = _end_of(last, _number(first.get(b":status")) or 0)
        if end.code is GrpcCode.OK:
            self._usual = (found, end)

    def cancel(self, stream_id: int, end: CallEnd) -> None:
        """Give a call up, if it is still open."""
        call = self._streams.get(stream_id)
        if call is not None:
            self.reset(stream_id, H2Code.CANCEL)
            call.on_end(end)

    def lose(self, text: str, *, may_repeat: bool = True) -> None:
        """End every call: the connection is gone.

        Args:
            text: why.
            may_repeat: whether another try is worth it.
        """
        self.is_leaving = True
        calls, self._streams = self._streams, {}
        for call in calls.values():
            call.on_end(CallEnd(GrpcCode.UNAVAILABLE, text, may_repeat=may_repeat))

    def ping(self) -> None:
        """Ask whether the server is still there."""
        self.awaits_pong = True
        self._out.append(h2.pack_frame(h2.PING, 0, 0, _PING_PAYLOAD))

    # The machine's side.

    def last_flags(self, stream: _Call) -> int:
        """End the request with its last piece."""
        del stream
        return h2.END_STREAM

    def on_written(self, stream_id: int, stream: _Call, n_bytes: int) -> None:
        """Do nothing: nobody waits for room."""

    def on_data(self, stream_id: int, stream: _Call, flags: int, payload: bytes) -> None:
        """Drop an answer's body; one that ends without trailers is no gRPC."""
        del payload
        if flags & h2.END_STREAM:
            self._end(stream_id, stream, _without_status(stream.http_status))

    def on_headers(self, stream_id: int, flags: int, headers: Headers) -> None:
        """Take an answer's headers, or its trailers, which may be the only ones."""
        call = self._streams.get(stream_id)
        if call is None:
            self._require_known(stream_id, "HEADERS")
            return
        fields = dict(headers)
        call.http_status = _number(fields.get(b":status")) or call.http_status
        if not flags & h2.END_STREAM:
            return
        self._end(stream_id, call, _end_of(fields, call.http_status))

    def on_reset(self, stream_id: int, stream: _Call, code: int) -> None:
        """End a call that the server broke off."""
        del stream_id
        end = CallEnd(
            _CODE_OF_RESET.get(code, GrpcCode.INTERNAL),
            f"the server reset the stream with code {code}",
            may_repeat=code == H2Code.REFUSED_STREAM,
        )
        stream.on_end(end)

    def _goaway(self, stream_id: int, _flags: int, payload: bytes) -> None:
        require_connection(stream_id)
        if len(payload) < 8:
            raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        self.is_leaving = True
        last = int.from_bytes(payload[:4], "big") & h2.WINDOW_MAX
        for unseen in [stream_id for stream_id in self._streams if stream_id > last]:
            call = self._streams.pop(unseen)
            call.on_end(CallEnd(GrpcCode.UNAVAILABLE, "the server is going away", may_repeat=True))

    def _pong(self, stream_id: int, flags: int, payload: bytes) -> None:
        if flags & h2.ACK and payload == _PING_PAYLOAD:
            self.awaits_pong = False
        self._ping(stream_id, flags, payload)

    def _end(self, stream_id: int, call: _Call, end: CallEnd) -> None:
        del self._streams[stream_id]
        if call.queue:  # answered before the request was complete
            self._out.append(h2.pack_rst_stream(stream_id, H2Code.NO_ERROR))
        call.on_end(end)


_DIGITS_MAX: Final = 9
_CODES: Final = frozenset(code.value for code in GrpcCode)


def _end_of(fields: dict[bytes, bytes], http_status: int) -> CallEnd:
    status = _number(fields.get(b"grpc-status"))
    if status is None:
        return _without_status(http_status)
    role = fields.get(_ROLE, b"").decode("latin-1")
    if status == 0:
        return CallEnd(GrpcCode.OK, role=role) if role else OK_END
    code = GrpcCode(status) if status in _CODES else GrpcCode.UNKNOWN
    text = fields.get(b"grpc-message", b"").decode("latin-1")
    return CallEnd(code, unquote(text, errors="replace"), role=role)


def _number(text: bytes | None) -> int | None:
    # Bound: of digits; neither status has more, and Python raises ValueError for thousands.
    is_number = text is not None and text.isdigit() and len(text) <= _DIGITS_MAX
    return int(text) if text is not None and is_number else None


def _without_status(http_status: int) -> CallEnd:
    code = _CODE_OF_HTTP.get(http_status, GrpcCode.UNKNOWN)
    return CallEnd(code, f"HTTP status {http_status} and no grpc-status")
