"""Bring the label fields of a series into canonical form: decoded, validated, sorted, re-encoded.

Only series whose bytes were not found as they are come here: new ones, and those of senders that
do not sort. Source: docs/formats/label-run.md.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.remote_write_scan import skip_field
from thanostack.lib.kernels.varint import read_length, read_uvarint, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes, load64

MALFORMED, FULL, EMPTY_NAME, DUPLICATE_NAME, NOT_UTF8, TOO_MANY, EMPTY_VALUE, NO_LABELS = (
    -1,
    -2,
    -3,
    -4,
    -5,
    -6,
    -7,
    -8,
)
TOO_LONG = -9
TEXT_BYTES_MAX = 1 << 16  # of one name or value


@routine
def is_utf8(data, i, stop):
    """Return whether the bytes `[i, stop)` are UTF-8 without surrogates or overlong forms."""
    while i < stop:
        first = np.int64(data[i])
        if first < 0x80:
            i += 1
            continue
        if 0xC2 <= first <= 0xDF:
            more = np.int64(1)
        elif 0xE0 <= first <= 0xEF:
            more = np.int64(2)
        elif 0xF0 <= first <= 0xF4:
            more = np.int64(3)
        else:
            return False
        if i + more >= stop:
            return False
        second = np.int64(data[i + 1])
        low = np.int64(0x80)
        high = np.int64(0xBF)
        if first == 0xE0:
            low = np.int64(0xA0)
        elif first == 0xED:
            high = np.int64(0x9F)
        elif first == 0xF0:
            low = np.int64(0x90)
        elif first == 0xF4:
            high = np.int64(0x8F)
        if second < low or second > high:
            return False
        for k in range(2, more + 1):
            if data[i + k] & 0xC0 != 0x80:
                return False
        i += more + 1
    return True


@device
def compare_bytes(a, i, length_a, b, j, length_b):
    """Return -1, 0 or 1: the bytewise order of two ranges."""
    for k in range(min(length_a, length_b)):
        if a[i + k] != b[j + k]:
            return np.int64(-1) if a[i + k] < b[j + k] else np.int64(1)
    if length_a == length_b:
        return np.int64(0)
    return np.int64(-1) if length_a < length_b else np.int64(1)


@device
def _read_label(body, i, stop, fields, k):
    """Read one Label message into fields[4 k : 4 k + 4]; return 0 or MALFORMED."""
    fields[4 * k : 4 * k + 4] = 0
    while i < stop:
        key, inner = read_uvarint(body, i, stop)
        if inner < 0 or key < np.uint64(8):
            return np.int64(MALFORMED)
        if key == np.uint64(0x0A) or key == np.uint64(0x12):
            length, inner = read_length(body, inner, stop)
            if inner < 0:
                return np.int64(MALFORMED)
            at = 4 * k if key == np.uint64(0x0A) else 4 * k + 2
            fields[at] = inner
            fields[at + 1] = length
            i = inner + length
        else:
            i = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
            if i < 0:
                return np.int64(MALFORMED)
    return np.int64(0)


@device
def _insert_sorted(body, fields, k):
    """Move label k to its place among the labels before it; False if its name is there already."""
    while k > 0:
        order = compare_bytes(
            body, fields[4 * k - 4], fields[4 * k - 3], body, fields[4 * k], fields[4 * k + 1]
        )
        if order == 0:
            return False
        if order < 0:
            return True
        for q in range(4):
            swap = fields[4 * k + q]
            fields[4 * k + q] = fields[4 * k - 4 + q]
            fields[4 * k - 4 + q] = swap
        k -= 1
    return True


@device
def _is_ascii(data, i, stop):
    while i + 8 <= stop:
        if load64(data, i) & np.uint64(0x8080808080808080) != np.uint64(0):
            return False
        i += 8
    while i < stop:
        if data[i] >= 128:
            return False
        i += 1
    return True


@routine
def _is_plain_run(body, start, stop, labels_max):
    """Return whether a range is a canonical run of ASCII text below 128 bytes; False is no proof.

    Most runs are. In one that has no byte of 128 or more, every length is a single byte.
    """
    if not _is_ascii(body, start, stop):
        return False
    i = start
    count = np.int64(0)
    name_before = np.int64(0)
    size_before = np.int64(0)
    while i < stop:
        # 0A label 0A name … 12 value …: eight bytes with a name and a value of one byte.
        if stop - i < 8 or body[i] != 0x0A or body[i + 2] != 0x0A or count >= labels_max:
            return False
        after = i + 2 + np.int64(body[i + 1])
        size = np.int64(body[i + 3])
        value = i + 4 + size
        if after > stop or size == 0 or value + 2 >= after or body[value] != 0x12:
            return False
        if value + 2 + np.int64(body[value + 1]) != after:
            return False
        if count > 0 and compare_bytes(body, name_before, size_before, body, i + 4, size) >= 0:
            return False
        name_before, size_before = i + 4, size
        count += 1
        i = after
    return count > 0


@routine
def canonicalise(body, start, stop, fields, out, at):
    """Write the canonical run of the Labels (field 1) found in `[start, stop)` at `at`.

    Other fields are skipped, so the range may be a whole TimeSeries message. Return the offset
    after the run, or a negative status.
    """
    if _is_plain_run(body, start, stop, np.int64(fields.shape[0] // 4)):
        if at + stop - start + 11 > out.shape[0]:
            return np.int64(FULL)
        copy_bytes(body, start, stop - start, out, at)
        return at + stop - start
    i = start
    count = np.int64(0)
    while i < stop:
        key, inner = read_uvarint(body, i, stop)
        if inner < 0 or key < np.uint64(8):
            return np.int64(MALFORMED)
        if key == np.uint64(0x0A):
            length, inner = read_length(body, inner, stop)
            if inner < 0:
                return np.int64(MALFORMED)
            if 4 * count + 4 > fields.shape[0]:
                return np.int64(TOO_MANY)
            if _read_label(body, inner, inner + length, fields, count) < 0:
                return np.int64(MALFORMED)
            if fields[4 * count + 1] == 0:
                return np.int64(EMPTY_NAME)
            if fields[4 * count + 3] == 0:
                return np.int64(EMPTY_VALUE)
            if max(fields[4 * count + 1], fields[4 * count + 3]) > TEXT_BYTES_MAX:
                return np.int64(TOO_LONG)
            if not _insert_sorted(body, fields, count):
                return np.int64(DUPLICATE_NAME)
            count += 1
            i = inner + length
        else:
            i = skip_field(body, inner, stop, np.int64(key & np.uint64(7)))
            if i < 0:
                return np.int64(MALFORMED)
    if count == 0:
        return np.int64(NO_LABELS)
    for k in range(count):
        name, name_size = fields[4 * k], fields[4 * k + 1]
        value, value_size = fields[4 * k + 2], fields[4 * k + 3]
        if not is_utf8(body, name, name + name_size) or not is_utf8(
            body, value, value + value_size
        ):
            return np.int64(NOT_UTF8)
        size = 2 + name_size + value_size
        size += uvarint_size(np.uint64(name_size)) + uvarint_size(np.uint64(value_size))
        if at + size + 11 > out.shape[0]:
            return np.int64(FULL)
        out[at] = np.uint8(0x0A)
        at = write_uvarint(out, at + 1, np.uint64(size))
        out[at] = np.uint8(0x0A)
        at = write_uvarint(out, at + 1, np.uint64(name_size))
        copy_bytes(body, name, name_size, out, at)
        at += name_size
        out[at] = np.uint8(0x12)
        at = write_uvarint(out, at + 1, np.uint64(value_size))
        copy_bytes(body, value, value_size, out, at)
        at += value_size
    return np.int64(at)


@kernel(i64(BYTES, I64, I64, I64_OUT, BYTES_OUT, I64_OUT, I64_OUT))
def label_canonicalise(body, bounds, found, fields, out, canonical, statuses):
    """Bring the label runs that were not found into canonical form.

    Args:
        body: uint8[n].
        bounds: int64[2 S]; a label run, or -1 - start and stop of a whole TimeSeries message.
        found: int64[S]; runs with a row (>= 0) are left out.
        fields: int64[4 L], scratch; a series with more than L labels is refused.
        out: uint8[m], written; m at least n + 16.
        canonical: int64[2 S], written; bounds in `out`, -1 and -1 where left out or refused.
        statuses: int64[S], written; 0, or MALFORMED, FULL, EMPTY_NAME, DUPLICATE_NAME, NOT_UTF8,
            TOO_MANY, EMPTY_VALUE, NO_LABELS, TOO_LONG.

    Returns:
        The number of series refused.
    """
    at = np.int64(0)
    refused = np.int64(0)
    for s in range(found.shape[0]):
        canonical[2 * s] = -1
        canonical[2 * s + 1] = -1
        statuses[s] = 0
        if found[s] >= 0:
            continue
        start = bounds[2 * s]
        if start < 0:
            start = -1 - start
        after = canonicalise(body, start, bounds[2 * s + 1], fields, out, at)
        if after < 0:
            statuses[s] = after
            refused += 1
            continue
        canonical[2 * s] = at
        canonical[2 * s + 1] = after
        at = after
    return refused
