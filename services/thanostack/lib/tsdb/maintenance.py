"""Keep a tenant's storage small: cut blocks from the head, truncate head and log, retention.

    head ──cut──> block ──published──> readers see it ──old readers leave──> head drops its part
                                                                            └──> log: checkpoint

Runs on a thread of its own, one tenant at a time; whatever touches the head is a job of one slice,
so a writer waits for one slice at most. Killed between any two steps, the next start finds either
both copies of the data (readers merge them to one) or the block alone.

Source: Prometheus `tsdb/db.go` (`compactHead`), `tsdb/head.go` (`Truncate`, `truncateWAL`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
from ulid import ULID

from thanostack.lib.foundation.errors import StorageUnwritable, ThanostackError, WALCorrupt
from thanostack.lib.foundation.ids import BlockId
from thanostack.lib.kernels.head_append import range_end
from thanostack.lib.model.label_runs import BoolArray
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.block_writer import BlockWriter
from thanostack.lib.tsdb.head import IndexRebuild, UInt64Array
from thanostack.lib.tsdb.head_reader import HeadReader, Reader
from thanostack.lib.tsdb.tsdb import TSDB
from thanostack.lib.wal.checkpoint import delete_checkpoints, write_checkpoint

READER_PATIENCE_S = 120.0


class Maintenance:
    """The background work of one tenant.

    Args:
        tsdb: the tenant.
        reader_patience_s: how long a head cut waits for reads that began before it.
    """

    def __init__(self, tsdb: TSDB, *, reader_patience_s: float = READER_PATIENCE_S) -> None:
        self._tsdb = tsdb
        self._patience_s = reader_patience_s

    def run(self) -> None:
        """Do what is due; errors of the disk are reported and the next run tries again."""
        with self._tsdb.maintenance:
            if self._tsdb.is_closed:
                return
            self._tsdb.counters.compactions_triggered += 1
            if not self._try(self._cut_what_is_due):
                self._tsdb.counters.compactions_failed += 1
            # Also when a cut fails: on a full disk this is what makes room.
            self._try(self.enforce_retention)

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (ThanostackError, OSError) as error:
            self._tsdb.report_rarely("maintenance stopped and will be tried again", error)
            return False
        return True

    def _cut_what_is_due(self) -> None:
        self._tsdb.jobs.run(self._tsdb.head.flush_closed)
        while self.is_due() and not self._tsdb.is_closing:
            self._cut(self._range_end())

    def is_due(self) -> bool:
        """Return whether the head spans more than one and a half block ranges."""
        head = self._tsdb.head
        return head.maxt - head.mint > self._tsdb.options.min_block_ms * 3 // 2

    def flush(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Cut all of the head into blocks, the youngest part included, while writes are refused.

        The last block ends with the newest sample and not with its range, so that samples that
        are younger are taken once writes are. Refused they must be: chunks end with ranges, and
        one that grew meanwhile would reach beyond the block.

        Args:
            is_wanted: asked before each block; when it is not, the rest stays in the head.

        Raises:
            ThanostackError, OSError: of the disk; what was cut by then stays cut.
        """
        tsdb = self._tsdb
        assert tsdb.refusal, "refuse writes first"
        with tsdb.maintenance:
            while not tsdb.is_closing and tsdb.head.maxt >= tsdb.head.mint and is_wanted():
                try:
                    self._cut(min(self._range_end(), tsdb.head.maxt + 1))
                except BaseException:
                    tsdb.counters.compactions_failed += 1
                    raise

    def _range_end(self) -> int:
        """Return the end of the range that the oldest sample is in, ms, exclusive."""
        return int(range_end(self._tsdb.head.mint, self._tsdb.options.min_block_ms))

    def _cut(self, maxt: int) -> None:
        tsdb = self._tsdb
        mint = tsdb.head.mint
        tsdb.jobs.run(lambda: self._close_time(maxt))
        if tsdb.blocks.maxt < maxt:
            # Otherwise an earlier run wrote it and could not go on.
            self._populate_block(mint, maxt)
        self._shrink_head(maxt)
        self._truncate_log(maxt)

    def _populate_block(self, mint: int, maxt: int) -> None:
        counters, started_s = self._tsdb.counters, self._tsdb.clock.monotonic_s()
        counters.populating_block = 1
        try:
            self._write_block(mint, maxt)
        finally:
            counters.populating_block = 0
        counters.compaction_duration_s.observe([self._tsdb.clock.monotonic_s() - started_s])

    def _shrink_head(self, maxt: int) -> None:
        """Drop from head and head chunks what the block has, once its readers are gone."""
        tsdb, counters = self._tsdb, self._tsdb.counters
        counters.head_truncations += 1
        try:
            tsdb.readers.retire(self._patience_s)
            started_s = tsdb.clock.monotonic_s()
            tsdb.jobs.run(lambda: self._truncate_head(maxt))
            self._forget_series()
            counters.head_gc_duration_s.observe([tsdb.clock.monotonic_s() - started_s])
            tsdb.jobs.run(lambda: self._truncate_chunk_files(maxt))
        except BaseException:
            counters.head_truncations_failed += 1
            raise

    def _close_time(self, maxt: int) -> None:
        """Refuse samples before maxt from now on: the block will not have them."""
        self._tsdb.min_valid = max(self._tsdb.min_valid, maxt)
        self._tsdb.head.flush_closed()

    def _write_block(self, mint: int, maxt: int) -> None:
        tsdb = self._tsdb
        ulid = BlockId(str(ULID.from_timestamp(tsdb.clock.now_ms() / 1000)))
        writer = BlockWriter(tsdb.folder, mint=mint, maxt=maxt, ulid=ulid)
        series = 0
        try:
            # This reader is never overtaken: nothing else drops chunks while it runs.
            for batch in HeadReader(tsdb, Reader(0)).series(SeriesQuery((), mint, maxt - 1)):
                writer.write(batch)
                series += len(batch)
                self._measure_chunks(batch)
            if series == 0:
                writer.abort()
                return
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        tsdb.blocks.add(tsdb.folder / ulid)
        tsdb.counters.compactions += 1
        tsdb.report("cut a block from the head", {"block": ulid, "series": series})

    def _measure_chunks(self, batch: SeriesBatch) -> None:
        counters, chunks = self._tsdb.counters, batch.chunks
        starts = chunks["start"]
        counters.compaction_chunk_bytes.observe(chunks["length"])
        # The count is what a chunk begins with, u16 big-endian.
        samples = batch.data[starts].astype(np.int64) << 8 | batch.data[starts + 1]
        counters.compaction_chunk_samples.observe(samples)
        counters.compaction_chunk_range_s.observe((chunks["maxt"] - chunks["mint"]) / 1000)

    def _truncate_head(self, maxt: int) -> None:
        tsdb = self._tsdb
        tsdb.head.flush_closed()
        self._empty_series = tsdb.head.drop_before(maxt)

    def _truncate_chunk_files(self, mint: int) -> None:
        self._tsdb.chunk_files.truncate(mint)
        # As upstream: otherwise a small tenant's only file is never finished and never deleted.
        self._tsdb.chunk_files.roll()

    def _forget_series(self) -> None:
        """Rebuild the series index without the series that have no chunk left."""
        if not self._empty_series:
            return
        tsdb = self._tsdb
        rebuild = tsdb.jobs.run(lambda: IndexRebuild(tsdb.head))
        while tsdb.jobs.run(rebuild.step):
            pass
        gone = tsdb.jobs.run(rebuild.finish)
        tsdb.counters.head_series_removed += len(gone)
        last = tsdb.wal.current_segment
        tsdb.wal_expiries.update(dict.fromkeys(gone.tolist(), last))

    def _truncate_log(self, mint: int) -> None:
        """Fold the older two thirds of the log into a checkpoint, as upstream does."""
        tsdb = self._tsdb
        tsdb.jobs.run(tsdb.wal.cut_segment)
        first, current = tsdb.wal.first_and_last()
        last = first + (current - 1 - first) * 2 // 3
        if last <= first:
            return
        alive = np.sort(tsdb.jobs.run(lambda: tsdb.head.refs(tsdb.head.rows_alive())))
        expiring = {ref for ref, segment in tsdb.wal_expiries.items() if segment > last}
        expiring |= {ref for ref, maxt in tsdb.wal_aliases.items() if maxt >= mint}
        late = np.array(sorted(expiring), np.uint64)

        def keep(refs: UInt64Array) -> BoolArray:
            return _is_in(alive, refs) | _is_in(late, refs)

        started_s = tsdb.clock.monotonic_s()
        tsdb.counters.checkpoint_creations += 1
        try:
            write_checkpoint(
                tsdb.wal.folder, first, last, keep=keep, mint=mint, options=tsdb.wal.options
            )
        except ThanostackError as error:
            tsdb.counters.checkpoint_creations_failed += 1
            tsdb.counters.wal_corruptions += isinstance(error, WALCorrupt)
            raise
        tsdb.wal.truncate(last + 1)
        self._delete_checkpoints(last)
        tsdb.counters.wal_truncate_duration_s.observe([tsdb.clock.monotonic_s() - started_s])
        tsdb.wal_expiries = {ref: s for ref, s in tsdb.wal_expiries.items() if s > last}
        tsdb.wal_aliases = {ref: t for ref, t in tsdb.wal_aliases.items() if t >= mint}

    def _delete_checkpoints(self, before: int) -> None:
        counters = self._tsdb.counters
        counters.checkpoint_deletions += 1
        try:
            delete_checkpoints(self._tsdb.wal.folder, before)
        except OSError:
            counters.checkpoint_deletions_failed += 1
            raise

    def enforce_retention(self) -> None:
        """Delete blocks that are too old or beyond the size bound."""
        tsdb = self._tsdb
        options = tsdb.options
        other = tsdb.wal.size_bytes + tsdb.chunk_files.size_bytes
        too_old, too_much = tsdb.blocks.expired(
            options.retention_ms, options.retention_bytes, other
        )
        if expired := too_old + too_much:
            tsdb.blocks.delete(expired)
            tsdb.counters.time_retentions += bool(too_old)
            tsdb.counters.size_retentions += bool(too_much)
            tsdb.report("deleted blocks beyond retention", {"blocks": ", ".join(expired)})


def _is_in(sorted_refs: UInt64Array, refs: UInt64Array) -> BoolArray:
    if not len(sorted_refs):
        return np.zeros(len(refs), np.bool_)
    places = np.minimum(np.searchsorted(sorted_refs, refs), len(sorted_refs) - 1)
    found: BoolArray = sorted_refs[places] == refs
    return found


def remove_folder(tsdb: TSDB) -> None:
    """Delete a closed tenant's directory."""
    try:
        shutil.rmtree(tsdb.folder)
    except OSError as error:
        raise StorageUnwritable(f"{tsdb.folder}: {error.strerror}") from error
