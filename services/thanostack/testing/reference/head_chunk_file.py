"""Head chunk files, chunk by chunk, as `docs/formats/chunks-head.md` tells them."""

import struct

from thanostack.testing.reference.wal_frames import crc32c
from thanostack.testing.reference.wal_records import Cursor, Undecodable, uvarint

DONE, MORE, FULL, TORN, BAD_LENGTH, BAD_CRC = 0, 1, 2, -1, -2, -3
META_MAX = 34


def encode_chunk(series_ref, mint, maxt, encoding, data):
    """Return one chunk as it lies in a file."""
    body = struct.pack(">QqqB", series_ref, mint, maxt, encoding) + uvarint(len(data)) + data
    return body + crc32c(body).to_bytes(4, "big")


def _length(data):
    """Return (bytes before the encoded bytes, their number) of the chunk at the front of `data`."""
    cursor = Cursor(data[25:30])
    length = cursor.uvarint()
    if length > 0x7FFFFFFF:
        raise Undecodable
    return 25 + cursor.i, length


def head_chunks_scan(data, position, last, chunks, state):
    """Describe the chunks in `data[position:]`, CRCs checked; return how many."""
    data, i, count = data.tobytes(), position, 0
    status = DONE
    while i < len(data):
        rest = data[i:]
        if len(rest) < META_MAX:
            status = MORE if not last else TORN if any(rest) else DONE
            break
        series_ref, mint, maxt, encoding = struct.unpack(">QqqB", rest[:25])
        if (series_ref, mint, maxt) == (0, 0, 0):
            break
        try:
            start, length = _length(rest)
        except Undecodable:
            status = BAD_LENGTH
            break
        stop = start + length
        if stop + 4 > len(rest):
            status = TORN if last else MORE
            break
        if crc32c(rest[:stop]).to_bytes(4, "big") != rest[stop : stop + 4]:
            status = BAD_CRC
            break
        if count == len(chunks):
            status = FULL
            break
        samples = int.from_bytes(rest[start : start + 2], "big") if length >= 2 else 0
        chunks[count] = (series_ref, i, mint, maxt, length, samples, encoding)
        count += 1
        i += stop + 4
    state[:2] = [status, i]
    return count


def head_chunks_gather(data, base, picks, offsets, lengths, starts, out):
    """Copy the encoded bytes of chunks out of a stretch of a file, lengths and CRCs checked."""
    data = data.tobytes()
    for k, pick in enumerate(picks.tolist()):
        at, wanted = int(offsets[pick]) - base, int(lengths[pick])
        if at < 0 or at + META_MAX > len(data):
            return -1 - k
        rest = data[at:]
        try:
            start, length = _length(rest)
        except Undecodable:
            return -1 - k
        stop = start + length
        if length != wanted or stop + 4 > len(rest):
            return -1 - k
        if starts[pick] < 0 or starts[pick] + length > len(out):
            return -1 - k
        if crc32c(rest[:stop]).to_bytes(4, "big") != rest[stop : stop + 4]:
            return -1 - k
        out[starts[pick] : starts[pick] + length] = list(rest[start:stop])
    return len(picks)
