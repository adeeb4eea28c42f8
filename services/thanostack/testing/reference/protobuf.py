"""A protobuf message as Python sees it: fields in order, nothing assumed about their meaning."""


class Malformed(Exception):
    """The bytes are not a message."""


def read_uvarint(data, i, stop):
    """Return (value, next offset)."""
    value = 0
    for shift in range(0, 70, 7):
        if i >= stop:
            raise Malformed
        byte = int(data[i])
        i += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise Malformed
            return value, i
    raise Malformed


def fields(data, i, stop):
    """Yield (number, wire type, offset of the field, value or (start, stop)) of each field."""
    while i < stop:
        at = i
        key, i = read_uvarint(data, i, stop)
        number, kind = key >> 3, key & 7
        if number == 0 or kind in (3, 4, 6, 7):
            raise Malformed
        if kind == 0:
            value, i = read_uvarint(data, i, stop)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, i = read_uvarint(data, i, stop)
            if size > stop - i:
                raise Malformed
            value, i = (i, i + size), i + size
        yield number, kind, at, value


def uvarint(value):
    """Return the bytes of a uvarint."""
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, payload):
    """Return a length-delimited field."""
    return uvarint(number << 3 | 2) + uvarint(len(payload)) + payload
