"""Sorting, merging and editing of columnar label sets."""

import numpy as np
import pytest

from thanostack.lib.foundation.errors import InvalidLabels
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_order import (
    compare_runs,
    get_label_values,
    merge_series,
    sort_runs,
    sort_series,
    take_runs,
    with_labels,
)
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.lib.model.series import SeriesBatch


def batch(series: dict[str, list[tuple[int, int, bytes]]]) -> SeriesBatch:
    """Return series `name -> [(mint, maxt, bytes)]` with one label, in the order given."""
    flat = [chunk for chunks in series.values() for chunk in chunks]
    chunks, at = np.zeros(len(flat), CHUNK_DTYPE), 0
    for k, (mint, maxt, body) in enumerate(flat):
        chunks[k] = (mint, maxt, at, len(body), 1)
        at += len(body)
    offsets = np.cumsum([0, *map(len, series.values())])
    labels = LabelRuns.of_mappings([{"n": name} if name else {} for name in series])
    return SeriesBatch(labels, offsets, chunks, np.frombuffer(b"".join(c[2] for c in flat), "u1"))


def content(batches) -> list[tuple[str, list[tuple[int, int, bytes]]]]:
    out = []
    for part in batches:
        for i in range(len(part)):
            span = range(part.chunk_offsets[i], part.chunk_offsets[i + 1])
            chunks = [
                (int(part.chunks[c]["mint"]), int(part.chunks[c]["maxt"]), part.chunk_bytes(c))
                for c in span
            ]
            out.append((part.labels.mapping(i).get("n", ""), chunks))
    return out


A, B = (0, 9, b"aa"), (10, 19, b"bbb")


def test_equal_series_are_joined_with_chunks_in_order():
    """The same label set in two streams is one series; an identical chunk occurs once."""
    merged = merge_series([iter([batch({"x": [B], "z": []})]), iter([batch({"x": [A, B]})])])
    assert content(merged) == [("x", [A, B]), ("z", [])]


def test_chunks_that_differ_in_bytes_only_are_both_kept():
    """Equal bounds do not make chunks identical."""
    other = (0, 9, b"ab")
    merged = merge_series([iter([batch({"x": [other]})]), iter([batch({"x": [A]})])])
    assert content(merged) == [("x", [A, other])]


def test_a_series_may_continue_in_the_next_batch_of_its_stream():
    """A store that splits a series over frames still yields one series."""
    streams = [iter([batch({"a": [], "x": [A]}), batch({"x": [B], "y": []})])]
    assert content(merge_series(streams)) == [("a", []), ("x", [A, B]), ("y", [])]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (3, 2), (50, 50)])
def test_batch_boundaries_do_not_show(sizes):
    """Whatever the batch sizes, the outcome is the sorted union."""
    names = [f"{i:03}" for i in range(60)]
    picks = (names[::2], names[::3])
    streams = [
        iter([batch({n: [A] for n in pick[i : i + size]}) for i in range(0, len(pick), size)])
        for pick, size in zip(picks, sizes, strict=True)
    ]
    expected = sorted(set(picks[0]) | set(picks[1]))
    assert content(merge_series(streams)) == [(name, [A]) for name in expected]


def test_merging_nothing_yields_nothing():
    """No streams, empty streams and empty batches are no series."""
    assert list(merge_series([])) == []
    assert list(merge_series([iter([]), iter([batch({})])])) == []


def test_the_empty_label_set_is_a_series():
    """A series without labels comes first."""
    merged = merge_series([iter([batch({"x": []})]), iter([batch({"": [A]})])])
    assert content(merged) == [("", [A]), ("x", [])]


@pytest.mark.parametrize(
    "batches", [[{"b": []}, {"a": []}], [{"b": [], "c": []}, {"a": [], "d": []}, {"e": []}]]
)
def test_a_descending_stream_is_refused(batches):
    """Order across batches is checked as well as within one."""
    with pytest.raises(InvalidLabels, match="order"):
        list(merge_series([iter([batch(part) for part in batches])]))


def test_label_order_is_not_byte_order():
    """`{a="zz"}` is longer but comes before `{b="1"}`; a prefix comes first."""
    sets = [{"b": "1"}, {"a": "zz"}, {"a": "zz", "b": "0"}, {"a": "b"}]
    assert sort_runs(LabelRuns.of_mappings(sets)).tolist() == [3, 1, 2, 0]
    assert compare_runs(encode_run({"a": "zz"}), encode_run({"b": "1"})) == -1


def test_external_labels_win_and_removed_ones_are_gone():
    """Set labels replace the series' own; removal applies to both."""
    labels = LabelRuns.of_mappings([{"a": "1", "c": "3", "r": "x"}, {"b": "2"}, {}])
    edited = with_labels(labels, encode_run({"b": "ext", "r": "y", "z": "ext"}), drop=[b"r"])
    assert [edited.mapping(i) for i in range(3)] == [
        {"a": "1", "b": "ext", "c": "3", "z": "ext"},
        {"b": "ext", "z": "ext"},
        {"b": "ext", "z": "ext"},
    ]


def test_values_of_a_label():
    """A series without the label has the empty value."""
    labels = take_runs(LabelRuns.of_mappings([{"a": "1"}, {"b": "2"}]), np.array([1, 0, 0]))
    assert get_label_values(labels, b"a") == [b"", b"1", b"1"]


def test_sorting_a_batch_joins_equal_series():
    """After a replica label is removed, equal series are one."""
    assert content([sort_series(batch({"z": [B], "x": [B], "zz": []}))]) == [
        ("x", [B]),
        ("z", [B]),
        ("zz", []),
    ]
    twice = SeriesBatch(
        LabelRuns.of_mappings([{"n": "x"}] * 2),
        np.array([0, 1, 3]),
        batch({"x": [B], "y": [A, B]}).chunks,
        batch({"x": [B], "y": [A, B]}).data,
    )
    assert content([sort_series(twice)]) == [("x", [A, B])]


def test_malformed_runs_are_named():
    """Bytes that are no runs raise, wherever they are used."""
    bad = LabelRuns.of([b"\x0a\x7fxxxxxxxx", b"\x0a\x05xxxxxxxx"])
    for call in (sort_runs, lambda labels: get_label_values(labels, b"a")):
        with pytest.raises(InvalidLabels):
            call(bad)
    with pytest.raises(InvalidLabels):
        with_labels(bad, encode_run({"a": "b"}))
