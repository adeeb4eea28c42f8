"""The server's side of one HTTP/2 connection, as a machine from bytes to calls and back.

    bytes in ──receive──> listener.on_request, on_data, on_end, on_reset
    send_headers, send_data, send_trailers ──> bytes out, as fast as the client's windows allow

                          HEADERS                 END_STREAM
        idle ──────────────────────> receiving ───────────────> answering ──END_STREAM──> gone
                                         └───── RST_STREAM, either side ──────> gone

The `h2` package does the same and more, at 60 to 100 µs a frame; a snappy-compressed request comes
in frames of 16 KiB, whatever we announce (grpc-go), and those would cost more than all the rest of
a write. Here a DATA frame costs a few microseconds. Header compression is left to `hpack`.

Windows: clients get large ones, and credit as soon as bytes arrive. What bounds memory is not the
window but the listener, which counts what it holds and refuses calls that are too big. A client
that ignores its windows therefore gains nothing, and is not looked for.

A pure machine: no sockets; the time is an argument. It raises `ConnectionFailed` for whatever the
RFC calls a connection error, and for floods of frames that cost us more than them.

Invariants (`check`): a stream that is gone is not in `_streams`; trailers wait only behind data;
windows never exceed 2³¹ - 1.

Source: RFC 9113.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, Protocol, cast

import hpack

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code

STREAMS_MAX: Final = 1000
FRAME_BYTES_MAX: Final = 1 << 18
STREAM_WINDOW: Final = 1 << 22
CONNECTION_WINDOW: Final = 1 << 25
# Bound: small frames a second that a client may send without any data in them. A busy router
# sends a few per call; at this rate they take about 3 % of a core.
_CONTROL_FRAMES_MAX: Final = 10_000
# Bound: frames that one header block may be cut into.
_CONTINUATIONS_MAX: Final = 64

Headers = list[tuple[bytes, bytes]]


class Listener(Protocol):
    """Who is told what the client does; called from inside of `receive`."""

    def on_request(self, stream_id: int, headers: Headers) -> None:
        """A request has begun."""

    def on_data(self, stream_id: int, data: bytes) -> None:
        """A piece of its body has come."""

    def on_end(self, stream_id: int) -> None:
        """Its body is complete."""

    def on_reset(self, stream_id: int) -> None:
        """The client does not want the answer any more."""

    def on_sent(self, stream_id: int, n_bytes: int) -> None:
        """So many bytes of the answer's data have left the queue."""


class _Stream:
    __slots__ = ("is_receiving", "queue", "trailers", "uncredited", "window")

    def __init__(self, window: int) -> None:
        self.is_receiving = True
        self.uncredited = 0
        self.window = window
        self.queue: deque[memoryview] = deque()
        self.trailers: bytes | None = None


class Http2Connection:
    """One connection, from the client's preface on.

    Args:
        listener: told about requests.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._decoder = hpack.Decoder(max_header_list_size=h2.HEADER_LIST_BYTES_MAX)
        self._streams: dict[int, _Stream] = {}
        self._highest = 0
        self._last_served = h2.LAST_STREAM_ANY
        self._tail = b""
        self._is_greeted = False
        self._block: tuple[int, int, bytearray, int] | None = None
        self._uncredited = 0
        self._window = self._initial_window = h2.DEFAULT_WINDOW
        self._frame_max = h2.DEFAULT_FRAME_MAX
        self._control_since, self._n_control = 0.0, 0
        self._is_corked = False
        self._out: list[bytes | memoryview] = [
            h2.pack_settings(
                [
                    (h2.SETTING_MAX_CONCURRENT_STREAMS, STREAMS_MAX),
                    (h2.SETTING_INITIAL_WINDOW_SIZE, STREAM_WINDOW),
                    (h2.SETTING_MAX_FRAME_SIZE, FRAME_BYTES_MAX),
                    (h2.SETTING_MAX_HEADER_LIST_SIZE, h2.HEADER_LIST_BYTES_MAX),
                ]
            ),
            h2.pack_window_update(0, CONNECTION_WINDOW - h2.DEFAULT_WINDOW),
        ]

    @property
    def n_streams(self) -> int:
        """Return how many calls are open."""
        return len(self._streams)

    def take_output(self) -> bytes:
        """Return what is to be written now, once."""
        output = b"".join(self._out)
        self._out.clear()
        return output

    def check(self) -> None:
        """Assert the invariants."""
        assert all(0 < stream_id <= self._highest for stream_id in self._streams)
        assert self._window <= h2.WINDOW_MAX
        assert all(stream.window <= h2.WINDOW_MAX for stream in self._streams.values())
        assert all(s.trailers is None or s.queue for s in self._streams.values())

    # Receiving.

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the client.

        Args:
            data: any part of the connection's bytes, in order.
            now: seconds on a clock that only rises; for the bound on control frames.

        Raises:
            ConnectionFailed: the connection is to be closed with GOAWAY.
        """
        buffer = self._tail + data if self._tail else data
        position, size = 0, len(buffer)
        if not self._is_greeted:
            if size < len(h2.PREFACE):
                self._tail = buffer
                return
            if not buffer.startswith(h2.PREFACE):
                raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "no HTTP/2 preface")
            self._is_greeted, position = True, len(h2.PREFACE)
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
        handler = _FRAME_HANDLERS.get(kind)
        if handler is not None:  # frames of unknown types are to be ignored
            handler(self, stream_id, flags, payload)

    def _count_control(self, now: float) -> None:
        if now - self._control_since > 1:
            self._control_since, self._n_control = now, 0
        self._n_control += 1
        if self._n_control > _CONTROL_FRAMES_MAX:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "a flood of control frames")

    def _require_known(self, stream_id: int, what: str) -> None:
        if not 0 < stream_id <= self._highest:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, f"{what} for an idle stream")

    def _data(self, stream_id: int, flags: int, payload: bytes) -> None:
        self._require_known(stream_id, "DATA")
        self._uncredited += len(payload)
        if self._uncredited > CONNECTION_WINDOW >> 1:
            self._out.append(h2.pack_window_update(0, self._uncredited))
            self._uncredited = 0
        stream = self._streams.get(stream_id)
        if stream is None:  # reset or answered already; the client may not know yet
            return
        self._receive_into(stream_id, stream, len(payload))
        if flags & h2.PADDED:
            payload = h2.unpad(payload, flags)
        if payload:
            self._listener.on_data(stream_id, payload)
        if flags & h2.END_STREAM:
            self._end(stream_id)

    def _receive_into(self, stream_id: int, stream: _Stream, length: int) -> None:
        if not stream.is_receiving:
            raise ConnectionFailed(H2Code.STREAM_CLOSED, "DATA after the end of a request")
        stream.uncredited += length
        if stream.uncredited > STREAM_WINDOW >> 1:
            self._out.append(h2.pack_window_update(stream_id, stream.uncredited))
            stream.uncredited = 0

    def _empty_data(self, stream_id: int, flags: int, _payload: bytes) -> None:
        self._require_known(stream_id, "DATA")
        h2.unpad(b"", flags)
        if flags & h2.END_STREAM and stream_id in self._streams:
            self._end(stream_id)

    def _end(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:  # refused while its last data was handed over
            return
        if not stream.is_receiving:
            raise ConnectionFailed(H2Code.STREAM_CLOSED, "a request ends twice")
        stream.is_receiving = False
        self._listener.on_end(stream_id)

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
        try:
            # Always decoded: skipping a block would desynchronise the compression's table.
            headers = cast("Headers", self._decoder.decode(bytes(fragment), raw=True))
        except hpack.OversizedHeaderListError as error:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "oversized headers") from error
        except hpack.HPACKError as error:
            raise ConnectionFailed(H2Code.COMPRESSION_ERROR, "a broken header block") from error
        if stream_id in self._streams:
            self._trailers(stream_id, flags)
        elif stream_id > self._highest:
            self._request(stream_id, flags, headers)

    def _trailers(self, stream_id: int, flags: int) -> None:
        if not flags & h2.END_STREAM:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "headers in the middle of a request")
        self._end(stream_id)

    def _request(self, stream_id: int, flags: int, headers: Headers) -> None:
        self._highest = stream_id
        if len(self._streams) >= STREAMS_MAX or stream_id > self._last_served:
            self._out.append(h2.pack_rst_stream(stream_id, H2Code.REFUSED_STREAM))
            return
        self._streams[stream_id] = _Stream(self._initial_window)
        self._listener.on_request(stream_id, headers)
        if flags & h2.END_STREAM:
            self._end(stream_id)

    def _rst_stream(self, stream_id: int, _flags: int, payload: bytes) -> None:
        _require_size(payload, 4)
        self._require_known(stream_id, "RST_STREAM")
        if self._streams.pop(stream_id, None) is not None:
            self._listener.on_reset(stream_id)

    def _ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        _require_size(payload, 8)
        _require_connection(stream_id)
        if not flags & h2.ACK:
            self._out.append(h2.pack_frame(h2.PING, h2.ACK, 0, payload))

    def _settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        _require_connection(stream_id)
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
        raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    # Sending.

    def send_headers(self, stream_id: int, block: bytes) -> None:
        """Begin an answer."""
        if stream_id in self._streams:
            self._out.append(h2.pack_frame(h2.HEADERS, h2.END_HEADERS, stream_id, block))

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Queue bytes of an answer's body."""
        stream = self._streams.get(stream_id)
        if stream is not None and data:
            stream.queue.append(memoryview(data))
            self._flush(stream_id, stream)

    def send_trailers(self, stream_id: int, block: bytes) -> None:
        """End an answer, behind all data that is still queued."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.trailers = block
            self._flush(stream_id, stream)

    def reset(self, stream_id: int, code: H2Code) -> None:
        """Give up a call; nothing more is sent on it."""
        if self._streams.pop(stream_id, None) is not None:
            self._out.append(h2.pack_rst_stream(stream_id, code))

    def go_away(self) -> None:
        """Take no further calls; those that are open are still answered."""
        self._last_served = self._highest
        self._out.append(h2.pack_goaway(self._highest, H2Code.NO_ERROR))

    def cork(self, is_corked: bool) -> None:
        """Hold data back, or let it go again; the socket's own back-pressure."""
        self._is_corked = is_corked
        if not is_corked:
            self._flush_all()

    def _flush_all(self) -> None:
        for stream_id, stream in list(self._streams.items()):
            if stream.queue:
                self._flush(stream_id, stream)

    def _flush(self, stream_id: int, stream: _Stream) -> None:
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
            self._out.append(h2.pack_frame_header(len(piece), h2.DATA, 0, stream_id))
            self._out.append(piece)
        if not queue and stream.trailers is not None:
            self._close(stream_id, stream)
        if n_sent:
            self._listener.on_sent(stream_id, n_sent)

    def _close(self, stream_id: int, stream: _Stream) -> None:
        assert stream.trailers is not None
        flags = h2.END_HEADERS | h2.END_STREAM
        self._out.append(h2.pack_frame(h2.HEADERS, flags, stream_id, stream.trailers))
        del self._streams[stream_id]
        if stream.is_receiving:  # answered before the request was complete
            self._out.append(h2.pack_rst_stream(stream_id, H2Code.NO_ERROR))


def _widen(window: int, change: int) -> int:
    if window + change > h2.WINDOW_MAX:
        raise ConnectionFailed(H2Code.FLOW_CONTROL_ERROR, "a window above 2^31-1")
    return window + change


def _require_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "a frame of a wrong size")


def _require_connection(stream_id: int) -> None:
    if stream_id:
        raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "a connection's frame on a stream")


_FRAME_HEADER: Final = struct.Struct(">BHBBI")
_FRAME_HANDLERS: Final = {
    h2.DATA: Http2Connection._empty_data,
    h2.HEADERS: Http2Connection._headers,
    h2.PRIORITY: Http2Connection._priority,
    h2.RST_STREAM: Http2Connection._rst_stream,
    h2.SETTINGS: Http2Connection._settings,
    h2.PUSH_PROMISE: Http2Connection._push_promise,
    h2.PING: Http2Connection._ping,
    h2.WINDOW_UPDATE: Http2Connection._window_update,
    h2.CONTINUATION: Http2Connection._continuation,
}
