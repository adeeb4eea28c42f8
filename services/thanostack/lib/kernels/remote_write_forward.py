"""Taking a write request apart by node, and a 2.0 request into a 1.0 one; no sample is decoded.

    body ──forward_scan──> where each series lies        placement ──forward_group──> order by share
    forward_gather: the series of one share, entry by entry, into the message for its node

A *share* is what one node gets as one replica. Shares are numbered `node * replicas + replica`, so
that all that a node gets stands together.

    groups  int64[n_shares, 3] flat: first position in `order`, number of series, bytes of entries

2.0 differs from 1.0 in its labels, which are numbers of symbols, and in two field numbers of the
series; samples and histograms are the same bytes, with fields that 1.0 does not know.

Source: Prometheus `prompb/remote.proto`, `prompb/io/prometheus/write/v2/types.proto`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I32, I32_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.remote_write_scan import next_field, write_labels
from thanostack.lib.kernels.varint import read_length, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes

MALFORMED, SERIES_FULL, OUT_FULL, BAD_SYMBOL = -1, -2, -4, -5
GROUP_WIDTH = 3
SAMPLES, HISTOGRAMS, EXEMPLARS = 0, 1, 2
# Bytes of a tag and the longest length; and of the usual length of a series.
_HEADER_BYTES_MAX = 11
_GAP = 3


@device
def _count_fields(body, i, stop, counts, at):
    """Count what the TimeSeries in [i, stop) holds; return False if it is malformed."""
    while i < stop:
        key, _, i = next_field(body, i, stop)
        if i < 0:
            return False
        if key == np.uint64(0x12):
            counts[at + SAMPLES] += 1
        elif key == np.uint64(0x1A):
            counts[at + EXEMPLARS] += 1
        elif key == np.uint64(0x22):
            counts[at + HISTOGRAMS] += 1
    return True


@kernel(i64(BYTES, I64_OUT, I64_OUT, I32_OUT, I64_OUT))
def forward_scan(body, starts, bounds, counts, totals):
    """Find the series of a 1.0 request, field 1.

    Args:
        body: uint8[n]; a WriteRequest.
        starts: int64[S], written; where the entry of each series begins, its tag included.
        bounds: int64[2 S], written; start and stop of its TimeSeries message.
        counts: int32[3 S], written; its samples, histograms and exemplars.
        totals: int64[3], written; the sums of those.

    Returns:
        The number of series, MALFORMED, or SERIES_FULL when there are more than S.

    Cost: about 25 ns a series with ten labels and one sample.
    """
    n = np.int64(0)
    i = np.int64(0)
    stop = np.int64(body.shape[0])
    totals[:] = 0
    while i < stop:
        key, inner, after = next_field(body, i, stop)
        if after < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x0A):
            if n >= starts.shape[0]:
                return np.int64(SERIES_FULL)
            _, content = read_length(body, inner, stop)
            starts[n] = i
            bounds[2 * n] = content
            bounds[2 * n + 1] = after
            counts[3 * n : 3 * n + 3] = 0
            if not _count_fields(body, content, after, counts, 3 * n):
                return np.int64(MALFORMED)
            for k in range(3):
                totals[k] += np.int64(counts[3 * n + k])
            n += 1
        i = after
    return n


@kernel(i64(I32, i64, i64, I64, I64, I64_OUT, I32_OUT))
def forward_group(placement, replicas, n_nodes, starts, bounds, groups, order):
    """Sort the series of a request by share, stable; return the number of shares with any.

    Args:
        placement: int32[S * replicas]; the node of each replica of series 0, then of 1, …
        replicas, n_nodes: as said; every node is in [0, n_nodes).
        starts, bounds: of `forward_scan`.
        groups: int64[replicas * n_nodes * 3], written.
        order: int32[S * replicas], written; the series of share after share.
    """
    n = starts.shape[0]
    groups[:] = 0
    for s in range(n):
        size = bounds[2 * s + 1] - starts[s]
        for r in range(replicas):
            at = (np.int64(placement[s * replicas + r]) * replicas + r) * GROUP_WIDTH
            groups[at + 1] += 1
            groups[at + 2] += size
    used = np.int64(0)
    first = np.int64(0)
    for share in range(replicas * n_nodes):
        groups[share * GROUP_WIDTH] = first
        first += groups[share * GROUP_WIDTH + 1]
        used += groups[share * GROUP_WIDTH + 1] > 0
    for s in range(n):
        for r in range(replicas):
            at = (np.int64(placement[s * replicas + r]) * replicas + r) * GROUP_WIDTH
            order[groups[at]] = s
            groups[at] += 1
    for share in range(replicas * n_nodes):
        groups[share * GROUP_WIDTH] -= groups[share * GROUP_WIDTH + 1]
    return used


@kernel(i64(BYTES, I64, I64, I32, BYTES_OUT, i64))
def forward_gather(body, starts, bounds, series, out, at):
    """Copy the entries of some series, one behind the other; return where they end in `out`.

    Args:
        body: uint8[n].
        starts, bounds: of `forward_scan`.
        series: int32[k]; numbers of series.
        out: uint8[m]; has room for them from `at` on.
        at: offset in `out`.
    """
    for k in range(series.shape[0]):
        s = series[k]
        start = starts[s]
        size = bounds[2 * s + 1] - start
        copy_bytes(body, start, size, out, at)
        at += size
    return np.int64(at)


@device
def _write_field(body, start, stop, tag, out, at):
    """Write a length-delimited field with the bytes [start, stop); OUT_FULL if it does not fit."""
    size = stop - start
    if at + size + _HEADER_BYTES_MAX > out.shape[0]:
        return np.int64(OUT_FULL)
    out[at] = np.uint8(tag)
    at = write_uvarint(out, at + 1, np.uint64(size))
    copy_bytes(body, start, size, out, at)
    return np.int64(at + size)


@device
def _close(out, start, stop, tag):
    """Put tag and length of a field before its content, which begins behind a gap; return its end.

    The gap is right for 128 to 16,383 bytes; any other content is moved. Room for eleven bytes
    behind `stop`.
    """
    size = stop - start - _GAP
    by = 1 + uvarint_size(np.uint64(size)) - _GAP
    if by < 0:
        for k in range(start + _GAP, stop):
            out[k + by] = out[k]
    elif by > 0:
        for k in range(stop - 1, start + _GAP - 1, -1):
            out[k + by] = out[k]
    out[start] = np.uint8(tag)
    write_uvarint(out, start + 1, np.uint64(size))
    return np.int64(stop + by)


@device
def _translate_exemplar(body, i, stop, symbols, out, at):
    """Write an Exemplar with its labels spelled out; return its end or a status."""
    start = at
    at += _GAP
    while i < stop:
        key, inner, after = next_field(body, i, stop)
        if after < 0:
            return np.int64(MALFORMED)
        if at + (after - i) + _HEADER_BYTES_MAX > out.shape[0]:
            return np.int64(OUT_FULL)
        if key == np.uint64(0x0A):
            length, content = read_length(body, inner, stop)
            at = write_labels(body, content, content + length, symbols, out, at)
            if at < 0:
                return np.int64(at)
        else:
            copy_bytes(body, i, after - i, out, at)
            at += after - i
        i = after
    if at + _HEADER_BYTES_MAX > out.shape[0]:
        return np.int64(OUT_FULL)
    return _close(out, start, at, 0x1A)


@device
def _translate_series(body, i, stop, symbols, out, at):
    """Write a 2.0 TimeSeries as the content of a 1.0 one; return its end or a status."""
    while i < stop:
        key, inner, after = next_field(body, i, stop)
        if after < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x0A) or key == np.uint64(0x22):
            length, content = read_length(body, inner, stop)
            if key == np.uint64(0x0A):
                at = write_labels(body, content, content + length, symbols, out, at)
            else:
                at = _translate_exemplar(body, content, content + length, symbols, out, at)
        elif key == np.uint64(0x12) or key == np.uint64(0x1A):
            length, content = read_length(body, inner, stop)
            tag = np.int64(0x12) if key == np.uint64(0x12) else np.int64(0x22)
            at = _write_field(body, content, content + length, tag, out, at)
        if at < 0:
            return np.int64(at)
        i = after
    return np.int64(at)


@kernel(i64(BYTES, I64, BYTES_OUT))
def forward_translate(body, symbols, out):
    """Write a 2.0 request as a 1.0 one: series with labels, samples, histograms and exemplars.

    Args:
        body: uint8[n]; a 2.0 Request.
        symbols: int64[2 K] of `remote_write_symbols`.
        out: uint8[m], written.

    Returns:
        The bytes written, MALFORMED, BAD_SYMBOL, or OUT_FULL when `out` is too small.
    """
    i = np.int64(0)
    stop = np.int64(body.shape[0])
    at = np.int64(0)
    while i < stop:
        key, inner, after = next_field(body, i, stop)
        if after < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x2A):
            length, content = read_length(body, inner, stop)
            start = at
            at = _translate_series(body, content, content + length, symbols, out, at + _GAP)
            if at < 0:
                return np.int64(at)
            if at + _HEADER_BYTES_MAX > out.shape[0]:
                return np.int64(OUT_FULL)
            at = _close(out, start, at, 0x0A)
        i = after
    return at
