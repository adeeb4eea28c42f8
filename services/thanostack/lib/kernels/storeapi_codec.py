r"""StoreAPI frames: `SeriesBatch` columns to `SeriesResponse` bytes, and back.

    SeriesResponse  0x0A len Series | 0x12 len warning | 0x1A len Any | 0x22 len SeriesBatch
    SeriesBatch     ( 0x0A len Series )*
    Series          ( 0x0A len Label )*  ( 0x12 len AggrChunk )*
    AggrChunk       0x08 mint  0x10 maxt  ( 0x1A raw | 0x22 count | 0x2A sum | 0x32 min | 0x3A max
                    | 0x42 counter ) len Chunk
    Chunk           0x08 type  0x12 len data  0x18 xxh64(data)

The labels of a `Series` are a canonical label run as it stands. Encoding writes one frame a call:
the first pass finds how much fits, the second writes, so no length is ever moved. Decoding copies
label bytes only; chunk records point into the received bytes.

Hostile bytes: every length is proved to end inside its parent before a byte of it is read; labels
are re-written canonically, so whatever is accepted is a canonical run.

Source: Thanos `pkg/store/storepb/rpc.proto`, `types.proto`; Protocol Buffers, "Encoding".
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, CHUNKS, CHUNKS_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.varint import read_length, read_uvarint, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes

BAD_FRAME = -1  # not protobuf, or a length that lies
BAD_LABELS = -2  # labels not in strictly rising order of name
NO_AGGREGATE = -3  # a downsampled chunk without the aggregate that was asked for
OUT_OF_SPACE = -4  # an output array is smaller than the counting pass said


@device
def _chunk_size(hash_value, encoding, length):
    """Return the size of a Chunk message of `length` data bytes."""
    size = 1 + uvarint_size(np.uint64(length)) + length
    if encoding != 1:
        size += 1 + uvarint_size(np.uint64(encoding - 1))
    if hash_value != np.uint64(0):
        size += 1 + uvarint_size(hash_value)
    return size


@device
def _aggr_chunk_size(chunks, c, hash_value):
    """Return the size of the AggrChunk message of chunk c."""
    inner = _chunk_size(hash_value, np.int64(chunks[c].encoding), np.int64(chunks[c].length))
    size = 1 + uvarint_size(np.uint64(inner)) + inner
    if chunks[c].mint != 0:
        size += 1 + uvarint_size(np.uint64(chunks[c].mint))
    if chunks[c].maxt != 0:
        size += 1 + uvarint_size(np.uint64(chunks[c].maxt))
    return size


@device
def _field_size(size):
    """Return the size of a length-delimited field with a one-byte tag."""
    return 1 + uvarint_size(np.uint64(size)) + size


@device
def _hash_of(chunks, c, data):
    start = np.int64(chunks[c].start)
    return xxh64(data, start, start + np.int64(chunks[c].length))


@device
def _write_aggr_chunk(chunks, c, data, out, at):
    """Write the `chunks` field of a Series for chunk c and return the next offset."""
    hash_value = _hash_of(chunks, c, data)
    encoding = np.int64(chunks[c].encoding)
    length = np.int64(chunks[c].length)
    out[at] = 0x12
    at = write_uvarint(out, at + 1, np.uint64(_aggr_chunk_size(chunks, c, hash_value)))
    if chunks[c].mint != 0:
        out[at] = 0x08
        at = write_uvarint(out, at + 1, np.uint64(chunks[c].mint))
    if chunks[c].maxt != 0:
        out[at] = 0x10
        at = write_uvarint(out, at + 1, np.uint64(chunks[c].maxt))
    out[at] = 0x1A
    at = write_uvarint(out, at + 1, np.uint64(_chunk_size(hash_value, encoding, length)))
    if encoding != 1:
        out[at] = 0x08
        at = write_uvarint(out, at + 1, np.uint64(encoding - 1))
    out[at] = 0x12
    at = write_uvarint(out, at + 1, np.uint64(length))
    copy_bytes(data, np.int64(chunks[c].start), length, out, at)
    at += length
    if hash_value != np.uint64(0):
        out[at] = 0x18
        at = write_uvarint(out, at + 1, hash_value)
    return at


@device
def _chunks_that_fit(chunks, c, stop, data, room):
    """Return (next chunk, bytes) of as many chunks as fit into `room` bytes, maybe none."""
    used = np.int64(0)
    while c < stop:
        size = _field_size(_aggr_chunk_size(chunks, c, _hash_of(chunks, c, data)))
        if used + size > room:
            break
        used += size
        c += 1
    return c, used


@kernel(i64(BYTES, I64, I64, CHUNKS, BYTES, I64, I64, BYTES_OUT, I64_OUT))
def encode_series_frame(
    label_data, label_offsets, chunk_offsets, chunks, data, rows, limits, out, at
):
    """Write one SeriesResponse frame and return its size; 0 when all rows are written.

    Args:
        label_data, label_offsets, chunk_offsets, chunks, data: a SeriesBatch.
        rows: int64[R]; the rows to send, in order.
        limits: int64[2]; series a frame, at most (1 = single `series` frames); bytes a frame. A
            single chunk with its labels may be larger than the latter.
        out: uint8[n]; room for the byte limit or the largest single chunk and label run, plus 64.
        at: int64[2], in and out; the position in `rows` and the chunk of that row (-1 = its first).
    """
    first = at[0]
    if first >= rows.shape[0]:
        return 0
    most = max(limits[0], 1)
    room = limits[1]
    # Pass 1: where this frame ends.
    body = np.int64(0)
    position = first
    chunk = at[1] if at[1] >= 0 else chunk_offsets[rows[first]]
    first_chunk = chunk
    while position < rows.shape[0] and position - first < most:
        row = rows[position]
        stop = chunk_offsets[row + 1]
        labels = label_offsets[row + 1] - label_offsets[row]
        following, used = _chunks_that_fit(chunks, chunk, stop, data, room - body - labels - 16)
        if following == chunk and chunk < stop:
            if position > first:
                break
            # Bound: one chunk goes out whatever its size, else nothing would ever move.
            size = _aggr_chunk_size(chunks, chunk, _hash_of(chunks, chunk, data))
            following, used = chunk + 1, _field_size(size)
        if position > first and body + labels + used + 16 > room:
            break
        body += _field_size(labels + used)
        chunk = following
        if following < stop:
            break
        position += 1
        if position < rows.shape[0]:
            chunk = chunk_offsets[rows[position]]
    # Pass 2: write rows [first, position) and, if cut inside, the head of row `position`.
    cut = position < rows.shape[0] and chunk > chunk_offsets[rows[position]]
    if cut and position == first and chunk == first_chunk:
        cut = False
    stop_position = position + 1 if cut else position
    o = np.int64(0)
    if most > 1:
        out[0] = 0x22
        o = write_uvarint(out, np.int64(1), np.uint64(body))
    c = first_chunk
    for p in range(first, stop_position):
        row = rows[p]
        stop = chunk if (cut and p == position) else chunk_offsets[row + 1]
        labels = label_offsets[row + 1] - label_offsets[row]
        size = labels
        for k in range(c, stop):
            size += _field_size(_aggr_chunk_size(chunks, k, _hash_of(chunks, k, data)))
        out[o] = 0x0A
        o = write_uvarint(out, o + 1, np.uint64(size))
        copy_bytes(label_data, label_offsets[row], labels, out, o)
        o += labels
        for k in range(c, stop):
            o = _write_aggr_chunk(chunks, k, data, out, o)
        if p + 1 < rows.shape[0]:
            c = chunk_offsets[rows[p + 1]]
    at[0] = position
    at[1] = chunk if cut else -1
    return o


@device
def _skip(a, tag, i, stop):
    """Return the offset after a field's value of the tag's wire type; -1 = bad."""
    wire = tag & np.uint64(7)
    if wire == np.uint64(0):
        _, i = read_uvarint(a, i, stop)
        return i
    if wire == np.uint64(2):
        length, i = read_length(a, i, stop)
        return i + length if i >= 0 else np.int64(-1)
    width = np.int64(8) if wire == np.uint64(1) else np.int64(4)
    if wire != np.uint64(1) and wire != np.uint64(5):
        return np.int64(-1)
    return i + width if width <= stop - i else np.int64(-1)


@device
def _count_series(a, i, stop, counts):
    """Add one Series message [i, stop) to the counts and return False if it is malformed."""
    counts[0] += 1
    while i < stop:
        tag, i = read_uvarint(a, i, stop)
        if i < 0:
            return False
        start = i
        i = _skip(a, tag, i, stop)
        if i < 0:
            return False
        if tag == np.uint64(0x0A):
            # Bound: a canonical label takes at most two length bytes more than it was sent with.
            counts[2] += i - start + 16
        elif tag == np.uint64(0x12):
            counts[1] += 1
    return True


@kernel(i64(BYTES, I64, I64_OUT))
def count_series_frames(data, frames, counts):
    """Count what a stream of SeriesResponse frames holds; return 0 or BAD_FRAME.

    Args:
        data: uint8[n]; the frames' bytes.
        frames: int64[F + 1]; frame f is data[frames[f]:frames[f + 1]].
        counts: int64[4], out; series, chunks, an upper bound of label bytes, warnings.
    """
    counts[:4] = 0
    for f in range(frames.shape[0] - 1):
        i, stop = frames[f], frames[f + 1]
        while i < stop:
            tag, i = read_uvarint(data, i, stop)
            if i < 0:
                return BAD_FRAME
            if tag != np.uint64(0x0A) and tag != np.uint64(0x12) and tag != np.uint64(0x22):
                i = _skip(data, tag, i, stop)
                if i < 0:
                    return BAD_FRAME
                continue
            length, i = read_length(data, i, stop)
            if i < 0:
                return BAD_FRAME
            end = i + length
            if tag == np.uint64(0x12):
                counts[3] += 1
            elif tag == np.uint64(0x0A):
                if not _count_series(data, i, end, counts):
                    return BAD_FRAME
            else:
                while i < end:
                    tag, i = read_uvarint(data, i, end)
                    if i < 0:
                        return BAD_FRAME
                    start = i
                    i = _skip(data, tag, i, end)
                    if i < 0:
                        return BAD_FRAME
                    if tag == np.uint64(0x0A):
                        length, start = read_length(data, start, end)
                        if not _count_series(data, start, start + length, counts):
                            return BAD_FRAME
            i = end
    return 0


@device
def _write_label(a, i, stop, previous, out, at):
    """Re-write one Label message canonically; return (next offset or status, start, length).

    Start and length locate the name just written in `out`; `previous` is that of the label before
    (start -1 = none). An empty value writes nothing.
    """
    name = np.int64(0)
    name_length = np.int64(0)
    value = np.int64(0)
    value_length = np.int64(0)
    while i < stop:
        tag, i = read_uvarint(a, i, stop)
        if i < 0:
            return np.int64(BAD_FRAME), previous[0], previous[1]
        start = i
        i = _skip(a, tag, i, stop)
        if i < 0:
            return np.int64(BAD_FRAME), previous[0], previous[1]
        if tag == np.uint64(0x0A):
            name_length, name = read_length(a, start, stop)
        elif tag == np.uint64(0x12):
            value_length, value = read_length(a, start, stop)
    if value_length == 0:
        return at, previous[0], previous[1]
    inner = _field_size(name_length) + _field_size(value_length)
    if at + inner + 11 > out.shape[0]:
        return np.int64(OUT_OF_SPACE), previous[0], previous[1]
    out[at] = 0x0A
    at = write_uvarint(out, at + 1, np.uint64(inner))
    out[at] = 0x0A
    at = write_uvarint(out, at + 1, np.uint64(name_length))
    copy_bytes(a, name, name_length, out, at)
    written = at
    at += name_length
    out[at] = 0x12
    at = write_uvarint(out, at + 1, np.uint64(value_length))
    copy_bytes(a, value, value_length, out, at)
    if not _name_rises(out, previous[0], previous[1], written, name_length):
        return np.int64(BAD_LABELS), previous[0], previous[1]
    return at + value_length, written, name_length


@device
def _name_rises(out, i, i_length, j, j_length):
    """Return whether name j is not empty and sorts strictly after name i (i < 0 = no name)."""
    if i < 0:
        return j_length > 0
    for k in range(min(i_length, j_length)):
        if out[i + k] != out[j + k]:
            return out[i + k] < out[j + k]
    return i_length < j_length


@device
def _read_chunk(a, i, stop, record):
    """Read a Chunk message into record[0]; return False if it is malformed."""
    record[0].encoding = 1
    record[0].start = i
    record[0].length = 0
    while i < stop:
        tag, i = read_uvarint(a, i, stop)
        if i < 0:
            return False
        start = i
        i = _skip(a, tag, i, stop)
        if i < 0:
            return False
        if tag == np.uint64(0x08):
            value, _ = read_uvarint(a, start, stop)
            record[0].encoding = np.int32(np.int64(value & np.uint64(0x7F)) + 1)
        elif tag == np.uint64(0x12):
            length, start = read_length(a, start, stop)
            if length > 0x7FFFFFFF:
                return False
            record[0].start = start
            record[0].length = np.int32(length)
    return True


@device
def _read_aggr_chunk(a, i, stop, wanted, record):
    """Read an AggrChunk into record[0]: raw if it has it, else field `wanted`; return a status."""
    record[0].mint = 0
    record[0].maxt = 0
    raw = np.int64(-1)
    raw_length = np.int64(0)
    other = np.int64(-1)
    other_length = np.int64(0)
    while i < stop:
        tag, i = read_uvarint(a, i, stop)
        if i < 0:
            return BAD_FRAME
        start = i
        i = _skip(a, tag, i, stop)
        if i < 0:
            return BAD_FRAME
        if tag == np.uint64(0x08):
            value, _ = read_uvarint(a, start, stop)
            record[0].mint = np.int64(value)
        elif tag == np.uint64(0x10):
            value, _ = read_uvarint(a, start, stop)
            record[0].maxt = np.int64(value)
        elif tag == np.uint64(0x1A):
            raw_length, raw = read_length(a, start, stop)
        elif tag == np.uint64(wanted * 8 + 2):
            other_length, other = read_length(a, start, stop)
    if raw < 0:
        raw, raw_length = other, other_length
    if raw < 0:
        return NO_AGGREGATE
    return 0 if _read_chunk(a, raw, raw + raw_length, record) else BAD_FRAME


@device
def _read_series(a, i, stop, wanted, out, at, chunks, c):
    """Read one Series message; return (label offset or status, next chunk)."""
    previous = (np.int64(-1), np.int64(0))
    while i < stop:
        tag, i = read_uvarint(a, i, stop)
        if i < 0:
            return np.int64(BAD_FRAME), c
        start = i
        i = _skip(a, tag, i, stop)
        if i < 0:
            return np.int64(BAD_FRAME), c
        if tag == np.uint64(0x0A):
            length, start = read_length(a, start, stop)
            at, name, name_length = _write_label(a, start, start + length, previous, out, at)
            if at < 0:
                return at, c
            previous = (name, name_length)
        elif tag == np.uint64(0x12):
            length, start = read_length(a, start, stop)
            if c >= chunks.shape[0]:
                return np.int64(OUT_OF_SPACE), c
            status = _read_aggr_chunk(a, start, start + length, wanted, chunks[c : c + 1])
            if status < 0:
                return np.int64(status), c
            c += 1
    return at, c


@device
def _next_series(a, i, stop):
    """Return (start, stop, offset after) of a batch's next Series; start -1 = none, -2 = bad."""
    while i < stop:
        tag, i = read_uvarint(a, i, stop)
        if i < 0:
            return np.int64(-2), i, i
        start = i
        i = _skip(a, tag, i, stop)
        if i < 0:
            return np.int64(-2), i, i
        if tag == np.uint64(0x0A):
            length, start = read_length(a, start, stop)
            return start, start + length, i
    return np.int64(-1), i, i


@kernel(i64(BYTES, I64, i64, BYTES_OUT, I64_OUT, I64_OUT, CHUNKS_OUT, I64_OUT))
def decode_series_frames(
    data, frames, wanted, label_data, label_offsets, chunk_offsets, chunks, warnings
):
    """Decode a stream of SeriesResponse frames; return the number of series or a status.

    Args:
        data: uint8[n]; the frames' bytes. Chunk records point into it.
        frames: int64[F + 1]; frame f is data[frames[f]:frames[f + 1]].
        wanted: the AggrChunk field (4..8) that stands in for a missing raw chunk.
        label_data: uint8[counts[2]], out; canonical runs, one after another.
        label_offsets: int64[S + 1], out.
        chunk_offsets: int64[S + 1], out.
        chunks: CHUNK_DTYPE[C], out; as sent, neither sorted nor unique.
        warnings: int64[2 * W], out; start and length of each warning text in `data`.
    """
    label_offsets[0] = 0
    chunk_offsets[0] = 0
    s = np.int64(0)
    w = np.int64(0)
    for f in range(frames.shape[0] - 1):
        i, stop = frames[f], frames[f + 1]
        while i < stop:
            tag, i = read_uvarint(data, i, stop)
            if i < 0:
                return BAD_FRAME
            start = i
            i = _skip(data, tag, i, stop)
            if i < 0:
                return BAD_FRAME
            if tag != np.uint64(0x0A) and tag != np.uint64(0x12) and tag != np.uint64(0x22):
                continue
            length, start = read_length(data, start, stop)
            if tag == np.uint64(0x12):
                if 2 * w + 1 >= warnings.shape[0]:
                    return OUT_OF_SPACE
                warnings[2 * w] = start
                warnings[2 * w + 1] = length
                w += 1
                continue
            if tag == np.uint64(0x0A):
                first, last, following = start, i, i
            else:
                first, last, following = _next_series(data, start, i)
            while first >= 0:
                if s + 1 >= label_offsets.shape[0]:
                    return OUT_OF_SPACE
                at, c = _read_series(
                    data, first, last, wanted, label_data, label_offsets[s], chunks,
                    chunk_offsets[s],
                )  # fmt: skip
                if at < 0:
                    return at
                s += 1
                label_offsets[s] = at
                chunk_offsets[s] = c
                first, last, following = _next_series(data, following, i)
            if first == -2:
                return BAD_FRAME
    return s
