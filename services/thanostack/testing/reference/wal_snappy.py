"""Snappy blocks, element by element, as its format description tells it."""

DONE, FULL, FOREIGN, BAD = 0, 1, 2, -1


class Undecodable(Exception):
    """The block is not what the format promises."""


def _size(block):
    value, shift = 0, 0
    for i, byte in enumerate(block[:10]):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            if value > 0xFFFFFFFF or value > (len(block) - i - 1) * 22:
                break
            return value, i + 1
    raise Undecodable


def _number(block, i, width):
    if i + width > len(block):
        raise Undecodable
    return int.from_bytes(block[i : i + width], "little"), i + width


def decompress(block):
    """Return the bytes that a block stands for."""
    size, i = _size(block)
    out = bytearray()
    while i < len(block):
        tag = block[i]
        i += 1
        if tag & 3 == 0:
            length = (tag >> 2) + 1
            if length > 60:
                length, i = _number(block, i, length - 60)
                length += 1
            if i + length > len(block) or len(out) + length > size:
                raise Undecodable
            out += block[i : i + length]
            i += length
            continue
        if tag & 3 == 1:
            length = 4 + ((tag >> 2) & 7)
            low, i = _number(block, i, 1)
            back = (tag >> 5) << 8 | low
        else:
            length = 1 + (tag >> 2)
            back, i = _number(block, i, 2 if tag & 3 == 2 else 4)
        if back == 0 or back > len(out) or len(out) + length > size:
            raise Undecodable
        for _ in range(length):
            out.append(out[-back])
    if len(out) != size:
        raise Undecodable
    return bytes(out)


def wal_decompress(data, bounds, compressions, first, out, out_bounds, state):
    """Decompress records from `first` on and return the index of the first that was not done."""
    state[0] = DONE
    at = int(out_bounds[first])
    for record in range(first, len(compressions)):
        plain = data[bounds[record] : bounds[record + 1]].tobytes()
        compression = int(compressions[record])
        if compression not in {0, 8}:
            state[0] = FOREIGN
            return record
        try:
            size = _size(plain)[0] if compression and plain else len(plain)
            if at + size > len(out):
                state[:2] = [FULL, size]
                return record
            plain = decompress(plain) if compression and plain else plain
        except Undecodable:
            state[0] = BAD
            return record
        out[at : at + len(plain)] = list(plain)
        at += len(plain)
        out_bounds[record + 1] = at
    return len(compressions)
