"""Head cuts, truncation, checkpoints and retention beside writers and readers; full disks."""

import dataclasses
import shutil
import subprocess
import sys
import threading
import time

import pytest

from thanostack.lib.foundation.errors import NotReady, StorageUnwritable, Unavailable
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.tsdb import head_reader
from thanostack.lib.tsdb.head_reader import ReaderRegistry
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.testing.tsdb_directory import (
    BLOCK_MS,
    MAXT,
    MINT,
    SMALL,
    Reports,
    crashed,
    expected,
    opened,
    samples_of,
    write,
)


def blocks_of(tsdb):
    return [(block.meta.mint, block.meta.maxt) for block in tsdb.blocks.readers]


def test_cut(tmp_path):
    """A head of more than one and a half ranges is cut at range ends; all stays readable, once."""
    reports = Reports()
    tsdb = opened(tmp_path / "a", reports=reports)
    times = list(range(1000, 15_001, 100))
    write(tsdb, ["1", "2"], times)
    Maintenance(tsdb).run()
    assert blocks_of(tsdb) == []
    write(tsdb, ["1"], [16_001])
    Maintenance(tsdb).run()
    held = expected(["1"], [*times, 16_001]) | expected(["2"], times)
    assert ([(1000, BLOCK_MS)], held) == (blocks_of(tsdb), samples_of(tsdb))
    assert (10_000, 16_001) == (tsdb.head.mint, tsdb.head.maxt)
    assert {"out_of_bounds": 1} == write(tsdb, ["9"], [9_999]).rejected
    assert ["cut a block from the head"] == reports.messages
    stats = tsdb.stats()
    assert (1, 1, 1000) == (stats.compactions, stats.blocks_loaded, stats.lowest_timestamp)
    again = opened(crashed(tsdb, tmp_path / "b"))
    assert (held, 10_000) == (samples_of(again), again.head.mint)
    assert {"out_of_bounds": 1} == write(again, ["9"], [9_999]).rejected
    again.close()
    tsdb.close()


def test_gap(tmp_path):
    """After a gap of many ranges one cut follows the data, not the empty ranges between."""
    tsdb = opened(tmp_path)
    write(tsdb, ["1"], [0, 100])
    write(tsdb, ["1"], [10_000 * BLOCK_MS + 7])
    segment = tsdb.wal.current_segment
    Maintenance(tsdb).run()
    assert [(0, BLOCK_MS)] == blocks_of(tsdb)
    assert tsdb.head.mint == 10_000 * BLOCK_MS + 7
    assert tsdb.wal.current_segment == segment + 1
    tsdb.close()


def test_flush(tmp_path):
    """Everything can be cut; the head is empty then, and takes what is younger."""
    tsdb = opened(tmp_path / "a")
    write(tsdb, ["1"], [0, 25_000])
    tsdb.refuse_writes("flushed")
    Maintenance(tsdb).flush()
    assert [(0, 10_000), (25_000, 25_001)] == blocks_of(tsdb)
    assert (0, []) == (tsdb.head.series, list(tsdb.head.rows_alive()))
    assert tsdb.head.maxt < tsdb.head.mint
    assert (0, 25_000) == tsdb.time_range()
    with pytest.raises(NotReady, match="flushed"):
        write(tsdb, ["1"], [25_001])
    tsdb.refuse_writes("")
    assert {"out_of_bounds": 1} == write(tsdb, ["1"], [25_000, 25_001]).rejected
    write(tsdb, ["1", "2"], [41_000])
    held = expected(["1"], [0, 25_000, 25_001, 41_000]) | expected(["2"], [41_000])
    assert held == samples_of(tsdb)
    Maintenance(tsdb).run()
    assert [(0, 10_000), (25_000, 25_001), (25_001, 30_000)] == blocks_of(tsdb)
    assert held == samples_of(tsdb)
    again = opened(crashed(tsdb, tmp_path / "b"))
    assert held == samples_of(again)
    again.close()
    tsdb.close()


def test_flush_killed_anywhere(tmp_path, monkeypatch):
    """Before and after each step of a flush a copy is taken; each has all, and can be flushed."""
    tsdb = opened(tmp_path / "a")
    times = range(1000, 28_000, 500)
    for t in times:
        write(tsdb, ["1", "2"], [t])
    copies = []

    def copied(step):
        def wrapped(self, *arguments):
            for when in ("before", "after"):
                target = tmp_path / f"{len(copies)}-{step.__name__}-{when}"
                copies.append(crashed(tsdb, target))
                if when == "before":
                    result = step(self, *arguments)
            return result

        return wrapped

    steps = ("_close_time", "_write_block", "_truncate_head", "_forget_series",
             "_truncate_chunk_files", "_truncate_log")  # fmt: skip
    with monkeypatch.context() as patch:
        for name in steps:
            patch.setattr(Maintenance, name, copied(getattr(Maintenance, name)))
        tsdb.refuse_writes("flushed")
        Maintenance(tsdb).flush()
    assert len(copies) == 3 * len(steps) * 2
    for copy in copies:
        again = opened(copy)
        again.refuse_writes("flushed")
        assert expected(["1", "2"], times) == samples_of(again), copy.name
        Maintenance(again).flush()
        assert expected(["1", "2"], times) == samples_of(again), copy.name
        assert [(1000, 10_000), (10_000, 20_000), (20_000, 27_501)] == blocks_of(again), copy.name
        again.refuse_writes("")
        assert write(again, ["1", "2"], [27_501]).stored == 2
        again.close()
    tsdb.close()


def test_what_is_acknowledged_while_writes_stop_is_flushed(tmp_path):
    """With writers that go on: what they were told is stored is in blocks, the rest refused."""
    tsdb = opened(tmp_path)
    stored, refusals = {name: [] for name in "abc"}, []

    def writer(name):
        for t in range(1000, 100_000):
            try:
                write(tsdb, [name], [t])
            except NotReady as error:
                refusals.append(str(error))
                return
            stored[name].append(t)

    threads = [threading.Thread(target=writer, args=(name,)) for name in stored]
    for thread in threads:
        thread.start()
    while not all(stored.values()):
        time.sleep(0.01)
    time.sleep(0.2)
    tsdb.refuse_writes("flushed")
    Maintenance(tsdb).flush()
    held = samples_of(tsdb)
    for thread in threads:
        thread.join()
    assert refusals == ["flushed"] * 3
    assert tsdb.head.maxt < tsdb.head.mint
    assert {**expected("a", stored["a"]), **expected("b", stored["b"]),
            **expected("c", stored["c"])} == held == samples_of(tsdb)  # fmt: skip
    tsdb.close()


def test_long_life(tmp_path):
    """Cut after cut, with series that come and go: the files stay small, no crash loses data."""
    tsdb = opened(tmp_path / "a")
    held, sizes = {}, []
    for step in range(24):
        names = [str(i) for i in range(step // 2, step // 2 + 5)]
        times = range(step * 5000, step * 5000 + 5000, 250)
        for t in times:
            assert write(tsdb, names, [t]).stored == 5
        for labels, samples in expected(names, times).items():
            held.setdefault(labels, {}).update(samples)
        tsdb.jobs.run(tsdb.wal.cut_segment)
        Maintenance(tsdb).run()
        sizes.append(tsdb.stats().wal_storage_size_bytes)
        if step % 6 == 5:
            again = opened(crashed(tsdb, tmp_path / f"crash{step}"))
            assert held == samples_of(again)
            again.close()
    assert held == samples_of(tsdb)
    stats = tsdb.stats()
    assert stats.head_series <= 12
    assert (stats.checkpoint_creations >= 3, stats.compactions_failed) == (True, 0)
    assert max(sizes[12:]) < 3 * max(sizes[:12])
    names = {path.name for path in (tmp_path / "a" / "chunks_head").iterdir()}
    assert "000001" not in names
    tsdb.close()
    again = opened(tmp_path / "a")
    assert held == samples_of(again)
    again.close()


def test_cut_beside_writers_and_readers(tmp_path):
    """While the head is cut again and again, every read sees all that was acknowledged."""
    tsdb = opened(tmp_path / "a")
    acknowledged, stop, failures = [0], threading.Event(), []

    def work(step):
        try:
            while not stop.is_set():
                step()
        except BaseException as error:
            failures.append(error)
            stop.set()

    def step_writer():
        t = acknowledged[0] + 50
        # Short-lived series, so that rows are freed and used again under the readers.
        assert write(tsdb, ["1", "2", f"n{t // 2000}"], [t]).stored == 3
        acknowledged[0] = t
        if t >= 45_000:
            stop.set()

    def step_reader():
        until = acknowledged[0]
        held = samples_of(tsdb)
        for name in ("1", "2") if until else ():
            missing = set(range(50, until + 1, 50)) - held[("a", name), ("job", "x")].keys()
            assert not missing
        assert set(tsdb.label_values("job", SeriesQuery((), MINT, MAXT))) <= {"x"}
        time.sleep(0.005)

    threads = [threading.Thread(target=work, args=(s,)) for s in (step_writer, step_reader)]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        Maintenance(tsdb).run()
        time.sleep(0.005)
    for thread in threads:
        thread.join(60)
    assert failures == []
    Maintenance(tsdb).run()
    assert tsdb.counters.compactions >= 3
    again = opened(crashed(tsdb, tmp_path / "b"))
    assert samples_of(tsdb) == samples_of(again)
    again.close()
    tsdb.close()


def two_reads_behind(tmp_path, monkeypatch):
    """Return a TSDB whose head is due for a cut, and two reads of it that have begun."""
    monkeypatch.setattr(head_reader, "_GROUP", 2000)
    tsdb = opened(tmp_path)
    names = [f"{i:05d}" for i in range(4500)]
    write(tsdb, names, [5])
    write(tsdb, names, [15_006])
    reads = [tsdb.series(SeriesQuery((), MINT, MAXT)) for _ in range(2)]
    assert [len(next(read)) for read in reads] == [2000, 2000]
    return tsdb, reads


def test_reads_before_the_cut(tmp_path, monkeypatch):
    """They are waited for, all of them, and get the whole."""
    tsdb, reads = two_reads_behind(tmp_path, monkeypatch)
    maintenance = threading.Thread(target=Maintenance(tsdb, reader_patience_s=60).run)
    maintenance.start()
    while tsdb.counters.head_truncations == 0:
        time.sleep(0.001)
    for read in reads:
        maintenance.join(0.2)
        assert (maintenance.is_alive(), tsdb.head.mint) == (True, 5)
        assert [4000, 1000] == [int(batch.chunk_offsets[-1]) for batch in read]
    maintenance.join(30)
    assert tsdb.head.mint == 15_006
    assert sum(map(len, samples_of(tsdb).values())) == 9000
    tsdb.close()


def test_reads_that_are_too_slow_for_a_cut(tmp_path, monkeypatch):
    """They are told so; what they did not get is there to be asked for again."""
    tsdb, reads = two_reads_behind(tmp_path, monkeypatch)
    Maintenance(tsdb, reader_patience_s=0.2).run()
    assert (tsdb.counters.compactions, tsdb.head.mint) == (1, 15_006)
    for read in reads:
        with pytest.raises(Unavailable, match="ask again"):
            list(read)
    assert sum(map(len, samples_of(tsdb).values())) == 9000
    tsdb.close()


def test_close_waits_for_one_cut(tmp_path, monkeypatch):
    """A close lets the running cut end and is not kept waiting by all that are due."""
    tsdb = opened(tmp_path)
    times = range(0, 10 * BLOCK_MS, 1000)
    write(tsdb, ["1"], times)
    closing = threading.Thread(target=tsdb.close)
    real_cut = Maintenance._cut

    def cut(maintenance, maxt):
        closing.start()
        while not tsdb.is_closing:
            time.sleep(0.001)
        real_cut(maintenance, maxt)

    monkeypatch.setattr(Maintenance, "_cut", cut)
    Maintenance(tsdb).run()
    closing.join()
    assert ([(0, BLOCK_MS)], True) == (blocks_of(tsdb), tsdb.is_closed)
    again = opened(tmp_path)
    assert expected(["1"], times) == samples_of(again)
    again.close()


def test_reader_after_close(tmp_path, monkeypatch):
    """A read that a close overtakes, and one that comes later, are told so."""
    monkeypatch.setattr(head_reader, "_GROUP", 2000)
    tsdb = opened(tmp_path)
    names = [f"{i:05d}" for i in range(2100)]
    write(tsdb, names, range(0, 9000, 1500))
    reading = tsdb.series(SeriesQuery((), MINT, MAXT))
    next(reading)
    tsdb.close()
    with pytest.raises(Unavailable, match="closed"):
        list(reading)
    with pytest.raises(Unavailable, match="closed"):
        samples_of(tsdb)
    before = sorted(tmp_path.rglob("*"))
    tsdb.refuse_writes("flushed")
    Maintenance(tsdb).flush()
    Maintenance(tsdb).run()
    assert before == sorted(tmp_path.rglob("*"))


def test_registry():
    """Readers of the new epoch are not waited for; those that leave are forgotten."""
    registry = ReaderRegistry()
    with registry.register() as old:
        registry.retire(0)
        with registry.register() as young:
            registry.retire(0)
            assert young.refusal
        with registry.register() as fresh:
            assert (bool(old.refusal), fresh.refusal) == (True, "")
            fresh.check()
    registry.retire(1e9)


def test_retention(tmp_path):
    """Blocks beyond the time or the size go, the oldest first, and their folders with them."""
    tsdb = opened(tmp_path)
    for t in range(0, 70_000, 500):
        write(tsdb, ["1"], [t])
    Maintenance(tsdb).run()
    assert [(k, k + BLOCK_MS) for k in range(0, 60_000, BLOCK_MS)][: len(blocks_of(tsdb))] == (
        blocks_of(tsdb)
    )
    count = len(blocks_of(tsdb))
    assert count >= 5
    tsdb.options = dataclasses.replace(SMALL, retention_ms=3 * BLOCK_MS)
    Maintenance(tsdb).run()
    assert 3 == len(blocks_of(tsdb)) == tsdb.stats().blocks_loaded
    assert min(samples_of(tsdb)[("a", "1"), ("job", "x")]) == (count - 3) * BLOCK_MS
    other = tsdb.wal.size_bytes + tsdb.chunk_files.size_bytes
    room = other + 2 * tsdb.blocks.readers[0].size_bytes + 10
    tsdb.options = dataclasses.replace(SMALL, retention_bytes=room)
    Maintenance(tsdb).run()
    assert len(blocks_of(tsdb)) == 2
    assert len([path for path in tmp_path.iterdir() if len(path.name) >= 26]) == 2
    stats = tsdb.stats()
    assert (1, 1) == (stats.time_retentions, stats.size_retentions)
    assert (room, 0) == (stats.retention_limit_bytes, stats.retention_limit_s)
    tsdb.close()


def test_failed_cut_does_not_stop_retention(tmp_path):
    """A cut that fails is reported and tried again; retention goes on, as it is what makes room."""
    reports = Reports()
    tsdb = opened(tmp_path, reports=reports)
    for t in range(0, 40_000, 500):
        write(tsdb, ["1"], [t])
    Maintenance(tsdb).run()
    write(tsdb, ["1"], range(40_000, 80_000, 500))
    tsdb.options = dataclasses.replace(SMALL, retention_ms=BLOCK_MS)
    (tmp_path / "chunks_head").rename(tmp_path / "aside")
    tsdb.chunk_files.roll()
    count = len(blocks_of(tsdb))
    Maintenance(tsdb).run()
    assert reports.messages.count("maintenance stopped and will be tried again") == 1
    assert (1, 1) == (len(blocks_of(tsdb)), tsdb.counters.compactions_failed)
    (tmp_path / "aside").rename(tmp_path / "chunks_head")
    Maintenance(tsdb).run()
    assert tsdb.counters.compactions > count
    tsdb.close()


def test_cut_goes_on_after_its_block(tmp_path):
    """A cut that failed once its block was there does not write the block again."""
    tsdb = opened(tmp_path)
    write(tsdb, ["1"], range(0, 16_000, 100))
    real, calls = tsdb.head.drop_before, []

    def failing(mint):
        calls.append(mint)
        if len(calls) == 1:
            raise StorageUnwritable("full")
        return real(mint)

    tsdb.head.drop_before = failing
    Maintenance(tsdb).run()
    Maintenance(tsdb).run()
    assert ([BLOCK_MS] * 2, [(0, BLOCK_MS)]) == (calls, blocks_of(tsdb))
    assert expected(["1"], range(0, 16_000, 100)) == samples_of(tsdb)
    tsdb.close()


def test_leftovers_and_damaged_blocks(tmp_path):
    """Half-made blocks are removed; a damaged one is reported and left, and the rest serves."""
    tsdb = opened(tmp_path)
    write(tsdb, ["1"], range(0, 40_000, 100))
    Maintenance(tsdb).run()
    bad, good = (block.meta.ulid for block in tsdb.blocks.readers[:2])
    tsdb.close()
    (tmp_path / f"{bad[:-1]}Z.tmp-for-creation").mkdir()
    (tmp_path / f"{bad[:-1]}Y.tmp-for-deletion").mkdir()
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / bad, whole)
    for damage in (
        lambda: (tmp_path / bad / "index").write_bytes(b"\0" * 100),
        (tmp_path / bad / "index").unlink,
        lambda: (tmp_path / bad / "chunks" / "000001").write_bytes(b"\0" * 100),
        lambda: shutil.rmtree(tmp_path / bad / "chunks"),
        lambda: (tmp_path / bad / "meta.json").write_text("{"),
        (tmp_path / bad / "meta.json").unlink,
    ):
        shutil.rmtree(tmp_path / bad)
        shutil.copytree(whole, tmp_path / bad)
        damage()
        reports = Reports()
        again = opened(tmp_path, reports=reports)
        assert [bad] == [facts["block"] for _, facts in reports], reports
        assert "cannot be read" in reports.messages[0]
        assert again.stats().blocks_unreadable == 1
        times = samples_of(again)[("a", "1"), ("job", "x")]
        assert set(range(BLOCK_MS, 40_000, 100)) == times.keys()
        again.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert {bad, good} <= names
    assert not any(".tmp" in name for name in names)


FULL = """
import pathlib, resource, signal, sys
from thanostack.lib.foundation.errors import StorageUnwritable
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.testing.tsdb_directory import Reports, crashed, opened, samples_of, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = pathlib.Path(sys.argv[1])
reports = Reports()
tsdb = opened(folder / "a", reports=reports)
acknowledged = {}
def take(t):
    try:
        write(tsdb, [str(i) for i in range(20)], range(t, t + 40), None)
    except StorageUnwritable as error:
        return str(error)
    acknowledged.update((k, True) for k in range(t, t + 40))
    return ""
for t in range(0, 4000, 40):
    assert take(t) == ""
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
refused = [take(t) for t in range(4000, 8000, 40)]
assert all("write-ahead log" in text for text in refused), refused
for _ in range(3):
    tsdb.jobs.run(tsdb._try_flush)
assert reports.messages.count("head chunks stay in memory") == 1
tsdb.clock.advance(60_000)
tsdb.jobs.run(tsdb._try_flush)
assert reports.messages.count("head chunks stay in memory") == 2
for said in (1, 1, 2):
    if said == 2:
        tsdb.clock.advance(60_000)
    Maintenance(tsdb).run()
    assert reports.messages.count("maintenance stopped and will be tried again") == said
held = samples_of(tsdb)
assert all(samples.keys() == acknowledged.keys() for samples in held.values())
tsdb.refuse_writes("flushed")
try:
    Maintenance(tsdb).flush()
    raise SystemExit("it was flushed")
except (StorageUnwritable, OSError) as error:
    assert "File too large" in str(error), error
assert samples_of(tsdb) == held
tsdb.refuse_writes("")
frozen = crashed(tsdb, folder / "b")
second = opened(frozen, reports=reports)
assert samples_of(second) == held
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert take(9000) == ""
write(second, ["0"], [30_000])
tsdb.refuse_writes("flushed")
Maintenance(tsdb).flush()
tsdb.close(); second.close()
again = opened(folder / "a")
assert all(samples.keys() == acknowledged.keys() for samples in samples_of(again).values())
assert len(samples_of(again)) == 20
again.close()
again = opened(frozen)
assert all(samples.keys() >= held[labels].keys() for labels, samples in samples_of(again).items())
again.close()
print("fine")
"""


def test_full_disk(tmp_path):
    """A full disk refuses writes and loses nothing; reads and restarts work until there is room."""
    copy = FULL.replace("crashed(tsdb", "copied(tsdb").replace(
        "acknowledged = {}",
        "acknowledged = {}\n"
        "def copied(tsdb, target):\n"
        "    soft = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (soft[1], soft[1]))\n"
        "    crashed(tsdb, target)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, soft)\n"
        "    return target",
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", copy, str(tmp_path)], capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_stats_while_the_log_changes(tmp_path):
    """Figures can be asked for while checkpoints and segments come and go."""
    tsdb = opened(tmp_path)
    stop, failures = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                tsdb.stats()
                tsdb.time_range()
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=ask)
    thread.start()
    for t in range(0, 200_000, 4000):
        write(tsdb, ["1"], [t])
        tsdb.jobs.run(tsdb.wal.cut_segment)
        Maintenance(tsdb).run()
    stop.set()
    thread.join()
    assert failures == []
    tsdb.close()


def test_retention_counts_and_drops_blocks_that_cannot_be_read(tmp_path):
    """By the time that their meta tells; one that tells none counts, and stays."""
    tsdb = opened(tmp_path)
    write(tsdb, ["1"], range(0, 70_000, 500))
    Maintenance(tsdb).run()
    size, count = tsdb.blocks.size_bytes, len(tsdb.blocks.readers)
    dated, undated = (block.meta.ulid for block in tsdb.blocks.readers[:2])
    tsdb.close()
    (tmp_path / dated / "index").write_bytes(b"")
    for name in ("index", "meta.json"):
        (tmp_path / undated / name).write_bytes(b"")
    again = opened(tmp_path)
    assert [(dated, 0, BLOCK_MS, True), (undated, MINT, MAXT, False)] == [
        (b.name, b.mint, b.maxt, b.is_dated) for b in again.blocks.unreadable
    ]
    assert size / 2 < again.blocks.size_bytes < size
    other = again.wal.size_bytes + again.chunk_files.size_bytes + again.blocks.size_bytes
    again.options = dataclasses.replace(SMALL, retention_bytes=other + 1)
    Maintenance(again).run()
    assert (2, count - 2) == (again.stats().blocks_unreadable, len(again.blocks.readers))
    again.options = dataclasses.replace(SMALL, retention_bytes=other - 1)
    Maintenance(again).run()
    assert ([undated], count - 2) == (
        [b.name for b in again.blocks.unreadable], len(again.blocks.readers),
    )  # fmt: skip
    again.close()
    assert (False, True) == ((tmp_path / dated).exists(), (tmp_path / undated).exists())


def test_retention_by_time_drops_a_block_that_cannot_be_read(tmp_path):
    """A time in a damaged block's meta that lies ahead takes no other block with it."""
    tsdb = opened(tmp_path)
    write(tsdb, ["1"], range(0, 70_000, 500))
    Maintenance(tsdb).run()
    old, ahead, *rest = (block.meta.ulid for block in tsdb.blocks.readers)
    tsdb.close()
    for name in (old, ahead):
        (tmp_path / name / "index").unlink()
    meta = tmp_path / ahead / "meta.json"
    meta.write_text(meta.read_text().replace(f": {2 * BLOCK_MS},", ": 9000000000000,"))
    kept = dataclasses.replace(SMALL, retention_ms=(len(rest) + 1) * BLOCK_MS)
    again = opened(tmp_path, kept)
    assert 9_000_000_000_000 in {block.maxt for block in again.blocks.unreadable}
    Maintenance(again).run()
    assert ([ahead], len(rest)) == (
        [b.name for b in again.blocks.unreadable], len(again.blocks.readers),
    )  # fmt: skip
    again.close()
