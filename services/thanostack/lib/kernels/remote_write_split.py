"""Taking write requests apart without decoding a sample.

`message_runs` lists the fields of a protobuf message, consecutive entries of one chosen field as
one run: a tenant's series in a request of several are byte ranges that storage takes as they are.

`group_by_label` and `write_groups` serve the split-tenant label: series of a remote write 1.0
request are grouped by the value of one label, the label is cut out, and each group becomes a
body of its own. Order within a group is kept. Only the first occurrence of the label counts.

    runs   int64[n, 5] flat: field, wire type, start, stop, entries
           chosen field: the range covers tags and lengths; other bytes fields: the content;
           varints: start is the value; fixed fields: start is where the value lies
    rows   int64[n, 8] flat: series start, stop; label field start, stop (tag included; both 0
           when absent); value start, stop; group; size of the entry once written

Source: Protocol Buffers, "Encoding"; Prometheus `prompb/types.proto`.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.varint import read_length, read_uvarint, uvarint_size, write_uvarint
from thanostack.lib.kernels.wide import copy_bytes, equal_bytes

RUN_WIDTH = 5
ROW_WIDTH = 8
MALFORMED = -1
TOO_MANY_GROUPS = -2


@device
def _field(data, i, stop):
    """Return (field number, wire type, content start, content stop, value); start -1 = bad.

    Bytes fields span their content, varints are empty ranges that end where the next field
    begins, fixed fields span their bytes. Groups are bad.
    """
    tag, at = read_uvarint(data, i, stop)
    if at < 0 or tag < np.uint64(8) or tag > np.uint64(0xFFFFFFFF):
        return np.int64(0), np.int64(0), np.int64(-1), np.int64(-1), np.int64(0)
    field = np.int64(tag >> np.uint64(3))
    wire = np.int64(tag & np.uint64(7))
    if wire == 0:
        value, end = read_uvarint(data, at, stop)
        return field, wire, end, end, np.int64(value)
    if wire == 2:
        length, start = read_length(data, at, stop)
        if start < 0:
            return field, wire, np.int64(-1), np.int64(-1), np.int64(0)
        return field, wire, start, start + length, np.int64(0)
    size = np.int64(0)
    if wire == 1:
        size = np.int64(8)
    elif wire == 5:
        size = np.int64(4)
    if size == 0 or size > stop - at:
        return field, wire, np.int64(-1), np.int64(-1), np.int64(0)
    return field, wire, at, at + size, np.int64(0)


@kernel(i64(BYTES, i64, i64, i64, I64_OUT))
def message_runs(data, start, stop, run_field, runs):
    """Return how many runs the message in [start, stop) has, or -1; the first that fit are written.

    Args:
        data: uint8[n]; 0 <= start <= stop <= n.
        start: offset of the message.
        stop: its end.
        run_field: bytes field whose consecutive entries become one run.
        runs: int64[k * 5]; filled as far as it reaches.
    """
    if start < 0 or stop > data.shape[0]:
        return np.int64(MALFORMED)
    # Fast path: the same one-byte tag again needs no look at fields.
    tag = np.int64(run_field * 8 + 2)
    capacity = runs.shape[0] // RUN_WIDTH
    n = np.int64(0)
    in_run = False
    i = np.int64(start)
    while i < stop:
        field, wire, begin, end, value = _field(data, i, stop)
        if begin < 0:
            return np.int64(MALFORMED)
        chosen = field == run_field and wire == 2
        if chosen and in_run:
            if n <= capacity:
                runs[(n - 1) * RUN_WIDTH + 3] = end
                runs[(n - 1) * RUN_WIDTH + 4] += 1
        else:
            if n < capacity:
                at = n * RUN_WIDTH
                runs[at] = field
                runs[at + 1] = wire
                runs[at + 2] = i if chosen else (value if wire == 0 else begin)
                runs[at + 3] = end
                runs[at + 4] = 1
            n += 1
        in_run = chosen
        i = end
        if chosen and tag < 128:
            again = np.int64(0)
            while i < stop and data[i] == tag:
                length, begin = read_length(data, i + 1, stop)
                if begin < 0:
                    return np.int64(MALFORMED)
                i = begin + length
                again += 1
            if n <= capacity:
                runs[(n - 1) * RUN_WIDTH + 3] = i
                runs[(n - 1) * RUN_WIDTH + 4] += again
    return n


@device
def _find_label(data, start, stop, name, rows, at):
    """Write where a series has the label to its row; return False if the series is malformed."""
    i = start
    while i < stop:
        field, wire, begin, end, _ = _field(data, i, stop)
        if begin < 0:
            return False
        if field == 1 and wire == 2 and rows[at + 3] == 0:
            j = begin
            is_name = False
            value_start = np.int64(0)
            value_stop = np.int64(0)
            while j < end:
                inner, kind, low, high, _ = _field(data, j, end)
                if low < 0:
                    return False
                if inner == 1 and kind == 2:
                    size = high - low
                    is_name = size == name.shape[0] and equal_bytes(data, low, name, 0, size)
                elif inner == 2 and kind == 2:
                    value_start = low
                    value_stop = high
                j = high
            if is_name:
                rows[at + 2] = i
                rows[at + 3] = end
                rows[at + 4] = value_start
                rows[at + 5] = value_stop
        i = end
    return True


@device
def _group_of(data, rows, at, table, groups, n_groups):
    """Return the group of a row's value, a new one if it is the first; -2 if there is no room."""
    start = rows[at + 4]
    size = rows[at + 5] - start
    mask = np.uint64(table.shape[0] - 1)
    slot = np.int64(xxh64(data, start, start + size) & mask)
    while table[slot] >= 0:
        group = table[slot]
        other = groups[group * 3]
        if groups[group * 3 + 1] - other == size and equal_bytes(data, start, data, other, size):
            return group
        slot = np.int64((np.uint64(slot) + np.uint64(1)) & mask)
    if (n_groups + 1) * 3 > groups.shape[0]:
        return np.int64(TOO_MANY_GROUPS)
    table[slot] = n_groups
    groups[n_groups * 3] = start
    groups[n_groups * 3 + 1] = start + size
    groups[n_groups * 3 + 2] = 0
    return n_groups


@kernel(i64(BYTES, BYTES, i64, I64_OUT, I64_OUT, I64_OUT))
def group_by_label(data, name, n_series, rows, table, groups):
    """Group the series of a 1.0 request by one label's value; return the number of groups.

    A malformed request gives -1, one with more groups than there is room for -2.

    Args:
        data: uint8[n]; a WriteRequest.
        name: uint8[m]; the label's name.
        n_series: how many entries field 1 has, as counted by `message_runs`.
        rows: int64[n_series * 8]; filled.
        table: int64[a power of two >= 2 * groups + 2]; scratch, all -1.
        groups: int64[room * 3]; value start, value stop, bytes of the group's body. A
            series without the label or with an empty value belongs to the empty value.
    """
    n = np.int64(0)
    n_groups = np.int64(0)
    i = np.int64(0)
    stop = data.shape[0]
    while i < stop:
        field, wire, begin, end, _ = _field(data, i, stop)
        if begin < 0:
            return np.int64(MALFORMED)
        if field == 1 and wire == 2:
            if n >= n_series:
                return np.int64(MALFORMED)
            at = n * ROW_WIDTH
            rows[at] = begin
            rows[at + 1] = end
            rows[at + 2 : at + ROW_WIDTH] = 0
            if not _find_label(data, begin, end, name, rows, at):
                return np.int64(MALFORMED)
            group = _group_of(data, rows, at, table, groups, n_groups)
            if group < 0:
                return group
            n_groups = max(n_groups, group + 1)
            length = (end - begin) - (rows[at + 3] - rows[at + 2])
            size = 1 + uvarint_size(np.uint64(length)) + length
            rows[at + 6] = group
            rows[at + 7] = size
            groups[group * 3 + 2] += size
            n += 1
        i = end
    return n_groups if n == n_series else np.int64(MALFORMED)


@kernel(i64(BYTES, I64, i64, I64_OUT, BYTES_OUT))
def write_groups(data, rows, n_series, at, out):
    """Write each series without its label behind its group's last one; return bytes written.

    Args:
        data: as given to `group_by_label`.
        rows: as filled there.
        n_series: how many.
        at: int64[n_groups]; where each group's body begins in `out`; ends as where it ends.
        out: uint8[sum of the groups' sizes].
    """
    total = np.int64(0)
    for n in range(n_series):
        row = n * ROW_WIDTH
        start, stop = rows[row], rows[row + 1]
        cut, resume = rows[row + 2], rows[row + 3]
        if resume == 0:
            cut, resume = stop, stop
        group = rows[row + 6]
        target = at[group]
        out[target] = 0x0A
        target = write_uvarint(out, target + 1, np.uint64((cut - start) + (stop - resume)))
        copy_bytes(data, start, cut - start, out, target)
        target += cut - start
        copy_bytes(data, resume, stop - resume, out, target)
        at[group] = target + (stop - resume)
        total += rows[row + 7]
    return total
