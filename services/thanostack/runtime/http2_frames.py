"""HTTP/2 frames as bytes: what both sides of `grpc_front` need to read and write them.

    frame = length (3 bytes) · type (1) · flags (1) · stream (4, top bit reserved) · payload

Reading is left to the two machines that loop over frames (`grpc_handshake`, `http2_connection`);
here are the numbers, the builders, and the two payloads with optional parts. Header blocks are
decoded by `header_blocks` and encoded here without compression: answers carry four short
headers, and a dynamic table would be state to keep in step for nothing.

Source: RFC 9113 sections 4 and 6; RFC 7541 sections 5 and 6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
DEFAULT_FRAME_MAX: Final = 1 << 14
DEFAULT_WINDOW: Final = (1 << 16) - 1
WINDOW_MAX: Final = (1 << 31) - 1
HEADER_LIST_BYTES_MAX: Final = 1 << 16
LAST_STREAM_ANY: Final = (1 << 31) - 1

# Frame types.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags; END_STREAM and ACK share a bit.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# Settings that we send or obey.
SETTING_ENABLE_PUSH: Final = 2
SETTING_MAX_CONCURRENT_STREAMS: Final = 3
SETTING_INITIAL_WINDOW_SIZE: Final = 4
SETTING_MAX_FRAME_SIZE: Final = 5
SETTING_MAX_HEADER_LIST_SIZE: Final = 6


class H2Code(IntEnum):
    """HTTP/2 error codes that we send."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFailed(Exception):
    """The other side broke the protocol or a bound; the connection cannot go on.

    Args:
        code: for the GOAWAY frame.
        message: for its debug text and for tests.
    """

    def __init__(self, code: H2Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def pack_frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return the nine bytes before a payload."""
    return struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream_id)


def pack_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return pack_frame_header(len(payload), kind, flags, stream_id) + payload


def pack_settings(settings: Iterable[tuple[int, int]] = ()) -> bytes:
    """Return a SETTINGS frame."""
    return pack_frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings))


def pack_window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return pack_frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def pack_rst_stream(stream_id: int, code: H2Code) -> bytes:
    """Return an RST_STREAM frame."""
    return pack_frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def pack_goaway(last_stream_id: int, code: H2Code, text: str = "") -> bytes:
    """Return a GOAWAY frame."""
    return pack_frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, code) + text.encode()[:256])


def unpad(payload: bytes, flags: int) -> bytes:
    """Return a DATA or HEADERS payload without its padding.

    Raises:
        ConnectionFailed: if there is more padding than payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFailed(H2Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def header_fragment(payload: bytes, flags: int) -> bytes:
    """Return the header block fragment of a HEADERS payload.

    Raises:
        ConnectionFailed: if padding or priority do not fit.
    """
    fragment = unpad(payload, flags)
    if not flags & HAS_PRIORITY:
        return fragment
    if len(fragment) < 5:
        raise ConnectionFailed(H2Code.FRAME_SIZE_ERROR, "no room for the priority")
    return fragment[5:]


def changes_table(block: bytes) -> bool:
    """Return whether decoding a valid header block changes the dynamic table.

    Fields that are numbers of the table and literals without indexing do not.
    """
    i = 0
    while i < len(block):
        first = block[i]
        if first & 0x80:
            i = _after_integer(block, i, 0x7F)
        elif first & 0x60:  # a literal to be indexed, or a new size of the table
            return True
        else:
            i = _after_integer(block, i, 0x0F)
            for _ in range(1 if first & 0x0F else 2):
                i = _after_string(block, i)
    return False


def _after_integer(block: bytes, i: int, mask: int) -> int:
    if block[i] & mask != mask:
        return i + 1
    i += 1
    while block[i] & 0x80:
        i += 1
    return i + 1


def _after_string(block: bytes, i: int) -> int:
    length = block[i] & 0x7F
    start = _after_integer(block, i, 0x7F)
    if length == 0x7F:
        length += sum((byte & 0x7F) << 7 * k for k, byte in enumerate(block[i + 1 : start]))
    return start + length


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of literals that use neither table nor Huffman code."""
    return b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in headers)


def _literal(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, length = len(text) - 127, bytearray((127,))
    while rest >= 128:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes(length) + text
