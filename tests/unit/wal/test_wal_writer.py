"""Appending: what is acknowledged can be read back, what is not leaves no trace."""

import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from thanostack.lib.foundation.errors import StorageUnwritable, WALCorrupt
from thanostack.lib.wal.segments import PAGE_BYTES, list_segments
from thanostack.lib.wal.writer import WALOptions, WALWriter
from thanostack.testing.reference.wal_frames import frame
from thanostack.testing.wal import DiskFaults, records_of, samples_record, series_record

SMALL = WALOptions(segment_bytes=4 * PAGE_BYTES, compression="none")


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def test_bytes_are_the_specification(tmp_path):
    """Uncompressed records are framed as the reference frames them, one after another."""
    writer = WALWriter(tmp_path, SMALL)
    records = [b"", b"\x01abc", noise(40000).tobytes(), b"x" * 25500, b"tail"]
    for record in records:
        writer.log([record])
    expected = b""
    for record in records:
        expected += frame(record, 0, len(expected))
    assert (0, len(expected)) == writer.position()
    assert expected == (tmp_path / "00000000").read_bytes()
    writer.close()
    padded = (tmp_path / "00000000").read_bytes()
    assert expected + bytes(-len(expected) % PAGE_BYTES) == padded


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_round_trip(tmp_path, compression):
    """Records of all sizes, arrays and bytes, come back in order under each compression."""
    writer = WALWriter(tmp_path, WALOptions(4 * PAGE_BYTES, compression))
    records = [noise(n, n) for n in (1, 300, 32761, 32762, 50000)]
    records += [b"\x02" * n for n in (5, 20000, 300000)] + [b""]
    writer.log(records[:3])
    for record in records[3:]:
        writer.log([record])
    writer.close()
    assert [bytes(record) for record in records] == records_of(tmp_path)
    if compression != "none":
        assert writer.counters.bytes_saved > 100000


def test_incompressible_stays_plain(tmp_path):
    """A record that compression would not shrink is stored as it is, without the flag."""
    writer = WALWriter(tmp_path)
    writer.log([noise(500)])
    assert (tmp_path / "00000000").read_bytes()[0] == 1
    writer.log([b"a" * 500])
    assert (tmp_path / "00000000").read_bytes()[507] == 1 | 0x08


def test_rotates_before_a_call_that_does_not_fit(tmp_path):
    """A call's records lie in one segment, even if they are more than a segment."""
    writer = WALWriter(tmp_path, SMALL)
    writer.log([noise(3 * PAGE_BYTES)])
    writer.log([noise(PAGE_BYTES), noise(PAGE_BYTES)])
    assert (writer.current_segment, writer.first_and_last()) == (1, (0, 1))
    writer.log([noise(6 * PAGE_BYTES)])
    assert writer.current_segment == 2
    writer.log([b"next"])
    assert writer.current_segment == 3
    writer.close()
    sizes = [segment.path.stat().st_size // PAGE_BYTES for segment in list_segments(tmp_path)]
    assert sizes == [4, 3, 7, 1]


def test_opens_a_new_segment(tmp_path):
    """Each opening starts a segment after the last; nothing already there is touched."""
    for i in range(3):
        writer = WALWriter(tmp_path, SMALL)
        assert i == writer.current_segment
        writer.log([b"%d" % i])
        writer.close()
    assert records_of(tmp_path) == [b"0", b"1", b"2"]


def test_opening_cuts_a_torn_record(tmp_path):
    """A record that a crash left half written is cut off, so that it ends no later reading."""
    writer = WALWriter(tmp_path, SMALL)
    writer.log([b"good"])
    with (tmp_path / "00000000").open("ab") as file:
        file.write(frame(b"y" * 1000, 0, 11)[:600])
    again = WALWriter(tmp_path, SMALL)
    assert again.torn_bytes_dropped == 600
    again.log([b"after"])
    assert records_of(tmp_path) == [b"good", b"after"]


def test_opening_believes_who_has_read_the_log(tmp_path):
    """A log that is known to end whole is not read again; writing goes on after it."""
    (tmp_path / "00000000").write_bytes(b"unreadable")
    writer = WALWriter(tmp_path, SMALL, ends_whole=True)
    assert (0, 1) == (writer.torn_bytes_dropped, writer.current_segment)
    writer.close()


def test_opening_refuses_a_damaged_log(tmp_path):
    """Damage before the end is not cut off silently."""
    (tmp_path / "00000000").write_bytes(frame(b"x", 0, 0)[:-1] + b"y" + bytes(100))
    with pytest.raises(WALCorrupt, match="checksum"):
        WALWriter(tmp_path, SMALL)


@pytest.mark.parametrize("budget", [0, 1, 6, 7, 8, 500, 1006])
def test_full_disk_leaves_nothing(tmp_path, budget):
    """A call that the disk cuts short leaves the segment as it was; the next one works."""
    faults = DiskFaults()
    writer = WALWriter(tmp_path, SMALL, open_segment=faults.opener())
    writer.log([b"before"])
    faults.bytes_left = budget
    with pytest.raises(StorageUnwritable) as caught:
        writer.log([noise(500), noise(500)])
    assert caught.value.retry_after_s > 0
    assert records_of(tmp_path) == [b"before"]
    assert (writer.counters.writes_failed, writer.failed) == (1, None)
    faults.bytes_left = 1 << 30
    writer.log([b"after"])
    assert records_of(tmp_path) == [b"before", b"after"]


def test_short_writes_are_continued(tmp_path):
    """A disk that takes half of each write loses nothing."""
    writer = WALWriter(tmp_path, SMALL, open_segment=DiskFaults(short_writes=True).opener())
    writer.log([b"one", noise(70000)])
    assert [b"one", noise(70000).tobytes()] == records_of(tmp_path)


def test_failed_truncate_is_final(tmp_path):
    """If a half-written call cannot be cut off the log is read-only until it is opened anew."""
    faults = DiskFaults()
    writer = WALWriter(tmp_path, SMALL, open_segment=faults.opener())
    writer.log([b"before"])
    faults.bytes_left, faults.truncate_fails = 300, True
    with pytest.raises(StorageUnwritable):
        writer.log([noise(500)])
    faults.bytes_left, faults.truncate_fails = 1 << 30, False
    for call in (lambda: writer.log([b"more"]), writer.cut_segment):
        with pytest.raises(StorageUnwritable, match="read-only"):
            call()
    writer.close()
    again = WALWriter(tmp_path, SMALL)
    again.log([b"after"])
    assert records_of(tmp_path) == [b"before", b"after"]


def test_failed_sync_goes_on_in_a_new_segment(tmp_path):
    """With `always`, a failed sync is no acknowledgement, and its segment is not written again."""
    faults, options = DiskFaults(), WALOptions(4 * PAGE_BYTES, "none", "always")
    writer = WALWriter(tmp_path, options, open_segment=faults.opener())
    writer.log([b"before"])
    faults.sync_fails = True
    with pytest.raises(StorageUnwritable):
        writer.log([b"lost"])
    faults.sync_fails = False
    writer.log([b"after"])
    assert writer.current_segment == 1
    assert records_of(tmp_path) == [b"before", b"after"]
    assert writer.counters.fsyncs_failed >= 1


def test_no_new_segment_on_a_full_disk(tmp_path):
    """When no segment can be created the old one goes on."""
    faults = DiskFaults()
    writer = WALWriter(tmp_path, SMALL, open_segment=faults.opener())
    writer.log([b"before"])
    faults.open_fails = True
    with pytest.raises(StorageUnwritable):
        writer.cut_segment()
    with pytest.raises(StorageUnwritable):
        writer.log([noise(5 * PAGE_BYTES)])
    writer.log([b"after"])
    assert records_of(tmp_path) == [b"before", b"after"]
    assert writer.current_segment == 0


def test_interval_sync_runs_behind(tmp_path):
    """With `interval` what was logged is synced soon, once."""
    writer = WALWriter(tmp_path, WALOptions(fsync="interval", fsync_interval_ms=5))
    writer.log([b"record"])
    deadline = time.monotonic() + 20
    while writer.counters.fsyncs == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert writer.counters.fsyncs == 1
    writer.close()


def test_truncate_drops_the_oldest(tmp_path):
    """Segments below the number go; the current one never does."""
    writer = WALWriter(tmp_path, SMALL)
    for i in range(4):
        writer.log([b"%d" % i])
        writer.cut_segment()
    writer.truncate(2)
    assert writer.first_and_last() == (2, 4)
    writer.truncate(99)
    assert writer.first_and_last() == (4, 4)
    writer.close()
    assert records_of(tmp_path) == []
    assert writer.size_bytes == 0


def test_counters(tmp_path):
    """Pages, records and bytes are counted as they reach the file."""
    writer = WALWriter(tmp_path, SMALL)
    writer.log([noise(PAGE_BYTES - 14), b""])
    writer.log([noise(20)])
    counters = writer.counters
    assert (
        counters.records,
        counters.pages_completed,
        counters.bytes_written,
    ) == (3, 1, PAGE_BYTES + 27)
    assert counters.record_bytes == PAGE_BYTES + 6
    assert writer.size_bytes == counters.bytes_written


_LIMITED = """
import pathlib, signal, sys
import numpy as np
from thanostack.lib.foundation.errors import StorageUnwritable
from thanostack.lib.wal.writer import WALOptions, WALWriter
writer = WALWriter(pathlib.Path(sys.argv[1]), WALOptions(compression="none"))
for i in range(100):
    try:
        writer.log([bytes([i]) * 1000])
    except StorageUnwritable:
        print(i, writer.failed)
        break
"""


def test_real_file_size_limit(tmp_path):
    """A limit of the operating system in the middle of a record leaves the records before it."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))

    program = [sys.executable, "-P", "-c", _LIMITED, str(tmp_path)]
    out = subprocess.run(program, capture_output=True, preexec_fn=limit, check=True)
    assert out.stdout.strip() == b"9 None"
    assert [bytes([i]) * 1000 for i in range(9)] == records_of(tmp_path)


def test_sample_records_are_small(tmp_path):
    """Samples of one scrape take some bytes each; their series are logged before them."""
    writer = WALWriter(tmp_path)
    writer.log([series_record(1, 1000), samples_record(1, 1000, 1_700_000_000_000)])
    writer.close()
    assert [record[0] for record in records_of(tmp_path)] == [1, 2]
    assert writer.counters.bytes_written < 25000
