"""Plain-Python twins of the kernels that take write requests apart.

Written from Protocol Buffers' encoding page: messages become lists of fields, groups become
dictionaries, and only the last lines put results into the kernels' flat rows.
"""

from collections.abc import Iterator
from typing import Any

Array = Any  # bytes or a numpy array of them; rows are arrays of int64

RUN_WIDTH = 5
ROW_WIDTH = 8


class _MalformedError(Exception):
    pass


def _uvarint(data: Array, i: int, stop: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if i >= stop:
            raise _MalformedError
        byte = int(data[i])
        i += 1
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            if value >> 64:
                raise _MalformedError
            return value, i
    raise _MalformedError


def _fields(data: Array, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield (where the tag is, number, wire type, start, stop, value) of each field."""
    i = start
    while i < stop:
        at = i
        tag, i = _uvarint(data, i, stop)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag > 0xFFFFFFFF:
            raise _MalformedError
        value = 0
        if wire == 0:
            value, i = _uvarint(data, i, stop)
            begin = i
        elif wire == 2:
            length, begin = _uvarint(data, i, stop)
            i = begin + length
        elif wire in (1, 5):
            begin = i
            i += 8 if wire == 1 else 4
        else:
            raise _MalformedError
        if i > stop:
            raise _MalformedError
        yield at, number, wire, begin, i, value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def message_runs(data: Array, start: int, stop: int, run_field: int, runs: Array) -> int:
    """Return how many runs a message has, or -1."""
    if start < 0 or stop > len(data):
        return -1
    found: list[list[int]] = []
    previous_chosen = False
    try:
        for at, number, wire, begin, end, value in _fields(data, start, stop):
            chosen = number == run_field and wire == 2
            if chosen and previous_chosen:
                found[-1][3] = end
                found[-1][4] += 1
            else:
                place = at if chosen else (_signed(value) if wire == 0 else begin)
                found.append([number, wire, place, end, 1])
            previous_chosen = chosen
    except _MalformedError:
        return -1
    flat = [number for run in found for number in run]
    count = min(len(flat), len(runs) // RUN_WIDTH * RUN_WIDTH)
    runs[:count] = flat[:count]
    return len(found)


def _label_of(data: Array, start: int, stop: int, name: Array) -> tuple[int, int, int, int]:
    """Return (label field start, stop, value start, stop) of the first such label, else zeros."""
    found = (0, 0, 0, 0)
    for at, number, wire, begin, end, _ in _fields(data, start, stop):
        if (number, wire) != (1, 2) or found[1]:
            continue
        last_name, value = None, (0, 0)
        for _, inner, kind, low, high, _ in _fields(data, begin, end):
            if (inner, kind) == (1, 2):
                last_name = bytes(data[low:high])
            elif (inner, kind) == (2, 2):
                value = (low, high)
        if last_name is not None and last_name == bytes(name):
            found = (at, end, *value)
    return found


def group_by_label(
    data: Array, name: Array, n_series: int, rows: Array, table: Array, groups: Array
) -> int:
    """Group series by a label's value; return the number of groups, -1 or -2."""
    del table  # a dictionary needs no scratch
    values: dict[bytes, list[int]] = {}
    try:
        entries = [f for f in _fields(data, 0, len(data)) if (f[1], f[2]) == (1, 2)]
        if len(entries) != n_series:
            return -1
        for n, (_, _, _, begin, end, _) in enumerate(entries):
            label = _label_of(data, begin, end, name)
            value = bytes(data[label[2] : label[3]])
            length = end - begin - (label[1] - label[0])
            size = 1 + max(1, -(-length.bit_length() // 7)) + length
            if value not in values and len(values) >= len(groups) // 3:
                return -2
            if value not in values:
                values[value] = [len(values), label[2], label[3], 0]
            values[value][3] += size
            row = [begin, end, *label, values[value][0], size]
            rows[n * ROW_WIDTH : (n + 1) * ROW_WIDTH] = row
    except _MalformedError:
        return -1
    for group, start, stop, size in values.values():
        groups[group * 3 : group * 3 + 3] = [start, stop, size]
    return len(values)


def write_groups(data: Array, rows: Array, n_series: int, at: Array, out: Array) -> int:
    """Write series without their label, each behind its group's last; return bytes written."""
    total = 0
    for n in range(n_series):
        start, stop, cut, resume, _, _, group, _ = (int(x) for x in rows[n * 8 : n * 8 + 8])
        content = bytes(data[start:stop])
        if resume:
            content = bytes(data[start:cut]) + bytes(data[resume:stop])
        length, prefix = len(content), bytearray(b"\x0a")
        while length > 127:
            prefix.append(length & 127 | 128)
            length >>= 7
        prefix.append(length)
        entry = bytes(prefix) + content
        begin = int(at[group])
        out[begin : begin + len(entry)] = list(entry)
        at[group] = begin + len(entry)
        total += len(entry)
    return total
