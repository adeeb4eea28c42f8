"""WAL framing: records to page fragments and back.

    page      32 KiB: fragments, then zeros where fewer than 7 bytes are left
    fragment  u8 flags | u16 length | u32 CRC-32C of the data | data
    flags     bits 0..2: 0 rest of page is zero, 1 full, 2 first, 3 middle, 4 last
              0x08 snappy, 0x10 zstd, of the whole record, repeated on each fragment

A record that is longer than what is left of a page goes on in the next one; the fragment that
starts it may be empty. `wal_unframe` glues fragments together and checks their CRCs, and leaves
decompression to its caller.

Source: Prometheus `tsdb/wlog`; `docs/formats/wal.md`.
"""

import numpy as np

from thanostack.lib.kernels._jit import kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64_OUT, i64
from thanostack.lib.kernels.wide import copy_bytes, crc32c, load_be32, store_be32

PAGE = 32768
HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
FRAME_FULL = -1

UNFRAME_DONE = 0
UNFRAME_MORE = 1
UNFRAME_BAD_TYPE = -1
UNFRAME_BAD_LENGTH = -2
UNFRAME_BAD_CRC = -3
UNFRAME_BAD_ORDER = -4
UNFRAME_BAD_PADDING = -5


@kernel(i64(BYTES, i64, i64, i64, BYTES_OUT))
def wal_frame(payload, compression, position, at, out):
    """Write one record's fragments at `out[at:]` and return the end, or FRAME_FULL.

    Args:
        payload: uint8[n]; the record, compressed or not.
        compression: 0, 0x08 or 0x10.
        position: where the first fragment will lie in its segment; at least 7 bytes of its page
            are left.
        at: where it is written in `out`.

    Invariant: a page of which fewer than 7 bytes are left is zero filled at once.
    """
    rest = np.int64(payload.shape[0])
    done = np.int64(0)
    left = PAGE - position % PAGE
    first = True
    while first or rest > 0:
        length = min(rest, left - HEADER)
        tail = left - HEADER - length
        if tail >= HEADER:
            tail = np.int64(0)
        if length < 0 or at + HEADER + length + tail > out.shape[0]:
            return np.int64(FRAME_FULL)
        if rest == length:
            kind = FULL if first else LAST
        else:
            kind = FIRST if first else MIDDLE
        out[at] = np.uint8(kind | compression)
        out[at + 1] = np.uint8(length >> 8)
        out[at + 2] = np.uint8(length & 255)
        store_be32(out, at + 3, crc32c(payload, done, done + length))
        copy_bytes(payload, done, length, out, at + HEADER)
        at += HEADER + length
        for _ in range(tail):
            out[at] = 0
            at += 1
        done += length
        rest -= length
        left -= HEADER + length + tail
        if left == 0:
            left = np.int64(PAGE)
        first = False
    return at


@kernel(i64(BYTES, i64, BYTES_OUT, I64_OUT, I64_OUT, I64_OUT))
def wal_unframe(pages, position, out, bounds, marks, state):
    """Glue fragments to whole records and return how many; `state[0]` says how it ended.

    Args:
        pages: uint8[n]; bytes of a segment from a page boundary on, n a multiple of 32768.
        position: where to begin in `pages`.
        out: uint8[>= n]; the records one after another, still compressed.
        bounds: int64[records + 1]; record i is out[bounds[i]:bounds[i + 1]]. When full, the
            kernel stops.
        marks: int64[2 * records]; per record where its first fragment lies in `pages`, and its
            compression bits.
        state: int64[3]; UNFRAME_*; the offset in `pages` of the first byte not consumed, which
            is where an unfinished record begins; the offset of the fragment that it ended at.

    Every bad byte is an error only after all good records before it are written.
    """
    stop = np.int64(pages.shape[0])
    count = np.int64(0)
    room = min(bounds.shape[0] - 1, marks.shape[0] // 2)
    at = np.int64(0)
    bounds[0] = 0
    begun = np.int64(-1)
    status = np.int64(UNFRAME_DONE)
    while position < stop and count < room:
        kind = np.int64(pages[position]) & 7
        page_end = (position // PAGE + 1) * PAGE
        if kind == 0:
            for i in range(position, page_end):
                if pages[i] != 0:
                    status = np.int64(UNFRAME_BAD_PADDING)
            if status < 0:
                break
            position = page_end
            continue
        if kind > LAST or pages[position] >= 32:
            status = np.int64(UNFRAME_BAD_TYPE)
            break
        if position + HEADER > page_end:
            status = np.int64(UNFRAME_BAD_LENGTH)
            break
        length = (np.int64(pages[position + 1]) << 8) | np.int64(pages[position + 2])
        data = position + HEADER
        if data + length > page_end or at + length > out.shape[0]:
            status = np.int64(UNFRAME_BAD_LENGTH)
            break
        if crc32c(pages, data, data + length) != load_be32(pages, position + 3):
            status = np.int64(UNFRAME_BAD_CRC)
            break
        if (begun >= 0) == (kind == FULL or kind == FIRST):
            status = np.int64(UNFRAME_BAD_ORDER)
            break
        if begun < 0:
            begun = position
        copy_bytes(pages, data, length, out, at)
        at += length
        if kind == FULL or kind == LAST:
            marks[2 * count] = begun
            marks[2 * count + 1] = np.int64(pages[position]) & 24
            count += 1
            bounds[count] = at
            begun = np.int64(-1)
        position = data + length
    if status == UNFRAME_DONE and (begun >= 0 or position < stop):
        status = np.int64(UNFRAME_MORE)
    state[0] = status
    state[1] = begun if begun >= 0 else position
    state[2] = position
    return count
