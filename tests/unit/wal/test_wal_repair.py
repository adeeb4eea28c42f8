"""Repair: the log reads again up to the damage, and nothing is deleted."""

import pytest

from thanostack.lib.foundation.errors import WALCorrupt
from thanostack.lib.wal.checkpoint import write_checkpoint
from thanostack.lib.wal.reader import read_records
from thanostack.lib.wal.repair import repair
from thanostack.lib.wal.segments import PAGE_BYTES
from thanostack.lib.wal.writer import WALOptions, WALWriter
from thanostack.testing.wal import records_of, samples_record, series_record


def log_of(folder, segments=3, records=5):
    """Write a log and return the records by segment, with the offset of each."""
    writer, offsets = WALWriter(folder, WALOptions(compression="none")), []
    for i in range(segments):
        offsets.append([])
        for k in range(records):
            offsets[i].append(writer.position()[1])
            writer.log([b"%d-%d" % (i, k) * 100])
        if i < segments - 1:
            writer.cut_segment()
    writer.close()
    return offsets


def damage(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def corruption_of(folder):
    reader = read_records(folder)
    with pytest.raises(WALCorrupt) as caught:
        list(reader)
    return caught.value


def test_damage_in_the_middle(tmp_path):
    """What is before the damage stays, what is after it is set aside, and writing goes on."""
    offsets = log_of(tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    damage(tmp_path / "00000001", offsets[1][3] + 50)
    found = (tmp_path / "00000001").read_bytes()
    report = repair(tmp_path, corruption_of(tmp_path), now_ms=17)
    assert (1, offsets[1][3]) == (report.segment, report.kept_bytes)
    assert 3 * PAGE_BYTES - PAGE_BYTES - offsets[1][3] == report.lost_bytes
    kept = [b"%d-%d" % (i, k) * 100 for i, n in ((0, 5), (1, 3)) for k in range(n)]
    assert kept == records_of(tmp_path)
    assert found == (tmp_path / "00000001.corrupt-17").read_bytes()
    assert whole["00000002"] == (tmp_path / "00000002.corrupt-17").read_bytes()
    assert {tmp_path / f"0000000{n}.corrupt-17" for n in (1, 2)} == set(report.set_aside)
    writer = WALWriter(tmp_path)
    writer.log([b"on"])
    assert [*kept, b"on"] == records_of(tmp_path)


def test_damage_in_the_first_record(tmp_path):
    """A segment without one good record becomes empty, and stays, so that numbers have no gap."""
    log_of(tmp_path, segments=2)
    damage(tmp_path / "00000000", 3)
    report = repair(tmp_path, corruption_of(tmp_path))
    assert (records_of(tmp_path), report.kept_bytes) == ([], 0)
    assert (tmp_path / "00000000").stat().st_size == 0


def test_repairs_at_one_instant(tmp_path):
    """A second repair of a segment at the same time keeps what the first set aside."""
    offsets = log_of(tmp_path, segments=1)
    for i in (3, 1):
        damage(tmp_path / "00000000", offsets[0][i] + 50)
        repair(tmp_path, corruption_of(tmp_path), now_ms=5)
    assert len(records_of(tmp_path)) == 1
    names = ["00000000", "00000000.corrupt-5", "00000000.corrupt-6"]
    assert names == sorted(path.name for path in tmp_path.iterdir())


def test_torn_end(tmp_path):
    """An unfinished last record is taken off as upstream does, the page is padded."""
    offsets = log_of(tmp_path, segments=1)
    path = tmp_path / "00000000"
    path.write_bytes(path.read_bytes()[: offsets[0][4] + 20])
    reader = read_records(tmp_path)
    list(reader)
    report = repair(tmp_path, reader.torn)
    assert report.lost_bytes == 20
    assert path.stat().st_size == PAGE_BYTES
    assert len(records_of(tmp_path)) == 4


def test_record_that_does_not_decode(tmp_path):
    """Damage that only decoding finds is cut at its record as well."""
    offsets = log_of(tmp_path, segments=1)
    error = WALCorrupt(str(tmp_path / "00000000"), offsets[0][2], "does not decode")
    repair(tmp_path, error)
    assert len(records_of(tmp_path)) == 2


def test_checkpoint_is_not_repaired(tmp_path):
    """Damage in a checkpoint is handed back, and nothing is touched."""
    writer = WALWriter(tmp_path)
    writer.log([series_record(1, 50), samples_record(1, 50, 10)])
    writer.cut_segment()
    write_checkpoint(tmp_path, 0, 0, keep=lambda refs: refs > 0, mint=0)
    writer.close()
    damage(tmp_path / "checkpoint.00000000" / "00000000", 30)
    error = corruption_of(tmp_path / "checkpoint.00000000")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WALCorrupt):
        repair(tmp_path, error)
    assert before == sorted(tmp_path.rglob("*"))
