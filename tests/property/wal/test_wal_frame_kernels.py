"""Framing, unframing and snappy decompression equal their references, hostile bytes included."""

import cramjam
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import wal_frames, wal_snappy
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import wal_frames as reference
from thanostack.testing.reference import wal_snappy as snappy_reference
from thanostack.testing.reference.wal_records import uvarint

PROFILE = examples(40)
PAGE = wal_frames.PAGE
SIZES = st.one_of(
    st.integers(0, 300), st.sampled_from([PAGE - 14, PAGE - 8, PAGE - 7, PAGE - 6, 40000, 70000])
)
RECORDS = st.lists(st.tuples(SIZES, st.sampled_from([0, 8, 16]), st.integers(0, 255)), max_size=5)


def framed(records, position=0):
    out = b""
    for size, compression, fill in records:
        payload = bytes((fill + i) & 255 for i in range(size))
        out += reference.frame(payload, compression, position + len(out))
    return out


def unframed(function, pages, position, room=100):
    out, bounds = np.zeros(len(pages), np.uint8), np.zeros(room + 1, np.int64)
    marks, state = np.zeros(2 * room, np.int64), np.zeros(3, np.int64)
    n = function(guarded(pages), position, out, bounds, marks, state)
    data = out[: bounds[n]].tobytes()
    return n, data, bounds[: n + 1].tolist(), marks[: 2 * n].tolist(), state.tolist()


@PROFILE
@given(SIZES, st.sampled_from([0, 8, 16]), st.integers(0, PAGE - 7), st.integers(0, 3))
def test_frame_equals_reference(size, compression, position, at):
    """Any record at any offset of a page gives the reference's fragments, or a full buffer."""
    payload = np.arange(size, dtype=np.uint64).astype(np.uint8)
    wanted = at + len(reference.frame(payload.tobytes(), compression, position))
    for room in (wanted, wanted - 1):
        got, expected = np.zeros(room, np.uint8), np.zeros(room, np.uint8)
        arguments = (payload, compression, position, at)
        end = reference.wal_frame(*arguments, expected)
        assert end == wal_frames.wal_frame(*arguments, got)
        assert end < 0 or expected.tobytes() == got.tobytes()


@PROFILE
@given(RECORDS, st.integers(1, 6))
def test_unframe_equals_reference(records, room):
    """What was framed comes back, also when the caller has room for only a few records."""
    data = framed(records)
    pages = data + bytes(-len(data) % PAGE)
    expected = unframed(reference.wal_unframe, pages, 0, room)
    assert expected == unframed(wal_frames.wal_unframe, pages, 0, room)
    assert expected[0] == min(room, len(records))


@PROFILE
@given(RECORDS.filter(bool), st.data())
def test_unframe_mutated_equals_reference(records, data):
    """A changed byte, or a page cut off, ends in the reference's status after the same records."""
    whole = bytearray(framed(records))
    whole += bytes(-len(whole) % PAGE)
    at = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(0, 20)))
    whole[at] = data.draw(st.integers(0, 255))
    pages = bytes(whole[: data.draw(st.integers(1, len(whole) // PAGE)) * PAGE])
    got = unframed(wal_frames.wal_unframe, pages, 0)
    assert unframed(reference.wal_unframe, pages, 0) == got


def decompressed(function, blocks, compressions, room, first=0):
    bounds = np.zeros(len(blocks) + 1, np.int64)
    np.cumsum([len(block) for block in blocks], out=bounds[1:])
    out, out_bounds = np.zeros(room, np.uint8), np.zeros(len(blocks) + 1, np.int64)
    state = np.zeros(2, np.int64)
    data = guarded(b"".join(blocks))
    arguments = (data, bounds, np.array(compressions, np.int64), first)
    n = function(*arguments, out, out_bounds, state)
    status = state.tolist() if state[0] == wal_snappy.DECOMPRESS_FULL else state[0]
    return n, out[: out_bounds[n]].tobytes(), out_bounds[: n + 1].tolist(), status


PLAIN = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda part, n: part * n, st.binary(min_size=1, max_size=20), st.integers(1, 200)),
)


@PROFILE
@given(st.lists(st.tuples(PLAIN, st.sampled_from([0, 8, 16])), max_size=4), st.integers(0, 5000))
def test_decompress_equals_reference(records, room):
    """Blocks made by the library come back; a small buffer or a foreign codec stops in between."""
    compress = cramjam.snappy.compress_raw
    blocks = [bytes(compress(plain)) if kind == 8 else plain for plain, kind in records]
    kinds = [kind for _, kind in records]
    expected = decompressed(snappy_reference.wal_decompress, blocks, kinds, room)
    assert expected == decompressed(wal_snappy.wal_decompress, blocks, kinds, room)
    assert expected[1] == b"".join(plain for plain, _ in records[: expected[0]])


@examples(300)
@given(st.lists(PLAIN, min_size=1, max_size=3), st.data())
def test_decompress_hostile_equals_reference(plains, data):
    """Random, truncated and mutated blocks decode or are refused exactly as by the reference."""
    blocks = [bytes(cramjam.snappy.compress_raw(plain)) for plain in plains]
    which = data.draw(st.integers(0, len(blocks) - 1))
    block = bytearray(blocks[which])
    for _ in range(data.draw(st.integers(0, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    block = bytes(block[: data.draw(st.integers(0, len(block)))])
    blocks[which] = data.draw(st.one_of(st.just(block), st.binary(max_size=60)))
    kinds = [8] * len(blocks)
    expected = decompressed(snappy_reference.wal_decompress, blocks, kinds, 18000)
    assert expected == decompressed(wal_snappy.wal_decompress, blocks, kinds, 18000)


# Literals of 1 to 20 bytes; copies of up to 20 from so far back, or from so near the block's begin.
LITERAL = st.tuples(st.just(0), st.integers(1, 20), st.just(0))
NEAR = st.tuples(st.sampled_from([1, 2, 2, 3]), st.integers(1, 20), st.integers(1, 24))
FAR = st.tuples(st.sampled_from([1, 2, 2, 3]), st.integers(1, 20), st.integers(-24, 0))
ELEMENTS = st.lists(st.one_of(LITERAL, NEAR, FAR), min_size=1, max_size=60)


def element(made, kind, length, back):
    """Return an element that stands after so many bytes, and how many it adds; never a bad one."""
    if kind == 0 or made == 0:
        literal = bytes((7 * made + k) % 251 for k in range(length))
        return bytes([length - 1 << 2]) + literal, length
    return copy(kind, length, min(max(1, back if back > 0 else made + back), made))


def copy(kind, length, offset):
    """Return a copy element and how many bytes it adds."""
    if kind == 1 and offset < 2048:
        length = 4 + length % 8
        return bytes([offset >> 8 << 5 | length - 4 << 2 | 1, offset & 255]), length
    kind, width = (3, 4) if kind == 3 else (2, 2)
    return bytes([length - 1 << 2 | kind]) + offset.to_bytes(width, "little"), length


def block_of(elements, beyond):
    """Return a block of elements; the last one copies from before its begin if `beyond` > 0."""
    body, made = b"", 0
    for each in elements:
        part, size = element(made, *each)
        body, made = body + part, made + size
    if beyond is not None:
        part, size = copy(2, 8, made + beyond)
        body, made = body + part, made + size
    # What follows the copy leaves it room to be one of many.
    tail = bytes(40)
    return uvarint(made + len(tail)) + body + bytes([len(tail) - 1 << 2]) + tail


@examples(300)
@given(
    st.lists(st.tuples(ELEMENTS, st.sampled_from([None] * 9 + [0, 1, 8, 9])), max_size=4),
    st.integers(0, 6000),
)
def test_decompress_elements_equals_reference(parts, room):
    """Elements of all kinds, lengths and distances, up to just before the begin of their block."""
    blocks = [block_of(elements, beyond) for elements, beyond in parts]
    expected = decompressed(snappy_reference.wal_decompress, blocks, [8] * len(blocks), room)
    assert expected == decompressed(wal_snappy.wal_decompress, blocks, [8] * len(blocks), room)
