"""Messages of gRPC over HTTP/2: prefix, compression, and the texts in its headers.

    message = flag (1 byte: 0 plain, 1 compressed) · length (4 bytes, big endian) · body

What a sender claims is bounded before memory is spent on it. For snappy that means walking the
chunks of the framed stream first: each names its decoded size, at most 64 KiB, and their sum is
known before anything is allocated. gzip does not tell, so it is inflated into a bounded buffer.

Sources: gRPC "PROTOCOL-HTTP2"; snappy "framing_format.txt".
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_from_bytes

import cramjam

from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure

PREFIX_BYTES: Final = 5
ACCEPTED_ENCODINGS: Final = "identity,snappy,gzip"
OWN_ENCODINGS: Final = frozenset(ACCEPTED_ENCODINGS.encode().split(b","))
# Any other makes grpcio fail before a handler could say so.
GRPCIO_ENCODINGS: Final = frozenset({b"identity", b"gzip", b"deflate"})
# Both the client's header limit and one HTTP/2 frame of the smallest allowed size hold this.
STATUS_TEXT_BYTES_MAX: Final = 2048

_STREAM_HEADER: Final = b"\xff\x06\x00\x00sNaPpY"
_CHUNK_DECODED_MAX: Final = 1 << 16
_COMPRESSED, _UNCOMPRESSED, _FIRST_SKIPPABLE = 0x00, 0x01, 0x80
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_TIMEOUT_UNITS_S: Final = {b"H": 3600, b"M": 60, b"S": 1, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
# Everything printable but the percent sign itself stays as it is.
_PLAIN_STATUS: Final = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def frame_message(body: bytes) -> bytes:
    """Return a message with its prefix, uncompressed."""
    return struct.pack(">BI", 0, len(body)) + body


def split_prefix(prefix: bytes | bytearray) -> tuple[bool, int]:
    """Return (is compressed, length) from the first five bytes of a message.

    Raises:
        GrpcFailure: INTERNAL for a flag that the protocol does not know.
    """
    flag, length = struct.unpack_from(">BI", prefix)
    if flag > 1:
        raise GrpcFailure(GrpcCode.INTERNAL, f"message flag {flag} is unknown")
    return flag == 1, length


def parse_timeout_s(text: bytes) -> float | None:
    """Return a `grpc-timeout` header in seconds; None if it is malformed.

    Example:
        >>> parse_timeout_s(b"1500m")
        1.5
    """
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _TIMEOUT_UNITS_S[match[2]] if match else None


def encode_status_text(text: str) -> bytes:
    """Return a `grpc-message` header: percent-encoded UTF-8, cut to a sane length.

    Example:
        >>> encode_status_text("50% of ü")
        b'50%25 of %C3%BC'
    """
    encoded = quote_from_bytes(text.encode(), safe=_PLAIN_STATUS)[:STATUS_TEXT_BYTES_MAX]
    # The cut must not leave half an escape behind.
    return re.sub(r"%[0-9A-F]?\Z", "", encoded).encode()


def snappy_decoded_size(body: bytes) -> int:
    """Return what a framed snappy stream claims to decode to, having checked its structure.

    Raises:
        GrpcFailure: INTERNAL if a chunk is cut short, unknown, or claims more than 64 KiB.

    Cost: O(chunks).
    """
    position, total, end = 0, 0, len(body)
    if not body.startswith(_STREAM_HEADER):
        raise _malformed("no stream identifier")
    while position < end:
        if end - position < 4:
            raise _malformed("a chunk header is cut short")
        kind, size = body[position], int.from_bytes(body[position + 1 : position + 4], "little")
        position += 4
        if size > end - position:
            raise _malformed("a chunk is cut short")
        if kind in {_COMPRESSED, _UNCOMPRESSED}:
            total += _chunk_decoded_size(kind, body[position : position + min(size, 9)], size)
        elif kind < _FIRST_SKIPPABLE:
            raise _malformed(f"chunk type {kind} is reserved")
        position += size
    return total


def _chunk_decoded_size(kind: int, start: bytes, size: int) -> int:
    """Return a data chunk's decoded size; it begins with four bytes of checksum."""
    if size < 4:
        raise _malformed("a chunk has no checksum")
    decoded = size - 4 if kind == _UNCOMPRESSED else _varint(start[4:])
    if decoded > _CHUNK_DECODED_MAX:
        raise _malformed(f"a chunk claims {decoded} bytes")
    return decoded


def _varint(encoded: bytes) -> int:
    value = 0
    for index, byte in enumerate(encoded):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value
    raise _malformed("a chunk's length does not end")


def _malformed(what: str) -> GrpcFailure:
    return GrpcFailure(GrpcCode.INTERNAL, f"snappy: {what}")


def decompress(
    body: bytes, encoding: bytes, *, size_max: int, reserve: Callable[[int], None]
) -> bytes:
    """Return a compressed message's plain bytes.

    Args:
        body: without its prefix.
        encoding: what `grpc-encoding` said.
        size_max: refuse to produce more.
        reserve: called with the decoded size before it is allocated; may refuse by raising.

    Raises:
        GrpcFailure: INTERNAL for malformed bytes, RESOURCE_EXHAUSTED for too many.
    """
    if encoding == b"snappy":
        return _decompress_snappy(body, size_max, reserve)
    if encoding == b"gzip":
        return _decompress_gzip(body, size_max, reserve)
    raise GrpcFailure(GrpcCode.INTERNAL, "a compressed message without grpc-encoding")


def _decompress_snappy(body: bytes, size_max: int, reserve: Callable[[int], None]) -> bytes:
    if not body:
        return b""
    size = snappy_decoded_size(body)
    check_size(size, size_max)
    reserve(size)
    if size == 0:
        return b""
    try:
        return bytes(cramjam.snappy.decompress(body, output_len=size))
    except cramjam.DecompressionError as error:
        raise _malformed(str(error)) from error


def _decompress_gzip(body: bytes, size_max: int, reserve: Callable[[int], None]) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    reserve(min(size_max, len(body) * 4))
    try:
        plain = inflater.decompress(body, size_max + 1)
    except zlib.error as error:
        raise GrpcFailure(GrpcCode.INTERNAL, f"gzip: {error}") from error
    check_size(len(plain), size_max)
    if not inflater.eof:
        raise GrpcFailure(GrpcCode.INTERNAL, "gzip: the stream is cut short")
    return plain


def check_size(size: int, size_max: int) -> None:
    """Refuse a message that is larger than allowed.

    Raises:
        GrpcFailure: RESOURCE_EXHAUSTED.
    """
    if size > size_max:
        raise GrpcFailure(
            GrpcCode.RESOURCE_EXHAUSTED,
            f"received a message of {size} bytes, more than the limit of {size_max}",
        )
