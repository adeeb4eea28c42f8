"""The server's side of one HTTP/2 connection, as a machine from bytes to calls and back.

    bytes in ──receive──> listener.on_request, on_data, on_end, on_reset
    send_headers, send_data, send_trailers ──> bytes out, as fast as the client's windows allow

                          HEADERS                 END_STREAM
        idle ──────────────────────> receiving ───────────────> answering ──END_STREAM──> gone
                                         └───── RST_STREAM, either side ──────> gone

Frames, header blocks and windows are the base's (`http2_machine`).

Invariants (`check`): a stream that is gone is not in `_streams`; trailers wait only behind data.

Source: RFC 9113.
"""

from __future__ import annotations

from typing import Final, Protocol

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code
from thanostack.runtime.http2_machine import (
    CONNECTION_WINDOW,
    FRAME_BYTES_MAX,
    STREAM_WINDOW,
    Headers,
    Http2Machine,
    Stream,
)

STREAMS_MAX: Final = 1000
# Bound: a busy router sends a few per call; at this rate they take about 3 % of a core.
_CONTROL_FRAMES_MAX: Final = 10_000


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


class _Stream(Stream):
    __slots__ = ("is_receiving", "trailers")

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self.is_receiving = True
        self.trailers: bytes | None = None


class Http2Connection(Http2Machine[_Stream]):
    """One connection, from the client's preface on.

    Args:
        listener: told about requests.
    """

    def __init__(self, listener: Listener) -> None:
        settings = [
            (h2.SETTING_MAX_CONCURRENT_STREAMS, STREAMS_MAX),
            (h2.SETTING_INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (h2.SETTING_MAX_FRAME_SIZE, FRAME_BYTES_MAX),
            (h2.SETTING_MAX_HEADER_LIST_SIZE, h2.HEADER_LIST_BYTES_MAX),
        ]
        credit = h2.pack_window_update(0, CONNECTION_WINDOW - h2.DEFAULT_WINDOW)
        super().__init__(
            [h2.pack_settings(settings), credit], control_frames_max=_CONTROL_FRAMES_MAX
        )
        self._listener = listener
        self._last_served = h2.LAST_STREAM_ANY
        self._is_greeted = False

    def take_output(self) -> bytes:
        """Return what is to be written now, once."""
        return b"".join(self.take_pieces())

    def check(self) -> None:
        """Assert the invariants."""
        super().check()
        assert all(s.trailers is None or s.queue for s in self._streams.values())

    # Receiving.

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the client, the preface first."""
        if not self._is_greeted:
            data, self._tail = self._tail + data, b""
            if len(data) < len(h2.PREFACE):
                self._tail = data
                return
            if not data.startswith(h2.PREFACE):
                raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "no HTTP/2 preface")
            self._is_greeted, data = True, data[len(h2.PREFACE) :]
        super().receive(data, now)

    def on_data(self, stream_id: int, stream: _Stream, flags: int, payload: bytes) -> None:
        """Hand a piece of a request on."""
        if payload:
            if not stream.is_receiving:
                raise ConnectionFailed(H2Code.STREAM_CLOSED, "DATA after the end of a request")
            self._listener.on_data(stream_id, payload)
        if flags & h2.END_STREAM:
            self._end(stream_id)

    def on_headers(self, stream_id: int, flags: int, headers: Headers) -> None:
        """Begin a request, or end one with trailers."""
        if stream_id in self._streams:
            if not flags & h2.END_STREAM:
                raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "headers in the middle of a request")
            self._end(stream_id)
        elif stream_id > self._highest:
            self._request(stream_id, flags, headers)

    def on_reset(self, stream_id: int, stream: _Stream, code: int) -> None:
        """Hand the end of a call on."""
        del stream, code
        self._listener.on_reset(stream_id)

    def _end(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:  # refused while its last data was handed over
            return
        if not stream.is_receiving:
            raise ConnectionFailed(H2Code.STREAM_CLOSED, "a request ends twice")
        stream.is_receiving = False
        self._listener.on_end(stream_id)

    def _request(self, stream_id: int, flags: int, headers: Headers) -> None:
        self._highest = stream_id
        if len(self._streams) >= STREAMS_MAX or stream_id > self._last_served:
            self._out.append(h2.pack_rst_stream(stream_id, H2Code.REFUSED_STREAM))
            return
        self._streams[stream_id] = _Stream(self._initial_window)
        self._listener.on_request(stream_id, headers)
        if flags & h2.END_STREAM:
            self._end(stream_id)

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

    def go_away(self) -> None:
        """Take no further calls; those that are open are still answered."""
        self._leave_behind(self._highest)

    def give_back(self, stream_id: int) -> None:
        """Take no further calls, nor the last one that has begun.

        By the number in GOAWAY a client knows that it may repeat it elsewhere. RST_STREAM could say
        that as well, but grpcio's client takes it for an answer.
        """
        del self._streams[stream_id]
        self._leave_behind(max(0, stream_id - 2))

    def _leave_behind(self, last_served: int) -> None:
        self._last_served = last_served
        self._out.append(h2.pack_goaway(last_served, H2Code.NO_ERROR))

    def on_written(self, stream_id: int, stream: _Stream, n_bytes: int) -> None:
        """Send the trailers behind the last data, and tell who waits for room."""
        if not stream.queue and stream.trailers is not None:
            self._close(stream_id, stream)
        if n_bytes:
            self._listener.on_sent(stream_id, n_bytes)

    def _close(self, stream_id: int, stream: _Stream) -> None:
        assert stream.trailers is not None
        flags = h2.END_HEADERS | h2.END_STREAM
        self._out.append(h2.pack_frame(h2.HEADERS, flags, stream_id, stream.trailers))
        del self._streams[stream_id]
        if stream.is_receiving:  # answered before the request was complete
            self._out.append(h2.pack_rst_stream(stream_id, H2Code.NO_ERROR))
