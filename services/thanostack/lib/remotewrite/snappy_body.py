"""Decompressing a snappy block into a reused buffer, within a ceiling.

A block begins with its decompressed length. That number comes from the network, so before any
memory is taken it is checked against the ceiling, and against what the compressed bytes could hold
at best: three bytes copy at most sixty-four.

Buffers are kept by a pool, as a fresh one costs a page fault every four kilobytes. Whoever takes a
buffer gives it back when storage has answered.

Source: snappy, `format_description.txt`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

import cramjam
import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.model.label_runs import Uint8Array

DECODED_BYTES_MAX: Final = 32 << 20
"""Default ceiling: Prometheus's own receiver has the same; its senders stay far below 2 MiB."""

TOO_LARGE: Final = "write request too large"
"""What upstream says of a request of too many bytes."""

_LEAST_BUFFER: Final = 64 << 10
_LENGTH_BYTES_MAX: Final = 5
_EXPANSION: Final = 64 / 3


def declared_length(block: bytes | bytearray | memoryview) -> int:
    """Return the decompressed length that a snappy block declares.

    Raises:
        InvalidInput: if it is cut off, above 32 bits, or more than the block could ever hold.
    """
    length = 0
    for i in range(min(_LENGTH_BYTES_MAX, len(block))):
        byte = block[i]
        length |= (byte & 127) << (7 * i)
        if byte < 128:
            if length > len(block) * _EXPANSION or length >> 32:
                raise InvalidInput(
                    f"snappy decode error: {len(block)} bytes cannot hold the {length} declared"
                )
            return length
    raise InvalidInput("snappy decode error: the length is cut off")


@dataclass
class BodyBuffers:
    """A bounded pool of buffers for decoded bodies; safe from any thread.

    Args:
        kept_bytes_max: how much is kept for reuse; taking is never refused.
    """

    kept_bytes_max: int = 16 << 20
    _kept: list[Uint8Array] = field(default_factory=list, repr=False)
    _kept_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, size: int) -> Uint8Array:
        """Return a buffer of at least this size, contents undefined."""
        with self._lock:
            for i in range(len(self._kept) - 1, -1, -1):
                if len(self._kept[i]) >= size:
                    buffer = self._kept.pop(i)
                    self._kept_bytes -= len(buffer)
                    return buffer
        return np.empty(max(_LEAST_BUFFER, 1 << (size - 1).bit_length() if size else 0), np.uint8)

    def give_back(self, buffer: Uint8Array) -> None:
        """Return a buffer that nobody reads any more."""
        with self._lock:
            if self._kept_bytes + len(buffer) <= self.kept_bytes_max:
                self._kept.append(buffer)
                self._kept_bytes += len(buffer)


def decode_into(block: bytes | bytearray | memoryview, buffer: Uint8Array, length: int) -> None:
    """Decompress a block to `buffer[:length]`, where `length` is what it declares.

    Raises:
        InvalidInput: if the block is corrupt.
    """
    try:
        written = cramjam.snappy.decompress_raw_into(block, buffer.data)
    except cramjam.DecompressionError as error:
        raise InvalidInput(f"snappy decode error: {error}") from error
    if written != length:
        raise InvalidInput(f"snappy decode error: {written} bytes instead of {length}")


def checked_length(block: bytes | bytearray | memoryview, ceiling: int = DECODED_BYTES_MAX) -> int:
    """Return the declared length once it is known to be acceptable.

    Args:
        block: a snappy block.
        ceiling: most bytes it may decompress to; 0 is no ceiling.

    Raises:
        InvalidInput: as `declared_length`.
        LimitExceeded: above the ceiling.
    """
    length = declared_length(block)
    if ceiling and length > ceiling:
        raise LimitExceeded("size_bytes_limit", ceiling, length, text=TOO_LARGE)
    return length
