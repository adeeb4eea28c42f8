"""The answer that a server gives again and again, recognised as a whole.

    HEADERS(stream) · DATA(stream) · HEADERS(stream, END_STREAM)

A peer that stores what it is sent answers every call with the same bytes but for the stream's
number. Taking them apart, frame by frame, is a seventh of a router's time for a small request;
comparing them with the last good answer is not.

Invariant: what is recognised would be decoded to the same: its header blocks leave the compression
table alone and the table is the one that they were decoded with.

Source: RFC 9113, 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from thanostack.runtime import http2_frames as h2

_BYTES_MAX: Final = 1024
_STREAM_AT: Final = 5
"""Where a frame's header has the number of its stream, in four bytes."""


class KnownAnswer(NamedTuple):
    """The bytes of an answer, without the numbers of its stream.

    Args:
        parts: what stands before, between and behind the three numbers.
        size: of the whole.
        n_data: bytes of its DATA frame's payload.
        blocks: its header blocks.
    """

    parts: tuple[bytes, ...]
    size: int
    n_data: int
    blocks: tuple[bytes, bytes]

    def stream_of(self, data: bytes, start: int) -> int:
        """Return the stream that this answer is for, 0 if it does not stand at this place."""
        at = start + _STREAM_AT
        stream = data[at : at + 4]
        for part in self.parts[:-1]:
            stop = start + len(part)
            if data[start:stop] != part or data[stop : stop + 4] != stream:
                return 0
            start = stop + 4
        last = self.parts[-1]
        return int.from_bytes(stream, "big") if data[start : start + len(last)] == last else 0


def known_answer(data: bytes, known_blocks: Mapping[bytes, Any]) -> KnownAnswer | None:
    """Return what can be recognised of some bytes, if they are one answer of the usual form.

    Args:
        data: that were received and taken.
        known_blocks: header blocks that leave the compression table alone.
    """
    if len(data) > _BYTES_MAX:
        return None
    starts, frames = [], []
    position = 0
    while position + h2.HEADER_BYTES <= len(data):
        length = int.from_bytes(data[position : position + 3], "big")
        payload = position + h2.HEADER_BYTES
        starts.append(position + _STREAM_AT)
        frames.append((data[position + 3], data[position + 4], data[payload : payload + length]))
        position = payload + length
    if position != len(data) or [kind for kind, _, _ in frames] != [
        h2.HEADERS,
        h2.DATA,
        h2.HEADERS,
    ]:
        return None
    (_, first_flags, first), (_, data_flags, body), (_, last_flags, last) = frames
    is_plain = (first_flags, data_flags, last_flags) == (
        h2.END_HEADERS, 0, h2.END_HEADERS | h2.END_STREAM,
    )  # fmt: skip
    if not is_plain or first not in known_blocks or last not in known_blocks:
        return None
    ends = [0, *(at + 4 for at in starts)]
    parts = [data[end:at] for end, at in zip(ends, starts, strict=False)]
    return KnownAnswer((*parts, data[ends[-1] :]), len(data), len(body), (first, last))
