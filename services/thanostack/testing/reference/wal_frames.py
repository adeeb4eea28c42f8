"""WAL framing, byte by byte, as `docs/formats/wal.md` tells it; and CRC-32C."""

PAGE, HEADER = 32768, 7
DONE, MORE = 0, 1
BAD_TYPE, BAD_LENGTH, BAD_CRC, BAD_ORDER, BAD_PADDING = -1, -2, -3, -4, -5


def _shifted(byte):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_shifted(byte) for byte in range(256)]


def crc32c(data):
    """Return the CRC-32C of bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def frame(record, compression, position):
    """Return a record's fragments, the first of them at `position` of its segment."""
    out, rest, first = bytearray(), bytes(record), True
    while first or rest:
        left = PAGE - (position + len(out)) % PAGE
        part, rest = rest[: left - HEADER], rest[left - HEADER :]
        kind = (1 if first else 4) if not rest else (2 if first else 3)
        out.append(kind | compression)
        out += len(part).to_bytes(2, "big") + crc32c(part).to_bytes(4, "big") + part
        left -= HEADER + len(part)
        if left < HEADER:
            out += bytes(left)
        first = False
    return bytes(out)


def wal_frame(payload, compression, position, at, out):
    """Write one record's fragments at `out[at:]` and return the end, or -1."""
    framed = frame(payload.tobytes(), compression, position)
    if at + len(framed) > len(out):
        return -1
    out[at : at + len(framed)] = list(framed)
    return at + len(framed)


def _fragment(pages, position, taken, room):
    """Return (status, kind, data) of the fragment at `position`; kind 0 with no data is padding."""
    head = pages[position]
    end_of_page = (position // PAGE + 1) * PAGE
    if head & 7 == 0:
        is_zero = not any(pages[position:end_of_page])
        return (DONE if is_zero else BAD_PADDING), 0, pages[position:end_of_page]
    if head & 7 > 4 or head & 0xE0:
        return BAD_TYPE, 0, b""
    length = int.from_bytes(pages[position + 1 : position + 3], "big")
    if position + HEADER + length > end_of_page or taken + length > room:
        return BAD_LENGTH, 0, b""
    data = pages[position + HEADER : position + HEADER + length]
    if crc32c(data) != int.from_bytes(pages[position + 3 : position + 7], "big"):
        return BAD_CRC, 0, b""
    return DONE, head & 7, data


def wal_unframe(pages, position, out, bounds, marks, state):
    """Glue fragments to whole records and return how many."""
    pages = pages.tobytes()
    records, begun, partial = [], -1, b""
    room = min(len(bounds) - 1, len(marks) // 2)
    status = DONE
    while position < len(pages) and len(records) < room:
        taken = sum(len(data) for data, _, _ in records) + len(partial)
        status, kind, data = _fragment(pages, position, taken, len(out))
        if status < 0:
            break
        if kind == 0:
            position += len(data)
            continue
        if (kind in {1, 2}) != (begun < 0):
            status = BAD_ORDER
            break
        if begun < 0:
            begun = position
        partial += data
        if kind in {1, 4}:
            records.append((partial, begun, pages[position] & 24))
            begun, partial = -1, b""
        position += HEADER + len(data)
    if status == DONE and (begun >= 0 or position < len(pages)):
        status = MORE
    at = 0
    bounds[0] = 0
    for i, (data, start, compression) in enumerate(records):
        out[at : at + len(data)] = list(data)
        at += len(data)
        bounds[i + 1], marks[2 * i], marks[2 * i + 1] = at, start, compression
    state[:3] = [status, begun if begun >= 0 else position, position]
    return len(records)
