"""The kernels of label order do what their references do, and survive hostile bytes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import label_order as kernels
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import label_order as reference

text = st.binary(min_size=1, max_size=3) | st.sampled_from([b"job", b"namespace", b"x" * 200])
label_sets = st.dictionaries(text, text, max_size=4).map(lambda d: encode_run(d.items()))
runs = st.lists(label_sets, max_size=12)
checked = examples(50)


def as_bytes(data: bytes) -> np.ndarray:
    return guarded(data)


def sort_by_kernel(labels: LabelRuns) -> tuple[int, list[int], list[int]]:
    n = len(labels)
    order, groups = np.empty(n, np.int64), np.empty(n + 1, np.int64)
    count = kernels.sort_label_runs(
        labels.data, labels.offsets, np.empty(n, np.int64), order, groups
    )
    return count, order.tolist(), groups[: max(count, 0) + 1].tolist()


@checked
@given(label_sets, label_sets)
def test_compare_equals_the_reference(a, b):
    """Label order of two runs is that of their decoded pairs."""
    expected = reference.compare_label_runs(a, b)
    assert expected == kernels.compare_label_runs(as_bytes(a), as_bytes(b))


@checked
@given(runs)
def test_sort_equals_the_reference(rows):
    """Order and groups are those of a stable sort by decoded pairs."""
    order, groups = reference.sort_label_runs(rows)
    assert (len(groups) - 1, order, groups) == sort_by_kernel(LabelRuns.of(rows))


@checked
@given(st.lists(runs, max_size=4), st.none() | label_sets)
def test_merge_equals_the_reference(streams, limit):
    """Rows of ascending streams below the limit come out in order, equal ones together."""
    streams = [sorted(stream, key=reference.decode_pairs) for stream in streams]
    rows = [run for stream in streams for run in stream]
    labels = LabelRuns.of(rows if limit is None else [*rows, limit])
    stops = np.cumsum([len(stream) for stream in streams], dtype=np.int64)
    heads = stops - np.array([len(stream) for stream in streams], np.int64)
    order, groups = np.empty(len(labels), np.int64), np.empty(len(labels) + 1, np.int64)
    count = kernels.merge_label_runs(
        labels.data, labels.offsets, stops, -1 if limit is None else len(rows),
        heads, np.empty_like(heads), order, groups,
    )  # fmt: skip
    expected_order, expected_groups = reference.merge_label_runs(streams, limit)
    assert expected_groups == groups[: count + 1].tolist()
    assert expected_order == order[: groups[count]].tolist()


def test_merge_refuses_a_descending_stream():
    """A stream that descends is the status -2, not a wrong order."""
    labels = LabelRuns.of_mappings([{"a": "2"}, {"a": "1"}])
    out = np.empty(2, np.int64), np.empty(3, np.int64)
    status = kernels.merge_label_runs(
        labels.data, labels.offsets, np.array([2]), -1, np.array([0]), np.array([0]), *out
    )
    assert status == -2


@checked
@given(runs.filter(len), st.data())
def test_take_equals_the_reference(rows, data):
    """Chosen rows are copied, repeats included."""
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    labels = LabelRuns.of(rows)
    out, offsets = np.empty(len(labels.data) * 6 + 1, np.uint8), np.empty(len(chosen) + 1, np.int64)
    size = kernels.take_label_runs(
        labels.data, labels.offsets, np.array(chosen, np.int64), out, offsets
    )
    assert b"".join(reference.take_label_runs(rows, chosen)) == out[:size].tobytes()


@checked
@given(runs, st.dictionaries(text, st.just(b"") | text, max_size=3))
def test_edit_equals_the_reference(rows, edits):
    """Labels are set or removed in every run, which stays canonical."""
    names = sorted(edits)
    pairs = [encode_run([(name, edits[name])]) for name in names]
    labels, n, p = LabelRuns.of(rows), LabelRuns.of(names), LabelRuns.of(pairs)
    out = np.empty(len(labels.data) + len(rows) * len(p.data), np.uint8)
    offsets = np.empty(len(rows) + 1, np.int64)
    size = kernels.edit_label_runs(
        labels.data, labels.offsets, n.data, n.offsets, p.data, p.offsets, out, offsets
    )
    expected = reference.edit_label_runs(rows, names, pairs)
    assert expected == [LabelRuns(out[:size], offsets).run(i) for i in range(len(rows))]


@checked
@given(runs, text)
def test_find_equals_the_reference(rows, name):
    """A label's value is found where the series has it."""
    labels = LabelRuns.of(rows)
    starts, stops = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    found = kernels.find_label_values(labels.data, labels.offsets, as_bytes(name), starts, stops)
    expected = reference.find_label_values(rows, name)
    got = [labels.data[a:b].tobytes() for a, b in zip(starts, stops, strict=True)]
    assert [value or b"" for value in expected] == got
    assert sum(value is not None for value in expected) == found


chunk_lists = st.lists(
    st.tuples(st.integers(0, 3), st.integers(3, 4), st.integers(1, 2), st.binary(max_size=2)),
    max_size=5,
)


def chunk_array(chunks) -> tuple[np.ndarray, np.ndarray]:
    out, at = np.zeros(len(chunks), CHUNK_DTYPE), 0
    for k, (mint, maxt, encoding, body) in enumerate(chunks):
        out[k] = (mint, maxt, at, len(body), encoding)
        at += len(body)
    return out, as_bytes(b"".join(chunk[3] for chunk in chunks))


@checked
@given(st.lists(st.lists(chunk_lists, min_size=1, max_size=3), max_size=3))
def test_join_equals_the_reference(series):
    """Chunks of equal series come out in order, identical ones once."""
    rows = [row for group in series for row in group]
    chunks, data = chunk_array([chunk for row in rows for chunk in row])
    stops = np.cumsum([len(row) for row in rows], dtype=np.int64)
    starts = stops - np.array([len(row) for row in rows], np.int64)
    groups = np.cumsum([0, *[len(group) for group in series]], dtype=np.int64)
    offsets, out = np.empty(len(groups), np.int64), np.empty(len(chunks), CHUNK_DTYPE)
    count = kernels.join_chunks(
        np.arange(len(rows)), groups, starts, stops, chunks, data, np.empty_like(out), offsets, out
    )
    got = [
        (int(c["mint"]), int(c["maxt"]), int(c["encoding"]),
         data[c["start"] : c["start"] + c["length"]].tobytes())
        for c in out[:count]
    ]  # fmt: skip
    expected = reference.join_chunks(series)
    assert expected == [got[a:b] for a, b in pairwise(offsets)]


@checked
@given(
    st.binary(max_size=20),
    st.lists(st.tuples(st.integers(-1, 21), st.integers(-1, 21)), max_size=4),
)
def test_pack_equals_the_reference(data, spans):
    """Chunk bytes are copied in order; a span outside of the data is the status -1."""
    chunks = np.zeros(len(spans), CHUNK_DTYPE)
    for k, (start, length) in enumerate(spans):
        chunks[k] = (0, 0, start, length, 1)
    out, out_chunks = np.empty(100, np.uint8), np.empty_like(chunks)
    size = kernels.pack_chunks(chunks, as_bytes(data), 0, out_chunks, out)
    if size < 0:
        with pytest.raises(ValueError, match="outside"):
            reference.pack_chunks(spans, data)
    else:
        assert reference.pack_chunks(spans, data) == out[:size].tobytes()


@checked
@given(st.lists(st.binary(max_size=30) | label_sets, min_size=2, max_size=4), st.data())
def test_hostile_runs_return_a_status(rows, data):
    """Bytes that are no runs end in a status or a count, whatever lengths they claim."""
    cut = data.draw(st.integers(0, 40))
    labels = LabelRuns.of([rows[0][:cut] + rows[1], *rows[1:]])
    n = len(labels)
    assert -1 <= sort_by_kernel(labels)[0] <= n
    spans = np.empty(n, np.int64), np.empty(n, np.int64)
    found = kernels.find_label_values(labels.data, labels.offsets, as_bytes(b"job"), *spans)
    assert -1 <= found <= n
    names, pairs = LabelRuns.of([b"job"]), LabelRuns.of([encode_run([(b"job", b"x")])])
    out = np.empty(len(labels.data) + n * len(pairs.data), np.uint8)
    size = kernels.edit_label_runs(
        labels.data, labels.offsets, names.data, names.offsets, pairs.data, pairs.offsets,
        out, np.empty(n + 1, np.int64),
    )  # fmt: skip
    assert -1 <= size <= len(out)
    torn = np.array(data.draw(st.lists(st.integers(-5, 200), min_size=1, max_size=5)), np.int64)
    assert -1 <= sort_by_kernel(LabelRuns(labels.data, torn))[0] < len(torn)
