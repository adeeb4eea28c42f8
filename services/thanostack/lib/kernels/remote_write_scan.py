"""Scan a decoded remote-write body into columns; no label is decoded.

    WriteRequest { 1 TimeSeries { 1 Label* | 2 Sample { 1 double value, 2 int64 timestamp }* … }* }

The labels of a series are usually one contiguous run: its bounds are all that is kept. Everything
that carries field 1 = TimeSeries scans the same way: remote write 1.0, and Thanos's WriteRequest
and its per-tenant tuples. Remote write 2.0 refers to a symbol table; its label runs are written out
in the order of the request and take the same way from there.

Invariant: no byte outside of `[first, stop)` of the body is read.
Source: Prometheus `prompb/remote.proto`, `prompb/io/prometheus/write/v2/types.proto`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, U64_OUT, i64
from thanostack.lib.kernels.varint import read_length, read_uvarint, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes, load64

MALFORMED, SERIES_FULL, SAMPLES_FULL, LABELS_FULL, BAD_SYMBOL = -1, -2, -3, -4, -5
HISTOGRAMS, EXEMPLARS, METADATA, LABEL_BYTES = 0, 1, 2, 3


@device
def skip_field(body, i, stop, wire_type):
    """Return the offset after a field's value, -1 if it does not fit before `stop`."""
    if wire_type == 2:
        length, i = read_length(body, i, stop)
        return np.int64(-1) if i < 0 else i + length
    if wire_type == 0:
        _, i = read_uvarint(body, i, stop)
        return np.int64(i)
    size = np.int64(8) if wire_type == 1 else np.int64(4)
    if (wire_type != 1 and wire_type != 5) or stop - i < size:
        return np.int64(-1)
    return np.int64(i + size)


@device
def next_field(body, i, stop):
    """Return (key, start of the value, offset after it) of the field at `i`.

    The offset is -1 if it is no field, or does not fit before `stop`. A value of wire type 2 starts
    with its length.
    """
    key, inner = read_uvarint(body, i, stop)
    if inner < 0 or key < np.uint64(8):
        return key, np.int64(inner), np.int64(-1)
    after = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
    return key, np.int64(inner), np.int64(after)


@device
def read_sample(body, i, stop):
    """Return (timestamp, value bits, status) of the Sample in `[i, stop)`; status -1 = malformed.

    Later fields overwrite earlier ones and unknown ones are skipped, as protobuf wants it.
    """
    t = np.int64(0)
    value = np.uint64(0)
    while i < stop:
        tag = body[i]
        if tag == 0x09 and stop - i >= 9:
            value = load64(body, i + 1)
            i += 9
        elif tag == 0x10:
            raw, i = read_uvarint(body, i + 1, stop)
            if i < 0:
                return t, value, np.int64(-1)
            t = np.int64(raw)
        else:
            _, _, i = next_field(body, i, stop)
            if i < 0:
                return t, value, np.int64(-1)
    return t, value, np.int64(0)


@device
def _scan_series(body, i, stop, n, timestamps, values, bounds, stats):
    """Scan one TimeSeries into label bounds and samples from index n on; return the next index."""
    start = i
    labels_start = i
    labels_stop = i
    regular = True
    seen = False
    while i < stop:
        tag = body[i]
        if tag == 0x0A:
            length, inner = read_length(body, i + 1, stop)
            if inner < 0:
                return np.int64(MALFORMED)
            if not seen:
                labels_start = i
                seen = True
            elif i != labels_stop:
                regular = False
            i = inner + length
            labels_stop = i
        elif tag == 0x12:
            length, inner = read_length(body, i + 1, stop)
            if inner < 0:
                return np.int64(MALFORMED)
            if n >= timestamps.shape[0]:
                return np.int64(SAMPLES_FULL)
            t, value, status = read_sample(body, inner, inner + length)
            if status < 0:
                return np.int64(MALFORMED)
            timestamps[n] = t
            values[n] = value
            n += 1
            i = inner + length
        else:
            key, inner = read_uvarint(body, i, stop)
            if inner < 0 or key < np.uint64(8):
                return np.int64(MALFORMED)
            if key == np.uint64(0x1A):
                stats[EXEMPLARS] += 1
            elif key == np.uint64(0x22):
                stats[HISTOGRAMS] += 1
            i = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
            if i < 0:
                return np.int64(MALFORMED)
    bounds[0] = labels_start if regular else -1 - start
    bounds[1] = labels_stop if regular else stop
    return np.int64(n)


@kernel(i64(BYTES, i64, i64, I64_OUT, I64_OUT, I64_OUT, U64_OUT, I64_OUT))
def remote_write_scan(body, first, stop, bounds, offsets, timestamps, values, stats):
    """Scan the TimeSeries of a message, field 1, into columns.

    Args:
        body: uint8[n]; the message is [first, stop).
        first, stop: inside the body.
        bounds: int64[2 S], written; label run of series s is [bounds[2 s], bounds[2 s + 1]).
            A series whose label fields do not stand together has -1 - (start of its TimeSeries
            message) and that message's end instead.
        offsets: int64[S + 1], written; samples of series s are [offsets[s], offsets[s + 1]).
        timestamps: int64[N], written, ms.
        values: uint64[N], written; the bits of the values.
        stats: int64[4]; raised by the number of histograms, exemplars, metadata entries.

    Returns:
        The number of series; MALFORMED, SERIES_FULL or SAMPLES_FULL (grow the arrays, scan again).

    Cost: about 50 ns a series with ten labels and one sample.
    """
    i = first
    n = np.int64(0)
    count = np.int64(0)
    offsets[0] = 0
    while i < stop:
        tag = body[i]
        if tag == 0x0A:
            length, inner = read_length(body, i + 1, stop)
            if inner < 0:
                return np.int64(MALFORMED)
            if 2 * count + 2 > bounds.shape[0]:
                return np.int64(SERIES_FULL)
            at = bounds[2 * count : 2 * count + 2]
            n = _scan_series(body, inner, inner + length, n, timestamps, values, at, stats)
            if n < 0:
                return n
            count += 1
            offsets[count] = n
            i = inner + length
        else:
            key, inner = read_uvarint(body, i, stop)
            if inner < 0 or key < np.uint64(8):
                return np.int64(MALFORMED)
            if key == np.uint64(0x1A):
                stats[METADATA] += 1
            i = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
            if i < 0:
                return np.int64(MALFORMED)
    return count


@kernel(i64(BYTES, I64_OUT))
def remote_write_symbols(body, symbols):
    """Write the bounds of the symbols (field 4) of a remote-write 2.0 request.

    Args:
        body: uint8[n]; the whole message.
        symbols: int64[2 K], written: start and stop of each.

    Returns:
        The number of symbols, MALFORMED, or SERIES_FULL when there are more than K.
    """
    i = np.int64(0)
    stop = np.int64(body.shape[0])
    count = np.int64(0)
    while i < stop:
        key, i, after = next_field(body, i, stop)
        if after < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x22):
            if 2 * count + 2 > symbols.shape[0]:
                return np.int64(SERIES_FULL)
            length, inner = read_length(body, i, stop)
            symbols[2 * count] = inner
            symbols[2 * count + 1] = inner + length
            count += 1
        i = after
    return count


@device
def _write_label(body, symbols, name, value, labels, at):
    """Write one Label of two symbols at `at`; return the next offset, LABELS_FULL or BAD_SYMBOL."""
    count = np.uint64(symbols.shape[0] // 2)
    if name >= count or value >= count:
        return np.int64(BAD_SYMBOL)
    name_start = symbols[2 * np.int64(name)]
    name_size = symbols[2 * np.int64(name) + 1] - name_start
    value_start = symbols[2 * np.int64(value)]
    value_size = symbols[2 * np.int64(value) + 1] - value_start
    size = 2 + name_size + value_size
    size += uvarint_size(np.uint64(name_size)) + uvarint_size(np.uint64(value_size))
    if at + size + 11 > labels.shape[0]:
        return np.int64(LABELS_FULL)
    labels[at] = np.uint8(0x0A)
    at = write_uvarint(labels, at + 1, np.uint64(size))
    labels[at] = np.uint8(0x0A)
    at = write_uvarint(labels, at + 1, np.uint64(name_size))
    copy_bytes(body, name_start, name_size, labels, at)
    at += name_size
    labels[at] = np.uint8(0x12)
    at = write_uvarint(labels, at + 1, np.uint64(value_size))
    copy_bytes(body, value_start, value_size, labels, at)
    return np.int64(at + value_size)


@device
def write_labels(body, i, stop, symbols, labels, at):
    """Write the labels that a packed list of references means; return the next offset or status."""
    while i < stop:
        name, i = read_uvarint(body, i, stop)
        if i < 0:
            return np.int64(MALFORMED)
        if i >= stop:
            return np.int64(BAD_SYMBOL)
        value, i = read_uvarint(body, i, stop)
        if i < 0:
            return np.int64(MALFORMED)
        at = _write_label(body, symbols, name, value, labels, at)
        if at < 0:
            return np.int64(at)
    return np.int64(at)


@device
def _scan_series_v2(body, i, stop, symbols, labels, at, timestamps, values, stats, n):
    """Scan one 2.0 TimeSeries; return (next sample index or status, next label offset)."""
    while i < stop:
        key, inner, i = next_field(body, i, stop)
        if i < 0:
            return np.int64(MALFORMED), at
        if key == np.uint64(0x0A):
            length, inner = read_length(body, inner, stop)
            after = write_labels(body, inner, inner + length, symbols, labels, at)
            if after < 0:
                return np.int64(after), at
            at = after
        elif key == np.uint64(0x12):
            length, inner = read_length(body, inner, stop)
            if n >= timestamps.shape[0]:
                return np.int64(SAMPLES_FULL), at
            t, value, status = read_sample(body, inner, inner + length)
            if status < 0:
                return np.int64(MALFORMED), at
            timestamps[n] = t
            values[n] = value
            n += 1
        elif key == np.uint64(0x1A):
            stats[HISTOGRAMS] += 1
        elif key == np.uint64(0x22):
            stats[EXEMPLARS] += 1
        elif key == np.uint64(0x2A):
            stats[METADATA] += 1
    return np.int64(n), at


@kernel(i64(BYTES, I64, BYTES_OUT, I64_OUT, I64_OUT, I64_OUT, U64_OUT, I64_OUT))
def remote_write_scan_v2(body, symbols, labels, bounds, offsets, timestamps, values, stats):
    """Scan the TimeSeries of a remote-write 2.0 request, field 5, into columns.

    Args:
        body: uint8[n]; the whole message.
        symbols: int64[2 K] of `remote_write_symbols`.
        labels: uint8[m], written; the label runs, in the order of the request. They are not
            canonical before `label_canonicalise`.
        bounds, offsets, timestamps, values: as `remote_write_scan`; bounds index `labels`. A series
            with a bad symbol reference has bounds BAD_SYMBOL, 0 and its samples.
        stats: as `remote_write_scan`; stats[LABEL_BYTES] gets the bytes written to `labels`.

    Returns:
        The number of series, or MALFORMED, SERIES_FULL, SAMPLES_FULL, LABELS_FULL.
    """
    i = np.int64(0)
    stop = np.int64(body.shape[0])
    n = np.int64(0)
    at = np.int64(0)
    count = np.int64(0)
    offsets[0] = 0
    while i < stop:
        key, inner, i = next_field(body, i, stop)
        if i < 0:
            return np.int64(MALFORMED)
        if key != np.uint64(0x2A):
            continue
        if 2 * count + 2 > bounds.shape[0]:
            return np.int64(SERIES_FULL)
        length, inner = read_length(body, inner, stop)
        after, label_stop = _scan_series_v2(
            body, inner, inner + length, symbols, labels, at, timestamps, values, stats, n
        )
        bounds[2 * count] = at
        bounds[2 * count + 1] = label_stop
        if after == BAD_SYMBOL:
            # An empty run: canonical form refuses it, and the wrapper tells the two apart.
            bounds[2 * count] = BAD_SYMBOL
            bounds[2 * count + 1] = 0
            after = n
            label_stop = at
        if after < 0:
            return np.int64(after)
        n = after
        at = label_stop
        count += 1
        offsets[count] = n
    stats[LABEL_BYTES] = at
    return count
