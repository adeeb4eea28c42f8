"""A head holds what a dictionary holds, through any requests, cuts, rebuilds and reads."""

from itertools import pairwise

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from thanostack.lib.kernels.head_append import FIRST_REJECTED
from thanostack.lib.model.label_runs import encode_run
from thanostack.lib.tsdb.head import Head, HeadOptions, IndexRebuild
from thanostack.lib.tsdb.write_columns import WriteColumns
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import protobuf
from thanostack.testing.reference.head_append import _verdict
from thanostack.testing.reference.head_chunk_file import _length
from thanostack.testing.reference.head_model import HeadModel, Row

RANGE, FUTURE = 2000, 9000
LABELS = [
    {"a": str(i % 3), "b": "x" * (i * 9), "c": f"é{i}"} if i % 4 else {"a": str(i)}
    for i in range(1, 15)
]
BITS = st.one_of(st.integers(0, 2), st.integers(0, 2**64 - 1))
# Timestamps are ahead of the newest by this much; below zero is out of order or out of bounds.
AHEAD = st.one_of(st.integers(0, 30), st.integers(-40, 700), st.just(9500))
SERIES = st.tuples(
    st.integers(0, len(LABELS) - 1), st.booleans(), st.lists(st.tuples(AHEAD, BITS), max_size=4)
)


class Files:
    """Frames by reference; refuses while `full`."""

    def __init__(self):
        self.frames, self.full = [], False

    def append(self, frames, lengths):
        if self.full:
            raise OSError
        first, data = len(self.frames), frames.tobytes()
        ends = np.cumsum(lengths).tolist()
        self.frames += [data[end - n : end] for end, n in zip(ends, lengths, strict=True)]
        return np.arange(first, len(self.frames), dtype=np.int64)

    def read(self, ref):
        start, length = _length(self.frames[ref])
        return self.frames[ref][start : start + length]


def body_of(request):
    """Return the message of (series, labels reversed?, [(t, bits)])."""
    out = b""
    for index, backwards, samples in request:
        pairs = sorted(LABELS[index].items(), reverse=backwards)
        part = b"".join(
            protobuf.field(1, protobuf.field(1, n.encode()) + protobuf.field(2, v.encode()))
            for n, v in pairs
        )
        for t, value in samples:
            sample = b"\x09" + value.to_bytes(8, "little") + b"\x10" + protobuf.uvarint(t % 2**64)
            part += protobuf.field(2, sample)
        out += protobuf.field(1, part)
    return guarded(out)


class HeadMachine(RuleBasedStateMachine):
    """One head; a model of one `HeadModel` a series, by label run."""

    def __init__(self):
        super().__init__()
        self.files, self.columns = Files(), WriteColumns(1, 1)
        self.head = Head(HeadOptions(RANGE, series_max=64), self.files)
        self.series, self.unlogged = {}, set()
        self.next_ref, self.now, self.mint = 1, 100, 0
        self.rebuild = self.selected = None

    def model_of(self, index):
        run = encode_run(LABELS[index])
        if run not in self.series:
            model = HeadModel()
            model.rows.append(Row(run, self.next_ref))
            self.series[run] = model
            self.unlogged.add(run)
            self.next_ref += 1
        return self.series[run]

    def expect(self, request):
        """Return the model's outcomes, the accepted samples and the first series refused."""
        outcome, accepted, newest, first = [0] * 7, [], {}, -1
        limits = (self.mint, self.now + FUTURE)
        for s, (index, _, samples) in enumerate(request):
            model = self.model_of(index)
            row = model.rows[0]
            known = newest.get(row.run, (row.last_t, row.last_v) if row.last_t >= 0 else None)
            for t, value in samples:
                verdict = _verdict(t, value, known, limits)
                outcome[verdict] += 1
                if verdict == 0:
                    known = newest[row.run] = (t, value)
                    accepted.append((model, t, value))
                elif verdict != 1 and first < 0:
                    first = s
        return [*outcome, first], accepted

    @rule(request=st.lists(SERIES, max_size=6), logged=st.integers(0, 5))
    def small_request(self, request, logged):
        """Send samples of several series; the log refuses one request of six."""
        self.request(request, logged)

    def request(self, request, logged):
        request = [(i, b, [(self.now + d, v) for d, v in samples]) for i, b, samples in request]
        before = len(self.series)
        self.columns.scan(body_of(request))
        created, statuses = self.head.resolve(self.columns)
        outcome, length = self.head.stage(self.columns, self.mint, self.now + FUTURE)
        expected, accepted = self.expect(request)
        assert (len(self.series) - before, expected) == (created, outcome.tolist())
        assert not statuses.any()
        assert outcome[FIRST_REJECTED] < len(request)
        assert (length > 0) == bool(accepted)
        if not logged:
            return
        self.head.unlogged.clear()
        self.unlogged.clear()
        self.head.apply(self.columns, int(outcome[0]))
        for model, t, value in accepted:
            model.append(0, t, value, RANGE)
            self.now = max(self.now, min(t, self.now + 300))

    @rule(index=st.integers(0, len(LABELS) - 1), n=st.integers(60, 300), step=st.integers(1, 12),
          noise=st.sampled_from([1, 2**20, 2**64 - 1]))  # fmt: skip
    def fill(self, index, n, step, noise):
        """Send many samples of one series, so that chunks close by count, range and size."""
        known = self.series.get(encode_run(LABELS[index]))
        ahead = max(0, known.rows[0].last_t + 1 - self.now) if known else 0
        samples = [(ahead + k * step, k * 0x9E3779B97F4A7C15 & noise) for k in range(n)]
        self.request([(index, False, samples)], 1)

    @rule(full=st.booleans())
    def flush(self, full):
        """Closed chunks go to a file; one that refuses changes nothing."""
        self.files.full = full
        pending = self.head.pending_bytes
        try:
            count = self.head.flush_closed()
            assert (count > 0, self.head.pending_bytes) == (pending > 0, 0)
        except OSError:
            assert pending == self.head.pending_bytes > 0
        self.files.full = False

    # One maintenance at a time: nothing is dropped while an index is being rebuilt.
    @precondition(lambda self: self.rebuild is None)
    @rule(back=st.integers(-400, 400))
    def drop(self, back):
        """Let go of chunks that end before some time."""
        self.mint = max(self.mint, self.now - back)
        self.now = max(self.now, self.mint)
        self.head.flush_closed()
        empty, starts = 0, []
        for model in self.series.values():
            model.closed = [chunk for chunk in model.closed if chunk.maxt >= self.mint]
            row = model.rows[0]
            if row.open and row.last_t < self.mint:
                row.open = None
            starts += [c.mint for c in model.closed] + ([row.open.mint] if row.open else [])
            empty += not model.closed and not row.open
        assert empty == self.head.drop_before(self.mint)
        assert self.head.mint == max(self.mint, min(starts, default=2**63 - 1))

    @precondition(lambda self: self.rebuild is None)
    @rule()
    def rebuild_start(self):
        """Begin to build the index anew."""
        self.rebuild = IndexRebuild(self.head)
        self.rebuild.SLICE = 3

    @precondition(lambda self: self.rebuild is not None)
    @rule(steps=st.integers(0, 3))
    def rebuild_step(self, steps):
        """Copy some slices."""
        for _ in range(steps):
            self.rebuild.step()

    @precondition(lambda self: self.rebuild is not None)
    @rule()
    def rebuild_finish(self):
        """Put the new index in place; series without a chunk are gone."""
        gone = {
            run: model.rows[0].ref
            for run, model in self.series.items()
            if not model.closed and not model.rows[0].open
        }
        freed = self.rebuild.finish().tolist()
        assert sorted(gone.values()) == sorted(freed)
        for run in gone:
            del self.series[run]
            self.unlogged.discard(run)
        self.rebuild = None

    @rule()
    def select(self):
        """Remember rows and references, as a reader does between two jobs."""
        rows = self.head.rows_alive()
        labels = self.head.labels(rows)
        self.selected = (rows, self.head.refs(rows), [labels.run(i) for i in range(len(rows))])

    @precondition(lambda self: self.selected is not None)
    @rule(mint=st.integers(0, 3000), span=st.integers(0, 4000))
    def read_selected(self, mint, span):
        """Rows selected long ago give their series or nothing, never another's samples."""
        rows, refs, runs = self.selected
        found = self.chunks(rows, refs, mint, mint + span)
        for ref, run, (current, chunks) in zip(refs.tolist(), runs, found, strict=True):
            model = self.series.get(run)
            if model is not None and model.rows[0].ref == ref:
                assert current
                assert self.expected_chunks(model, mint, mint + span) == chunks
            else:
                assert not current or chunks == []

    def chunks(self, rows, refs, mint, maxt):
        """Yield (current, [(mint, maxt, bytes)]) of rows."""
        taken = self.head.snapshot(rows, refs, mint, maxt)
        for k in range(len(rows)):
            found = []
            for c in range(taken.offsets[k], taken.offsets[k + 1]):
                chunk, ref = taken.chunks[c], int(taken.refs[c])
                start, stop = int(chunk["start"]), int(chunk["start"]) + int(chunk["length"])
                data = self.files.read(ref) if ref >= 0 else taken.data[start:stop].tobytes()
                assert (ref >= 0) == (start < 0)
                assert len(data) == chunk["length"]
                found.append((int(chunk["mint"]), int(chunk["maxt"]), data))
            yield bool(taken.current[k]), found

    def expected_chunks(self, model, mint, maxt):
        row = model.rows[0]
        chunks = [(c.mint, c.maxt, c.data) for c in model.closed]
        if row.open:
            chunks.append((row.open.mint, row.last_t, row.open.encoded()))
        return [chunk for chunk in chunks if chunk[0] <= maxt and chunk[1] >= mint]

    @invariant()
    def holds_what_the_model_holds(self):
        """Series, references, chunks, postings, names and values are the model's."""
        rows = self.head.rows_alive()
        labels = self.head.labels(rows)
        runs = [labels.run(i) for i in range(len(rows))]
        refs = self.head.refs(rows)
        assert {run: m.rows[0].ref for run, m in self.series.items()} == dict(
            zip(runs, refs.tolist(), strict=True)
        )
        assert len(set(runs)) == len(runs) == self.head.series
        for run, found in zip(runs, self.chunks(rows, refs, 0, 2**62), strict=True):
            assert (True, self.expected_chunks(self.series[run], 0, 2**62)) == found
        row_of = dict(zip(runs, rows.tolist(), strict=True))
        waiting = {row for part in self.head.unlogged for row in part.tolist()}
        assert {row_of[run] for run in self.unlogged} == waiting
        self.check_index(row_of)

    def check_index(self, row_of):
        postings, values = {}, {}
        for row in row_of.values():
            for name, value in self.head.labels(np.array([row], np.int32)).labels(0):
                pair = protobuf.field(1, name) + protobuf.field(2, value)
                postings.setdefault(pair, set()).add(row)
                values.setdefault(name, set()).add(value)
        for pair, rows in postings.items():
            assert sorted(rows) == self.head.postings(pair).tolist()
        assert values.keys() == set(self.head.names())
        for name, wanted in values.items():
            data, offsets = self.head.pair_values(self.head.pairs_of(name))
            found = [data[a:b].tobytes() for a, b in pairwise(offsets)]
            assert sorted(wanted) == sorted(found)


HeadMachine.TestCase.settings = settings(examples(25), stateful_step_count=20)
TestHead = HeadMachine.TestCase
