"""StoreAPI frames in plain Python, from the .proto files."""

from __future__ import annotations

from typing import Any

import xxhash

BAD_FRAME, BAD_LABELS, NO_AGGREGATE, OUT_OF_SPACE = -1, -2, -3, -4


class MalformedError(Exception):
    """Bytes that are not protobuf."""


class RefusedError(Exception):
    """Protobuf that is not what the StoreAPI promises; carries the status."""


def varint(value: Any) -> Any:
    """Return an unsigned integer, or the two's complement of a negative one, as varint."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: Any, body: Any) -> Any:
    """Return a length-delimited field."""
    return bytes([number << 3 | 2]) + varint(len(body)) + body


def read_varint(data: Any, i: Any, stop: Any) -> Any:
    """Return (value, next offset)."""
    value = 0
    for n in range(10):
        if i + n >= stop:
            break
        byte = data[i + n]
        value |= (byte & 127) << 7 * n
        if byte < 128:
            if value >= 1 << 64:
                break
            return value, i + n + 1
    raise MalformedError


def fields(data: Any, start: Any, stop: Any) -> Any:
    """Yield (tag, value) of a message: a varint, or the (start, stop) of what is delimited."""
    i = start
    while i < stop:
        tag, i = read_varint(data, i, stop)
        wire = tag & 7
        if wire == 0:
            value, i = read_varint(data, i, stop)
        elif wire == 2:
            length, i = read_varint(data, i, stop)
            value = (i, i + length)
            i += length
        elif wire in {1, 5}:
            value = None
            i += 8 if wire == 1 else 4
        else:
            raise MalformedError
        if i > stop:
            raise MalformedError
        yield tag, value


def _aggr_chunk(chunk: Any, data: Any) -> Any:
    start = int(chunk["start"])
    body = bytes(data[start : start + int(chunk["length"])])
    raw = b"" if chunk["encoding"] == 1 else b"\x08" + varint(int(chunk["encoding"]) - 1)
    raw += field(2, body)
    digest = xxhash.xxh64_intdigest(body)
    raw += b"\x18" + varint(digest) if digest else b""
    message = b""
    for tag, name in ((b"\x08", "mint"), (b"\x10", "maxt")):
        if chunk[name]:
            message += tag + varint(int(chunk[name]))
    return field(2, message + field(3, raw))


def encode_series_frame(
    label_data: Any,
    label_offsets: Any,
    chunk_offsets: Any,
    chunks: Any,
    data: Any,
    rows: Any,
    limits: Any,
    out: Any,
    at: Any,
) -> Any:
    """Write one SeriesResponse frame and return its size; 0 when all rows are written."""
    most, room = max(int(limits[0]), 1), int(limits[1])
    position, cut = int(at[0]), int(at[1])
    if position >= len(rows):
        return 0
    series: list[bytes] = []
    used = 0
    while position < len(rows) and len(series) < most:
        row = rows[position]
        labels = bytes(label_data[label_offsets[row] : label_offsets[row + 1]])
        chunk = cut if cut >= 0 else int(chunk_offsets[row])
        body, taken = b"", 0
        while chunk < chunk_offsets[row + 1]:
            encoded = _aggr_chunk(chunks[chunk], data)
            # One chunk goes out whatever its size, but only at the head of a frame.
            fits = len(body) + len(encoded) <= room - used - len(labels) - 16
            if not fits and (series or taken):
                break
            body, chunk, taken = body + encoded, chunk + 1, taken + 1
            if not fits:
                break
        whole = chunk == chunk_offsets[row + 1]
        if series and (used + len(labels) + len(body) + 16 > room or not (taken or whole)):
            break
        series.append(field(1, labels + body))
        used += len(series[-1])
        cut = -1 if whole else chunk
        if not whole:
            break
        position += 1
    frame = field(4, b"".join(series)) if most > 1 else series[0]
    out[: len(frame)] = list(frame)
    at[0], at[1] = position, cut
    return len(frame)


def _messages(data: Any, frames: Any) -> Any:
    """Yield ("series", start, stop) and ("warning", start, stop) in order of the stream."""
    for f in range(len(frames) - 1):
        for tag, value in fields(data, int(frames[f]), int(frames[f + 1])):
            if tag == 0x0A:
                yield "series", *value
            elif tag == 0x12:
                yield "warning", *value
            elif tag == 0x22:
                for inner, part in fields(data, *value):
                    if inner == 0x0A:
                        yield "series", *part


def count_series_frames(data: Any, frames: Any, counts: Any) -> Any:
    """Count what a stream of SeriesResponse frames holds."""
    data, found = bytes(data), [0, 0, 0, 0]
    try:
        for kind, start, stop in _messages(data, frames):
            if kind == "warning":
                found[3] += 1
                continue
            found[0] += 1
            end = start
            for tag, value in fields(data, start, stop):
                if tag == 0x0A:
                    size = value[1] - value[0]
                    found[2] += size + _prefix(data, value[0], size) + 16
                found[1] += tag == 0x12
                end = value
            del end
    except MalformedError:
        return BAD_FRAME
    counts[:4] = found
    return 0


def _prefix(data: Any, start: Any, size: Any) -> Any:
    """Return how many bytes the length before `start` takes, padded ones too."""
    width = 1
    while width < 10 and data[start - width - 1] >= 128:
        width += 1
    while True:
        try:
            value, i = read_varint(data, start - width, start)
        except MalformedError:
            value, i = -1, -1
        if value == size and i == start:
            return width
        width -= 1


def _run(data: Any, labels: Any) -> Any:
    run, previous = b"", None
    for start, stop in labels:
        pair = {0x0A: b"", 0x12: b""}
        for tag, value in fields(data, start, stop):
            if tag in pair:
                pair[tag] = data[value[0] : value[1]]
        if not pair[0x12]:
            continue
        if not pair[0x0A] or (previous is not None and pair[0x0A] <= previous):
            raise RefusedError(BAD_LABELS)
        previous = pair[0x0A]
        run += field(1, field(1, pair[0x0A]) + field(2, pair[0x12]))
    return run


def _chunk(data: Any, start: Any, stop: Any, wanted: Any) -> Any:
    mint = maxt = 0
    sources = {}
    for tag, value in fields(data, start, stop):
        if tag == 0x08:
            mint = _signed(value)
        elif tag == 0x10:
            maxt = _signed(value)
        elif tag in {0x1A, wanted * 8 + 2}:
            sources[tag] = value
    source = sources.get(0x1A) or sources.get(wanted * 8 + 2)
    if source is None:
        raise RefusedError(NO_AGGREGATE)
    encoding, begin, length = 1, source[0], 0
    for tag, value in fields(data, *source):
        if tag == 0x08:
            encoding = (value & 127) + 1
        elif tag == 0x12:
            begin, length = value[0], value[1] - value[0]
    return mint, maxt, begin, length, encoding


def _signed(value: Any) -> Any:
    return value - (1 << 64) if value >> 63 else value


def decode_series_frames(
    data: Any,
    frames: Any,
    wanted: Any,
    label_data: Any,
    label_offsets: Any,
    chunk_offsets: Any,
    chunks: Any,
    warnings: Any,
) -> Any:
    """Decode a stream of SeriesResponse frames; return the number of series or a status."""
    data = bytes(data)
    s = w = 0
    label_offsets[0] = chunk_offsets[0] = 0
    try:
        for kind, start, stop in _messages(data, frames):
            if kind == "warning":
                warnings[2 * w : 2 * w + 2] = start, stop - start
                w += 1
                continue
            labels = []
            c = int(chunk_offsets[s])
            for tag, value in fields(data, start, stop):
                if tag == 0x0A:
                    labels.append(value)
                    _run(data, labels)
                elif tag == 0x12:
                    chunks[c] = _chunk(data, value[0], value[1], wanted)
                    c += 1
            run = _run(data, labels)
            at = int(label_offsets[s])
            label_data[at : at + len(run)] = list(run)
            s += 1
            label_offsets[s], chunk_offsets[s] = at + len(run), c
    except MalformedError:
        return BAD_FRAME
    except RefusedError as refused:
        return refused.args[0]
    return s
