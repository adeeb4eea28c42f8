"""The figures that a tenant's storage reports are what happened, failures included."""

from pathlib import Path

import pytest

from thanostack.lib.foundation.errors import BlockCorrupt, StorageUnwritable, WALCorrupt
from thanostack.lib.tsdb import block_list, maintenance
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.lib.tsdb.options import Distribution
from thanostack.testing.tsdb_directory import BLOCK_MS, crashed, opened, write


def filled(folder):
    """Return a tenant that is due for a cut and whose log has segments enough for a checkpoint."""
    tsdb = opened(folder)
    for t in range(0, 16_000, 2000):
        write(tsdb, ["1", "2"], range(t, t + 2000, 100))
        tsdb.jobs.run(tsdb.wal.cut_segment)
    return tsdb


def test_figures_of_a_cut(tmp_path):
    """Chunks are counted open and closed; a cut takes those of its block away."""
    tsdb = filled(tmp_path)
    before = tsdb.stats()
    made = before.head_chunks_created
    assert (made, 0, made) == (
        before.head_chunks, before.head_chunks_removed, tsdb.head.chunks + 2
    )  # fmt: skip
    assert (1, 0, 0) == (before.reloads, before.reloads_failed, before.symbol_table_bytes)
    Maintenance(tsdb).run()
    stats = tsdb.stats()
    assert (1, 1, 0) == (stats.compactions_triggered, stats.compactions, stats.populating_block)
    (block,) = tsdb.blocks.readers
    chunks, samples = block.meta.stats.chunks, block.meta.stats.samples
    assert (chunks, made - chunks) == (stats.head_chunks_removed, stats.head_chunks)
    assert (0, made - 2) == (stats.chunk_file_corruptions, stats.chunks_mapped)
    for spread in (stats.compaction_chunk_bytes, stats.compaction_chunk_range_s):
        assert chunks == sum(spread.counts)
    assert (chunks, samples) == (
        sum(stats.compaction_chunk_samples.counts), stats.compaction_chunk_samples.total
    )  # fmt: skip
    assert [[1], [1]] == [stats.head_gc_duration_s.counts, stats.wal_truncate_duration_s.counts]
    assert (1, 1, 1) == (
        stats.checkpoint_creations, stats.wal_truncations, stats.checkpoint_deletions
    )  # fmt: skip
    assert (2, 4 * block.index.n_symbols) == (stats.reloads, stats.symbol_table_bytes)
    tsdb.close()


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


FAILURES = {
    "head_truncations_failed": lambda tsdb, patch: patch.setattr(
        tsdb.head, "drop_before", raising(StorageUnwritable("full"))
    ),
    "checkpoint_creations_failed": lambda _, patch: patch.setattr(
        maintenance, "write_checkpoint", raising(WALCorrupt("0", 0, "torn"))
    ),
    "wal_corruptions": lambda _, patch: patch.setattr(
        maintenance, "write_checkpoint", raising(WALCorrupt("0", 0, "torn"))
    ),
    "wal_truncations_failed": lambda _, patch: patch.setattr(
        Path, "unlink", raising(OSError(5, "input/output error"))
    ),
    "checkpoint_deletions_failed": lambda _, patch: patch.setattr(
        maintenance, "delete_checkpoints", raising(OSError(5, "input/output error"))
    ),
    "reloads_failed": lambda _, patch: patch.setattr(
        block_list, "BlockReader", raising(BlockCorrupt("meta.json", 0, "damaged"))
    ),
}


@pytest.mark.parametrize("figure", FAILURES)
def test_failures(tmp_path, monkeypatch, figure):
    """Each step of a cut that fails is counted, once, beside the cut."""
    tsdb = filled(tmp_path)
    with monkeypatch.context() as patch:
        FAILURES[figure](tsdb, patch)
        Maintenance(tsdb).run()
    stats = tsdb.stats()
    assert (1, 1) == (getattr(stats, figure), stats.compactions_failed)
    others = FAILURES.keys() - {figure, "wal_corruptions", "checkpoint_creations_failed"}
    assert not any(getattr(stats, name) for name in others)
    tsdb.close()


def test_failed_flush(tmp_path):
    """A cut that fails while everything is flushed counts as one beside the others."""
    tsdb = filled(tmp_path)
    tsdb.head.drop_before = raising(StorageUnwritable("full"))
    tsdb.refuse_writes("flushed")
    with pytest.raises(StorageUnwritable):
        Maintenance(tsdb).flush()
    assert (1, 1) == (tsdb.stats().compactions_failed, tsdb.stats().head_truncations_failed)
    tsdb.close()


def test_flushed(tmp_path):
    """Of a head that was flushed no chunk is left, and every chunk that was made was removed."""
    tsdb = filled(tmp_path)
    tsdb.refuse_writes("flushed")
    Maintenance(tsdb).flush()
    stats = tsdb.stats()
    assert (0, stats.head_chunks_created) == (stats.head_chunks, stats.head_chunks_removed)
    assert stats.head_chunks_created == sum(b.meta.stats.chunks for b in tsdb.blocks.readers)
    tsdb.close()


def test_starts(tmp_path):
    """A lock that was left and head chunks that are damaged are seen at the next start."""
    tsdb = opened(tmp_path / "a")
    assert 1 == tsdb.stats().clean_start
    write(tsdb, ["1"], range(0, 3 * BLOCK_MS, 100))
    tsdb.jobs.run(tsdb.head.flush_closed)
    copy = crashed(tsdb, tmp_path / "b")
    (chunks,) = (copy / "chunks_head").iterdir()
    chunks.write_bytes(chunks.read_bytes()[:-3])
    tsdb.close()
    torn = opened(copy)
    assert (0, 1) == (torn.stats().clean_start, torn.stats().chunk_file_corruptions)
    torn.close()


def test_distribution():
    """Bounds are inclusive; without any, number and sum are kept."""
    spread = Distribution((1, 2.5))
    spread.observe([0, 1, 2, 2.5, 3])
    spread.observe([])
    assert ([2, 2, 1], 8.5) == (spread.counts, spread.total)
    plain = Distribution(())
    plain.observe([4, 5])
    assert ([2], 9) == (plain.counts, plain.total)
