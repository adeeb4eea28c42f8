"""Checkpoints: what is wanted is in them, once, and a failed one leaves nothing."""

import numpy as np
import pytest

from thanostack.lib.foundation.errors import StorageUnwritable, WALCorrupt
from thanostack.lib.wal import checkpoint as checkpoint_module
from thanostack.lib.wal.checkpoint import (
    delete_checkpoints,
    last_checkpoint,
    log_readers,
    write_checkpoint,
)
from thanostack.lib.wal.records import (
    TombstoneColumns,
    decode_samples,
    decode_series,
    decode_tombstones,
    encode_tombstones_record,
)
from thanostack.lib.wal.writer import WALWriter
from thanostack.testing.reference.wal_records import uvarint, varint
from thanostack.testing.wal import records_of, samples_record, series_record


def even(refs):
    return refs % np.uint64(2) == 0


def everything(refs):
    return np.ones(len(refs), np.bool_)


def metadata(ref, text):
    fields = b"\x02\x04UNIT\x00\x04HELP" + uvarint(len(text)) + text
    return uvarint(ref) + b"\x01" + fields


def exemplar(time):
    return b"\x04" + bytes(16) + b"\0" + varint(time) + bytes(8) + b"\0"


def columns(folder):
    """Return ([refs of series], [(ref, t) of samples]) of a whole log in order of reading."""
    series, samples = [], []
    for reader in log_readers(folder):
        for batch in reader:
            series += decode_series(batch).refs.tolist()
            found = decode_samples(batch)
            samples += zip(found.refs.tolist(), found.timestamps.tolist(), strict=True)
    return series, samples


@pytest.fixture
def writer(tmp_path):
    writer = WALWriter(tmp_path)
    writer.log([series_record(1, 10)])
    for time in range(0, 1000, 100):
        writer.log([samples_record(1, 10, time)])
    writer.cut_segment()
    writer.log([samples_record(1, 10, 1000)])
    writer.cut_segment()
    writer.log([samples_record(1, 10, 1100)])
    yield writer
    writer.close()


def test_keeps_what_is_wanted(tmp_path, writer):
    """Series by choice, samples by series and time; the log reads on after the checkpoint."""
    stats = write_checkpoint(tmp_path, 0, 1, keep=even, mint=800)
    assert (tmp_path / "checkpoint.00000001", 1) == last_checkpoint(tmp_path)
    assert (
        stats.series,
        stats.series_dropped,
        stats.samples,
        stats.samples_dropped,
    ) == (5, 5, 15, 95)
    writer.truncate(2)
    series, samples = columns(tmp_path)
    assert series == [2, 4, 6, 8, 10]
    kept = [(ref, t) for t in (800, 900, 1000) for ref in (2, 4, 6, 8, 10)]
    assert kept + [(ref, 1100) for ref in range(1, 11)] == samples


def test_folds_the_checkpoint_before(tmp_path, writer):
    """A second checkpoint takes over the first; the first can go then."""
    write_checkpoint(tmp_path, 0, 1, keep=everything, mint=0)
    writer.truncate(2)
    writer.cut_segment()
    write_checkpoint(tmp_path, 2, 2, keep=even, mint=950)
    delete_checkpoints(tmp_path, 2)
    writer.truncate(3)
    assert (tmp_path / "checkpoint.00000002", 2) == last_checkpoint(tmp_path)
    assert not (tmp_path / "checkpoint.00000001").exists()
    series, samples = columns(tmp_path)
    assert series == [2, 4, 6, 8, 10]
    assert [(ref, t) for t in (1000, 1100) for ref in (2, 4, 6, 8, 10)] == samples


def test_other_records(tmp_path):
    """Tombstones by series and end, metadata the newest only, old exemplars and unknowns go."""
    stones = TombstoneColumns(
        np.array([1, 2, 2], np.uint64), np.array([0, 0, 0]), np.array([900, 900, 100])
    )
    writer = WALWriter(tmp_path)
    young, old = exemplar(700), exemplar(300)
    first = b"\x06" + metadata(2, b"old") + metadata(4, b"four") + metadata(3, b"gone")
    second = b"\x06" + metadata(2, b"new")
    writer.log([encode_tombstones_record(stones), first, young, old, b"\x63unknown", second])
    writer.cut_segment()
    stats = write_checkpoint(tmp_path, 0, 0, keep=even, mint=500)
    writer.close()
    records = records_of(tmp_path / "checkpoint.00000000")
    newest = b"\x06" + metadata(4, b"four") + metadata(2, b"new")
    assert [3, young, newest] == [records[0][0], *records[1:]]
    assert (stats.tombstones, stats.tombstones_dropped) == (1, 2)
    assert (stats.metadata, stats.metadata_dropped) == (2, 2)
    reader = next(iter(log_readers(tmp_path)))
    assert [
        (int(stone.refs[0]), int(stone.maxt[0])) for stone in map(decode_tombstones, reader)
    ] == [(2, 900)]


def test_metadata_in_several_records(tmp_path, monkeypatch):
    """Much metadata is split into records of bounded size."""
    monkeypatch.setattr(checkpoint_module, "_METADATA_RECORD_BYTES", 64)
    writer = WALWriter(tmp_path)
    writer.log([b"\x06" + b"".join(metadata(ref, b"help") for ref in range(1, 9))])
    writer.cut_segment()
    write_checkpoint(tmp_path, 0, 0, keep=everything, mint=0)
    writer.close()
    records = records_of(tmp_path / "checkpoint.00000000")
    assert len(records) > 1
    expected = b"".join(metadata(ref, b"help") for ref in range(1, 9))
    assert expected == b"".join(record[1:] for record in records)


def test_damage_ends_it(tmp_path, writer):
    """A segment that does not read leaves no checkpoint and no temporary folder."""
    path = tmp_path / "00000000"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WALCorrupt):
        write_checkpoint(tmp_path, 0, 1, keep=everything, mint=0)
    assert list(tmp_path.glob("checkpoint*")) == []


def test_torn_segment_ends_it(tmp_path, writer):
    """A torn end inside the range is damage too: later segments follow it."""
    path = tmp_path / "00000001"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(WALCorrupt):
        write_checkpoint(tmp_path, 0, 1, keep=everything, mint=0)


def test_gap_after_a_checkpoint(tmp_path, writer):
    """Segments between the checkpoint and the range, or the log, must not be missing."""
    write_checkpoint(tmp_path, 0, 0, keep=everything, mint=0)
    with pytest.raises(WALCorrupt, match="folded next"):
        write_checkpoint(tmp_path, 2, 2, keep=everything, mint=0)
    (tmp_path / "00000001").unlink()
    (tmp_path / "00000000").unlink()
    with pytest.raises(WALCorrupt, match="goes on with segment 2"):
        list(log_readers(tmp_path))


def test_leftovers_are_cleared(tmp_path, writer):
    """What an interrupted checkpoint left is no checkpoint and is deleted by the next."""
    leftover = tmp_path / "checkpoint.00000009.tmp"
    leftover.mkdir()
    (leftover / "00000000").write_bytes(b"x")
    assert last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 0, 0, keep=everything, mint=0)
    assert not leftover.exists()


def test_disk_that_does_not_sync(tmp_path, writer, monkeypatch):
    """A checkpoint that did not become durable is not put in place."""

    def refuse(_segment):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("thanostack.lib.wal.segments.SegmentFile.sync", refuse)
    with pytest.raises(StorageUnwritable):
        write_checkpoint(tmp_path, 0, 1, keep=everything, mint=0)
    assert list(tmp_path.glob("checkpoint*")) == []
