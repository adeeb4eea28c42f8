"""Files of closed head chunks: append, read, load after a crash, drop."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from thanostack.lib.foundation.errors import ChunkCorrupt, StorageUnwritable
from thanostack.lib.tsdb import chunks_head as chunks_head_module
from thanostack.lib.tsdb.chunks_head import ChunksHeadWriter, load_chunks_head
from thanostack.testing.reference.head_chunk_file import encode_chunk

GOLDEN = Path(__file__).parents[2] / "data" / "wal" / "chunks_head"


def chunk_data(i, size=None):
    return bytes([0, i % 250 + 1]) + bytes((i + k) & 255 for k in range(size or 50 + i % 30))


def frames_of(first, count, *, size=None, encoding=1):
    """Return (frames, lengths) of chunks whose series, times and data follow from their number."""
    parts = [
        encode_chunk(i + 1, 1000 * i, 1000 * i + 999, encoding, chunk_data(i, size))
        for i in range(first, first + count)
    ]
    return np.frombuffer(b"".join(parts), np.uint8), np.array([len(p) for p in parts], np.int64)


def appended(writer, first, count, **shape):
    return writer.append(*frames_of(first, count, **shape))


def test_append_and_read(tmp_path):
    """References are file number and offset; chunks come back one by one and many at once."""
    writer = ChunksHeadWriter(tmp_path)
    refs = np.concatenate([appended(writer, 0, 5), appended(writer, 5, 300)])
    assert refs[0] == (1 << 32) + 8
    for i in (0, 4, 5, 304):
        assert (1, chunk_data(i)) == writer.read(int(refs[i]))
    order = np.random.default_rng(1).permutation(305)
    lengths = np.array([len(chunk_data(i)) for i in order], np.int64)
    data, starts = writer.read_many(refs[order], lengths)
    got = [data[s : s + n].tobytes() for s, n in zip(starts, lengths, strict=True)]
    assert [chunk_data(i) for i in order] == got
    assert (tmp_path / "000001").stat().st_size == writer.size_bytes


def test_out_of_order_bit(tmp_path):
    """The out-of-order bit is no part of the encoding."""
    writer = ChunksHeadWriter(tmp_path)
    refs = appended(writer, 3, 1, encoding=0x81)
    assert writer.read(int(refs[0]))[0] == 1
    table = load_chunks_head(tmp_path)
    assert (table.encoding.tolist(), table.out_of_order.tolist()) == ([1], [True])


def test_cuts_files(tmp_path):
    """A file ends before the chunk that does not fit; a chunk larger than a file has its own."""
    writer = ChunksHeadWriter(tmp_path, file_bytes=1000)
    refs = appended(writer, 0, 30, size=70)
    big = appended(writer, 30, 1, size=3000)
    more = appended(writer, 31, 1)
    numbers = (refs >> 32).tolist()
    assert numbers == [1] * 9 + [2] * 9 + [3] * 9 + [4] * 3
    assert (int(big[0]) >> 32, int(more[0]) >> 32) == (5, 6)
    writer.close()
    table = load_chunks_head(tmp_path)
    assert [*refs, *big, *more] == table.chunk_ref.tolist()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert max(size for name, size in sizes.items() if name != "000005") <= 1000


def test_load(tmp_path, monkeypatch):
    """All columns come back, also when a chunk lies across what is read at a time."""
    monkeypatch.setattr(chunks_head_module, "_READ_BYTES", 100)
    monkeypatch.setattr(chunks_head_module, "_SCAN_CHUNKS", 2)
    writer = ChunksHeadWriter(tmp_path)
    refs = appended(writer, 0, 20)
    table = load_chunks_head(tmp_path)
    assert refs.tolist() == table.chunk_ref.tolist()
    assert list(range(1, 21)) == table.series_ref.tolist()
    assert [1000 * i for i in range(20)] == table.mint.tolist()
    assert [1000 * i + 999 for i in range(20)] == table.maxt.tolist()
    assert [len(chunk_data(i)) for i in range(20)] == table.length.tolist()
    assert [i + 1 for i in range(20)] == table.count.tolist()


def test_load_prometheus(tmp_path):
    """A preallocated file of a real Prometheus loads, its zeros are its end."""
    shutil.copytree(GOLDEN, tmp_path / "chunks_head")
    table = load_chunks_head(tmp_path / "chunks_head")
    assert (len(table), table.set_aside) == (16, ())
    assert {1} == set(table.encoding.tolist())
    assert set(range(115, 121)) >= set(table.count.tolist())
    writer = ChunksHeadWriter(tmp_path / "chunks_head", known=table)
    data, starts = writer.read_many(table.chunk_ref, table.length.astype(np.int64))
    counts = data[starts].astype(int) * 256 + data[starts + 1]
    assert table.count.tolist() == counts.tolist()
    assert int(appended(writer, 0, 1)[0]) >> 32 == 2


def test_torn_at_every_byte(tmp_path):
    """A newest file cut anywhere keeps its whole chunks and loses the unfinished one."""
    writer = ChunksHeadWriter(tmp_path / "whole")
    refs = appended(writer, 0, 3, size=20)
    whole = (tmp_path / "whole" / "000001").read_bytes()
    stops = [*(refs[1:] & 0xFFFFFFFF).tolist(), len(whole)]
    for size in range(len(whole)):
        folder = tmp_path / f"cut-{size}"
        folder.mkdir()
        (folder / "000001").write_bytes(whole[:size])
        table = load_chunks_head(folder, now_ms=1)
        assert sum(stop <= size for stop in stops) == len(table)
        assert table.set_aside == ()
        rest = whole[max([8, *(stop for stop in stops if stop <= size)]) : size]
        # Zeros alone are what files are preallocated with.
        assert (len(rest) if any(rest) else 0) == table.torn_bytes
        again = load_chunks_head(folder)
        assert (len(table), 0) == (len(again), again.torn_bytes)


def test_damaged_file_is_set_aside(tmp_path):
    """A damaged file and all later ones are renamed; the ones before it stay."""
    writer = ChunksHeadWriter(tmp_path, file_bytes=1000)
    refs = appended(writer, 0, 30, size=70)
    writer.close()
    path = tmp_path / "000002"
    data = bytearray(path.read_bytes())
    data[150] ^= 1
    path.write_bytes(data)
    table = load_chunks_head(tmp_path, now_ms=99)
    assert refs[:9].tolist() == table.chunk_ref.tolist()
    assert "000002" in table.set_aside[0]
    names = ["000001", "000002.corrupt-99", "000003.corrupt-99", "000004.corrupt-99"]
    assert names == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("blank", [b"", b"\0\0", bytes(5000), chunks_head_module.HEADER[:6]])
def test_blank_newest_file(tmp_path, blank):
    """A newest file that never got its header, or not all of it, is deleted."""
    writer = ChunksHeadWriter(tmp_path)
    appended(writer, 0, 2)
    writer.close()
    (tmp_path / "000002").write_bytes(blank)
    table = load_chunks_head(tmp_path)
    assert (len(table), table.set_aside) == (2, ())
    assert not (tmp_path / "000002").exists()


def test_missing_file(tmp_path):
    """A gap in the numbers is an error."""
    for name in ("000001", "000003"):
        (tmp_path / name).write_bytes(chunks_head_module.HEADER)
    with pytest.raises(ChunkCorrupt, match="missing"):
        load_chunks_head(tmp_path)


def test_read_of_what_is_not_there(tmp_path):
    """A wrong reference, length or byte is ChunkCorrupt, never other bytes."""
    writer = ChunksHeadWriter(tmp_path)
    refs = appended(writer, 0, 3)
    one = np.array([10], np.int64)
    for ref in (int(refs[1]) + 1, int(refs[2]) + 4000, 9 << 32):
        with pytest.raises(ChunkCorrupt):
            writer.read(ref)
    with pytest.raises(ChunkCorrupt, match="length"):
        writer.read_many(refs[:1], one)
    path = tmp_path / "000001"
    data = bytearray(path.read_bytes())
    data[40] ^= 4
    path.write_bytes(data)
    with pytest.raises(ChunkCorrupt, match="checksum"):
        writer.read(int(refs[0]))
    assert (1, chunk_data(1)) == writer.read(int(refs[1]))


def test_truncate(tmp_path):
    """Only the oldest files go, only when all of their chunks are older, never the current one."""
    writer = ChunksHeadWriter(tmp_path, file_bytes=1000)
    refs = appended(writer, 0, 30, size=70)
    pinned = writer.pin()
    writer.truncate(18_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004"]
    assert (1, chunk_data(0, 70)) == pinned.read(int(refs[0]))
    with pytest.raises(ChunkCorrupt):
        writer.read(int(refs[0]))
    writer.truncate(1 << 60)
    assert [path.name for path in tmp_path.iterdir()] == ["000004"]
    writer.roll()
    writer.truncate(1 << 60)
    assert list(tmp_path.iterdir()) == []
    assert int(appended(writer, 0, 1)[0]) >> 32 == 5
    writer.close()


def test_truncate_after_reopening(tmp_path):
    """The newest time of a file is known again after a restart."""
    writer = ChunksHeadWriter(tmp_path, file_bytes=1000)
    appended(writer, 0, 20, size=70)
    writer.close()
    again = ChunksHeadWriter(tmp_path)
    again.truncate(9_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000002", "000003"]


@pytest.mark.parametrize("allowed", [0, 5, 8, 300, 1500, 2500])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, allowed):
    """An append that fails anywhere leaves files and references as they were."""
    writer = ChunksHeadWriter(tmp_path, file_bytes=1000)
    before = appended(writer, 0, 3, size=70)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    real, left = os.write, [allowed]

    def limited(fd, data):
        n = min(len(data), left[0])
        left[0] -= n
        if n == 0 and len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:n])

    monkeypatch.setattr(os, "write", limited)
    with pytest.raises(StorageUnwritable):
        appended(writer, 3, 40, size=70)
    assert sizes == {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    left[0] = 1 << 30
    refs = appended(writer, 3, 40, size=70)
    assert len(frames_of(0, 3, size=70)[0]) + 8 == int(refs[0]) & 0xFFFFFFFF
    writer.close()
    assert [*before, *refs] == load_chunks_head(tmp_path).chunk_ref.tolist()


def test_nothing_to_append(tmp_path):
    """No chunks, no file."""
    writer = ChunksHeadWriter(tmp_path / "new")
    assert len(writer.append(np.empty(0, np.uint8), np.empty(0, np.int64))) == 0
    data, starts = writer.read_many(np.empty(0, np.int64), np.empty(0, np.int64))
    assert (len(data), len(starts), writer.size_bytes) == (0, 0, 0)
