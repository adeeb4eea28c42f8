"""Samples that come again: which of the late ones are stored already, bit for bit.

A sender that got no answer sends its request again; what was stored meanwhile is then older than
the newest sample of its series, and the append rules, which know only that one, call it out of
order. An exact duplicate is a success everywhere, so the late samples of such a request are looked
up in the head's chunks. This is the slow path of requests that would be refused: one snapshot, one
decode.

Bound: at most `ROWS_MAX` series a request are looked up; the others stay out of order. Samples
older than what the head accepts at all are out of bounds and not looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thanostack.lib.chunkenc.xor import decode_series
from thanostack.lib.model.label_runs import Int64Array, LabelRuns
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.head_reader import fill_chunks
from thanostack.lib.tsdb.write_columns import WriteColumns

if TYPE_CHECKING:
    from thanostack.lib.tsdb.tsdb import TSDB

ROWS_MAX = 4_000


def count_stored(tsdb: TSDB, request: WriteColumns, rows: Int64Array, mint: int) -> int:
    """Return how many late samples of a request are stored with the same bits; inside a job.

    Args:
        tsdb: the tenant; nothing of the request has been applied yet.
        request: as scanned, before staging moved anything.
        rows: int64[S]; the row of each series, -1 = none.
        mint: the earliest time that the head accepts, ms inclusive.
    """
    of_sample = np.repeat(rows[: request.count], np.diff(request.offsets[: request.count + 1]))
    times, values = request.timestamps[: len(of_sample)], request.values[: len(of_sample)]
    newest = tsdb.head.tables.rows["last_t"][of_sample]
    late = np.flatnonzero((of_sample >= 0) & (times < newest) & (times >= mint))
    unique, place = np.unique(of_sample[late], return_inverse=True)
    late, place = late[place < ROWS_MAX], place[place < ROWS_MAX]
    if not len(late):
        return 0
    wanted = unique[:ROWS_MAX].astype(np.int32)
    first, last = int(times[late].min()), int(times[late].max())
    chunks = tsdb.head.snapshot(wanted, tsdb.head.refs(wanted), first, last)
    no_labels = LabelRuns(np.zeros(0, np.uint8), np.zeros(len(wanted) + 1, np.int64))
    data = fill_chunks(chunks, tsdb.chunk_files.pin())
    batch = SeriesBatch(no_labels, chunks.offsets, chunks.chunks, data)
    stored = decode_series(batch, 0, len(wanted), first, last)
    # One rising key a (series, time): series in the high bits, time since `first` in the low ones.
    owner = np.repeat(np.arange(len(wanted)), np.diff(stored.offsets))
    keys = owner * (last - first + 1) + stored.timestamps - first
    sought = place * (last - first + 1) + times[late] - first
    found = np.minimum(np.searchsorted(keys, sought), max(len(keys) - 1, 0))
    if not len(keys):
        return 0
    same = (keys[found] == sought) & (stored.values.view(np.uint64)[found] == values[late])
    return int(np.count_nonzero(same))
