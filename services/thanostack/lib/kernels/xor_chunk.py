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
def _value_code(changed, leading, trailing):
    """Return (prefix, its bits, payload, its bits, leading, trailing) of a value's change.

    Args:
        changed: uint64; the value XOR the one before.
        leading, trailing: the window of the value before; leading 255 = there is none, which
            nothing fits into.
    """
    if changed == np.uint64(0):
        return np.uint64(0), np.int64(1), np.uint64(0), np.int64(0), leading, trailing
    zeros, last_zeros = min(clz64(changed), 31), ctz64(changed)
    if zeros >= leading and last_zeros >= trailing:
        payload = changed >> np.uint64(trailing)
        return np.uint64(2), np.int64(2), payload, 64 - leading - trailing, leading, trailing
    size = 64 - zeros - last_zeros
    prefix = np.uint64(3) << np.uint64(11) | np.uint64(zeros) << np.uint64(6)
    prefix |= np.uint64(size) & np.uint64(63)
    return prefix, np.int64(13), changed >> np.uint64(last_zeros), size, zeros, last_zeros


@device
def append_to_chunk(buffer, at, row, t, value):
    """Append a sample to the chunk at byte `at`, of which `row` holds the state.

    Invariant: the buffer has SLAB_SLACK bytes beyond the chunk's last one; t > row.last_t.
    `row.last_t` and `row.last_v` are still those of the sample before, and stay so.
    """
    delta = t - row.last_t
    position = at * 8 + np.int64(row.position)
    code, code_size = np.uint64(0), np.int64(0)
    if row.count == 1:
        position = write_uvarint(buffer, position >> 3, np.uint64(delta)) * 8
    else:
        code, code_size = _dod_code(delta - row.delta)
        if code_size == 68:
            position = put_bits(buffer, position, code, 4)
            position = put_bits(buffer, position, np.uint64(delta - row.delta), 64)
            code, code_size = np.uint64(0), np.int64(0)
    prefix, prefix_size, payload, size, leading, trailing = _value_code(
        value ^ row.last_v, np.int64(row.leading), np.int64(row.trailing)
    )
    code, code_size = code << np.uint64(prefix_size) | prefix, code_size + prefix_size
    if code_size + size <= 64:
        # One write: a second would have to wait for the first to leave the processor.
        word = code << np.uint64(size) | payload
        position = put_bits(buffer, position, word, code_size + size)
    else:
        position = put_bits(buffer, position, code, code_size)
        position = put_bits(buffer, position, payload, size)
    row.leading = np.uint8(leading)
    row.trailing = np.uint8(trailing)
    row.delta = delta
    row.position = np.int32(position - at * 8)
    count = np.int64(row.count) + 1
    row.count = np.uint8(count)
    buffer[at + 1] = np.uint8(count)


@device
def _put_more(buffer, byte, kept, shift, bits, count):
    """Write `count` (1..64) bits behind the `shift` bits that `kept` begins with.

    Return the byte where the next bits go, its `kept`, its `shift`. What was written stays in
    registers: a load of what a store has not finished would wait for it.
    """
    bits <<= np.uint64(64 - count)
    word = kept | bits >> np.uint64(shift)
    beyond = (bits << np.uint64(8 - shift)) & np.uint64(255)
    store_be64(buffer, byte, word)
    buffer[byte + 8] = np.uint8(beyond)
    end = shift + count
    # Twice half as far: a shift by 64 is none.
    half = np.uint64((end >> 3) * 4)
    kept = (word << half) << half | beyond << np.uint64(56)
    return byte + (end >> 3), kept, end & 7


@device
def append_run_to_chunk(buffer, at, row, run, timestamps, values, bounds):
    """Append samples of one series as `append_to_chunk` does, as long as nothing special is due.

    Args:
        buffer, at, row: as of `append_to_chunk`; `row.last_t` and `row.last_v` follow here.
        run: (items, first, stop); which samples, by their indices.
        timestamps, values: columns.
        bounds: (no sample at this time or later, none that begins at this byte of the chunk or
            later).

    Returns:
        The first of the run that was not appended: it is not newer than the one before, beyond the
        bounds, or has a delta of deltas of 64 bits.

    Invariant: the chunk has two samples or more, and room for 255 in all.
    """
    items, first, stop = run
    until, limit = bounds
    last_t, last_v, delta = row.last_t, row.last_v, row.delta
    leading, trailing = np.int64(row.leading), np.int64(row.trailing)
    byte = at + (np.int64(row.position) >> 3)
    shift = np.int64(row.position) & 7
    limit += at
    kept = load_be64(buffer, byte) & ~(np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(shift))
    k = first
    while k < stop:
        t, value = timestamps[items[k]], values[items[k]]
        if t <= last_t or t >= until or byte >= limit:
            break
        code, code_size = _dod_code(t - last_t - delta)
        if code_size == 68:
            break
        prefix, prefix_size, payload, size, leading, trailing = _value_code(
            value ^ last_v, leading, trailing
        )
        code, code_size = code << np.uint64(prefix_size) | prefix, code_size + prefix_size
        if code_size + size <= 64:
            word = code << np.uint64(size) | payload
            byte, kept, shift = _put_more(buffer, byte, kept, shift, word, code_size + size)
        else:
            byte, kept, shift = _put_more(buffer, byte, kept, shift, code, code_size)
            byte, kept, shift = _put_more(buffer, byte, kept, shift, payload, size)
        delta = t - last_t
        last_t, last_v = t, value
        k += 1
    row.last_t, row.last_v, row.delta = last_t, last_v, delta
    row.leading, row.trailing = np.uint8(leading), np.uint8(trailing)
    row.position = np.int32((byte - at) * 8 + shift)
    count = np.int64(row.count) + k - first
    row.count = np.uint8(count)
    buffer[at + 1] = np.uint8(count)
    return k


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
