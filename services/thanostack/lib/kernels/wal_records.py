"""What is inside WAL records: series to and from label runs, samples to and from columns.

    series     01 | u64 ref, uvarint n, n pairs (name, value) with lengths   repeated
    samples    02 | u64 base ref, i64 base t | varint Δref, varint Δt, f64          repeated
    samples v2 0B | varint ref, varint t, varint st, f64
                  | varint Δref to the one before, varint Δt to the first, marker [varint], f64 …

Decoding kernels walk a whole batch of records and skip the types that are not theirs. They stop
at a record that does not decode, or that does not fit what is left of the columns; nothing of it
counts then.

Source: Prometheus `tsdb/record`; `docs/formats/wal-records.md`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import (
    BOOL,
    BYTES,
    BYTES_OUT,
    F64,
    F64_OUT,
    I64,
    I64_OUT,
    U64,
    U64_OUT,
    i64,
)
from thanostack.lib.kernels.varint import (
    read_length,
    read_uvarint,
    uvarint_size,
    write_uvarint,
    write_varint,
    zigzag,
)
from thanostack.lib.kernels.wide import (
    bits_float,
    copy_bytes,
    float_bits,
    load64,
    load_be64,
    store_be64,
)

SERIES, SAMPLES, SAMPLES_V2 = 1, 2, 11

DECODE_DONE = 0
DECODE_FULL = 1
DECODE_BAD = -1
ENCODE_FULL = -1
ENCODE_BAD = -2

_UNSORTED_LABELS_MAX = 1024


@device
def _run_label(data, i, stop):
    """Return (name start, name length, value start, value length) of the run entry at `i`.

    The name start is -1 if the entry is not canonical or leaves `stop`.
    """
    bad = (np.int64(-1), np.int64(0), np.int64(0), np.int64(0))
    if data[i] != 0x0A:
        return bad
    size, body = read_length(data, i + 1, stop)
    if body < 0 or size < 4:
        return bad
    end = body + size
    if data[body] != 0x0A:
        return bad
    name_length, name = read_length(data, body + 1, end)
    if name < 0 or name + name_length >= end or data[name + name_length] != 0x12:
        return bad
    value_length, value = read_length(data, name + name_length + 1, end)
    if value < 0 or value + value_length != end:
        return bad
    return name, name_length, value, value_length


@kernel(i64(U64, BYTES, I64, BOOL, BYTES_OUT))
def wal_encode_series(refs, data, offsets, keep, out):
    """Write one record of the kept series and return its length, ENCODE_FULL or ENCODE_BAD.

    Args:
        refs: uint64[S].
        data: uint8[n]; canonical label runs.
        offsets: int64[S + 1]; run i is data[offsets[i]:offsets[i + 1]].
        keep: bool[S].
        out: uint8[m]; 1 + 18 bytes a series + all runs is always enough.
    """
    if out.shape[0] < 1:
        return np.int64(ENCODE_FULL)
    out[0] = SERIES
    at = np.int64(1)
    for series in range(refs.shape[0]):
        if not keep[series]:
            continue
        start, stop = offsets[series], offsets[series + 1]
        if start < 0 or stop < start or stop > data.shape[0]:
            return np.int64(ENCODE_BAD)
        if at + 18 + (stop - start) > out.shape[0]:
            return np.int64(ENCODE_FULL)
        labels = np.int64(0)
        i = start
        while i < stop:
            name, _, value, value_length = _run_label(data, i, stop)
            if name < 0:
                return np.int64(ENCODE_BAD)
            labels += 1
            i = value + value_length
        store_be64(out, at, refs[series])
        at = write_uvarint(out, at + 8, np.uint64(labels))
        i = start
        while i < stop:
            name, name_length, value, value_length = _run_label(data, i, stop)
            at = write_uvarint(out, at, np.uint64(name_length))
            copy_bytes(data, name, name_length, out, at)
            at = write_uvarint(out, at + name_length, np.uint64(value_length))
            copy_bytes(data, value, value_length, out, at)
            at += value_length
            i = value + value_length
    return at


@device
def _compare(data, a, a_length, b, b_length):
    """Return < 0, 0 or > 0 as two byte ranges of `data` order."""
    for k in range(min(a_length, b_length)):
        if data[a + k] != data[b + k]:
            return np.int64(data[a + k]) - np.int64(data[b + k])
    return a_length - b_length


@device
def _write_label(data, name, name_length, value, value_length, out, at):
    """Append one canonical run entry and return the end; -1 if `out` is too small."""
    body = (
        2
        + uvarint_size(np.uint64(name_length))
        + name_length
        + uvarint_size(np.uint64(value_length))
        + value_length
    )
    if at + 1 + uvarint_size(np.uint64(body)) + body > out.shape[0]:
        return np.int64(-1)
    out[at] = 0x0A
    at = write_uvarint(out, at + 1, np.uint64(body))
    out[at] = 0x0A
    at = write_uvarint(out, at + 1, np.uint64(name_length))
    copy_bytes(data, name, name_length, out, at)
    at += name_length
    out[at] = 0x12
    at = write_uvarint(out, at + 1, np.uint64(value_length))
    copy_bytes(data, value, value_length, out, at)
    return at + value_length


@device
def _record_label(data, i, stop):
    """Return (name start, name length, value start, value length); value start -1 = bad."""
    name_length, name = read_length(data, i, stop)
    if name < 0:
        return np.int64(0), np.int64(0), np.int64(-1), np.int64(0)
    value_length, value = read_length(data, name + name_length, stop)
    if value < 0 or (name_length == 0 and value_length > 0):
        return np.int64(0), np.int64(0), np.int64(-1), np.int64(0)
    return name, name_length, value, value_length


@device
def _sorted_labels(data, labels_start, labels, stop, out, at):
    """Append `labels` labels in order of name; return the end, -1 too small, -2 bad."""
    if labels > _UNSORTED_LABELS_MAX:
        return np.int64(-2)
    last = np.int64(-1)
    last_length = np.int64(0)
    wanted = np.int64(0)
    written = np.int64(0)
    while True:
        i = labels_start
        best = np.int64(-1)
        best_length = best_value = best_value_length = np.int64(0)
        wanted = np.int64(0)
        for _ in range(labels):
            name, name_length, value, value_length = _record_label(data, i, stop)
            i = value + value_length
            if value_length == 0:
                continue
            wanted += 1
            if last >= 0 and _compare(data, name, name_length, last, last_length) <= 0:
                continue
            if best < 0 or _compare(data, name, name_length, best, best_length) < 0:
                best, best_length, best_value, best_value_length = (
                    name,
                    name_length,
                    value,
                    value_length,
                )
        if best < 0:
            break
        at = _write_label(data, best, best_length, best_value, best_value_length, out, at)
        if at < 0:
            return np.int64(-1)
        written += 1
        last, last_length = best, best_length
    # A name that occurs twice was written once.
    return at if written == wanted else np.int64(-2)


@device
def _series_labels(data, i, stop, out, at):
    """Append one series' labels as a run; return (next offset, end of the run or -1, -2)."""
    count, i = read_uvarint(data, i, stop)
    if i < 0 or count > np.uint64((stop - i) // 2):
        return np.int64(0), np.int64(-2)
    labels, labels_start, run_start = np.int64(count), i, at
    last = np.int64(-1)
    last_length = np.int64(0)
    ascending = True
    for _ in range(labels):
        name, name_length, value, value_length = _record_label(data, i, stop)
        if value < 0:
            return np.int64(0), np.int64(-2)
        i = value + value_length
        # An empty value is the same as no label at all.
        if value_length == 0 or not ascending:
            continue
        if last >= 0 and _compare(data, name, name_length, last, last_length) <= 0:
            ascending = False
            continue
        at = _write_label(data, name, name_length, value, value_length, out, at)
        if at < 0:
            return np.int64(0), np.int64(-1)
        last, last_length = name, name_length
    if not ascending:
        at = _sorted_labels(data, labels_start, labels, stop, out, run_start)
    return i, at


@kernel(i64(BYTES, I64, i64, U64_OUT, BYTES_OUT, I64_OUT, I64_OUT))
def wal_decode_series(data, bounds, first, refs, runs, offsets, state):
    """Decode the series records of a batch from record `first` on; return how many series.

    Args:
        data: uint8[n]; records.
        bounds: int64[records + 1]; record i is data[bounds[i]:bounds[i + 1]].
        first: where to begin.
        refs: uint64[room].
        runs: uint8[m]; canonical label runs, one after another: labels sorted by name, empty
            values left out.
        offsets: int64[room + 1].
        state: int64[2]; DECODE_*, and the first record not decoded.
    """
    count = np.int64(0)
    at = np.int64(0)
    offsets[0] = 0
    state[0] = DECODE_DONE
    for record in range(first, bounds.shape[0] - 1):
        i, stop = bounds[record], bounds[record + 1]
        if i >= stop or data[i] != SERIES:
            continue
        i += 1
        begun = count
        while i < stop and state[0] == DECODE_DONE:
            if count >= refs.shape[0]:
                state[0] = DECODE_FULL
                break
            if i + 8 > stop:
                state[0] = DECODE_BAD
                break
            refs[count] = load_be64(data, i)
            i, at = _series_labels(data, i + 8, stop, runs, at)
            if at < 0:
                state[0] = DECODE_FULL if at == -1 else DECODE_BAD
                break
            count += 1
            offsets[count] = at
        if state[0] != DECODE_DONE:
            state[1] = record
            return begun
    state[1] = bounds.shape[0] - 1
    return count


@device
def _short_varint(word):
    """Return (zig-zag uint64, bytes it takes) of the uvarint in a word's low bytes; 0 = longer."""
    if word & np.uint64(0x80) == np.uint64(0):
        return word & np.uint64(0x7F), np.int64(1)
    if word & np.uint64(0x8000) == np.uint64(0):
        low = word & np.uint64(0x7F)
        return low | ((word >> np.uint64(1)) & np.uint64(0x3F80)), np.int64(2)
    if word & np.uint64(0x800000) == np.uint64(0):
        low = (word & np.uint64(0x7F)) | ((word >> np.uint64(1)) & np.uint64(0x3F80))
        return low | ((word >> np.uint64(2)) & np.uint64(0x1FC000)), np.int64(3)
    return np.uint64(0), np.int64(0)


@device
def samples_base(data, i, stop, is_v2):
    """Return (reference, time, next offset) that a samples record's body counts from; -1 = bad."""
    if is_v2 or i == stop:
        return np.uint64(0), np.uint64(0), np.int64(i)
    if i + 16 > stop:
        return np.uint64(0), np.uint64(0), np.int64(-1)
    return load_be64(data, i), load_be64(data, i + 8), np.int64(i + 16)


@device
def next_sample(data, i, stop, is_v2, is_first):
    """Return (reference less the base, time less the base, offset of the value); -1 = bad.

    The base of a reference of v2 is the one before, that of a time the first one; a start time is
    passed over.
    """
    bad = np.uint64(0), np.uint64(0), np.int64(-1)
    if i + 24 <= stop and not is_v2:
        # Wide loads; a call that is handed an array costs more than the whole sample.
        word = load64(data, i)
        if word & np.uint64(0x808080) == np.uint64(0x80):
            # Two bytes and one: most are.
            ref = (word & np.uint64(0x7F)) | ((word >> np.uint64(1)) & np.uint64(0x3F80))
            time = (word >> np.uint64(16)) & np.uint64(0x7F)
            return np.uint64(zigzag(ref)), np.uint64(zigzag(time)), np.int64(i + 3)
        ref, size = _short_varint(word)
        time, second = _short_varint(load64(data, i + size))
        if size != 0 and second != 0:
            return np.uint64(zigzag(ref)), np.uint64(zigzag(time)), i + size + second
    ref, i = read_uvarint(data, i, stop)
    if i < 0:
        return bad
    time, i = read_uvarint(data, i, stop)
    if i < 0 or (is_v2 and i >= stop):
        return bad
    if is_v2:
        has_start = is_first or data[i] > 1
        if not is_first:
            i += 1
        if has_start:
            _, i = read_uvarint(data, i, stop)
    if i < 0 or i + 8 > stop:
        return bad
    return np.uint64(zigzag(ref)), np.uint64(zigzag(time)), np.int64(i)


@device
def _samples(data, i, stop, is_v2, refs, times, values, count):
    """Decode the body of a samples record; return the new count, -1 too small, -2 bad."""
    base_ref, base_time, i = samples_base(data, i, stop, is_v2)
    if i < 0:
        return np.int64(-2)
    room = np.int64(refs.shape[0])
    is_first = True
    while i < stop:
        if count >= room:
            return np.int64(-1)
        ref, time, i = next_sample(data, i, stop, is_v2, is_first)
        if i < 0:
            return np.int64(-2)
        refs[count] = base_ref + ref
        times[count] = np.int64(base_time + time)
        values[count] = bits_float(load_be64(data, i))
        if is_v2:
            base_ref = refs[count]
            if is_first:
                base_time = np.uint64(times[count])
            is_first = False
        i += 8
        count += 1
    return count


@kernel(i64(BYTES, I64, i64, U64_OUT, I64_OUT, F64_OUT, I64_OUT))
def wal_decode_samples(data, bounds, first, refs, times, values, state):
    """Decode the float samples of a batch from record `first` on; return how many samples.

    Args:
        data: uint8[n]; records.
        bounds: int64[records + 1]; record i is data[bounds[i]:bounds[i + 1]].
        first: where to begin.
        refs: uint64[room].
        times: int64[room], ms.
        values: float64[room].
        state: int64[2]; DECODE_*, and the first record not decoded.
    """
    count = np.int64(0)
    state[0] = DECODE_DONE
    for record in range(first, bounds.shape[0] - 1):
        i, stop = bounds[record], bounds[record + 1]
        if i >= stop:
            continue
        if data[i] == SAMPLES:
            found = _samples(data, i + 1, stop, False, refs, times, values, count)
        elif data[i] == SAMPLES_V2:
            found = _samples(data, i + 1, stop, True, refs, times, values, count)
        else:
            continue
        if found < 0:
            state[0] = DECODE_FULL if found == -1 else DECODE_BAD
            state[1] = record
            return count
        count = found
    state[1] = bounds.shape[0] - 1
    return count


@kernel(i64(U64, I64, F64, BOOL, BYTES_OUT))
def wal_encode_samples(refs, times, values, keep, out):
    """Write the kept samples as one record and return its length; 0 if none, or ENCODE_FULL.

    Args:
        refs: uint64[n].
        times: int64[n], ms.
        values: float64[n].
        keep: bool[n].
        out: uint8[m]; 17 + 28 bytes a sample is always enough.
    """
    at = np.int64(0)
    base_ref = np.uint64(0)
    base_time = np.uint64(0)
    for k in range(refs.shape[0]):
        if not keep[k]:
            continue
        if at + 45 > out.shape[0]:
            return np.int64(ENCODE_FULL)
        time = np.uint64(times[k])
        if at == 0:
            out[0] = SAMPLES
            base_ref, base_time = refs[k], time
            store_be64(out, 1, base_ref)
            store_be64(out, 9, base_time)
            at = np.int64(17)
        at = write_varint(out, at, np.int64(refs[k] - base_ref))
        at = write_varint(out, at, np.int64(time - base_time))
        store_be64(out, at, float_bits(values[k]))
        at += 8
    return at
