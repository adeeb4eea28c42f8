"""XOR chunks of float samples: decode to columns, append one sample, encode whole columns.

    u16 count | varint t0 | f64 v0 | uvarint t1-t0 | xor v1 | dod, xor … bits, highest first

A timestamp is its delta of deltas under a prefix code (0; 10+14; 110+17; 1110+20; 1111+64 bits,
ranges asymmetric), a value the XOR with the one before (0 equal; 10 same window; 11 + 5 bits
leading + 6 bits length + bits).

Source: Prometheus `tsdb/chunkenc/xor.go`; docs/formats/chunks.md.
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import BYTES, BYTES_OUT, CHUNKS, F64, F64_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.bits import peek64, put_bits
from thanostack.lib.kernels.head_types import ROWS_OUT
from thanostack.lib.kernels.varint import read_uvarint, write_uvarint, write_varint, zigzag
from thanostack.lib.kernels.wide import bits_float, clz64, ctz64, float_bits, load_be64, store_be64

CORRUPT = -1


@device
def _read_dod(word):
    """Return (delta of delta, bits used) at the top of a 64-bit window; bits 68 = 64 raw follow."""
    if word >> np.uint64(63) == np.uint64(0):
        return np.int64(0), np.int64(1)
    if word >> np.uint64(62) == np.uint64(2):
        dod = np.int64((word << np.uint64(2)) >> np.uint64(50))
        return dod - 16384 if dod > 8192 else dod, np.int64(16)
    if word >> np.uint64(61) == np.uint64(6):
        dod = np.int64((word << np.uint64(3)) >> np.uint64(47))
        return dod - 131072 if dod > 65536 else dod, np.int64(20)
    if word >> np.uint64(60) == np.uint64(14):
        dod = np.int64((word << np.uint64(4)) >> np.uint64(44))
        return dod - 1048576 if dod > 524288 else dod, np.int64(24)
    return np.int64(0), np.int64(68)


@device
def _decode_one(data, start, length, mint, maxt, timestamps, values, at):
    """Decode one chunk, keep samples inside [mint, maxt]; return the next index, or CORRUPT."""
    stop = start + length
    count = np.int64(data[start]) << 8 | np.int64(data[start + 1])
    if count == 0:
        return at
    raw, i = read_uvarint(data, start + 2, stop)
    if i < 0 or i + 8 > stop:
        return np.int64(CORRUPT)
    t = zigzag(raw)
    bits = load_be64(data, i)
    position = (i + 8) * 8
    end = stop * 8
    delta = np.int64(0)
    leading = np.int64(0)
    trailing = np.int64(0)
    for k in range(count):
        if k == 1:
            raw, i = read_uvarint(data, position >> 3, stop)
            if i < 0:
                return np.int64(CORRUPT)
            delta = np.int64(raw)
            t += delta
            position = i * 8
        elif k > 1:
            dod, used = _read_dod(peek64(data, position))
            if used == 68:
                dod = np.int64(peek64(data, position + 4))
            position += used
            delta += dod
            t += delta
        if k > 0:
            word = peek64(data, position)
            if word >> np.uint64(63) == np.uint64(0):
                position += 1
            else:
                if word >> np.uint64(62) == np.uint64(2):
                    position += 2
                else:
                    leading = np.int64((word << np.uint64(2)) >> np.uint64(59))
                    size = np.int64((word << np.uint64(7)) >> np.uint64(58))
                    if size == 0:
                        size = np.int64(64)
                    trailing = 64 - leading - size
                    if trailing < 0:
                        return np.int64(CORRUPT)
                    position += 13
                size = 64 - leading - trailing
                word = peek64(data, position)
                bits ^= (word >> np.uint64(64 - size)) << np.uint64(trailing)
                position += size
            if position > end:
                return np.int64(CORRUPT)
        if t > maxt:
            return at
        if t >= mint:
            timestamps[at] = t
            values[at] = bits_float(bits)
            at += 1
    return at


@kernel(i64(BYTES, CHUNKS, I64_OUT))
def xor_sample_counts(data, chunks, counts):
    """Write the sample count of each chunk and return their sum.

    A chunk that leaves the buffer, is shorter than its header, promises more samples than its
    bits can hold, or is not XOR-encoded gives -1 - (its index).

    Args:
        data: uint8[n].
        chunks: CHUNK_DTYPE[C].
        counts: int64[C], written.
    """
    total = np.int64(0)
    for c in range(chunks.shape[0]):
        start = chunks[c].start
        length = np.int64(chunks[c].length)
        if chunks[c].encoding != 1 or start < 0 or length < 2 or start > data.shape[0] - length:
            return np.int64(-1 - c)
        count = np.int64(data[start]) << 8 | np.int64(data[start + 1])
        # Bound: the first sample takes at least 9 bytes, each later one at least 2 bits.
        if count > 0 and (length < 11 or count > 1 + (length - 11) * 4):
            return np.int64(-1 - c)
        counts[c] = count
        total += count
    return total


@kernel(i64(BYTES, CHUNKS, i64, i64, I64_OUT, I64_OUT, F64_OUT))
def xor_decode(data, chunks, mint, maxt, offsets, timestamps, values):
    """Decode chunks to columns, keeping samples inside [mint, maxt].

    Args:
        data: uint8[n].
        chunks: CHUNK_DTYPE[C]; `xor_sample_counts` has accepted them.
        mint, maxt: inclusive ms.
        offsets: int64[C + 1], written; samples of chunk c are [offsets[c], offsets[c + 1]).
        timestamps, values: [N]; N at least the sum of the counts.

    Returns:
        The number of samples kept, or -1 - (index of the first chunk that is corrupt).

    Cost: about 8 ns a sample.
    """
    at = np.int64(0)
    offsets[0] = 0
    for c in range(chunks.shape[0]):
        if chunks[c].maxt >= mint and chunks[c].mint <= maxt:
            length = np.int64(chunks[c].length)
            at = _decode_one(data, chunks[c].start, length, mint, maxt, timestamps, values, at)
            if at < 0:
                return np.int64(-1 - c)
        offsets[c + 1] = at
    return at


@routine
def start_chunk(buffer, at, row, t, value):
    """Write the first sample of a chunk at byte `at`; the row's XOR state starts anew."""
    buffer[at] = np.uint8(0)
    buffer[at + 1] = np.uint8(1)
    i = write_varint(buffer, at + 2, t)
    store_be64(buffer, i, value)
    row.position = np.int32((i + 8 - at) * 8)
    row.delta = np.int64(0)
    row.leading = np.uint8(255)
    row.count = np.uint8(1)


@device
def _dod_code(dod):
    """Return (bits, how many) of a delta of deltas; 68 = a prefix of four, 64 raw ones follow."""
    bits = np.uint64(dod)
    if dod == 0:
        return np.uint64(0), np.int64(1)
    if -8191 <= dod <= 8192:
        return np.uint64(2) << np.uint64(14) | bits & np.uint64(0x3FFF), np.int64(16)
    if -65535 <= dod <= 65536:
        return np.uint64(6) << np.uint64(17) | bits & np.uint64(0x1FFFF), np.int64(20)
    if -524287 <= dod <= 524288:
        return np.uint64(14) << np.uint64(20) | bits & np.uint64(0xFFFFF), np.int64(24)
    return np.uint64(15), np.int64(68)


@device
def _value_code(row, value):
    """Return (prefix, its bits, payload, its bits) of a value; the row's window follows."""
    changed = value ^ row.last_v
    if changed == np.uint64(0):
        return np.uint64(0), np.int64(1), np.uint64(0), np.int64(0)
    leading = min(clz64(changed), 31)
    trailing = ctz64(changed)
    if row.leading != 255 and leading >= row.leading and trailing >= row.trailing:
        size = 64 - np.int64(row.leading) - np.int64(row.trailing)
        return np.uint64(2), np.int64(2), changed >> np.uint64(row.trailing), size
    row.leading = np.uint8(leading)
    row.trailing = np.uint8(trailing)
    size = 64 - leading - trailing
    prefix = np.uint64(3) << np.uint64(11) | np.uint64(leading) << np.uint64(6)
    return (
        prefix | np.uint64(size) & np.uint64(63),
        np.int64(13),
        changed >> np.uint64(trailing),
        size,
    )


@device
def _put_sample(buffer, position, row, dod, dod_size, value):
    """Write a sample whose time takes `dod_size` (up to 24) bits; return the next position."""
    prefix, prefix_size, payload, size = _value_code(row, value)
    total = dod_size + prefix_size + size
    if total <= 64:
        # One write: a second would have to wait for the first to leave the processor.
        word = (dod << np.uint64(prefix_size) | prefix) << np.uint64(size) | payload
        return put_bits(buffer, position, word, total)
    position = put_bits(buffer, position, dod << np.uint64(prefix_size) | prefix, total - size)
    return put_bits(buffer, position, payload, size)


@device
def append_to_chunk(buffer, at, row, t, value):
    """Append a sample to the chunk at byte `at`, of which `row` holds the state.

    Invariant: the buffer has SLAB_SLACK bytes beyond the chunk's last one; t > row.last_t.
    `row.last_t` and `row.last_v` are still those of the sample before, and stay so.
    """
    delta = t - row.last_t
    position = at * 8 + np.int64(row.position)
    code, size = np.uint64(0), np.int64(0)
    if row.count == 1:
        position = write_uvarint(buffer, position >> 3, np.uint64(delta)) * 8
    else:
        code, size = _dod_code(delta - row.delta)
        if size == 68:
            position = put_bits(buffer, position, code, 4)
            position = put_bits(buffer, position, np.uint64(delta - row.delta), 64)
            code, size = np.uint64(0), np.int64(0)
    position = _put_sample(buffer, position, row, code, size, value)
    row.delta = delta
    row.position = np.int32(position - at * 8)
    count = np.int64(row.count) + 1
    row.count = np.uint8(count)
    buffer[at + 1] = np.uint8(count)


@kernel(i64(I64, F64, ROWS_OUT, BYTES_OUT))
def xor_encode(timestamps, values, state, out):
    """Encode at most 255 samples as one chunk and return its length.

    Args:
        timestamps: int64[n], ms; strictly rising, 1 <= n <= 255.
        values: float64[n].
        state: ROW_DTYPE[1], scratch.
        out: uint8[m]; m at least 20 n + 64.
    """
    row = state[0]
    for k in range(timestamps.shape[0]):
        bits = float_bits(values[k])
        if k == 0:
            start_chunk(out, np.int64(0), row, timestamps[k], bits)
        else:
            append_to_chunk(out, np.int64(0), row, timestamps[k], bits)
        row.last_t = timestamps[k]
        row.last_v = bits
    return (np.int64(row.position) + 7) >> 3
