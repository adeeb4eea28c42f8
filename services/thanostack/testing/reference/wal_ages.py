"""Times in exemplar and histogram records, and metadata entries, one after another."""

from thanostack.testing.reference.wal_records import Cursor, Undecodable, signed

ALWAYS = (1 << 63) - 1
LOCATE_BAD, LOCATE_FULL = -1, -2


def _labels(cursor):
    count = cursor.uvarint()
    for _ in range(count):
        cursor.text()
        cursor.text()


def _skip_varint(cursor):
    # Not looked at, so its size does not matter.
    while cursor.take(1)[0] > 127:
        pass


def _histogram(cursor, is_float):
    cursor.take(1)
    schema = cursor.varint()
    cursor.take(8)
    for _ in range(2):
        cursor.take(8) if is_float else _skip_varint(cursor)
    cursor.take(8)
    for _ in range(2):
        for _ in range(cursor.uvarint()):
            _skip_varint(cursor)
            _skip_varint(cursor)
    for _ in range(2):
        for _ in range(cursor.uvarint()):
            cursor.take(8) if is_float else _skip_varint(cursor)
    if schema == -53:
        cursor.take(8 * cursor.uvarint())


def _times_v1(cursor, kind):
    times = []
    if not cursor.left:
        return times
    cursor.take(8)
    base = cursor.unpack("q")
    while cursor.left:
        cursor.varint()
        times.append(signed(base + cursor.varint()))
        if kind == 4:
            cursor.take(8)
            _labels(cursor)
        else:
            _histogram(cursor, kind in {8, 10})
    return times


def _times_v2(cursor, kind):
    times = []
    while cursor.left:
        cursor.varint()
        time = cursor.varint()
        if not times:
            times.append(signed(time))
            cursor.varint()
        else:
            times.append(signed(times[0] + time))
            if cursor.take(1)[0] > 1:
                cursor.varint()
        _histogram(cursor, kind == 13)
    return times


def wal_newest_times(data, bounds, times):
    """Write the newest time in each exemplar or histogram record and return their number."""
    found = 0
    for i in range(len(bounds) - 1):
        record = data[bounds[i] : bounds[i + 1]].tobytes()
        times[i] = ALWAYS
        if not record or record[0] not in {4, 7, 8, 9, 10, 12, 13}:
            continue
        found += 1
        walk = _times_v2 if record[0] > 11 else _times_v1
        try:
            times[i] = max(walk(Cursor(record[1:]), record[0]), default=-ALWAYS - 1)
        except Undecodable:
            continue
    return found


def wal_locate_metadata(data, start, stop, refs, offsets):
    """Locate the entries of one metadata record's body; return how many, or a negative status."""
    cursor = Cursor(data[start:stop].tobytes())
    count = 0
    offsets[0] = start
    while cursor.left:
        if count == len(refs):
            return LOCATE_FULL
        try:
            refs[count] = cursor.uvarint()
            cursor.take(1)
            _labels(cursor)
        except Undecodable:
            return LOCATE_BAD
        count += 1
        offsets[count] = start + cursor.i
    return count
