"""What is written to a block is read from it: series, bounds, segments, tombstones, damage."""

import contextlib
import json

import numpy as np
import pytest

from thanostack.lib.foundation.errors import (
    BlockCorrupt,
    BlockNotFound,
    ChunkCorrupt,
    Corruption,
    IndexCorrupt,
    InvalidLabels,
    StorageUnwritable,
)
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.block_meta import BlockMeta, BlockParent, BlockStats, read_meta, write_meta
from thanostack.lib.tsdb.block_reader import BlockReader
from thanostack.lib.tsdb.block_writer import BlockWriter
from thanostack.lib.tsdb.tombstones import (
    decode_tombstones,
    encode_tombstones,
    read_tombstones,
    write_tombstones,
)
from thanostack.testing.blocks import BLOCK_ID, plain_series, series_batch, write_block

EVERYTHING = SeriesQuery((), 0, 1 << 60)
TWO_CHUNKS = [[(0, 1.0), (10, 2.0)], [(20, 3.0), (30, 4.0)]]
SERIES = [
    ({"__name__": "a", "job": "x"}, TWO_CHUNKS),
    ({"__name__": "a", "job": "y"}, [[(5, -1.0)]]),
    ({"__name__": "b"}, TWO_CHUNKS),
]


def read_back(folder, query=EVERYTHING):
    return plain_series(BlockReader(folder).series(query))


def test_series_and_samples_return(tmp_path):
    """A block holds what was written; its meta counts it."""
    folder = write_block(tmp_path, SERIES)
    assert SERIES == read_back(folder)
    meta = read_meta(folder)
    assert (0, 31) == (meta.mint, meta.maxt)
    assert BlockStats(samples=9, float_samples=9, series=3, chunks=5) == meta.stats
    assert (BLOCK_ID,) == meta.sources


def test_the_bounds_choose_whole_chunks(tmp_path):
    """A chunk that overlaps the query is returned whole; a series without one is left out."""
    reader = BlockReader(write_block(tmp_path, SERIES))
    series = plain_series(reader.series(SeriesQuery((), 10, 15)))
    assert [TWO_CHUNKS[:1], TWO_CHUNKS[:1]] == [chunks for _, chunks in series]
    assert [] == list(reader.series(SeriesQuery((), 31, 99)))
    assert (0, 30) == reader.time_range()


def test_labels_only_and_limits(tmp_path):
    """skip_chunks leaves chunks out, limit leaves series out."""
    reader = BlockReader(write_block(tmp_path, SERIES))
    (batch,) = reader.series(SeriesQuery((), 0, 99, skip_chunks=True, limit=2))
    assert [s[0] for s in SERIES[:2]] == [batch.labels.mapping(i) for i in range(len(batch))]
    assert len(batch.chunks) == 0
    assert SERIES[:1] == plain_series(reader.series(SeriesQuery((), 0, 99, limit=1)))


def test_segments_are_cut_and_read(tmp_path):
    """Chunks that do not fit into a segment go to the next; a series may span two."""
    folder = write_block(tmp_path, SERIES, segment_bytes=70)
    assert len(list((folder / "chunks").iterdir())) > 1
    assert all(path.stat().st_size <= 70 for path in (folder / "chunks").iterdir())
    assert SERIES == read_back(folder)


def test_a_chunk_larger_than_a_segment_takes_one_of_its_own(tmp_path):
    """The first segment is not left empty for it."""
    folder = write_block(tmp_path, SERIES, segment_bytes=1)
    assert 5 == len(list((folder / "chunks").iterdir()))
    assert SERIES == read_back(folder)


def test_series_without_chunks_are_left_out(tmp_path):
    """As Prometheus's compactor does."""
    folder = write_block(tmp_path, [*SERIES, ({"__name__": "c"}, [])])
    assert SERIES == read_back(folder)
    assert ["a", "b"] == BlockReader(folder).label_values("__name__", EVERYTHING)


def test_a_block_may_be_empty_and_a_series_may_have_no_labels(tmp_path):
    """Both are legal, if odd."""
    assert [] == read_back(write_block(tmp_path / "1", []))
    odd = [({}, [[(1, 1.0)]])]
    assert odd == read_back(write_block(tmp_path / "2", odd))


def test_many_series_and_labels_grow_the_tables(tmp_path):
    """More pairs than the first tables hold, in several batches."""
    series = [
        ({"n": f"{i:05}", "value": "v" * (i % 300 + 1), f"l{i % 7}": "é"}, [[(i, float(i))]])
        for i in range(3000)
    ]
    writer = BlockWriter(tmp_path, mint=0, maxt=3000, ulid=BLOCK_ID)
    ordered = plain_series([series_batch(series)])
    for first in range(0, 3000, 700):
        writer.write(series_batch(ordered[first : first + 700]))
    writer.finish()
    assert ordered == read_back(tmp_path / BLOCK_ID)


def test_a_series_larger_than_a_batch(tmp_path):
    """Neither a long label nor many chunks are too much for the decoding buffers."""
    wide = ({"l": "x" * 1_500_000}, [[(0, 1.0)]])
    long = ({"m": "1"}, [[(i, 1.0)] for i in range(20_000)])
    assert [wide, long] == read_back(write_block(tmp_path, [wide, long]))


def test_series_out_of_order_are_refused(tmp_path):
    """Within a batch and across batches, equal ones too."""
    writer = BlockWriter(tmp_path, mint=0, maxt=99, ulid=BLOCK_ID)
    writer.write(series_batch(SERIES[1:2]))
    for wrong in (SERIES[:1], SERIES[1:2]):
        with pytest.raises(InvalidLabels, match="order"):
            writer.write(series_batch(wrong))
    batch = series_batch(SERIES[2:])
    twice = SeriesBatch(
        LabelRuns.of([batch.labels.run(0)] * 2),
        np.array([0, 1, 2]),
        batch.chunks,
        batch.data,
    )
    with pytest.raises(InvalidLabels, match="order"):
        writer.write(twice)
    writer.abort()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([(0, 10, 0, 3), (10, 20, 0, 3)], "overlap"),
        ([(10, 20, 0, 3), (0, 5, 0, 3)], "overlap"),
        ([(10, 9, 0, 3)], "end before"),
        ([(0, 9, 0, 9)], "outside"),
        ([(0, 9, -1, 3)], "outside"),
    ],
)
def test_chunks_that_cannot_be_indexed_are_refused(tmp_path, chunks, reason):
    """The series is named, and abort leaves nothing."""
    array = np.array([(*chunk, 1) for chunk in chunks], CHUNK_DTYPE)
    batch = SeriesBatch(
        LabelRuns.of_mappings([{"n": "culprit"}]), np.array([0, len(chunks)]), array,
        np.zeros(4, np.uint8),
    )  # fmt: skip
    writer = BlockWriter(tmp_path, mint=0, maxt=99, ulid=BLOCK_ID)
    with pytest.raises(ValueError, match=f"{reason}.*culprit"):
        writer.write(batch)
    writer.abort()
    writer.abort()
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file where the folder should be is an unwritable storage, not a crash."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnwritable):
        BlockWriter(tmp_path / "file", mint=0, maxt=1, ulid=BLOCK_ID)


def test_a_block_has_its_name_only_when_whole(tmp_path):
    """Until finish there is only a folder that openings remove."""
    writer = BlockWriter(tmp_path, mint=0, maxt=31, ulid=BLOCK_ID)
    writer.write(series_batch(SERIES))
    assert [f"{BLOCK_ID}.tmp-for-creation"] == [path.name for path in tmp_path.iterdir()]
    writer.finish()
    assert [BLOCK_ID] == [path.name for path in tmp_path.iterdir()]
    writer.abort()
    assert SERIES == read_back(tmp_path / BLOCK_ID)


def test_unknown_keys_of_meta_survive(tmp_path):
    """Thanos's section and keys of later versions are written back."""
    folder = write_block(tmp_path, SERIES)
    document = json.loads((folder / "meta.json").read_bytes())
    document["thanos"] = {"labels": {"cluster": "<eu>"}, "files": []}
    document["stats"]["numFloatHistogramThings"] = 3
    document["compaction"]["later"] = True
    (folder / "meta.json").write_text(json.dumps(document))
    write_meta(folder, read_meta(folder))
    assert document == json.loads((folder / "meta.json").read_bytes())
    assert b"\\u003ceu\\u003e" in (folder / "meta.json").read_bytes()
    assert not (folder / "meta.json.tmp").exists()


def test_all_fields_of_meta_return():
    """Encoding and decoding are inverse."""
    meta = BlockMeta(
        BLOCK_ID, 1, 2, BlockStats(1, 2, 3, 4, 5, 6), 3, (BLOCK_ID,),
        (BlockParent(BLOCK_ID, 0, 1),), True, True, ("from-out-of-order",),
    )  # fmt: skip
    assert meta == BlockMeta.decode(meta.encode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 1}', b'{"version": 1, "ulid": 1}']
)
def test_a_damaged_meta_is_named(body):
    """Anything but a meta of version 1."""
    with pytest.raises(BlockCorrupt):
        BlockMeta.decode(body)


def test_missing_parts_are_named(tmp_path):
    """A missing folder is not found, a missing file is corruption."""
    with pytest.raises(BlockNotFound):
        BlockReader(tmp_path / "none")
    folder = write_block(tmp_path, SERIES)
    (folder / "tombstones").unlink()
    assert SERIES == read_back(folder)
    (folder / "chunks" / "000001").rename(folder / "chunks" / "000002")
    with pytest.raises(BlockCorrupt, match="consecutive"):
        BlockReader(folder)
    (folder / "index").write_bytes(b"")
    with pytest.raises(BlockCorrupt, match="empty"):
        BlockReader(folder)


def test_deleted_ranges_are_not_read(tmp_path):
    """A covered chunk is left out, one that is partly deleted is re-encoded."""
    folder = write_block(tmp_path, SERIES)
    first, second, third = BlockReader(folder).index.all_postings().tolist()
    write_tombstones(folder, {first: ((0, 25),), second: ((5, 5),), third: ((10, 10), (30, 40))})
    expected = [
        (SERIES[0][0], [[(30, 4.0)]]),
        (SERIES[2][0], [[(0, 1.0)], [(20, 3.0)]]),
    ]
    assert expected == read_back(folder)
    bounds = [
        (int(c["mint"]), int(c["maxt"]))
        for batch in BlockReader(folder).series(EVERYTHING)
        for c in batch.chunks
    ]
    assert [(30, 30), (0, 0), (20, 20)] == bounds


def test_deleting_all_samples_one_by_one_removes_the_chunk(tmp_path):
    """Two intervals that together empty a chunk leave no empty chunk behind."""
    folder = write_block(tmp_path, SERIES)
    first = int(BlockReader(folder).index.all_postings()[0])
    write_tombstones(folder, {first: ((0, 0), (10, 10))})
    assert [(SERIES[0][0], TWO_CHUNKS[1:]), *SERIES[1:]] == read_back(folder)


def test_tombstones_return(tmp_path):
    """Intervals are merged per series; times may be negative and huge."""
    stones = {1: ((-(1 << 63), -1), (5, 9)), 1 << 40: ((0, (1 << 63) - 1),)}
    assert stones == decode_tombstones(encode_tombstones(stones))
    assert bytes.fromhex("0130BA300100000000") == encode_tombstones({})
    assert {} == read_tombstones(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:8],
        lambda body: b"x" + body[1:],
        lambda body: body[:4] + b"\x02" + body[5:],
        lambda body: body[:-1] + bytes([body[-1] ^ 1]),
    ],
)
def test_damaged_tombstones_are_named(damage):
    """Short, foreign, unknown or with a wrong checksum."""
    with pytest.raises(BlockCorrupt):
        decode_tombstones(damage(encode_tombstones({1: ((0, 9),)})))


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    """Damage anywhere in index or chunks raises a corruption, or changes nothing that is read."""
    folder = write_block(tmp_path, SERIES)
    harmless = 0
    for name in ("index", "chunks/000001"):
        original = (folder / name).read_bytes()
        for at in range(len(original)):
            damaged = bytearray(original)
            damaged[at] ^= 0xFF
            # A new file each time: the mapping of the last reader must not change under it.
            (folder / name).unlink()
            (folder / name).write_bytes(damaged)
            with contextlib.suppress(Corruption):
                assert SERIES == read_back(folder), f"{name} at {at}"
                BlockReader(folder).label_values("job", EVERYTHING)
                harmless += 1
        (folder / name).unlink()
        (folder / name).write_bytes(original)
    # What may be harmless: padding before series and postings, lists that the query does not
    # use (six of them, up to 24 bytes each), and the version's three bytes of padding in a segment.
    assert harmless < 250
    assert SERIES == read_back(folder)


def test_a_truncated_index_or_segment_is_noticed(tmp_path):
    """Whatever the length that is left."""
    folder = write_block(tmp_path, SERIES)
    for name, kinds in (("index", (IndexCorrupt, BlockCorrupt)), ("chunks/000001", (Corruption,))):
        original = (folder / name).read_bytes()
        for size in range(0, len(original), 7):
            (folder / name).unlink()
            (folder / name).write_bytes(original[:size])
            with pytest.raises(kinds):
                read_back(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(original)


def test_a_damaged_chunk_is_named_with_its_offset(tmp_path):
    """Other series of the block are read all the same."""
    folder = write_block(tmp_path, SERIES)
    segment = folder / "chunks" / "000001"
    body = bytearray(segment.read_bytes())
    body[-1] ^= 1
    segment.write_bytes(body)
    with pytest.raises(ChunkCorrupt, match="checksum") as caught:
        read_back(folder)
    assert str(segment) == caught.value.file
    assert 8 < caught.value.offset < len(body)
    query = SeriesQuery((Matcher(MatchType.EQ, "job", "x"),), 0, 99)
    assert SERIES[:1] == read_back(folder, query)
