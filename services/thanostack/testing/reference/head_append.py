"""Append rules and the samples record, on a `HeadModel`."""

import struct

from thanostack.testing.reference.head_model import NEVER
from thanostack.testing.reference.wal_records import uvarint

STORED, DUPLICATE, OUT_OF_ORDER, OUT_OF_BOUNDS, TOO_FAR, CONFLICT, UNKNOWN, FIRST_REJECTED = range(
    8
)


def _verdict(t, value, newest, limits):
    if t > limits[1]:
        return TOO_FAR
    if t < limits[0] or t == NEVER:
        return OUT_OF_BOUNDS
    if newest is None or t > newest[0]:
        return STORED
    if t < newest[0]:
        return OUT_OF_ORDER
    return DUPLICATE if value == newest[1] else CONFLICT


def _varint(number):
    return uvarint(((number << 1) ^ (number >> 63)) & (1 << 64) - 1)


def _signed(number):
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _record(entries):
    if not entries:
        return b""
    base_ref, base_t, _ = entries[0]
    out = b"\2" + struct.pack(">Qq", base_ref, base_t)
    for ref, t, value in entries:
        out += _varint(ref - base_ref) + _varint(_signed(t - base_t)) + struct.pack(">Q", value)
    return out


def head_stage(head, rows, offsets, timestamps, values, limits, staged, outcome, record):
    """Judge each sample against the newest of its series, earlier ones of the request included."""
    taken, newest = [], {}
    for s in range(len(offsets) - 1):
        r = int(rows[s])
        for k in range(offsets[s], offsets[s + 1]):
            t, value = int(timestamps[k]), int(values[k])
            verdict = UNKNOWN
            if r >= 0:
                row = head.rows[r]
                applied = None if row.last_t == NEVER else (row.last_t, row.last_v)
                verdict = _verdict(t, value, newest.get(r, applied), limits.tolist())
            outcome[verdict] += 1
            if verdict == STORED:
                newest[r] = (t, value)
                taken.append((r, t, value))
            elif verdict != DUPLICATE and outcome[FIRST_REJECTED] < 0:
                outcome[FIRST_REJECTED] = s
    for k, (r, t, value) in enumerate(taken):
        staged[k], timestamps[k], values[k] = r, t, value
    data = _record([(head.rows[r].ref, t, value) for r, t, value in taken])
    record[: len(data)] = list(data)
    return len(data)


def head_apply(head, staged, timestamps, values, first, count, chunk_range):
    """Append staged samples until a chunk must close and cannot."""
    for k in range(first, count):
        if not head.append(int(staged[k]), int(timestamps[k]), int(values[k]), chunk_range):
            return k
    return count
