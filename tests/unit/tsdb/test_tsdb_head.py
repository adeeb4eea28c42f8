"""The head's corners: huge label sets, rebuilds that are outgrown, readers beside a rebuild."""

import numpy as np
import pytest

from thanostack.lib.foundation.errors import LimitExceeded, Unavailable
from thanostack.lib.kernels.head_types import EPOCH, POSTINGS_TOP
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.tsdb.head import Head, HeadOptions, IndexRebuild, pair_bytes
from thanostack.lib.tsdb.head_reader import HeadReader, Reader
from thanostack.lib.tsdb.write_columns import WriteColumns
from thanostack.testing.tsdb_directory import MAXT, MINT, opened, samples_of, write
from thanostack.testing.write_storage import write_request


class Files:
    def append(self, frames, lengths):
        return np.arange(len(lengths), dtype=np.int64)


def head_of(**options):
    return Head(HeadOptions(1000, **options), Files())


def send(head, *series, apply=True):
    columns = WriteColumns()
    columns.scan(np.frombuffer(write_request(*series), np.uint8))
    head.resolve(columns)
    outcome, length = head.stage(columns, 0, MAXT)
    if apply:
        head.apply(columns, int(outcome[0]))
    return outcome.tolist(), columns.record[:length].tobytes()


def names(first, stop):
    return [({"a": str(i)}, [(1, 1.0)]) for i in range(first, stop)]


@pytest.mark.parametrize("n_labels", [600, 5000])
def test_many_labels(n_labels):
    """A logged series may have more labels than a request's; the tables grow until it fits."""
    head = head_of(series_max=1 << 14)
    labels = {f"n{i:04d}": "v" for i in range(n_labels)}
    runs = LabelRuns.of_mappings([labels, {**labels, "z": "1"}])
    rows = head.create(runs, np.array([7, 8], np.uint64))
    assert ([0, 1], n_labels + 1) == (rows.tolist(), len(head.names()))
    assert [0, 1] == head.postings(pair_bytes(b"n0599", b"v")).tolist()
    assert head.next_ref == 9


def test_rebuild_that_is_outgrown():
    """When series multiply during a rebuild it gives up and frees nothing; the next one works."""
    head = head_of(series_max=1 << 16)
    send(head, *names(0, 10))
    rebuild = IndexRebuild(head)
    rebuild.step()
    send(head, *names(10, 20_000))
    assert not rebuild.step()
    assert (0, 20_000) == (len(rebuild.finish()), head.series)
    head.drop_before(2)
    rebuild = IndexRebuild(head)
    while rebuild.step():
        pass
    assert (20_000, 0) == (len(rebuild.finish()), head.series)


def test_postings_full():
    """A series whose postings find no room is refused whole: it is not known, and others go on."""
    head = head_of(series_max=256)
    send(head, *names(0, 4))
    head.tables.meta[POSTINGS_TOP] = len(head.tables.postings) - 3
    with pytest.raises(LimitExceeded):
        send(head, ({"a": "new", "b": "new"}, [(1, 1.0)]))
    assert ([], 4) == (head.postings(pair_bytes(b"b", b"new")).tolist(), head.series)
    assert send(head, ({"a": "0"}, [(2, 1.0)]))[0][0] == 1


def test_request_too_large_for_the_head():
    """A request that might not find room for its chunks is refused before it is logged."""
    head = head_of(series_max=64)
    head.tables = head.tables._replace(slabs=head.tables.slabs[: 64 * 1024])
    with pytest.raises(Unavailable, match="no room"):
        send(head, *names(0, 64))


def test_staging_epochs_wrap():
    """After four billion requests new series are not taken for staged ones."""
    head = head_of(series_max=256)
    head.tables.meta[EPOCH] = (1 << 32) - 2
    for t in range(1, 5):
        outcome, _ = send(head, ({"a": "1"}, [(t, 5.0)]), ({"a": str(t + 1)}, [(t, 5.0)]))
        assert [2, 0, 0] == outcome[:3]


def test_refused_log_leaves_no_trace():
    """What was staged and not applied is forgotten: the same samples are taken again."""
    head = head_of(series_max=256)
    request = ({"a": "1"}, [(1, 1.0), (2, 2.0)])
    first = send(head, request, apply=False)
    assert first == send(head, request, apply=False) == send(head, request)
    # Only the newest sample can be told from a conflict, as upstream.
    assert [0, 1, 1] == send(head, request)[0][:3]


def test_attach_keeps_pending_chunks():
    """Chunks closed before others are attached are written first, in order."""
    head = head_of(series_max=256)
    send(head, ({"a": "1"}, [(1, 1.0), (1001, 1.0), (2001, 1.0)]))
    assert (2, True) == (head.chunks, head.pending_bytes > 0)
    rows = head.create(LabelRuns.of_mappings([{"a": "2"}]), np.array([9], np.uint64))
    one = np.ones(1, np.int64)
    assert head.attach_chunks(rows, one, 5 * one, 77 * one, 50 * one) == 1
    assert (0, 3) == (head.pending_bytes, head.chunks)
    send(head, ({"a": "1"}, [(3001, 1.0)]))
    assert head.flush_closed() == 1


def rebuild_between(tsdb, after):
    """Free series {a=old} and give its row to {a=new}, once `after` jobs of a reader have run."""
    real, jobs = tsdb.jobs.run, []

    def run(job):
        result = real(job)
        jobs.append(job)
        if len(jobs) == after:
            tsdb.jobs.run = real
            tsdb.head.flush_closed()
            tsdb.head.drop_before(5000)
            rebuild = IndexRebuild(tsdb.head)
            rebuild.step()
            assert len(rebuild.finish()) == 1
            write(tsdb, ["new"], [9000])
        return result

    tsdb.jobs.run = run


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_row_recycled_under_a_reader(tmp_path, after):
    """A row that becomes another series between two jobs of a read never gives that one's data."""
    tsdb = opened(tmp_path)
    write(tsdb, ["old"], [1, 2])
    write(tsdb, ["kept"], [6000])
    rebuild_between(tsdb, after)
    found = samples_of(tsdb, matchers=(Matcher(MatchType.RE, "a", "ol.*|kept"),))
    assert {"old", "kept"} >= {labels[0][1] for labels in found}
    assert any(labels[0][1] == "kept" for labels in found)
    assert tsdb.head.generation == 1
    tsdb.close()


@pytest.mark.parametrize("after", [1, 2])
def test_values_beside_a_rebuild(tmp_path, after):
    """Values of a label are that label's, whichever index they were read from."""
    tsdb = opened(tmp_path)
    write(tsdb, ["old"], [1, 2])
    write(tsdb, ["kept"], [6000])
    rebuild_between(tsdb, after)
    reader = HeadReader(tsdb, Reader(0))
    found = reader.label_values("job", SeriesQuery((), MINT, MAXT))
    assert found == ["x"]
    assert tsdb.head.generation == 1
    tsdb.close()


def test_references_outlive_their_series(tmp_path):
    """A reference that only an old head chunk remembers is not given to another series."""
    tsdb = opened(tmp_path)
    write(tsdb, ["1", "2"], [k * 10 for k in range(300)])
    tsdb.close()
    (tmp_path / "wal" / "00000000").write_bytes(b"")
    again = opened(tmp_path)
    assert (0, 3) == (again.head.series, again.head.next_ref)
    write(again, ["3"], [5000])
    again.close()
    third = opened(tmp_path)
    assert {(("a", "3"), ("job", "x")): {5000}} == {k: set(v) for k, v in samples_of(third).items()}
    third.close()
