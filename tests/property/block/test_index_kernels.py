"""The kernels of the index do what their references do."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.index.symbols import PairTable
from thanostack.lib.kernels import index_read, index_symbols, index_write
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import index_read as read_reference
from thanostack.testing.reference import index_symbols as symbols_reference
from thanostack.testing.reference import index_write as write_reference
from thanostack.testing.reference.label_order import decode_pairs

checked = examples(40)
text = st.binary(min_size=1, max_size=3) | st.sampled_from([b"job", b"namespace", b"x" * 200])
label_sets = st.dictionaries(text, text, max_size=4).map(lambda d: encode_run(d.items()))
ascending_runs = st.lists(label_sets, max_size=8, unique=True).map(
    lambda runs: sorted(runs, key=decode_pairs)
)
small = st.integers(0, 300)
numbers = st.lists(st.integers(0, 60) | st.integers(0, 1 << 32), unique=True).map(sorted)


def as_bytes(data: bytes) -> np.ndarray:
    return guarded(data)


def packed(strings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stops = np.cumsum([len(s) for s in strings], dtype=np.int64)
    lengths = np.array([len(s) for s in strings], np.int64)
    return as_bytes(b"".join(strings)), stops - lengths, stops


@checked
@given(st.lists(ascending_runs, max_size=3))
def test_interning_equals_the_reference(batches):
    """Pairs get ids in order of appearance, across batches; hashes are those of the bytes."""
    table = PairTable()
    rows = []
    for runs in batches:
        ids, offsets = table.intern(LabelRuns.of(runs))
        rows += [ids[a:b].tolist() for a, b in pairwise(offsets)]
    expected, pairs, hashes = symbols_reference.intern_label_pairs(batches)
    arena = LabelRuns(table._arena, table._offsets[: len(table) + 1])
    assert expected == rows
    assert pairs == [arena.run(i) for i in range(len(table))]
    assert hashes == table._hashes[: len(table)].tolist()


@checked
@given(st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), max_size=16))
def test_filling_a_table_equals_the_reference(hashes):
    """Pairs land in the slot that look-ups will probe."""
    table = np.zeros(32, np.int32)
    count = index_symbols.fill_pair_table(np.array(hashes, np.uint64), len(hashes), table)
    assert len(hashes) == count
    assert symbols_reference.fill_pair_table(hashes, 32) == table.tolist()
    assert index_symbols.fill_pair_table(np.zeros(17, np.uint64), 17, table) == -1


@checked
@given(st.sets(st.tuples(text, text), max_size=12))
def test_ranked_pairs_equal_the_references(pairs):
    """Strings of ordered pairs, their order and the symbol bytes."""
    framed = [encode_run([pair]) for pair in sorted(pairs)]
    arena, n = LabelRuns.of(framed), len(framed)
    starts, stops, names = np.empty(2 * n, "i8"), np.empty(2 * n, "i8"), np.empty(n, "i8")
    count = index_symbols.split_label_pairs(
        arena.data, arena.offsets, np.arange(n), starts, stops, names
    )
    strings, places = symbols_reference.split_label_pairs(framed)
    assert len(strings) == n + count
    assert places == names.tolist()
    got = [arena.data[a:b].tobytes() for a, b in zip(starts, stops, strict=True)]
    assert strings == got[: n + count]


@checked
@given(st.lists(text | st.just(b""), max_size=20))
def test_ranking_and_encoding_strings_equal_the_references(strings):
    """Order, ordinals and symbol bytes."""
    data, starts, stops = packed(strings)
    order, ordinals = np.empty(len(strings), "i8"), np.empty(len(strings), "i4")
    distinct = index_symbols.rank_strings(
        data, starts, stops, np.empty_like(order), order, ordinals
    )
    expected_order, expected_ordinals = symbols_reference.rank_strings(strings)
    assert len(set(strings)) == distinct
    assert expected_order == order.tolist()
    assert expected_ordinals == ordinals.tolist()
    size = index_symbols.encode_symbols(data, starts, stops, order, np.empty(0, "u1"))
    out = np.empty(size, "u1")
    assert size == index_symbols.encode_symbols(data, starts, stops, order, out)
    assert symbols_reference.encode_symbols(strings) == out.tobytes()


@checked
@given(st.binary(max_size=40), st.integers(-1, 41), st.integers(-1, 41))
def test_checksum_equals_the_reference(data, start, stop):
    """CRC-32C of a range; -1 for a range out of bounds."""
    got = index_write.checksum(as_bytes(data), start, stop)
    if 0 <= start <= stop <= len(data):
        assert write_reference.checksum(data, start, stop) == got
    else:
        assert got == -1


chunk_series = st.lists(
    st.lists(
        st.tuples(
            st.integers(1, 1 << 40),
            small,
            st.integers(1, 6),
            st.binary(min_size=2, max_size=40),
        ),
        max_size=4,
    ),
    max_size=4,
)  # fmt: skip


def laid_out(series):
    """Return gaps and spans as (mint, maxt, encoding, bytes), ascending from before the epoch."""
    out = []
    for chunks in series:
        end, row = -1000, []
        for gap, span, encoding, body in chunks:
            row.append((end + gap, end + gap + span, encoding, body))
            end += gap + span
        out.append(row)
    return out


@checked
@given(chunk_series, st.integers(1, 200))
def test_framing_chunks_equals_the_reference(series, segment_bytes):
    """Segments, their cuts, and the chunk parts of index entries."""
    series = laid_out(series)
    flat = [chunk for chunks in series for chunk in chunks]
    data, starts, _ = packed([chunk[3] for chunk in flat])
    chunks = np.zeros(len(flat), CHUNK_DTYPE)
    for k, (mint, maxt, encoding, body) in enumerate(flat):
        chunks[k] = (mint, maxt, starts[k], len(body), encoding)
    offsets = np.cumsum([0, *map(len, series)], dtype=np.int64)
    state = np.zeros(8, np.int64)
    state[index_write.POSITION], state[index_write.SEGMENT_BYTES] = 8, segment_bytes
    out, cuts = np.empty(len(data) + 10 * len(flat), "u1"), np.empty(len(flat), "i8")
    meta, bounds = (
        np.empty(10 * len(series) + 30 * len(flat), "u1"),
        np.empty(len(series) + 1, "i8"),
    )
    size = index_write.frame_chunks(data, chunks, offsets, state, out, cuts, meta, bounds)
    edges = [0, *cuts[: state[index_write.CUTS]].tolist(), size]
    segments, metas = write_reference.frame_chunks(series, segment_bytes)
    got = [out[a:b].tobytes() for a, b in pairwise(edges)]
    assert segments == got
    assert metas == [meta[a:b].tobytes() for a, b in pairwise(bounds)]


rows_of_pairs = st.lists(st.lists(st.integers(0, 5), unique=True, max_size=4), max_size=6)


def csr(rows, dtype):
    flat = [item for row in rows for item in row]
    return np.array(flat, dtype), np.cumsum([0, *map(len, rows)], dtype=np.int64)


@checked
@given(rows_of_pairs, st.lists(st.integers(0, 1 << 31), min_size=12, max_size=12), small)
def test_encoding_series_equals_the_reference(rows, symbols, position):
    """Entries with padding, lengths and checksums, and their ids."""
    symbols = [symbol % (1 << 31) for symbol in symbols]
    metas = [bytes([k, 7]) for k in range(len(rows))]
    ids, offsets = csr(rows, np.int32)
    meta = LabelRuns.of(metas)
    out, series = np.empty(35 * len(rows) + 10 * len(ids) + 99, "u1"), np.empty(len(rows), "i8")
    size = index_write.encode_series(
        ids, offsets, np.array(symbols, "i8").astype("i4"), meta.data, meta.offsets, position, out,
        series,
    )  # fmt: skip
    named = [[(symbols[2 * p], symbols[2 * p + 1]) for p in row] for row in rows]
    if any(symbol == 1 << 31 for symbol in symbols):
        return
    expected, expected_ids = write_reference.encode_series(named, metas, position)
    assert expected == out[:size].tobytes()
    assert expected_ids == series.tolist()


@checked
@given(rows_of_pairs)
def test_postings_equal_the_references(rows):
    """A counting sort gives every pair its ascending list, sealed."""
    ids, offsets = csr(rows, np.int32)
    series = np.arange(len(rows), dtype=np.uint32) * 3
    expected = write_reference.scatter_postings(rows, series.tolist(), 6)
    sizes = np.cumsum([0, *(12 + 4 * len(ids) for ids in expected)], dtype=np.int64)
    out = np.empty(sizes[-1], "u1")
    written = index_write.scatter_postings(ids, offsets, series, sizes[:-1] + 8, out)
    assert sum(map(len, expected)) == written
    assert index_write.seal_postings(sizes, out) == 7
    assert write_reference.seal_postings(expected) == out.tobytes()


@checked
@given(st.sets(st.tuples(text, text), min_size=1, max_size=10), st.data())
def test_the_postings_table_is_written_and_read_as_the_references_do(pairs, data):
    """Encoding, scanning, listing and searching of one table."""
    ordered = sorted(pairs)
    framed = LabelRuns.of([encode_run([pair]) for pair in ordered])
    n = len(ordered)
    starts, stops, names = np.empty(2 * n, "i8"), np.empty(2 * n, "i8"), np.empty(n, "i8")
    index_symbols.split_label_pairs(framed.data, framed.offsets, np.arange(n), starts, stops, names)
    lists = np.array(data.draw(st.lists(small, min_size=n, max_size=n)), np.int64)
    args = (framed.data, starts, stops, names, lists)
    out = np.empty(index_write.encode_postings_table(*args, np.empty(0, "u1")), "u1")
    index_write.encode_postings_table(*args, out)
    table = write_reference.encode_postings_table(
        [(name, value, int(at)) for (name, value), at in zip(ordered, lists, strict=True)]
    )
    assert table == out.tobytes()
    body = np.concatenate([out, np.zeros(400, "u1")])  # list offsets lie inside the file
    entries, groups, size = np.empty(n, np.uint32), np.empty(n + 1, np.uint32), len(out)
    count = index_read.scan_postings_table(body, 0, size, entries, groups)
    expected, expected_groups = read_reference.scan_postings_table(table, n)
    assert expected == entries.tolist()
    assert expected_groups == groups[: count + 1].tolist()
    spans = np.empty(5 * n, np.int64)
    assert index_read.list_table_values(body, 0, size, entries, spans) == 0
    listed = [
        (body[a:b].tobytes(), body[c:d].tobytes(), at)
        for a, b, c, d, at in spans.reshape(-1, 5).tolist()
    ]  # fmt: skip
    assert read_reference.list_table_values(table, expected) == listed
    first, stop = groups[0], groups[1]
    for value in [*(value for _, value in ordered), b"", b"absent"]:
        found = index_read.find_postings(body, 0, size, entries[first:stop], as_bytes(value))
        assert read_reference.find_postings(listed[first:stop], value) == (
            None if found == -1 else found
        )


def test_series_out_of_order_are_a_status():
    """Two entries that do not ascend in label order are damage."""
    _, metas = write_reference.frame_chunks([[(0, 1, 1, b"00")]] * 2, 1 << 20)
    entries, ids = write_reference.encode_series([[(0, 1)], [(0, 1)]], metas, 0)
    data = as_bytes(entries + b"\x01a\x01b")
    state = np.array([len(entries), len(data), len(entries), 2, 0, 9, 0, 0])
    n = (np.empty(3, "i8"), np.empty(3, "i8"))
    status = index_read.decode_series(
        data, np.array(ids) * 16, np.array([0, 2], np.uint32), state, np.empty(99, "u1"), *n,
        np.empty(2, CHUNK_DTYPE), np.empty(2, "i8"),
    )  # fmt: skip
    assert index_read.BAD_ORDER == status


def test_a_table_out_of_order_is_the_status_minus_two():
    """Version 1 allows it; whoever reads must sort."""
    body = write_reference.encode_postings_table([(b"b", b"1", 1), (b"a", b"1", 2)])
    out = np.empty(2, np.uint32), np.empty(3, np.uint32)
    assert index_read.scan_postings_table(as_bytes(body), 0, len(body), *out) == -2
    assert read_reference.scan_postings_table(body, 2)[1] == []


@checked
@given(st.lists(text, max_size=9), st.integers(0, 5))
def test_scanning_symbols_equals_the_reference(strings, missing):
    """Offsets of strings; -1 where the bytes end too early."""
    body = symbols_reference.encode_symbols(strings)
    body = body[: len(body) - missing]
    offsets = np.empty(len(set(strings)), np.uint32)
    status = index_read.scan_symbols(as_bytes(body), 0, len(body), offsets)
    if status == 0:
        assert read_reference.scan_symbols(body, len(offsets)) == offsets.tolist()
    else:
        with pytest.raises(ValueError, match=r"end|uvarint"):
            read_reference.scan_symbols(body, len(offsets))


@checked
@given(chunk_series, st.integers(-1000, 1 << 41), st.integers(0, 1 << 41))
def test_decoding_series_equals_the_reference(series, mint, width):
    """Labels and the chunks in the bounds; series without one are left out."""
    series = laid_out(series)
    names = [b"", b"a", b"b", b"v", b"w" * 300]
    labels = [[], [(1, 3)], [(1, 3), (2, 4)], [(2, 3)]][: len(series)]
    _, metas = write_reference.frame_chunks(series, 1 << 20)
    entries, ids = write_reference.encode_series(labels, metas, 0)
    table = b"".join(write_reference.uvarint(len(name)) + name for name in names)
    data = as_bytes(entries + table)
    starts = np.cumsum(
        [0] + [len(name) + len(write_reference.uvarint(len(name))) for name in names]
    )
    state = np.zeros(8, np.int64)
    state[:6] = (len(entries), len(data), len(entries), 2, mint, mint + width)
    n, total = len(series), sum(map(len, series))
    out, offsets, bounds = np.empty(4000, "u1"), np.empty(n + 1, "i8"), np.empty(n + 1, "i8")
    chunks, kept = np.empty(total, CHUNK_DTYPE), np.empty(n, "i8")
    count = index_read.decode_series(
        data, np.array(ids, np.int64) * 16, starts[:-1].astype(np.uint32), state, out, offsets,
        bounds, chunks, kept,
    )  # fmt: skip
    decoded = [
        read_reference.decode_series(entries, 16 * i, names, mint, mint + width) for i in ids
    ]
    expected = [(k, *item) for k, item in enumerate(decoded) if item[1]]
    runs = LabelRuns(out, offsets[: count + 1])
    got = [
        (int(kept[i]), list(runs.labels(i)),
         [tuple(c)[:3] for c in chunks[bounds[i] : bounds[i + 1]].tolist()])
        for i in range(count)
    ]  # fmt: skip
    assert expected == got


@checked
@given(chunk_series)
def test_reading_chunks_equals_the_references(series):
    """Lengths, encodings and bytes of all chunks of a segment."""
    flat = [chunk for chunks in laid_out(series) for chunk in chunks]
    (segment,), _ = write_reference.frame_chunks([flat[:1]] if flat else [[]], 1 << 20)
    offsets = [8] if flat else []
    for chunk in flat[1:]:
        offsets.append(8 + len(segment))
        segment += write_reference.frame_chunks([[chunk]], 1 << 20)[0][0]
    segment = bytes(8) + segment
    refs, lengths = np.array(offsets, np.int64) + (5 << 32), np.zeros(len(offsets), np.int64)
    assert index_read.measure_chunks(as_bytes(segment), 5, refs, lengths) == 0
    assert read_reference.measure_chunks(segment, offsets) == lengths.tolist()
    chunks, out = np.zeros(len(refs), CHUNK_DTYPE), np.empty(int(lengths.sum()), "u1")
    chunks["length"], chunks["start"] = lengths, np.cumsum(lengths) - lengths
    assert index_read.copy_chunks(as_bytes(segment), 5, refs, chunks, out) == len(refs)
    got = [
        (int(c["encoding"]), out[c["start"] : c["start"] + c["length"]].tobytes()) for c in chunks
    ]
    assert read_reference.copy_chunks(segment, offsets) == got
    assert index_read.copy_chunks(as_bytes(segment), 4, refs, chunks, out) == 0


@checked
@given(numbers, numbers)
def test_set_algebra_equals_the_references(a, b):
    """Intersection and difference of ascending lists."""
    x, y = np.array(a, np.int64), np.array(b, np.int64)
    out = np.empty(min(len(a), len(b)), np.int64)
    common = out[: index_read.intersect_sorted(x, y, out)].tolist()
    assert read_reference.intersect_sorted(a, b) == common
    out = np.empty(len(a), np.int64)
    rest = out[: index_read.subtract_sorted(x, y, out)].tolist()
    assert read_reference.subtract_sorted(a, b) == rest
