"""Interning keeps label sets apart exactly where they differ; hostile runs are refused."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import promql_labels as kernels
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.lib.promql.engine.labels import LabelTable
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import promql_labels as reference

checked = examples(50)
text = st.binary(min_size=1, max_size=3) | st.sampled_from([b"job", b"instance", b"x" * 200])
label_sets = st.dictionaries(text, text, max_size=4).map(lambda d: encode_run(d.items()))
runs = st.lists(label_sets, max_size=12)


def loaded(rows):
    table = LabelTable()
    return table, table.add_runs(LabelRuns.of(rows))


def decoded(table, ids):
    labels = table.runs(np.array(ids, np.int64))
    return [labels.labels(i) for i in range(len(labels))]


def first_seen(ids):
    return reference.intern_symbols([str(i).encode() for i in ids])


@checked
@given(st.lists(st.binary(max_size=5), max_size=20))
def test_intern_symbols(texts):
    table = LabelTable()
    ids = table.symbols(texts)
    assert reference.intern_symbols(texts) == first_seen(ids.tolist())
    assert texts == [table.text(int(i)) for i in ids]


@checked
@given(runs)
def test_intern_pairs_and_sets(rows):
    """Equal runs get equal ids, and the bytes come back as they were."""
    table, ids = loaded(rows)
    pairs = reference.intern_pairs(rows)
    assert reference.intern_sets(pairs) == first_seen(ids.tolist())
    assert reference.encode_sets(pairs) == [table.runs(ids).run(i) for i in range(len(rows))]


@checked
@given(runs, st.lists(text, max_size=3))
def test_project_pairs(rows, names):
    table, ids = loaded(rows)
    pairs = reference.intern_pairs(rows)
    texts = [name.decode(errors="surrogateescape") for name in names]
    kept = reference.project_pairs(pairs, lambda name: name in names)
    assert kept == decoded(table, table.keep(ids, texts))
    left = reference.project_pairs(pairs, lambda name: name not in names)
    assert left == decoded(table, table.without(ids, texts))


@checked
@given(st.lists(st.tuples(label_sets, st.none() | text), max_size=8), text)
def test_assign_and_lookup(items, name):
    rows, values = [row for row, _ in items], [value for _, value in items]
    table, ids = loaded(rows)
    pairs = reference.intern_pairs(rows)
    readable = name.decode(errors="surrogateescape")
    symbols = table.symbols([value or b"" for value in values])
    symbols[[value is None for value in values]] = -1
    changed = table.assign(ids, readable, symbols)
    assert reference.assign_pairs(pairs, name, values) == decoded(table, changed)
    found = [None if s < 0 else table.text(s) for s in table.values(ids, readable).tolist()]
    assert reference.lookup_values(pairs, name) == found


@checked
@given(runs)
def test_sort_sets(rows):
    table, ids = loaded(rows)
    assert reference.sort_sets(reference.intern_pairs(rows)) == table.order(ids).tolist()


def test_growth_keeps_ids():
    """Tables that grow many times still know what they have seen."""
    rows = [encode_run({"__name__": "m", "i": str(i), f"n{i % 97}": "v"}) for i in range(20_000)]
    table, ids = loaded(rows)
    assert ids.tolist() == table.add_runs(LabelRuns.of(rows)).tolist()
    assert len(set(ids.tolist())) == len(rows)


def test_a_full_table_stops_and_goes_on():
    """A kernel that finds a table full says how far it came and can be called again."""
    texts = [b"a", b"b", b"c", b"d"]
    data, ends = guarded(b"".join(texts)), np.arange(5, dtype=np.int64)
    hashes, offsets = np.empty(2, np.uint64), np.zeros(3, np.int64)
    ids, counts = np.full(4, -9, np.int64), np.zeros(2, np.int64)
    done = kernels.intern_symbols(
        data, ends, hashes, offsets, np.full(8, -1, np.int64), np.empty(99, np.uint8), ids, counts
    )
    assert (done, ids.tolist(), counts.tolist()) == (2, [0, 1, -9, -9], [2, 2])


@checked
@given(st.lists(label_sets, min_size=1, max_size=3), st.data())
def test_hostile_runs_end_with_a_status(rows, data):
    """Mutated, truncated and random bytes are read inside their bounds or refused."""
    raw = bytearray(b"".join(rows) + data.draw(st.binary(max_size=6)))
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    ends = np.array([0, len(raw)], np.int64)
    room = len(raw) + 8
    done = kernels.intern_pairs(
        guarded(bytes(raw)), ends, np.empty(2 * room, np.uint64),
        np.zeros(2 * room + 1, np.int64), np.full(8 * room, -1, np.int64),
        np.empty(2 * room, np.uint8), np.empty(room, np.uint64), np.zeros(2, np.int64),
        np.zeros(2, np.int64),
    )  # fmt: skip
    assert done in {-1, 0, 1}
