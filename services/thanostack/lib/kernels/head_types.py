"""The records and the table set of the head: its memory, as kernels see it.

    rows      one 64-byte record a series: all that an append touches, one cache line
    slabs     open chunks, by size class;  a slab: next_at i64 | first_t i64 | chunk bytes
    chunks    one record a closed chunk, linked from the newest back (`tail` -> `previous`)
    closed    closed chunks on their way to `chunks_head`, in that file's format
    keys      canonical label runs;  table: hash -> row
    pairs     one record a label pair, and one a label name;  pair_table: hash -> record
    postings  rows of a pair, a growing list each

All arrays are views of reserved address space: they never move, pages appear when touched.
Slots of both hash tables are `hash32 << 32 | index + 1`, 0 free, probed linearly.
"""

from typing import Any, NamedTuple

import numpy as np

from thanostack.lib.kernels._types import (
    BYTES_OUT,
    I32_OUT,
    I64_OUT,
    U64_OUT,
    Tables,
    array_out,
    record_dtype,
)

ROW_DTYPE = record_dtype(
    [
        ("last_t", np.int64),  # newest applied sample, ms
        ("last_v", np.uint64),  # its bits
        ("delta", np.int64),  # last_t less the one before
        ("slab", np.int64),  # offset of the open chunk's slab; -1 none
        ("key", np.int64),  # offset of the canonical run in `keys`
        ("key_bytes", np.int32),
        ("position", np.int32),  # bits used in the open chunk
        ("next", np.int32),  # the row that followed last time; -1 unknown
        ("stage_index", np.int32),  # newest staged sample of this series …
        ("stage_epoch", np.uint32),  # … valid while this equals the request's epoch
        ("count", np.uint8),  # samples in the open chunk; 0 none open
        ("leading", np.uint8),  # of the XOR window; 255 none yet
        ("trailing", np.uint8),
        ("slab_class", np.uint8),
    ]
)
assert ROW_DTYPE.itemsize == 64

CLOSED_DTYPE = record_dtype(
    [
        ("mint", np.int64),
        ("maxt", np.int64),
        ("ref", np.int64),  # chunks_head reference; -1 - offset in `closed` while pending
        ("row", np.int32),
        ("previous", np.int32),  # older chunk of the row; -1 none
        ("length", np.int32),  # of the chunk bytes
        ("header", np.int32),  # bytes of the frame before the chunk bytes
    ]
)

PAIR_DTYPE = record_dtype(
    [
        ("start", np.int64),  # offset of the pair's bytes in `pair_bytes`
        ("postings", np.int64),  # offset of its list; of a name record: the older name, -1 none
        ("length", np.int32),  # of the bytes: 0A n name 12 v value; of a name record 0A n name
        ("count", np.int32),  # rows in the list
        ("capacity", np.int32),
        ("name", np.int32),  # the name's record; -1 in a name record
        ("next", np.int32),  # an older pair of the name; of a name record its newest pair
        ("hash", np.uint32),
    ]
)

# Indices into `meta`.
ROWS, KEYS_TOP, SLABS_TOP, CHUNKS, CLOSED_TOP, PAIRS, PAIR_BYTES_TOP, POSTINGS_TOP, NEWEST_NAME = (
    range(9)
)
NEXT_REF, MAX_T, MIN_T, FREE_ROW, EPOCH, ALIVE, WIDTH = range(9, 16)
FREE_SLAB = 16  # one list head a slab class, offset + 1
FREE_POSTINGS = 32  # one list head a power of two, offset + 1
SHARED = 19
CHUNKS_MADE, CHUNKS_REMOVED = 20, 21  # since the head was made; open chunks count too
SCRATCH = 64  # what a kernel notes for its own call: BLOCK numbers, or twice half as many
BLOCK = 64
META_SIZE = SCRATCH + BLOCK

SLAB_HEADER = 16
# Series fill their chunks in step, so a class that all of them outgrow stays touched and empty: few
# classes, and a chunk begins in the class that the one before it needed.
SLAB_BYTES = np.array([384, 640, 1104], np.int64)
SLAB_CLASSES = len(SLAB_BYTES)
SLAB_SLACK = 32  # a sample takes at most 20 bytes, a bit write reaches 9 beyond

SAMPLES_PER_CHUNK = 120
CHUNK_BYTES_MAX = 1024 - 19


class HeadTables(NamedTuple):
    """The arrays of one head, in the order that kernels take them."""

    meta: Any
    rows: Any
    refs: Any
    tails: Any
    slabs: Any
    chunks: Any
    closed: Any
    keys: Any
    table: Any
    pairs: Any
    pair_table: Any
    pair_bytes: Any
    postings: Any


_ROWS = array_out(ROW_DTYPE)
HEAD = Tables(
    HeadTables,
    (
        I64_OUT,
        _ROWS,
        I64_OUT,
        I32_OUT,
        BYTES_OUT,
        array_out(CLOSED_DTYPE),
        BYTES_OUT,
        BYTES_OUT,
        U64_OUT,
        array_out(PAIR_DTYPE),
        U64_OUT,
        BYTES_OUT,
        I32_OUT,
    ),
)
ROWS_OUT = _ROWS
