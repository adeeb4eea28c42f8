"""What both sides of an HTTP/2 connection have in common: frames, header blocks, windows.

    bytes in ──receive──> header blocks, DATA, RST_STREAM  ──> the side's own methods
    queues of streams ──> bytes out, as fast as the other side's windows allow

The `h2` package does the same and more, at 60 to 100 µs a frame; a snappy-compressed request comes
in frames of 16 KiB, whatever we announce (grpc-go), and those would cost more than all the rest of
a write. Here a DATA frame costs a few microseconds. Header compression is `header_blocks`'.

Windows: the other side gets large ones, and credit as soon as bytes arrive. What bounds memory is
not the window but whoever collects the bytes. A sender that ignores its windows therefore gains
nothing, and is not looked for.

A pure machine: no sockets; the time is an argument. It raises `ConnectionFailed` for whatever the
RFC calls a connection error, and for floods of frames that cost us more than them.

Deliberately elsewhere: what a stream is for the server (`http2_connection`) and for the client
(`http2_client`).

Invariants (`check`): windows never exceed 2³¹ - 1.

Source: RFC 9113.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.header_blocks import BadHeaderBlock, HeaderDecoder, OversizedHeaders
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code

FRAME_BYTES_MAX: Final = 1 << 18
STREAM_WINDOW: Final = 1 << 22
CONNECTION_WINDOW: Final = 1 << 25
# Bound: frames that one header block may be cut into.
_CONTINUATIONS_MAX: Final = 64
_KNOWN_BLOCKS_MAX: Final = 64

Headers = list[tuple[bytes, bytes]]
Buffer = bytes | memoryview
FrameHandler = Callable[[int, int, bytes], None]


class Stream:
    """What every stream has: bytes that wait, and how many may be sent.

    Args:
        window: how many bytes the other side takes on this stream.
    """

    __slots__ = ("queue", "uncredited", "window")

    def __init__(self, window: int) -> None:
        self.uncredited = 0
        self.window = window
        self.queue: deque[memoryview] = deque()


S = TypeVar("S", bound=Stream)


class Http2Machine(Generic[S]):
    """One side of a connection, after the greeting.

    Args:
        greeting: what is sent before anything else.
        control_frames_max: small frames a second that the other side may send without data in them.
    """

    def __init__(self, greeting: Iterable[Buffer], *, control_frames_max: int) -> None:
        self._decoder = HeaderDecoder(h2.HEADER_LIST_BYTES_MAX)
        self._streams: dict[int, S] = {}
        self._highest = 0
        self._tail = b""
        self._block: tuple[int, int, bytearray, int] | None = None
        # A block that leaves the table alone means the same until another one changes the table.
        # The answers to a router are such, and decoding them took a fifth of its time.
        self._known_blocks: dict[bytes, Headers] = {}
        self._uncredited = 0
        self._window = self._initial_window = h2.DEFAULT_WINDOW
        self._frame_max = h2.DEFAULT_FRAME_MAX
        self._control_since, self._n_control = 0.0, 0
        self._control_frames_max = control_frames_max
        self._is_corked = False
        self._out: list[Buffer] = list(greeting)
        self._handlers: dict[int, FrameHandler] = {
            h2.DATA: self._empty_data,
            h2.HEADERS: self._headers,
            h2.PRIORITY: self._priority,
            h2.RST_STREAM: self._rst_stream,
            h2.SETTINGS: self._settings,
            h2.PUSH_PROMISE: self._push_promise,
            h2.PING: self._ping,
            h2.WINDOW_UPDATE: self._window_update,
            h2.CONTINUATION: self._continuation,
        }

    @property
    def n_streams(self) -> int:
        """Return how many calls are open."""
        return len(self._streams)

    def take_pieces(self) -> list[Buffer]:
        """Return what is to be written now, once, in pieces."""
        output, self._out = self._out, []
        return output

    def check(self) -> None:
        """Assert the invariants."""
        assert all(0 < stream_id <= self._highest for stream_id in self._streams)
        assert self._window <= h2.WINDOW_MAX
        assert all(stream.window <= h2.WINDOW_MAX for stream in self._streams.values())

    # What a side does with its streams.

    def on_headers(self, stream_id: int, flags: int, headers: Headers) -> None:
        """Take a whole header block."""
        raise NotImplementedError

    def on_data(self, stream_id: int, stream: S, flags: int, payload: bytes) -> None:
        """Take a DATA frame of a stream that is known; the payload may be empty."""
        raise NotImplementedError

    def on_reset(self, stream_id: int, stream: S, code: int) -> None:
        """Take the end of a stream that is forgotten already."""
        raise NotImplementedError

    def on_written(self, stream_id: int, stream: S, n_bytes: int) -> None:
        """Hear that so many bytes left the queue, which may be empty now."""
        raise NotImplementedError

    def last_flags(self, stream: S) -> int:
        """Return the flags of the DATA frame that empties the queue."""
        del stream
        return 0

    # Receiving.

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the other side.

        Args:
            data: any part of the connection's bytes, in order.
            now: seconds on a clock that only rises; for the bound on control frames.

        Raises:
            ConnectionFailed: the connection is to be closed with GOAWAY.
        """
        buffer = self._tail + data if self._tail else data
        position, size = 0, len(buffer)
        while size - position >= h2.HEADER_BYTES:
            high, low, kind, flags, stream_id = _FRAME_HEADER.unpack_from(buffer, position)
            length = high << 16 | low
            if length > FRAME_BYTES_MAX:
                raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = position + h2.HEADER_BYTES
            if size - start < length:
                break
            position = start + length
            self._frame(kind, flags, stream_id & h2.WINDOW_MAX, buffer[start:position], now)
        self._tail = buffer[position:]

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes, now: float) -> None:
        if self._block is not None and kind != h2.CONTINUATION:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "a header block is interrupted")
        if kind == h2.DATA and payload:
            self._data(stream_id, flags, payload)
            return
        if kind != h2.HEADERS:
            self._count_control(now)
        handler = self._handlers.get(kind)
        if handler is not None:  # frames of unknown types are to be ignored
            handler(stream_id, flags, payload)

    def _count_control(self, now: float) -> None:
        if now - self._control_since > 1:
            self._control_since, self._n_control = now, 0
        self._n_control += 1
        if self._n_control > self._control_frames_max:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "a flood of control frames")

    def _require_known(self, stream_id: int, what: str) -> None:
        if not 0 < stream_id <= self._highest:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, f"{what} for an idle stream")

    def _data(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._require_known(stream_id, "DATA")
        self._credit(len(payload))
        stream = self._streams.get(stream_id)
        if stream is None:  # reset or answered already; the other side may not know yet
            return
        stream.uncredited += len(payload)
        if stream.uncredited > STREAM_WINDOW >> 1:
            self._out.append(h2.pack_window_update(stream_id, stream.uncredited))
            stream.uncredited = 0
        if flags & h2.PADDED:
            payload = h2.unpad(payload, flags)
        self.on_data(stream_id, stream, flags, payload)

    def _credit(self, n_bytes: int) -> None:
        """Give the connection's window back, in large pieces."""
        self._uncredited += n_bytes
        if self._uncredited > CONNECTION_WINDOW >> 1:
            self._out.append(h2.pack_window_update(0, self._uncredited))
            self._uncredited = 0

    def _empty_data(self, stream_id: int, flags: int, _payload: bytes) -> None:
        self._require_known(stream_id, "DATA")
        h2.unpad(b"", flags)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.on_data(stream_id, stream, flags, b"")

    def _headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "HEADERS on an even stream")
        fragment = bytearray(h2.header_fragment(payload, flags))
        self._block = (stream_id, flags, fragment, 0)
        if flags & h2.END_HEADERS:
            self._finish_block()

    def _continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, fragment, n_frames = self._block
        fragment += payload
        if len(fragment) > h2.HEADER_LIST_BYTES_MAX or n_frames >= _CONTINUATIONS_MAX:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "an oversized header block")
        self._block = (stream_id, first_flags, fragment, n_frames + 1)
        if flags & h2.END_HEADERS:
            self._finish_block()

    def _finish_block(self) -> None:
        assert self._block is not None
        stream_id, flags, fragment, _ = self._block
        self._block = None
        block = bytes(fragment)
        headers = self._known_blocks.get(block)
        if headers is None:
            headers = self._decode(block)
        self.on_headers(stream_id, flags, headers)

    def _decode(self, block: bytes) -> Headers:
        # Always decoded: skipping a block would desynchronise the compression's table.
        try:
            headers = self._decoder.decode(block)
        except OversizedHeaders as error:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "oversized headers") from error
        except BadHeaderBlock as error:
            raise ConnectionFailed(H2Code.COMPRESSION_ERROR, "a broken header block") from error
        if h2.changes_table(block) or len(self._known_blocks) >= _KNOWN_BLOCKS_MAX:
            self._known_blocks.clear()
        else:
            self._known_blocks[block] = headers
        return headers

    def _rst_stream(self, stream_id: int, _flags: int, payload: bytes) -> None:
        _require_size(payload, 4)
        self._require_known(stream_id, "RST_STREAM")
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self.on_reset(stream_id, stream, int.from_bytes(payload, "big"))

    def _ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        _require_size(payload, 8)
        require_connection(stream_id)
        if not flags & h2.ACK:
            self._out.append(h2.pack_frame(h2.PING, h2.ACK, 0, payload))

    def _settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        require_connection(stream_id)
        if flags & h2.ACK:
            _require_size(payload, 0)
            return
        if len(payload) % 6:
            raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting == h2.SETTING_INITIAL_WINDOW_SIZE:
                self._set_initial_window(value)
            elif setting == h2.SETTING_MAX_FRAME_SIZE:
                if not h2.DEFAULT_FRAME_MAX <= value < 1 << 24:
                    raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "an invalid MAX_FRAME_SIZE")
                self._frame_max = min(value, FRAME_BYTES_MAX)
        self._out.append(h2.pack_frame(h2.SETTINGS, h2.ACK, 0))
        self._flush_all()

    def _set_initial_window(self, value: int) -> None:
        if value > h2.WINDOW_MAX:
            raise ConnectionFailed(H2Code.FLOW_CONTROL_ERROR, "an invalid window")
        change, self._initial_window = value - self._initial_window, value
        for stream in self._streams.values():
            stream.window = _widen(stream.window, change)

    def _window_update(self, stream_id: int, _flags: int, payload: bytes) -> None:
        _require_size(payload, 4)
        increment = int.from_bytes(payload, "big") & h2.WINDOW_MAX
        if increment == 0:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "a window that does not grow")
        if stream_id == 0:
            self._window = _widen(self._window, increment)
            self._flush_all()
            return
        self._require_known(stream_id, "WINDOW_UPDATE")
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.window = _widen(stream.window, increment)
            self._flush(stream_id, stream)

    def _priority(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        _require_size(payload, 5)

    def _push_promise(self, _stream_id: int, _flags: int, _payload: bytes) -> None:
        raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody asked for")

    # Sending.

    def reset(self, stream_id: int, code: H2Code) -> None:
        """Give up a call; nothing more is sent on it."""
        if self._streams.pop(stream_id, None) is not None:
            self._out.append(h2.pack_rst_stream(stream_id, code))

    def cork(self, is_corked: bool) -> None:
        """Hold data back, or let it go again; the socket's own back-pressure."""
        self._is_corked = is_corked
        if not is_corked:
            self._flush_all()

    def _flush_all(self) -> None:
        for stream_id, stream in list(self._streams.items()):
            if stream.queue:
                self._flush(stream_id, stream)

    def _flush(self, stream_id: int, stream: S) -> None:
        n_sent, queue = 0, stream.queue
        while queue and not self._is_corked:
            room = min(self._window, stream.window, self._frame_max)
            if room <= 0:
                break
            piece = queue.popleft()
            if len(piece) > room:
                queue.appendleft(piece[room:])
                piece = piece[:room]
            self._window -= len(piece)
            stream.window -= len(piece)
            n_sent += len(piece)
            flags = 0 if queue else self.last_flags(stream)
            self._out.append(h2.pack_frame_header(len(piece), h2.DATA, flags, stream_id))
            self._out.append(piece)
        self.on_written(stream_id, stream, n_sent)


def _widen(window: int, change: int) -> int:
    if window + change > h2.WINDOW_MAX:
        raise ConnectionFailed(H2Code.FLOW_CONTROL_ERROR, "a window above 2^31-1")
    return window + change


def _require_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "a frame of a wrong size")


def require_connection(stream_id: int) -> None:
    """Refuse a connection's frame on a stream.

    Raises:
        ConnectionFailed: if it is on one.
    """
    if stream_id:
        raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "a connection's frame on a stream")


_FRAME_HEADER: Final = struct.Struct(">BHBBI")
