"""Series and samples records, entry by entry, as `docs/formats/wal-records.md` tells them."""

import struct

DONE, FULL, BAD = 0, 1, -1
ENCODE_FULL, ENCODE_BAD = -1, -2
MASK = (1 << 64) - 1


class Undecodable(Exception):
    """The record is not what the format promises."""


class Cursor:
    """Reads numbers and strings off the front of bytes."""

    def __init__(self, data):
        self.data, self.i = data, 0

    def take(self, size):
        """Return the next bytes."""
        if size > len(self.data) - self.i:
            raise Undecodable
        self.i += size
        return self.data[self.i - size : self.i]

    def uvarint(self):
        """Return the next uvarint, at most 64 bits in ten bytes."""
        value = 0
        for k in range(10):
            byte = self.take(1)[0]
            value |= (byte & 127) << (7 * k)
            if byte < 128:
                if value > MASK:
                    break
                return value
        raise Undecodable

    def varint(self):
        """Return the next zig-zag varint."""
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def text(self):
        """Return the next length-prefixed bytes."""
        return self.take(self.uvarint())

    def unpack(self, kind):
        """Return one fixed-size big-endian number."""
        return struct.unpack(">" + kind, self.take(8))[0]

    @property
    def left(self):
        """Bytes not read."""
        return len(self.data) - self.i


def uvarint(value):
    """Return a number as uvarint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def varint(value):
    """Return a signed 64-bit number as zig-zag varint."""
    return uvarint(((value << 1) ^ (value >> 63)) & MASK)


def signed(value):
    """Return the low 64 bits as a two's complement number."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def encode_series(entries):
    """Return a series record of (ref, [(name, value), …]) entries."""
    out = b"\x01"
    for ref, labels in entries:
        out += struct.pack(">Q", ref) + uvarint(len(labels))
        for name, value in labels:
            out += uvarint(len(name)) + name + uvarint(len(value)) + value
    return out


def encode_samples(samples):
    """Return a samples record of (ref, t, value bits) entries; empty for none."""
    if not samples:
        return b""
    base_ref, base_time, _ = samples[0]
    out = b"\x02" + struct.pack(">Qq", base_ref, base_time)
    for ref, time, bits in samples:
        out += varint(signed(ref - base_ref)) + varint(signed(time - base_time))
        out += struct.pack(">Q", bits)
    return out


def encode_samples_v2(samples):
    """Return a samples v2 record of (ref, t, start time, value bits) entries."""
    out = b"\x0b"
    first = last = None
    for ref, time, start, bits in samples:
        if first is None:
            first = (ref, time, start)
            out += varint(signed(ref)) + varint(time) + varint(start)
        else:
            out += varint(signed(ref - last[0])) + varint(signed(time - first[1]))
            if start == 0:
                out += b"\0"
            elif start == last[2]:
                out += b"\1"
            else:
                out += b"\2" + varint(signed(start - first[2]))
        out += struct.pack(">Q", bits)
        last = (ref, time, start)
    return out


def run_of(labels):
    """Return the canonical label run of (name, value) pairs."""
    out = b""
    for name, value in labels:
        body = b"\x0a" + uvarint(len(name)) + name + b"\x12" + uvarint(len(value)) + value
        out += b"\x0a" + uvarint(len(body)) + body
    return out


def _labels_of_run(run):
    cursor, labels = Cursor(run), []
    while cursor.left:
        if cursor.take(1) != b"\x0a":
            raise Undecodable
        body = Cursor(cursor.text())
        if body.take(1) != b"\x0a":
            raise Undecodable
        name = body.text()
        if body.take(1) != b"\x12":
            raise Undecodable
        labels.append((name, body.text()))
        if body.left:
            raise Undecodable
    return labels


def wal_encode_series(refs, data, offsets, keep, out):
    """Write one record of the kept series and return its length."""
    entries = []
    for i in range(len(refs)):
        if keep[i]:
            try:
                labels = _labels_of_run(data[offsets[i] : offsets[i + 1]].tobytes())
            except Undecodable:
                return ENCODE_BAD
            entries.append((int(refs[i]), labels))
    record = encode_series(entries)
    out[: len(record)] = list(record)
    return len(record)


def _series(body):
    cursor, found = Cursor(body), []
    while cursor.left:
        ref = cursor.unpack("Q")
        count = cursor.uvarint()
        if 2 * count > cursor.left:
            raise Undecodable
        labels = [(cursor.text(), cursor.text()) for _ in range(count)]
        kept = [(name, value) for name, value in labels if value]
        names = [name for name, _ in kept]
        is_sorted = names == sorted(names)
        if b"" in names or len(set(names)) < len(names) or (count > 1024 and not is_sorted):
            raise Undecodable
        found.append((ref, run_of(sorted(kept))))
    return found


def wal_decode_series(data, bounds, first, refs, runs, offsets, state):
    """Decode the series records of a batch from record `first` on; return how many series."""
    found = []
    state[:2] = [DONE, len(bounds) - 1]
    for record in range(first, len(bounds) - 1):
        body = data[bounds[record] : bounds[record + 1]].tobytes()
        if body[:1] != b"\x01":
            continue
        try:
            more = found + _series(body[1:])
        except Undecodable:
            state[:2] = [BAD, record]
            break
        if len(more) > len(refs) or sum(len(run) for _, run in more) > len(runs):
            state[:2] = [FULL, record]
            break
        found = more
    at = 0
    offsets[0] = 0
    for i, (ref, run) in enumerate(found):
        refs[i] = ref
        runs[at : at + len(run)] = list(run)
        at += len(run)
        offsets[i + 1] = at
    return len(found)


def _samples_v1(cursor):
    found = []
    if not cursor.left:
        return found
    base_ref, base_time = cursor.unpack("Q"), cursor.unpack("q")
    while cursor.left:
        ref, time = base_ref + cursor.varint(), base_time + cursor.varint()
        found.append((ref & MASK, signed(time), cursor.unpack("d")))
    return found


def _samples_v2(cursor):
    found = []
    while cursor.left:
        if not found:
            ref, time, _ = cursor.varint(), cursor.varint(), cursor.varint()
        else:
            ref, time = found[-1][0] + cursor.varint(), found[0][1] + cursor.varint()
            if cursor.take(1)[0] > 1:
                cursor.varint()
        found.append((ref & MASK, signed(time), cursor.unpack("d")))
    return found


def samples_of_record(record):
    """Return the (ref, t, value) of a samples record of either layout; None for another type.

    Raises:
        Undecodable: if it is damaged.
    """
    decode = {b"\x02": _samples_v1, b"\x0b": _samples_v2}.get(record[:1])
    return decode and decode(Cursor(record[1:]))


def wal_decode_samples(data, bounds, first, refs, times, values, state):
    """Decode the float samples of a batch from record `first` on; return how many samples."""
    found = []
    state[:2] = [DONE, len(bounds) - 1]
    for record in range(first, len(bounds) - 1):
        body = data[bounds[record] : bounds[record + 1]].tobytes()
        try:
            more = found + (samples_of_record(body) or [])
        except Undecodable:
            state[:2] = [BAD, record]
            break
        if len(more) > len(refs):
            state[:2] = [FULL, record]
            break
        found = more
    for i, (ref, time, value) in enumerate(found):
        refs[i], times[i], values[i] = ref, time, value
    return len(found)


def wal_encode_samples(refs, times, values, keep, out):
    """Write the kept samples as one record and return its length."""
    bits = [struct.unpack(">Q", struct.pack(">d", value))[0] for value in values.tolist()]
    columns = zip(refs.tolist(), times.tolist(), bits, keep.tolist(), strict=True)
    record = encode_samples([(ref, time, bits) for ref, time, bits, kept in columns if kept])
    out[: len(record)] = list(record)
    return len(record)
