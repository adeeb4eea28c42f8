"""Reading: every good record, then nothing or an error, whatever the bytes are."""

import random
import struct

import numpy as np
import pytest

from thanostack.lib.foundation.errors import WALCorrupt
from thanostack.lib.wal import reader as reader_module
from thanostack.lib.wal.reader import read_records
from thanostack.lib.wal.segments import PAGE_BYTES, list_segments
from thanostack.lib.wal.writer import WALOptions, WALWriter
from thanostack.testing.reference.wal_frames import frame
from thanostack.testing.wal import records_of, samples_record, series_record

RECORDS = [b"\x01abc", b"", b"r" * 700, bytes(range(256)), b"last"]


def framed(records):
    out, ends = b"", []
    for record in records:
        out += frame(record, 0, len(out))
        ends.append(len(out))
    return out, ends


def outcome(folder):
    """Return (records, the error raised, the torn error)."""
    found: list[bytes] = []
    reader = read_records(folder)
    try:
        for batch in reader:
            found += [batch.record(i).tobytes() for i in range(len(batch))]
    except WALCorrupt as error:
        return found, error, None
    return found, None, reader.torn


def test_truncated_at_every_byte(tmp_path):
    """A newest segment cut anywhere gives its whole records, and is torn unless cut between two."""
    data, ends = framed(RECORDS)
    path = tmp_path / "00000000"
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        records, error, torn = outcome(tmp_path)
        whole = sum(end <= size for end in ends)
        assert error is None
        # A type byte and zeros read as an empty record, upstream too: length 0, CRC 0.
        rest = data[[0, *ends][whole] : size]
        empty = [b""] if rest and not any(rest[1:]) else []
        assert RECORDS[:whole] + empty == records
        assert (torn is not None) == (size not in {0, *ends} and not empty)


def test_torn_before_the_newest_segment_is_corrupt(tmp_path):
    """Only the very end of a log may be unfinished."""
    data, ends = framed(RECORDS)
    (tmp_path / "00000000").write_bytes(data[: ends[2] - 10])
    (tmp_path / "00000001").write_bytes(frame(b"more", 0, 0))
    records, error, _ = outcome(tmp_path)
    assert RECORDS[:2] == records
    assert (str(tmp_path / "00000000"), ends[1]) == (error.file, error.offset)


def test_torn_between_fragments(tmp_path):
    """A record whose later pages never reached the disk is torn where it begins."""
    whole = frame(b"first", 0, 0)
    whole += frame(b"z" * 100_000, 0, len(whole))
    (tmp_path / "00000000").write_bytes(whole[: 2 * PAGE_BYTES])
    records, error, torn = outcome(tmp_path)
    assert (records, error, torn.offset) == ([b"first"], None, 12)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"\x05", "unexpected record type"),
        (b"\x21", "unexpected record type"),
        (b"\x01\xff\xff", "leaves its page"),
        (b"\x01\x00\x04\x00\x00\x00\x00abcd", "unexpected checksum"),
        (frame(b"q", 0, 0).replace(b"\x01", b"\x04", 1), "does not follow"),
        (frame(b"q", 0, 0).replace(b"\x01", b"\x03", 1), "does not follow"),
        (b"\x00\x00\x01", "non-zero byte in padded page"),
        (frame(b"\xff\xff\xff", 0x08, 0), "snappy record"),
        (frame(b"nozstd", 0x10, 0), "zstd record"),
    ],
)
def test_damage_in_the_middle(tmp_path, damage, message):
    """Each kind of damage is named, after the records before it, at its place in the file."""
    good, ends = framed(RECORDS)
    rest = b"\x01" * 100 + frame(b"later", 0, 0)
    (tmp_path / "00000003").write_bytes(good + damage + rest + bytes(PAGE_BYTES))
    records, error, _ = outcome(tmp_path)
    assert records == RECORDS
    assert message in error.message
    assert (ends[-1], str(tmp_path / "00000003")) == (error.offset, error.file)


def test_missing_segment(tmp_path):
    """A gap between segment numbers is damage."""
    for name in ("00000001", "00000003"):
        (tmp_path / name).write_bytes(frame(b"x", 0, 0))
    with pytest.raises(WALCorrupt, match="one is missing"):
        read_records(tmp_path)


def test_names_that_are_no_segments(tmp_path):
    """Other names are passed over; any number of digits is a segment, as upstream takes it."""
    for name in ("0000000007", "8", "00000009.corrupt-1", "checkpoint.00000001", "-1", "+3", "٣"):
        (tmp_path / name).write_bytes(frame(name.encode(), 0, 0))
    assert [segment.number for segment in list_segments(tmp_path)] == [7, 8]


def test_range_of_segments(tmp_path):
    """First and last are inclusive; an empty or missing folder has no records."""
    writer = WALWriter(tmp_path / "wal")
    for i in range(4):
        writer.log([b"%d" % i])
        writer.cut_segment()
    writer.close()
    assert records_of(tmp_path / "wal", 1, 2) == [b"1", b"2"]
    assert records_of(tmp_path / "nothing") == []


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_small_reads_and_batches(tmp_path, monkeypatch, compression):
    """Records beyond what is read or held at a time come back whole, with their positions."""
    monkeypatch.setattr(reader_module, "READ_BYTES", PAGE_BYTES)
    monkeypatch.setattr(reader_module, "BATCH_BYTES", 5000)
    monkeypatch.setattr(reader_module, "_RECORDS_MAX", 7)
    writer = WALWriter(tmp_path, WALOptions(compression=compression))
    random_bytes = random.Random(5)
    records = [random_bytes.randbytes(n) * 3 for n in (*range(60), 2000, 50_000, 3, 1700, 1700)]
    starts = []
    for record in records:
        starts.append(writer.position()[1])
        writer.log([record])
    writer.close()
    assert records == records_of(tmp_path)
    positions = [p for batch in read_records(tmp_path) for p in batch.positions.tolist()]
    assert starts == positions


def test_zstd_frames_of_upstream_shape(tmp_path):
    """A record that compresses a thousandfold is decompressed without knowing its size."""
    writer = WALWriter(tmp_path, WALOptions(compression="zstd"))
    writer.log([bytes(3_000_000), b"x"])
    assert [bytes(3_000_000), b"x"] == records_of(tmp_path)


def test_mutated_segments(tmp_path):
    """Whatever single bytes change, reading ends in records or WALCorrupt, a prefix is intact."""
    rng = random.Random(11)
    writer = WALWriter(tmp_path)
    for i in range(12):
        writer.log([series_record(1, 40), samples_record(1, 40 + i, i), b"\x02" * 3000])
    writer.close()
    path = tmp_path / "00000000"
    whole, good = path.read_bytes(), records_of(tmp_path)
    used = len(whole.rstrip(b"\0"))
    for _ in range(300):
        data, at = bytearray(whole), rng.randrange(used)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        records, error, torn = outcome(tmp_path)
        assert error is not None or torn is not None
        assert good[: len(records)] == records


def test_random_segments(tmp_path):
    """Noise is refused, never followed."""
    rng = np.random.default_rng(3)
    for size in (1, 7, 100, PAGE_BYTES, 3 * PAGE_BYTES + 5):
        (tmp_path / "00000000").write_bytes(rng.integers(1, 256, size).astype(np.uint8).tobytes())
        _, error, torn = outcome(tmp_path)
        assert error is not None or torn is not None


def test_lying_snappy_length(tmp_path):
    """A block that claims four gigabytes is refused without allocating them."""
    block = b"\xff\xff\xff\xff\x0f" + b"\x00a"
    (tmp_path / "00000000").write_bytes(frame(b"ok", 0, 0) + frame(block, 0x08, 9))
    records, error, _ = outcome(tmp_path)
    assert records == [b"ok"]
    assert "snappy" in error.message


def test_file_that_shrinks_is_an_error(tmp_path):
    """A segment that loses bytes while it is read is damage, not an endless loop."""
    path = tmp_path / "00000000"
    path.write_bytes(frame(b"a" * (40 * PAGE_BYTES), 0, 0))
    walker = reader_module.SegmentWalker(path)
    path.write_bytes(struct.pack(">I", 1))
    with pytest.raises(WALCorrupt, match="shorter"):
        walker.next_records()
    walker.close()
