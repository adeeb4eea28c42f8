"""XOR chunks from the format's page, bit by bit in Python integers: slow and plain."""

import struct

CORRUPT = -1


def float_to_bits(value):
    """Return the 64-bit pattern of a float."""
    return struct.unpack("<Q", struct.pack("<d", float(value)))[0]


def bits_to_float(bits):
    """Return the float of a 64-bit pattern."""
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


class _Bits:
    """A growing text of 0 and 1."""

    def __init__(self):
        self.text = ""

    def put(self, value, count):
        self.text += format(value & ((1 << count) - 1), f"0{count}b")

    def put_uvarint(self, value):
        while value > 127:
            self.put(value & 127 | 128, 8)
            value >>= 7
        self.put(value, 8)

    def to_bytes(self):
        text = self.text + "0" * (-len(self.text) % 8)
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


_DOD_CLASSES = ((14, 0b10, 2), (17, 0b110, 3), (20, 0b1110, 4))


def _put_dod(bits, dod):
    if dod == 0:
        return bits.put(0, 1)
    for size, prefix, width in _DOD_CLASSES:
        if -(1 << (size - 1)) + 1 <= dod <= 1 << (size - 1):
            bits.put(prefix, width)
            return bits.put(dod, size)
    bits.put(0b1111, 4)
    return bits.put(dod, 64)


def _put_value(bits, changed, window):
    if changed == 0:
        bits.put(0, 1)
        return window
    leading = min(64 - changed.bit_length(), 31)
    trailing = (changed & -changed).bit_length() - 1
    if window and leading >= window[0] and trailing >= window[1]:
        bits.put(0b10, 2)
    else:
        window = (leading, trailing)
        bits.put(0b11, 2)
        bits.put(leading, 5)
        bits.put(64 - leading - trailing, 6)
    bits.put(changed >> window[1], 64 - window[0] - window[1])
    return window


def encode(samples):
    """Return the chunk of (timestamp, value bits) pairs."""
    bits, window = _Bits(), None
    bits.put(len(samples), 16)
    for k, (t, value) in enumerate(samples):
        if k == 0:
            bits.put_uvarint((t << 1 ^ t >> 63) & (1 << 64) - 1)
            bits.put(value, 64)
            continue
        delta = t - samples[k - 1][0]
        if k == 1:
            bits.put_uvarint(delta)
        else:
            _put_dod(bits, delta - (samples[k - 1][0] - samples[k - 2][0]))
        window = _put_value(bits, value ^ samples[k - 1][1], window)
    return bits.to_bytes()


class _Reader:
    """Takes bits from the front; runs dry with an EOFError."""

    def __init__(self, data):
        self.text = "".join(format(byte, "08b") for byte in data)
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.text):
            raise EOFError
        part = self.text[self.at : self.at + count]
        self.at += count
        return int(part, 2) if part else 0

    def take_uvarint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(8)
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    break
                return value
        raise EOFError

    def take_signed(self, count):
        raw = self.take(count)
        return raw - (1 << count) if raw >> (count - 1) else raw


def _take_dod(reader):
    ones = 0
    while ones < 4 and reader.take(1):
        ones += 1
    if ones == 0:
        return 0
    if ones == 4:
        return reader.take_signed(64)
    size = (14, 17, 20)[ones - 1]
    raw = reader.take(size)
    return raw - (1 << size) if raw > 1 << (size - 1) else raw


def _wrap(value):
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def decode(data):
    """Yield the (timestamp, value bits) pairs of a chunk; EOFError where it is corrupt."""
    reader = _Reader(data)
    count = reader.take(16)
    t = value = delta = 0
    window = (0, 0)
    for k in range(count):
        if k == 0:
            raw = reader.take_uvarint()
            t, value = _wrap(raw >> 1 ^ -(raw & 1)), reader.take(64)
        else:
            delta = _wrap(reader.take_uvarint() if k == 1 else delta + _take_dod(reader))
            t = _wrap(t + delta)
            if reader.take(1):
                if reader.take(1):
                    leading, size = reader.take(5), reader.take(6) or 64
                    if leading + size > 64:
                        raise EOFError
                    window = (leading, 64 - leading - size)
                value ^= reader.take(64 - window[0] - window[1]) << window[1]
        yield t, value


def xor_sample_counts(data, chunks, counts):
    """See the kernel."""
    for c, chunk in enumerate(chunks):
        start, length = int(chunk["start"]), int(chunk["length"])
        inside = 0 <= start <= len(data) - length and length >= 2
        if chunk["encoding"] != 1 or not inside:
            return -1 - c
        count = int(data[start]) * 256 + int(data[start + 1])
        if count and (length < 11 or count > 1 + (length - 11) * 4):
            return -1 - c
        counts[c] = count
    return int(sum(counts[: len(chunks)]))


def xor_decode(data, chunks, mint, maxt, offsets, timestamps, values):
    """See the kernel."""
    kept = 0
    offsets[0] = 0
    for c, chunk in enumerate(chunks):
        start, length = int(chunk["start"]), int(chunk["length"])
        if chunk["maxt"] >= mint and chunk["mint"] <= maxt:
            try:
                for t, value in decode(data[start : start + length].tobytes()):
                    if t > maxt:
                        break
                    if t >= mint:
                        timestamps[kept], values[kept] = t, bits_to_float(value)
                        kept += 1
            except EOFError:
                return -1 - c
        offsets[c + 1] = kept
    return kept


def xor_encode(timestamps, values, state, out):
    """See the kernel; the state is not used."""
    del state
    pairs = zip(timestamps.tolist(), values.tolist(), strict=True)
    encoded = encode([(t, float_to_bits(value)) for t, value in pairs])
    out[: len(encoded)] = list(encoded)
    return len(encoded)
