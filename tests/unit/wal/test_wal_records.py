"""Record wrappers: batches in, columns out, damage at its place."""

import numpy as np
import pytest

from thanostack.lib.foundation.errors import WALCorrupt
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.wal.reader import read_records
from thanostack.lib.wal.records import (
    UNKNOWN_TYPE,
    DecodeScratch,
    SampleColumns,
    TombstoneColumns,
    decode_mmap_markers,
    decode_samples,
    decode_series,
    decode_tombstones,
    encode_mmap_markers_record,
    encode_samples_record,
    encode_series_record,
    encode_tombstones_record,
    record_types,
)
from thanostack.lib.wal.writer import WALWriter
from thanostack.testing.reference import wal_records as reference
from thanostack.testing.wal import samples_record, series_record


def batch_of(folder, *records):
    writer = WALWriter(folder)
    writer.log(list(records))
    writer.close()
    (batch,) = read_records(folder)
    return batch


def test_series_and_samples(tmp_path):
    """Types lie mixed in a batch; each decoder takes its own, an empty record is of no type."""
    batch = batch_of(
        tmp_path, series_record(5, 3), b"", samples_record(5, 3, 77), b"\x63x", series_record(8, 1)
    )
    assert record_types(batch).tolist() == [1, UNKNOWN_TYPE, 2, 0x63, 1]
    series, samples = decode_series(batch), decode_samples(batch)
    assert series.refs.tolist() == [5, 6, 7, 8]
    assert series.runs.mapping(3) == {"__name__": "requests_total", "pod": "pod-8"}
    assert (samples.refs.tolist(), samples.timestamps.tolist()) == ([5, 6, 7], [77] * 3)
    assert samples.values.tolist() == [5.0, 6.0, 7.0]


def test_unsorted_labels_become_canonical(tmp_path):
    """A log of a careless writer still gives canonical runs."""
    record = reference.encode_series([(9, [(b"b", b"2"), (b"c", b""), (b"a", b"1")])])
    series = decode_series(batch_of(tmp_path, record))
    assert series.runs.labels(0) == ((b"a", b"1"), (b"b", b"2"))


@pytest.mark.parametrize("decode", [decode_series, decode_samples, decode_tombstones])
def test_bad_record_names_its_place(tmp_path, decode):
    """A record that does not decode is WALCorrupt at the record's offset in its segment."""
    writer = WALWriter(tmp_path)
    writer.log([b"\x02"])
    at = writer.position()[1]
    writer.log([b"\x01\x02\x03"] if decode is decode_series else [b"\x02\x03", b"\x03\x04\x05"])
    writer.close()
    (batch,) = read_records(tmp_path)
    with pytest.raises(WALCorrupt, match="does not decode") as caught:
        decode(batch)
    assert (str(tmp_path / "00000000"), at) <= (caught.value.file, caught.value.offset)


def test_scratch_is_reused(tmp_path):
    """With a scratch the columns of the next batch lie where those of the last one lay."""
    batch, scratch = batch_of(tmp_path, samples_record(1, 10, 5)), DecodeScratch()
    first, second = decode_samples(batch, scratch), decode_samples(batch, scratch)
    assert np.shares_memory(first.values, second.values)
    assert not np.shares_memory(first.values, decode_samples(batch).values)


def test_values_keep_their_bits(tmp_path):
    """NaNs, among them the stale marker, and negative zero keep their bit patterns."""
    bits = np.array([0x7FF0000000000002, 0x7FF8000000000001, 1 << 63], np.uint64)
    columns = SampleColumns(bits, np.array([-5, 0, 2**63 - 1]), bits.view(np.float64))
    batch = batch_of(tmp_path, encode_samples_record(columns))
    samples = decode_samples(batch)
    assert bits.tolist() == samples.values.view(np.uint64).tolist() == samples.refs.tolist()
    assert samples.timestamps.tolist() == [-5, 0, 2**63 - 1]


def test_tombstones(tmp_path):
    """Any bounds, the whole of time included, come back."""
    low, high = -(2**63), 2**63 - 1
    stones = TombstoneColumns(
        np.array([1, 2**64 - 1], np.uint64), np.array([low, -3]), np.array([high, 400])
    )
    got = decode_tombstones(batch_of(tmp_path, encode_tombstones_record(stones), b"\x02"))
    assert stones.refs.tolist() == got.refs.tolist()
    assert ([low, -3], [high, 400]) == (got.mint.tolist(), got.maxt.tolist())


@pytest.mark.parametrize("size", range(1, 12))
def test_cut_tombstones(tmp_path, size):
    """A tombstones record cut anywhere is refused."""
    stones = TombstoneColumns(np.array([1], np.uint64), np.array([99]), np.array([99999]))
    record = encode_tombstones_record(stones)
    if size + 1 < len(record):
        with pytest.raises(WALCorrupt):
            decode_tombstones(batch_of(tmp_path, record[: size + 1]))
    with pytest.raises(WALCorrupt):
        decode_tombstones(batch_of(tmp_path / "b", record[:9] + b"\xff" * 10 + b"\x01\x00"))


def test_mmap_markers(tmp_path):
    """The WBL's markers are pairs of references; half a pair is damage."""
    pair = (np.array([3, 4], np.uint64), np.array([1 << 32, 2**64 - 1], np.uint64))
    batch = batch_of(tmp_path, encode_mmap_markers_record(*pair), b"\x02")
    assert [part.tolist() for part in pair] == [p.tolist() for p in decode_mmap_markers(batch)]
    with pytest.raises(WALCorrupt):
        decode_mmap_markers(batch_of(tmp_path / "b", b"\x05" + bytes(17)))


def test_series_record_is_the_specification():
    """A series record is the reference's bytes, the labels in order of name."""
    runs = LabelRuns.of_mappings([{"b": "2", "a": "1"}, {}])
    expected = reference.encode_series([(1, [(b"a", b"1"), (b"b", b"2")]), (7, [])])
    assert expected == encode_series_record(np.array([1, 7], np.uint64), runs)
