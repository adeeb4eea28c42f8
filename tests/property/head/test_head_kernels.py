"""The head's kernels equal their references, which work on a model of what the tables mean."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import head_append, head_pairs, head_read, head_replay, head_series
from thanostack.lib.kernels.head_types import (
    ALIVE,
    CHUNKS_MADE,
    CHUNKS_REMOVED,
    CLOSED_TOP,
    KEYS_TOP,
    MAX_T,
    MIN_T,
    NEXT_REF,
    PAIR_BYTES_TOP,
    PAIRS,
)
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.lib.model.series import CHUNK_DTYPE
from thanostack.lib.tsdb.head import Head, HeadOptions, IndexRebuild
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import head_append as append_reference
from thanostack.testing.reference import head_pairs as pairs_reference
from thanostack.testing.reference import head_read as read_reference
from thanostack.testing.reference import head_replay as replay_reference
from thanostack.testing.reference import head_series as series_reference
from thanostack.testing.reference.head_model import HeadModel, pairs_of
from thanostack.testing.reference.wal_records import encode_samples, encode_samples_v2

PROFILE = examples(50)
NAMES, VALUES = st.sampled_from("abcde"), st.sampled_from(["1", "2", "x" * 40, "y" * 140, "é"])
RUNS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4).map(encode_run)
BATCHES = st.lists(st.tuples(RUNS, st.sampled_from([0, 0, 0, 7, 90])), min_size=1, max_size=8)
RANGE = 1000


class NoFiles:
    """Nothing is closed through `Head` itself here."""

    def append(self, frames, lengths):
        raise AssertionError


def snapshot_content(status, offsets, chunks, refs, out):
    """Return what a snapshot says; the order of the chunks' bytes in `out` is the kernel's own."""
    if status < 0:
        return None
    rows = [
        (mint, maxt, None if start < 0 else out[start : start + length].tobytes(), length, encoding)
        for mint, maxt, start, length, encoding in chunks[: offsets[-1]].tolist()
    ]
    return offsets.tolist(), rows, refs[: offsets[-1]].tolist()


class Both:
    """A head's tables and the model, and calls that must agree."""

    def __init__(self, **sizes):
        self.head = Head(HeadOptions(RANGE, series_max=256), NoFiles())
        self.model = HeadModel(**sizes)
        self.placed = 0

    @property
    def tables(self):
        return self.head.tables

    def agree(self, name, *arguments, out=(), shown=None):
        """Call kernel and reference with copies of `out`; return the kernel's outputs.

        Outputs have to be equal, or else what `shown` makes of them and the status.
        """
        results = []
        for head, modules in (
            (self.tables, (head_series, head_pairs, head_append, head_read)),
            (
                self.model,
                (series_reference, pairs_reference, append_reference, read_reference),
            ),
        ):
            call = next(getattr(m, name) for m in modules if hasattr(m, name))
            outs = [column.copy() for column in out]
            status = int(call(head, *arguments, *outs))
            results.append((status, outs))
        (status, outs), (expected, expected_outs) = results
        assert expected == status, name
        if shown is not None:
            assert shown(status, *expected_outs) == shown(status, *outs), name
            return status, outs
        for a, b in zip(expected_outs, outs, strict=True):
            assert a.tolist() == b.tolist(), name
        return status, outs

    def create(self, batch):
        """Create a batch in both, growing the hash tables where both ask for it."""
        runs = LabelRuns.of([run for run, _ in batch])
        n = len(runs)
        bounds = np.stack([runs.offsets[:-1], runs.offsets[1:]], 1).ravel().copy()
        refs = np.array([ref for _, ref in batch], np.uint64)
        rows, created, first = np.full(n, -1, np.int64), np.zeros(n + 1, np.int64), 0
        while 0 <= first < n:
            first, (rows, created) = self.agree(
                "head_create", runs.data, bounds, first, n, refs, out=(rows, created)
            )
            if 0 <= first < n:
                self.grow()
        self.check_sizes()
        return runs, bounds, rows, first

    def grow(self):
        """Rehash into larger tables, as `Head` does, and compare them slot by slot."""
        for name, kernel in (("table", "head_rehash_rows"), ("pair_table", "head_rehash_pairs")):
            table = np.zeros(2 * len(getattr(self.tables, name)), np.uint64)
            _, (table,) = self.agree(kernel, out=(table,))
            self.head.tables = self.tables._replace(**{name: table})
            setattr(self.model, name, len(table))

    def check_sizes(self):
        meta, model = self.tables.meta, self.model
        expected = [
            model.keys_top, len(model.records), model.pair_bytes, model.alive, model.next_ref,
            model.closed_top, model.mint, model.maxt, model.chunks_made, model.chunks_removed,
        ]  # fmt: skip
        places = (
            KEYS_TOP, PAIRS, PAIR_BYTES_TOP, ALIVE, NEXT_REF, CLOSED_TOP, MIN_T, MAX_T,
            CHUNKS_MADE, CHUNKS_REMOVED,
        )  # fmt: skip
        assert expected == [int(meta[place]) for place in places]

    def check_index(self):
        """Every list of records, every label run and every posting is the model's."""
        _, (alive,) = self.agree("head_alive_rows", out=(np.zeros(256, np.int32),))
        alive = alive[: self.model.alive]
        for size in (0, 5, 4096):
            shape = (np.zeros(len(alive) + 1, np.int64), np.zeros(size, np.uint8))
            self.agree("head_labels", alive, out=shape)
        self.agree("head_next_pair", 0, 0)
        for p, record in enumerate(self.model.records):
            wanted = np.frombuffer(record.data, np.uint8)
            assert p == self.agree("head_find_pair", wanted)[0]
            self.agree("head_next_pair", 2, p)
            if record.name < 0:
                self.agree("head_next_pair", 1, p)
                n, (pairs,) = self.agree("head_name_pairs", p, out=(np.zeros(9, np.int64),))
                offsets = np.zeros(n + 1, np.int64)
                for size in (3, 500):
                    out = (offsets, np.zeros(size, np.uint8))
                    self.agree("head_pair_values", pairs[:n], out=out)
            else:
                assert sorted(record.rows) == self.head.postings(record.data).tolist()
        assert -1 == self.agree("head_find_pair", np.frombuffer(b"\n\1z", np.uint8))[0]

    def snapshot(self, mint, maxt, sizes=(64, 1 << 16)):
        """Compare snapshots of all rows ever given out."""
        rows = np.arange(len(self.model.rows), dtype=np.int32)
        out = (
            np.zeros(len(rows) + 1, np.int64), np.zeros(sizes[0], CHUNK_DTYPE),
            np.zeros(sizes[0], np.int64), np.zeros(sizes[1], np.uint8),
        )  # fmt: skip
        return self.agree("head_snapshot", rows, mint, maxt, out=out, shown=snapshot_content)

    def flush(self):
        """Give pending chunks references, having compared the frames byte for byte."""
        pending = len(self.model.closed) - self.placed
        _, (lengths,) = self.agree("head_frame_lengths", self.placed, out=(np.zeros(999, int),))
        frames = b"".join(chunk.frame for chunk in self.model.closed[self.placed :])
        assert frames == self.tables.closed[: len(frames)].tobytes()
        assert len(frames) == lengths[:pending].sum()
        refs = np.arange(self.placed, self.placed + pending, dtype=np.int64) + 1000
        self.agree("head_place_closed", refs, self.placed)
        self.placed = len(self.model.closed)

    def rebuild(self, slices):
        """Index anew in slices and free what has no chunk left, in both."""
        rebuild, fresh, n = IndexRebuild(self.head), self.model.fresh(), len(self.model.rows)
        keys = np.full(n, -1, np.int64)
        fresh.table, expected = len(rebuild._fresh.table), keys.copy()
        for first, stop in slices:
            first, stop = min(first, n), min(stop, n)
            kernel = head_series.head_reindex(self.tables, rebuild._fresh, first, stop, keys)
            model = series_reference.head_reindex(self.model, fresh, first, stop, expected)
            assert (model, expected.tolist()) == (kernel, keys.tolist())
        rebuild.step()
        freed = rebuild.finish().tolist()
        series_reference.head_reindex(self.model, fresh, 0, n, expected := np.full(n, -1))
        for name in ("by_run", "records", "by_record", "keys_top", "alive"):
            setattr(self.model, name, getattr(fresh, name))
        dropped = np.zeros(n, np.int64)
        count = series_reference.head_swap_index(self.model, expected, dropped)
        assert dropped[:count].tolist() == freed
        self.model.table, self.model.pair_table = (
            len(self.tables.table),
            len(self.tables.pair_table),
        )


@PROFILE
@given(st.lists(BATCHES, min_size=1, max_size=5), st.permutations(range(8)))
def test_series(batches, order):
    """Rows, references, records and postings are the model's; a run is found again in any order."""
    both = Both()
    for batch in batches:
        _runs, bounds, rows, _ = both.create(batch)
        picks = [s for s in order if s < len(rows)]
        again = np.concatenate([*(bounds[2 * s : 2 * s + 2] for s in picks), [-1, -1]])
        for _ in range(2):
            _, (found,) = both.agree(
                "head_resolve", _runs.data, again, len(picks) + 1, out=(np.zeros(9, np.int64),)
            )
        assert [*rows[picks], -1] == found[: len(picks) + 1].tolist()
    both.check_index()


@PROFILE
@given(
    st.lists(BATCHES, min_size=2, max_size=6), st.integers(1, 12), st.integers(1, 500), st.data()
)
def test_series_limits(batches, rows_max, keys_max, data):
    """Whatever is full stops a batch before the series that does not fit; none is half made."""
    records = data.draw(st.integers(2, 30))
    both = Both(
        rows_max=rows_max, keys_max=keys_max, pairs_max=records, pair_bytes_max=3 * keys_max
    )
    tables = both.tables
    both.head.tables = tables._replace(
        rows=tables.rows[:rows_max], keys=tables.keys[:keys_max], pairs=tables.pairs[:records],
        pair_bytes=np.zeros(3 * keys_max, np.uint8), postings=np.zeros(1 << 16, np.int32),
        table=np.zeros(16, np.uint64), pair_table=np.zeros(16, np.uint64),
    )  # fmt: skip
    both.model.table = both.model.pair_table = 16
    for batch in batches:
        both.create(batch)
    both.check_index()


TIMES = st.one_of(st.integers(-50, 3 * RANGE), st.sampled_from([-(2**63), 2**62]))
BITS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
REQUEST = st.lists(
    st.tuples(st.integers(-1, 3), st.lists(st.tuples(TIMES, BITS), max_size=8)), max_size=6
)


def columns_of(request):
    rows = np.array([row for row, _ in request], np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(samples) for _, samples in request])])
    samples = [sample for _, part in request for sample in part]
    timestamps = np.array([t for t, _ in samples], np.int64)
    return rows, offsets.astype(np.int64), timestamps, np.array([v for _, v in samples], np.uint64)


def stage_and_apply(both, request, limits):
    rows, offsets, timestamps, values = columns_of(request)
    n = len(timestamps)
    outcome = np.zeros(8, np.int64)
    outcome[head_append.FIRST_REJECTED] = -1
    # Kernel order: timestamps and values are inputs that change, so they go with the outputs.
    results = []
    for call, head in (
        (head_append.head_stage, both.tables),
        (append_reference.head_stage, both.model),
    ):
        outs = [timestamps.copy(), values.copy(), np.zeros(n, np.int64), outcome.copy()]
        record = np.zeros(17 + 30 * n, np.uint8)
        length = call(head, rows, offsets, *outs[:2], limits, *outs[2:], record)
        taken = int(outs[3][0])
        part = [column[:taken].tolist() for column in outs[:3]]
        results.append((int(length), record.tobytes(), *part, outs[3].tolist()))
    assert results[1] == results[0]
    both.staged = (outs[2][:taken].copy(), outs[0][:taken].copy(), outs[1][:taken].copy())
    first = 0
    while first < taken:
        first, _ = both.agree("head_apply", *both.staged, first, taken, RANGE)
        if first < taken:
            both.flush()
    return taken


def test_two_closed_chunks_of_a_row_are_in_one_snapshot():
    """Both still in memory and in range: each is described with its own bytes."""
    both = Both(closed_max=2500)
    both.create([(encode_run({"a": "1"}), 0)])
    stage_and_apply(both, [(0, [(0, 0), (1000, 0), (2000, 0)])], np.array([-60, 2**62]))
    both.snapshot(0, 1000)


@PROFILE
@given(st.lists(REQUEST, min_size=1, max_size=6), st.data())
def test_append_and_read(requests, data):
    """Outcomes, records, chunks, frames and snapshots are the model's, byte for byte."""
    both = Both(closed_max=2500)
    both.head.tables = both.tables._replace(closed=both.tables.closed[:2500])
    both.create([(encode_run({"a": str(i)}), 0) for i in range(4)])
    limits = np.array([data.draw(st.integers(-60, 500)), data.draw(st.integers(500, 2**62))])
    for request in requests:
        stage_and_apply(both, request, limits)
        both.check_sizes()
        low, high = data.draw(TIMES), data.draw(TIMES)
        both.snapshot(low, high)
        both.snapshot(low, high, data.draw(st.sampled_from([(1, 1 << 16), (64, 30)])))
        action = data.draw(st.sampled_from(["none", "flush", "drop", "attach"]))
        if action != "none":
            both.flush()
        if action == "drop":
            both.agree("head_drop_before", data.draw(st.integers(0, 3 * RANGE)))
            both.placed = len(both.model.closed)
        if action == "attach":
            attach(both, data.draw(st.lists(st.tuples(st.integers(-1, 3), TIMES), max_size=4)))
    both.snapshot(-(2**63), 2**63 - 1)


def test_snapshot_of_pending_chunks():
    """Several closed chunks that no file has come in order, their bytes as they were found."""
    both = Both()
    both.create([(encode_run({"a": "1"}), 0)])
    request = [(0, [(t, t) for t in range(0, 4 * RANGE, RANGE)])]
    stage_and_apply(both, request, np.array([0, 2**62]))
    for sizes in ((64, 1 << 16), (2, 1 << 16), (64, 30)):
        both.snapshot(0, 2 * RANGE, sizes)
        both.snapshot(RANGE, 4 * RANGE, sizes)


def attach(both, chunks):
    rows = np.array([row for row, _ in chunks], np.int64)
    mints = np.array([t for _, t in chunks], np.int64)
    refs = np.arange(len(chunks), dtype=np.int64) + 5000
    both.agree("head_attach_chunks", rows, mints, mints + 10, refs, refs % 100)
    both.placed = len(both.model.closed)


@examples(30)
@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 400)), max_size=40), st.data())
def test_attach_in_any_order(chunks, data):
    """Chunks of a row ascend whatever the order they are found in, before a cut and after."""
    both = Both()
    both.create([(encode_run({"a": str(i)}), 0) for i in range(3)])
    opened = data.draw(st.integers(0, 400))
    limits = np.array([-(2**62), 2**62])
    half = len(chunks) // 2
    attach(both, chunks[:half])
    stage_and_apply(both, [(0, [(opened, 1)])], limits)
    attach(both, chunks[half:])
    both.snapshot(-(2**63), 2**63 - 1)
    both.snapshot(50, 200)
    both.agree("head_drop_before", data.draw(st.integers(0, 400)))
    both.snapshot(-(2**63), 2**63 - 1)


STEPS = st.sampled_from([1, 1, 1, 2, 7, 30])


@examples(12)
@given(
    st.lists(STEPS, min_size=1, max_size=7), st.integers(0, 900), st.sampled_from([0, 3, 52, 64])
)
def test_chunk_sizes(steps, start, noise):
    """Chunks end where upstream ends them: evenly in a range, at 1005 bytes, at 240 samples."""
    both = Both()
    both.create([(encode_run({"a": "1"}), 0)])
    random, t = np.random.default_rng(start), start
    times = []
    for k in range(400):
        t += steps[k // 60 % len(steps)]
        times.append(t)
    bits = random.integers(0, 1 << max(noise, 1), 400, np.uint64, endpoint=noise < 64)
    both.agree("head_apply", np.zeros(400, np.int64), np.array(times), bits, 0, 400, RANGE)
    both.flush()
    both.snapshot(0, 2**62)
    assert len(both.model.closed) >= 1


@PROFILE
@given(st.lists(BATCHES, min_size=1, max_size=3), st.data())
def test_rebuild(batches, data):
    """A rebuilt index has the living rows only; freed rows are given out again, newest first."""
    both = Both()
    for batch in batches:
        both.create(batch)
        n = len(both.model.rows)
        living = data.draw(st.lists(st.integers(0, n - 1), max_size=4))
        times = np.arange(len(living), dtype=np.int64) + max(both.model.maxt, 0) + 1
        used = np.array([r for r in living if both.model.rows[r].run], np.int64)
        bits = np.zeros(len(used), np.uint64)
        both.agree("head_apply", used, times, bits, 0, len(used), RANGE)
        cuts = data.draw(st.lists(st.integers(0, n), max_size=3))
        both.rebuild(list(zip([0, *cuts], [*cuts, 3], strict=True)))
        both.check_index()
    both.create(batches[0])
    both.check_index()
    assert all(r in both.model.rows for r in map(both.model.rows.__getitem__, range(n)))


REFS = st.one_of(st.integers(0, 40), st.sampled_from([1 << 20, (1 << 40) - 1, (1 << 64) - 1]))


def records_of(logged, data):
    """Return samples records of both layouts, of a few samples each, and what else a log has."""
    records = []
    while logged:
        size = data.draw(st.integers(1, 20))
        part, logged = logged[:size], logged[size:]
        if data.draw(st.booleans()):
            records.append(encode_samples(part))
        else:
            records.append(encode_samples_v2([(ref, t, 0, bits) for ref, t, bits in part]))
        records.append(data.draw(st.sampled_from([b"", b"", b"\2", b"\1series", b"\xff"])))
    if data.draw(st.booleans()):
        # Every other one has samples.
        which = 2 * data.draw(st.integers(0, len(records) // 2 - 1))
        records[which] = records[which][: data.draw(st.integers(0, len(records[which])))]
    return records


def gathered(module, table, records, begin, room):
    """Return what gathering does: its result and state, the counts, and the columns."""
    bounds = np.zeros(len(records) + 1, np.int64)
    np.cumsum([len(record) for record in records], out=bounds[1:])
    columns = [np.zeros(room, kind) for kind in (np.int64, np.uint64, np.int32)]
    outcome, state = np.zeros(8, np.int64), np.zeros(2, np.int64)
    data, begin = guarded(b"".join(records)), np.array(begin, np.int64)
    count = module.replay_gather(table, data, bounds, begin, *columns, outcome, state)
    return count, state.tolist(), outcome.tolist(), [column[:count].tolist() for column in columns]


SOON = st.integers(0, 6)


@examples(300)
@given(
    st.lists(st.tuples(REFS, st.integers(-1, 3), SOON), max_size=40),
    st.lists(st.tuples(REFS, st.one_of(SOON, TIMES), BITS), min_size=1, max_size=30),
    st.data(),
)
def test_replay_gather(entries, logged, data):
    """Of records of both layouts the samples that are needed come with their rows."""
    refs, rows, lasts = (
        np.array([entry[k] for entry in entries], kind)
        for k, kind in enumerate((np.uint64, np.int64, np.int64))
    )
    table, expected = np.zeros(128, head_replay.REF_DTYPE), {}
    counts = [
        module.replay_map_refs(found_in, refs, rows, lasts, len(entries))
        for module, found_in in ((head_replay, table), (replay_reference, expected))
    ]
    assert counts[0] == counts[1] == np.count_nonzero(table["ref"])
    records = records_of(logged, data)
    begin = [data.draw(values) for values in (st.integers(0, 1), SOON, st.integers(-50, 3))]
    room = 6 + data.draw(st.sampled_from([0, 1, 2, 5, 20, 60, 200]))
    found = gathered(head_replay, table, records, begin, room)
    assert gathered(replay_reference, expected, records, begin, room) == found


@PROFILE
@given(
    st.lists(st.tuples(st.integers(0, 3), TIMES, BITS), min_size=1, max_size=40),
    st.sampled_from([1, 1, 2, 5]),
    st.data(),
)
def test_replay(logged, repeats, data):
    """Logged samples are appended in the order of rows, what a row has already is skipped."""
    both = Both(closed_max=2500)
    both.head.tables = both.tables._replace(closed=both.tables.closed[:2500])
    both.create([(encode_run({"a": str(i)}), 0) for i in range(4)])
    attach(both, data.draw(st.lists(st.tuples(st.integers(-1, 3), TIMES), max_size=2)))
    # More than are looked ahead at, and some of them again; times as gathering leaves them.
    logged = [sample for sample in logged * repeats if sample[1] > -(2**63)]
    columns = [np.array([s[k] for s in logged], kind) for k, kind in enumerate("iqQ")]
    replay(both, columns, RANGE, data)


def replay(both, columns, chunk_range, data):
    """Order and append samples of (rows, timestamps, value bits) in both."""
    count = len(columns[0])
    orders = np.zeros((2, count), np.int32)
    head_replay.replay_order(columns[0], count, np.zeros(5, np.int32), orders[0])
    replay_reference.replay_order(columns[0], count, None, orders[1])
    assert orders[1].tolist() == orders[0].tolist()
    bounds = np.array([0, count, 0, chunk_range], np.int64)
    while bounds[0] < count:
        # At least one frame has to fit, or nothing would ever go on.
        bounds[2] = data.draw(st.sampled_from([0, 500, 1 << 40]))
        outcomes = np.zeros((2, 8), np.int64)
        done = head_replay.replay_apply(both.tables, *columns, orders[0], bounds, outcomes[0])
        expected = replay_reference.replay_apply(
            both.model, *columns, orders[0], bounds, outcomes[1]
        )
        assert (expected, outcomes[1].tolist()) == (done, outcomes[0].tolist())
        bounds[0] = done
        both.flush()
    both.check_sizes()
    both.snapshot(-(2**63), 2**63 - 1)
    for name in ("last_t", "last_v"):
        expected = [getattr(row, name) for row in both.model.rows]
        assert expected == both.tables.rows[name][:4].tolist()


DELTAS = st.sampled_from(
    [15, 15, 15, 14, 16, 0, -1, 1, 8_200, 8_210, 65_600, 524_400, 600_000, 1 << 33, 1 << 40]
)
SIMILAR_BITS = st.one_of(
    BITS,
    st.integers(0, 300).map(lambda n: int(np.float64(n).view(np.uint64))),
    st.integers(0, (1 << 64) - 1),
)


@PROFILE
@given(
    st.lists(st.tuples(st.integers(0, 3), DELTAS, SIMILAR_BITS), min_size=1, max_size=40),
    st.sampled_from([1, 3, 10, 20]),
    st.sampled_from([RANGE, 7_200_000, 1 << 50]),
    st.data(),
)
def test_replay_runs(steps, repeats, chunk_range, data):
    """Runs of samples of one series make the chunks that one sample at a time makes."""
    both = Both()
    both.create([(encode_run({"a": str(i)}), 0) for i in range(4)])
    now, logged = [1000] * 4, []
    for row, delta, bits in steps * repeats:
        now[row] += delta
        logged.append((row, now[row], bits))
    columns = [np.array(c, k) for c, k in zip(zip(*logged, strict=True), "iqQ", strict=True)]
    replay(both, columns, chunk_range, data)


def test_pairs_of():
    """The model's view of a run is what the format says."""
    run = encode_run({"a": "1", "bc": "é"})
    assert [(b"\n\1a\x12\0011", b"\n\1a"), (b"\n\2bc\x12\2\xc3\xa9", b"\n\2bc")] == pairs_of(run)
