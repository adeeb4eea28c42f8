"""A tenant is the same after a restart, after a crash, and after its log was damaged."""

import os
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from thanostack.lib.foundation.errors import LimitExceeded, StorageUnwritable, WALCorrupt
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.tsdb.lock_file import LockFile
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.lib.wal.records import (
    RecordType,
    SampleColumns,
    encode_samples_record,
    encode_series_record,
)
from thanostack.lib.wal.writer import WALWriter
from thanostack.testing.tsdb_directory import (
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
from thanostack.testing.wal import DiskFaults
from thanostack.testing.write_storage import write_request

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def test_write_and_read(tmp_path):
    """Samples come back bit for bit, by matchers and bounds, names and values too."""
    tsdb = opened(tmp_path)
    assert tsdb.time_range()[0] > tsdb.time_range()[1]
    assert samples_of(tsdb) == {}
    result = write(tsdb, ["1", "2"], range(0, 9000, 1000))
    assert (18, 18, 2) == (result.samples, result.stored, result.series_created)
    write(tsdb, ["1"], [9000], STALE)
    held = expected(["1", "2"], range(0, 9000, 1000))
    held[("a", "1"), ("job", "x")][9000] = 0x7FF0000000000002
    assert held == samples_of(tsdb)
    assert expected(["2"], [3000, 4000]) == samples_of(
        tsdb, 3000, 4500, (Matcher(MatchType.NEQ, "a", "1"),)
    )
    query = SeriesQuery((Matcher(MatchType.RE, "a", "[12]"),), MINT, MAXT)
    assert ["a", "job"] == tsdb.label_names(query)
    assert ["1", "2"] == tsdb.label_values("a", SeriesQuery((), MINT, MAXT))
    assert ["1"] == tsdb.label_values("a", SeriesQuery(query.matchers, MINT, MAXT, limit=1))
    assert ["1"] == tsdb.label_values("a", SeriesQuery((), 9000, MAXT, limit=1))
    assert [] == tsdb.label_values("a", SeriesQuery((), 9001, MAXT))
    assert (0, 9000) == tsdb.time_range()
    tsdb.close()


def test_limit_and_no_chunks(tmp_path):
    """A limit ends the answer; without chunks the series stand alone."""
    tsdb = opened(tmp_path)
    write(tsdb, [f"{i:03d}" for i in range(50)], [1, 2])
    names = [f"{i:03d}" for i in range(7)]
    for skip in (True, False):
        batches = list(tsdb.series(SeriesQuery((), MINT, MAXT, skip_chunks=skip, limit=7)))
        found = [b.labels.mapping(i)["a"] for b in batches for i in range(len(b))]
        assert names == found
        assert (0 if skip else 7) == sum(len(b.chunks) for b in batches)
    tsdb.close()


@pytest.mark.parametrize("crash", [False, True])
def test_restart(tmp_path, crash):
    """A close, or a crash at any moment, loses nothing that was acknowledged."""
    names, times = ["1", "2", "3"], [k * 20 for k in range(400)]
    tsdb = opened(tmp_path / "a")
    folder = tsdb.folder
    for t in times[:250]:
        write(tsdb, names, [t])
    if crash:
        folder = crashed(tsdb, tmp_path / "b")
    tsdb.close()
    again = opened(folder)
    assert expected(names, times[:250]) == samples_of(again)
    duplicate = write(again, names, times[249:251])
    assert (3, 3) == (duplicate.duplicates, duplicate.stored)
    for t in times[250:]:
        write(again, names, [t])
    refs = again.head.refs(again.head.rows_alive()).tolist()
    again.close()
    third = opened(folder)
    assert expected(names, times) == samples_of(third)
    assert refs == third.head.refs(third.head.rows_alive()).tolist()
    third.close()


def test_chunks_in_memory_are_replayed(tmp_path):
    """Chunks that no file has yet are made again from the log, those in files are attached."""
    times = [k * 30 for k in range(600)]
    tsdb = opened(tmp_path / "a")
    for k, t in enumerate(times):
        write(tsdb, ["1", "2"], [t])
        if k == 300:
            tsdb.jobs.run(tsdb.head.flush_closed)
    assert tsdb.head.pending_bytes > 0
    folder = crashed(tsdb, tmp_path / "b")
    reports = Reports()
    again = opened(folder, reports=reports)
    assert tsdb.head.chunks == again.head.chunks
    assert expected(["1", "2"], times) == samples_of(again)
    assert reports == []
    again.close()
    tsdb.close()


def test_damaged_head_chunks_are_replayed(tmp_path):
    """A damaged head chunk file is set aside and reported; the log has its samples."""
    times = [k * 30 for k in range(600)]
    tsdb = opened(tmp_path)
    write(tsdb, ["1", "2"], times)
    tsdb.close()
    path = tmp_path / "chunks_head" / "000001"
    path.write_bytes(path.read_bytes()[:200] + b"\xff" + path.read_bytes()[201:])
    reports = Reports()
    again = opened(tmp_path, reports=reports)
    assert expected(["1", "2"], times) == samples_of(again)
    assert any("damaged head chunks" in message for message in reports.messages)
    again.close()


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_damaged_log_is_repaired(tmp_path):
    """What was logged before the damage is there, the rest set aside and reported."""
    tsdb = opened(tmp_path)
    position = 0
    for t in range(10):
        if t == 6:
            position = tsdb.wal.position()[1]
        write(tsdb, ["1", "2"], [t])
    tsdb.close()
    damage(tmp_path / "wal" / "00000000", position + 9)
    reports = Reports()
    again = opened(tmp_path, reports=reports)
    assert expected(["1", "2"], range(6)) == samples_of(again)
    assert ["repaired a damaged write-ahead log"] == reports.messages
    assert reports[0][1]["lost_bytes"] > 0
    assert reports[0][1]["set_aside"].startswith("00000000.corrupt-")
    assert again.counters.wal_corruptions == 1
    write(again, ["1", "3"], [20])
    again.close()
    reports.clear()
    third = opened(tmp_path, reports=reports)
    assert samples_of(third)[("a", "3"), ("job", "x")].keys() == {20}
    assert reports == []
    third.close()


def test_torn_log_end(tmp_path):
    """A record cut short by a crash was never acknowledged: no report, nothing else lost."""
    tsdb = opened(tmp_path / "a")
    write(tsdb, ["1"], [1, 2])
    folder = crashed(tsdb, tmp_path / "b")
    write(tsdb, ["1"], [3, 4])
    whole = (tmp_path / "a" / "wal" / "00000000").read_bytes()
    size = (folder / "wal" / "00000000").stat().st_size
    (folder / "wal" / "00000000").write_bytes(whole[: size + 12])
    reports = Reports()
    again = opened(folder, reports=reports)
    assert (expected(["1"], [1, 2]), []) == (samples_of(again), reports)
    again.close()
    tsdb.close()


def one_series(ref, label):
    runs = LabelRuns.of_mappings([{"a": label, "job": "x"}])
    return encode_series_record(np.array([ref], np.uint64), runs)


def one_sample(ref, *times):
    n = len(times)
    columns = SampleColumns(
        np.full(n, ref, np.uint64), np.array(times, np.int64), np.array(times, np.float64)
    )
    return encode_samples_record(columns)


def test_undecodable_record(tmp_path):
    """Of a batch with a bad record all before it is taken and nothing after, as repair keeps it.

    A series after the damage must not be known: its record is gone from the log, and what would be
    written to it could not be replayed.
    """
    writer = WALWriter(tmp_path / "wal")
    bad = one_sample(1, 11)[:-3]
    writer.log([one_series(1, "1"), one_sample(1, 10), bad, one_series(2, "2"), one_sample(2, 12)])
    writer.close()
    tsdb = opened(tmp_path)
    assert expected(["1"], [10]) == samples_of(tsdb)
    write(tsdb, ["2"], [20])
    tsdb.close()
    again = opened(tmp_path)
    assert expected(["1"], [10]) | expected(["2"], [20]) == samples_of(again)
    again.close()


def test_undecodable_samples(tmp_path):
    """The same of a segment without series, which is taken record by record, and counted so."""
    writer = WALWriter(tmp_path / "wal")
    writer.log([one_series(1, "1")])
    writer.cut_segment()
    bad = one_sample(1, 11, 12)[:-3]
    histogram = bytes([RecordType.HISTOGRAMS])
    writer.log([one_sample(1, 10), histogram, bad, histogram, one_sample(1, 13)])
    writer.close()
    reports = Reports()
    tsdb = opened(tmp_path, reports=reports)
    assert expected(["1"], [10]) == samples_of(tsdb)
    assert tsdb.counters.wal_corruptions == 1
    assert ("the log has native histograms, which are not read yet", {"records": 1}) in reports
    tsdb.close()


def test_second_references(tmp_path):
    """A series logged under two references is one; neither is given away, and no sample is lost."""
    writer = WALWriter(tmp_path / "wal")
    writer.log([one_series(1, "1"), one_sample(1, 100)])
    writer.log([one_series(5, "1"), one_sample(5, 9000)])
    writer.close()
    tsdb = opened(tmp_path)
    assert tsdb.head.next_ref == 6
    for t in range(9100, 40_000, 300):
        write(tsdb, ["1", "2"], [t])
    # A checkpoint takes the log's beginning, with what the second reference says.
    for _ in range(3):
        tsdb.wal.cut_segment()
    Maintenance(tsdb)._truncate_log(5000)
    folder = crashed(tsdb, tmp_path / "b")
    assert (folder / "wal" / "checkpoint.00000002").exists() or list(folder.glob("wal/check*"))
    again = opened(folder)
    held = expected(["1"], [9000, *range(9100, 40_000, 300)])
    assert {**held, **expected(["2"], range(9100, 40_000, 300))} == samples_of(again, 5000)
    again.close()
    tsdb.close()


def test_chunks_of_second_references_interleave(tmp_path):
    """A series that came back keeps its head chunks, whichever of its references they are under."""
    tsdb = opened(tmp_path / "a")
    write(tsdb, ["1", "2"], [1000])
    write(tsdb, ["2"], range(2000, 20_000, 1000))
    Maintenance(tsdb).run()
    assert (10_000, 1) == (tsdb.blocks.maxt, tsdb.counters.head_series_removed)
    # It comes back as another reference, under which a chunk is closed.
    write(tsdb, ["1"], [21_000, 31_000])
    assert tsdb.jobs.run(tsdb.head.flush_closed) > 0
    # To a replay it has its first reference again: the next chunk is closed under that.
    second = opened(crashed(tsdb, tmp_path / "b"))
    write(second, ["1"], [41_000])
    assert second.jobs.run(second.head.flush_closed) > 0
    third = opened(crashed(second, tmp_path / "c"))
    held = expected(["1"], [1000, 21_000, 31_000, 41_000])
    assert {**held, **expected(["2"], range(1000, 20_000, 1000))} == samples_of(third)
    # The order of chunks outlives a cut, and the block has them.
    while third.blocks.maxt < 40_000:
        write(third, ["2"], [third.head.maxt + 5000])
        Maintenance(third).run()
    assert held.items() <= samples_of(third).items()
    for storage in (tsdb, second, third):
        storage.close()


def test_damaged_checkpoint(tmp_path):
    """A damaged checkpoint is an error that names it; the lock is free again."""
    tsdb = opened(tmp_path)
    for t in range(0, 60_000, 500):
        write(tsdb, ["1", "2"], [t])
        if t % 5000 == 0:
            tsdb.jobs.run(tsdb.wal.cut_segment)
            Maintenance(tsdb).run()
    tsdb.close()
    (checkpoint,) = tmp_path.glob("wal/checkpoint.*")
    damage(checkpoint / "00000000", 9)
    for _ in range(2):
        with pytest.raises(WALCorrupt, match="checkpoint"):
            opened(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_failed_log_write_keeps_the_series_record(tmp_path):
    """A series made by a request that the disk refused is logged with the next one taken."""
    tsdb = opened(tmp_path / "a")
    write(tsdb, ["0"], [1])
    faults = DiskFaults(bytes_left=0)
    tsdb.wal._open_segment = faults.opener()
    tsdb.wal.cut_segment()
    for names in (["1", "2"], ["2", "3"]):
        with pytest.raises(StorageUnwritable):
            write(tsdb, names, [2])
    assert samples_of(tsdb) == expected(["0"], [1])
    faults.bytes_left = 1 << 30
    assert write(tsdb, ["1"], [3]).series_created == 0
    write(tsdb, ["2", "3"], [4])
    again = opened(crashed(tsdb, tmp_path / "b"))
    held = expected(["0"], [1]) | expected(["1"], [3]) | expected(["2", "3"], [4])
    assert held == samples_of(again) == samples_of(tsdb)
    assert again.counters.replay_unknown_refs == 0
    again.close()
    tsdb.close()


def test_series_limit_half_way_keeps_the_series_record(tmp_path):
    """Series made before the limit stopped a request are logged with their first sample."""
    options = type(SMALL)(too_far_in_future_ms=0, series_max=64)
    tsdb = opened(tmp_path / "a", options)
    names = [f"{i:03d}" for i in range(80)]
    with pytest.raises(LimitExceeded, match="series"):
        write(tsdb, names, [1])
    assert (64, {}) == (tsdb.head.series, samples_of(tsdb))
    for name in names[:64]:
        assert write(tsdb, [name], [2]).stored == 1
    again = opened(crashed(tsdb, tmp_path / "b"), options)
    assert expected(names[:64], [2]) == samples_of(again)
    again.close()
    tsdb.close()


def test_append_limits(tmp_path):
    """Future, out of bounds, out of order and conflicting samples are named; the others stay."""
    options = type(SMALL)(min_block_ms=10_000, too_far_in_future_ms=1000, series_max=256)
    tsdb = opened(tmp_path, options)
    now = tsdb.clock.now_ms()
    first = write(tsdb, ["0"], [now + 1001])
    bound = f"samples are taken up to {now + 1000} ms"
    assert f'too far in future: {{a="0", job="x"}}, {bound}' == first.example
    ahead = write(tsdb, ["1"], [now, now + 1000, now + 1001])
    assert (2, {"too_far_in_future": 1}) == (ahead.stored, ahead.rejected)
    old = write(tsdb, ["2"], [now - 4000, now - 4001, now - 3000, now - 3500])
    assert (2, {"out_of_bounds": 1, "out_of_order": 1}) == (old.stored, old.rejected)
    early = write(tsdb, ["3"], [now - 4001])
    assert {"out_of_bounds": 1} == early.rejected
    bound = f"samples are taken from {now - 4000} ms on and up to {now + 1000} ms"
    assert f'out of bounds: {{a="3", job="x"}}, {bound}' == early.example
    # What is wrong with these is not that the series has newer ones.
    late, soon = write(tsdb, ["2"], [now - 4001]), write(tsdb, ["2"], [now + 1001])
    assert f'out of bounds: {{a="2", job="x"}}, {bound}' == late.example
    assert f'too far in future: {{a="2", job="x"}}, {bound}' == soon.example
    mixed = write(tsdb, ["2"], [now - 3000], 7.0)
    assert {"conflict": 1} == mixed.rejected
    newest = f"its newest sample is of {now - 3000} ms"
    assert f'conflict: {{a="2", job="x"}}, {newest}' == mixed.example
    assert f'{{a="2", job="x"}}, {newest}, {bound}' == old.example
    assert {"out_of_bounds": 1} == write(tsdb, ["4"], [-(1 << 63)]).rejected
    counters = tsdb.stats()
    assert (1, 3) == (counters.out_of_order_samples, counters.too_far_in_future_samples)
    assert (4, 1) == (counters.out_of_bound_samples, counters.duplicate_conflicts)
    bad = tsdb.append_and_wait(write_request(({"a": ""}, [(now, 1.0)]), ({"a": "5"}, [(now, 1.0)])))
    assert (1, {"invalid_labels": 1}) == (bad.stored, bad.rejected)
    assert "empty label value" in bad.example
    tsdb.close()


def test_first_sample_at_the_lowest_time(tmp_path):
    """The lowest of all timestamps, which stands for "none" inside, is refused."""
    tsdb = opened(tmp_path)
    for _ in range(2):
        assert {"out_of_bounds": 1} == write(tsdb, ["1"], [-(1 << 63)]).rejected
    assert write(tsdb, ["1"], [1 - (1 << 63)]).stored == 1
    tsdb.close()


HOLDER = """
import sys, pathlib
from thanostack.lib.tsdb.lock_file import LockFile
lock = LockFile(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_locked_by_another_process(tmp_path):
    """A directory in use is refused with the holder's number; a killed holder frees it."""
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageUnwritable, match=f"locked by process {holder.pid}: "):
            opened(tmp_path)
        holder.kill()
    assert (tmp_path / "lock").exists()
    opened(tmp_path).close()
    assert not (tmp_path / "lock").exists()


def test_lock_of_a_removed_file(tmp_path, monkeypatch):
    """A lock won on a file that its last holder just removed does not count."""
    first = LockFile(tmp_path)
    real, tries = os.open, []

    def opening(*arguments):
        fd = real(*arguments)
        if not tries:
            tries.append(1)
            first.release()
        return fd

    monkeypatch.setattr(os, "open", opening)
    second = LockFile(tmp_path)
    with pytest.raises(StorageUnwritable):
        LockFile(tmp_path)
    second.release()


def test_unusable_directory(tmp_path):
    """A directory that cannot be used is an error of the storage, whatever is wrong with it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnwritable, match="file"):
        opened(tmp_path / "file" / "tenant")
    (tmp_path / "a" / "wal").mkdir(parents=True)
    (tmp_path / "a" / "wal" / "00000000").mkdir()
    with pytest.raises(StorageUnwritable, match="Is a directory"):
        opened(tmp_path / "a")
    assert not (tmp_path / "a" / "lock").exists()


def test_close_under_load(tmp_path):
    """Requests that meet a closing tenant are told so; all acknowledged before are there."""
    tsdb = opened(tmp_path)
    stored, refused = [], []

    def writer(name):
        for t in range(100_000):
            try:
                write(tsdb, [name], [t // 20])
            except StorageUnwritable as error:
                refused.append(str(error))
                return
            stored.append((name, t // 20))

    threads = [threading.Thread(target=writer, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    while len(stored) < 60:
        time.sleep(0.001)
    tsdb.close()
    tsdb.close()
    for thread in threads:
        thread.join(30)
    assert ["the storage is closed"] * 3 == refused
    again = opened(tmp_path)
    held = samples_of(again)
    assert all(t in held[("a", name), ("job", "x")] for name, t in stored)
    again.close()


@pytest.mark.parametrize(("written", "is_told"), [(b"", False), (b"x" * 40, True)])
def test_a_log_of_late_samples_is_not_passed_over_in_silence(tmp_path, written, is_told):
    """A Thanos with an out-of-order window leaves one; an empty one says nothing."""
    (tmp_path / "wbl").mkdir()
    (tmp_path / "wbl" / "00000000").write_bytes(written)
    reports = Reports()
    opened(tmp_path, reports=reports).close()
    said = "the folder has samples out of order, which are not read yet" in reports.messages
    assert is_told == said
