"""How old WAL records are that are carried along unread: exemplars and histograms.

A checkpoint keeps such a record as it is while any entry in it is young enough. So its entries
are walked for their times, and nothing else of them is looked at. Metadata entries are located,
as only the newest of each series is kept.

    exemplars            04 | u64, i64 base | varint Δref, varint Δt, f64, labels
    histograms        07 09 | u64, i64 base | varint Δref, varint Δt, histogram
    float histograms  08 0A | the same with a float histogram
    histograms v2     0C 0D | varint ref, t, st, histogram | varint Δref, Δt, marker, histogram
    metadata             06 | uvarint ref, u8 type, uvarint n, n pairs (name, value)

Source: Prometheus `tsdb/record`; `docs/formats/wal-records.md`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, I64, I64_OUT, U64_OUT, i64
from thanostack.lib.kernels.varint import read_length, read_uvarint, zigzag
from thanostack.lib.kernels.wide import load_be64

EXEMPLARS, METADATA = 4, 6
HISTOGRAMS, FLOAT_HISTOGRAMS, CUSTOM, FLOAT_CUSTOM = 7, 8, 9, 10
HISTOGRAMS_V2, FLOAT_HISTOGRAMS_V2 = 12, 13
CUSTOM_SCHEMA = -53

ALWAYS = 0x7FFFFFFFFFFFFFFF
"""The time of a record that has none, or does not parse: never too old."""

LOCATE_BAD = -1
LOCATE_FULL = -2


@device
def _skip_varints(data, i, stop, count):
    """Return the offset after `count` varints, -1 if they do not end before `stop`."""
    for _ in range(count):
        while i < stop and data[i] > 127:
            i += 1
        i += 1
        if i > stop:
            return np.int64(-1)
    return i


@device
def _count(data, i, stop):
    """Return (count of entries that take a byte or more each, next offset or -1)."""
    value, i = read_uvarint(data, i, stop)
    if i < 0 or value > np.uint64(stop - i):
        return np.int64(0), np.int64(-1)
    return np.int64(value), i


@device
def _skip_labels(data, i, stop):
    count, i = _count(data, i, stop)
    if i < 0:
        return i
    for _ in range(2 * count):
        length, i = read_length(data, i, stop)
        if i < 0:
            return i
        i += length
    return i


@device
def _skip_counted(data, i, stop, varints, doubles):
    """Skip a count and that many times some varints and doubles; -1 if that leaves `stop`."""
    count, i = _count(data, i, stop)
    if i < 0:
        return i
    i = _skip_varints(data, i, stop, count * varints)
    if i < 0 or count * doubles * 8 > stop - i:
        return np.int64(-1)
    return i + count * doubles * 8


@device
def _skip_histogram(data, i, stop, is_float):
    """Return the offset after the histogram at `i`, -1 if it leaves `stop`."""
    # Hint, schema, zero threshold.
    if i >= stop:
        return np.int64(-1)
    schema, i = read_uvarint(data, i + 1, stop)
    if i < 0:
        return np.int64(-1)
    i += 8
    # Zero count, count, sum.
    i = i + 16 if is_float else _skip_varints(data, i, stop, 2)
    if i < 0 or i + 8 > stop:
        return np.int64(-1)
    i += 8
    varints, doubles = np.int64(1), np.int64(0)
    if is_float:
        varints, doubles = np.int64(0), np.int64(1)
    i = _skip_counted(data, i, stop, 2, 0)
    if i >= 0:
        i = _skip_counted(data, i, stop, 2, 0)
    if i >= 0:
        i = _skip_counted(data, i, stop, varints, doubles)
    if i >= 0:
        i = _skip_counted(data, i, stop, varints, doubles)
    if i >= 0 and zigzag(schema) == CUSTOM_SCHEMA:
        i = _skip_counted(data, i, stop, 0, 1)
    return i


@device
def _newest_v1(data, i, stop, kind):
    """Return the newest time of a record with a base; ALWAYS if it does not parse."""
    newest = np.int64(-ALWAYS - 1)
    if i == stop:
        return newest
    if i + 16 > stop:
        return np.int64(ALWAYS)
    base = load_be64(data, i + 8)
    i += 16
    while i < stop:
        _, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(ALWAYS)
        delta, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(ALWAYS)
        newest = max(newest, np.int64(base + np.uint64(zigzag(delta))))
        if kind == EXEMPLARS:
            i = _skip_labels(data, i + 8, stop)
        else:
            is_float = kind == FLOAT_HISTOGRAMS or kind == FLOAT_CUSTOM
            i = _skip_histogram(data, i, stop, is_float)
        if i < 0:
            return np.int64(ALWAYS)
    return newest


@device
def _newest_v2(data, i, stop, kind):
    """Return the newest time of a v2 histogram record; ALWAYS if it does not parse."""
    newest = np.int64(-ALWAYS - 1)
    base = np.uint64(0)
    first = True
    while i < stop:
        _, i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(ALWAYS)
        delta, i = read_uvarint(data, i, stop)
        if i < 0 or i >= stop:
            return np.int64(ALWAYS)
        time = base + np.uint64(zigzag(delta))
        newest = max(newest, np.int64(time))
        explicit = first
        if not first:
            explicit = data[i] > 1
            i += 1
        if explicit:
            _, i = read_uvarint(data, i, stop)
        if first:
            base = time
            first = False
        if i >= 0:
            i = _skip_histogram(data, i, stop, kind == FLOAT_HISTOGRAMS_V2)
        if i < 0:
            return np.int64(ALWAYS)
    return newest


@kernel(i64(BYTES, I64, I64_OUT))
def wal_newest_times(data, bounds, times):
    """Write the newest time in each exemplar or histogram record and return their number.

    Args:
        data: uint8[n]; records.
        bounds: int64[records + 1]; record i is data[bounds[i]:bounds[i + 1]].
        times: int64[records], ms; ALWAYS for records of other types and such as do not parse.
    """
    found = np.int64(0)
    for record in range(bounds.shape[0] - 1):
        i, stop = bounds[record], bounds[record + 1]
        times[record] = ALWAYS
        if i >= stop:
            continue
        kind = np.int64(data[i])
        if kind == EXEMPLARS or (HISTOGRAMS <= kind <= FLOAT_CUSTOM):
            times[record] = _newest_v1(data, i + 1, stop, kind)
        elif kind == HISTOGRAMS_V2 or kind == FLOAT_HISTOGRAMS_V2:
            times[record] = _newest_v2(data, i + 1, stop, kind)
        else:
            continue
        found += 1
    return found


@kernel(i64(BYTES, i64, i64, U64_OUT, I64_OUT))
def wal_locate_metadata(data, start, stop, refs, offsets):
    """Locate the entries of one metadata record's body; return how many, LOCATE_BAD or FULL.

    Args:
        data: uint8[n].
        start, stop: the body, without the type byte; inside `data`.
        refs: uint64[room]; series references.
        offsets: int64[room + 1]; entry i is data[offsets[i]:offsets[i + 1]].
    """
    count = np.int64(0)
    i = start
    offsets[0] = i
    while i < stop:
        if count == refs.shape[0]:
            return np.int64(LOCATE_FULL)
        refs[count], i = read_uvarint(data, i, stop)
        if i < 0:
            return np.int64(LOCATE_BAD)
        # The labels of a series and the fields of its metadata have one layout.
        i = _skip_labels(data, i + 1, stop)
        if i < 0:
            return np.int64(LOCATE_BAD)
        count += 1
        offsets[count] = i
    return count
