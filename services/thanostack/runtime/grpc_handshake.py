"""The first bytes of a gRPC connection: decides which of the two servers shall have it.

    client                          this machine
      preface, SETTINGS      ──>    held
                             <──    empty SETTINGS (grpc-go sends no request before it)
      SETTINGS ack           ──>    swallowed: it answers ours
      PING                   ──>    answered here, for as long as there is no request
      HEADERS [CONTINUATION] ──>    held; `:path` and `grpc-encoding` decide

Ours is what grpcio cannot parse, and what it cannot refuse cheaply: it has taken a request apart
before it asks whether there is room for it.

Once the first request's headers and the acknowledgement are there, `route` is set and `held` has
everything that the chosen server must be told, as if it had been there from the start. The empty
SETTINGS promise nothing but defaults, so whatever the real server announces afterwards is valid.

A pure machine: no sockets, no clock. Time limits are the owner's. Bytes are bounded here: a client
that keeps to our defaults cannot send more than its window before the decision.

Invariants: at most `_HELD_BYTES_MAX` bytes are held; `route` is set at most once.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from thanostack.runtime import grpc_messages as messages
from thanostack.runtime import http2_frames as h2
from thanostack.runtime.header_blocks import BadHeaderBlock, HeaderDecoder
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code

# A full window of data (64 KiB), the largest header block, and room for small frames.
_HELD_BYTES_MAX: Final = 256 << 10


class Route(Enum):
    """Who serves the connection."""

    GRPCIO = "grpcio"
    OURS = "ours"


class Handshake:
    """One connection that has not been given to a server yet.

    `reply` collects what must be written to the client; the owner takes it with `take_reply`.

    Args:
        queued: full names of methods whose calls wait in a queue, or are refused.
    """

    def __init__(self, queued: frozenset[bytes]) -> None:
        self.route: Route | None = None
        self._queued = queued
        self._pending = bytearray()
        self._held = bytearray()
        self._reply = bytearray()
        self._block: bytearray | None = None
        self._encoding_known = self._acknowledged = self._greeted = self._has_settings = False
        self._choice = Route.GRPCIO

    def take_reply(self) -> bytes:
        """Return what is to be written now, once."""
        reply = bytes(self._reply)
        self._reply.clear()
        return reply

    @property
    def has_preface(self) -> bool:
        """Return whether the client speaks HTTP/2."""
        return self._greeted

    @property
    def is_settled(self) -> bool:
        """Return whether all that is missing is a request."""
        return self._acknowledged

    @property
    def held(self) -> bytes:
        """Return all that the chosen server must be told, from the preface on."""
        return h2.PREFACE + bytes(self._held) + bytes(self._pending)

    def feed(self, data: bytes) -> None:
        """Take bytes from the client.

        Raises:
            ConnectionFailed: if this is no HTTP/2, or a bound is exceeded.
        """
        assert self.route is None, "the connection has an owner already"
        self._pending += data
        if not self._greeted and not self._take_preface():
            return
        while self._take_frame():
            pass
        if len(self._held) + len(self._pending) > _HELD_BYTES_MAX:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "too much before the first request")

    def _take_preface(self) -> bool:
        start = bytes(self._pending[: len(h2.PREFACE)])
        if not h2.PREFACE.startswith(start):
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "no HTTP/2 preface")
        if len(start) < len(h2.PREFACE):
            return False
        del self._pending[: len(h2.PREFACE)]
        self._reply += h2.pack_settings()
        self._greeted = True
        return True

    def _take_frame(self) -> bool:
        """Handle one complete frame; return whether there was one and more may be needed."""
        pending = self._pending
        if self.route is not None or len(pending) < h2.HEADER_BYTES:
            return False
        size = int.from_bytes(pending[:3], "big")
        if size > h2.DEFAULT_FRAME_MAX:
            raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "a frame above 16 KiB")
        end = h2.HEADER_BYTES + size
        if len(pending) < end:
            return False
        raw = bytes(pending[:end])
        del pending[:end]
        self._handle(raw[3], raw[4], raw)
        return True

    def _handle(self, kind: int, flags: int, raw: bytes) -> None:
        if not self._has_settings and kind != h2.SETTINGS:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self._has_settings = True
        is_continued = self._block is not None
        if not self._encoding_known and (kind == h2.CONTINUATION) != is_continued:
            raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "a broken sequence of header frames")
        if kind == h2.SETTINGS and flags & h2.ACK and not self._acknowledged:
            self._acknowledged = True
        elif kind == h2.PING and not flags & h2.ACK and not self._encoding_known:
            self._answer_ping(raw[h2.HEADER_BYTES :])
        else:
            self._held += raw
            self._follow_headers(kind, flags, raw[h2.HEADER_BYTES :])
        if self._acknowledged and self._encoding_known:
            self.route = self._choice

    def _answer_ping(self, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "a PING that is not 8 bytes")
        self._reply += h2.pack_frame(h2.PING, h2.ACK, 0, payload)

    def _follow_headers(self, kind: int, flags: int, payload: bytes) -> None:
        if self._encoding_known:
            return
        if kind == h2.GOAWAY:
            raise ConnectionFailed(H2Code.NO_ERROR, "the client leaves")
        if kind == h2.HEADERS:
            self._block = bytearray(h2.header_fragment(payload, flags))
        elif kind == h2.CONTINUATION:
            assert self._block is not None
            self._block += payload
        else:
            return
        if len(self._block) > h2.HEADER_LIST_BYTES_MAX:
            raise ConnectionFailed(H2Code.ENHANCE_YOUR_CALM, "a header block above 64 KiB")
        if flags & h2.END_HEADERS:
            self._choose(bytes(self._block))
            self._block = None

    def _choose(self, block: bytes) -> None:
        try:
            decoder = HeaderDecoder(h2.HEADER_LIST_BYTES_MAX)
            headers = dict(decoder.decode(block))
        except BadHeaderBlock as error:
            raise ConnectionFailed(H2Code.COMPRESSION_ERROR, "a broken header block") from error
        encoding = headers.get(b"grpc-encoding", b"identity")
        is_queued = headers.get(b":path") in self._queued
        if encoding not in messages.GRPCIO_ENCODINGS or (
            is_queued and encoding in messages.OWN_ENCODINGS
        ):
            self._choice = Route.OURS
        self._encoding_known = True
