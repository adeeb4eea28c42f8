"""From a directory to a head: closed chunks from `chunks_head`, the rest from the log.

    chunks_head ──> chunk table, by series reference
    checkpoint, segments ──series──> rows, their chunks attached ──samples──> open chunks
                                                   (what a chunk has already is skipped)

It streams: one batch of records at a time is in memory, and a few samples a series. A damaged end
of the log is repaired and reported; damage in a checkpoint is the caller's to quarantine.

Source: Prometheus `tsdb/head_wal.go`; docs/formats/wal.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from thanostack.lib.foundation.errors import StorageUnwritable, WALCorrupt
from thanostack.lib.kernels import head_append
from thanostack.lib.kernels.head_types import NEXT_REF
from thanostack.lib.model.label_runs import Int64Array
from thanostack.lib.tsdb.chunks_head import HeadChunkTable
from thanostack.lib.tsdb.head import Head, UInt64Array
from thanostack.lib.tsdb.options import Report
from thanostack.lib.tsdb.replay_samples import CLOSED_BYTES_KEPT, ReplayRefs, ReplaySamples
from thanostack.lib.wal.checkpoint import log_readers
from thanostack.lib.wal.reader import RecordBatch
from thanostack.lib.wal.records import (
    DecodeScratch,
    RecordType,
    SeriesColumns,
    count_types,
    decode_samples,
    decode_series,
)
from thanostack.lib.wal.repair import repair

_HISTOGRAM_RECORDS = (
    RecordType.HISTOGRAMS,
    RecordType.FLOAT_HISTOGRAMS,
    RecordType.CUSTOM_BUCKET_HISTOGRAMS,
    RecordType.CUSTOM_BUCKET_FLOAT_HISTOGRAMS,
    RecordType.HISTOGRAMS_V2,
    RecordType.FLOAT_HISTOGRAMS_V2,
)


@dataclass(slots=True)
class ReplaySummary:
    """What a replay found.

    Args:
        ends_whole: whether the log was read to its end, and that is the end of a record.
        aliases: references whose series has another one.
    """

    samples: int = 0
    skipped: int = 0
    unknown_refs: int = 0
    series: int = 0
    chunks: int = 0
    corruptions: int = 0
    unreadable_records: int = 0
    ends_whole: bool = False
    aliases: set[int] = field(default_factory=set)


class Replay:
    """Fills an empty head.

    Args:
        head: empty.
        chunks: what `chunks_head` holds.
        mint: ms; samples before it are in blocks.
        report: gets repairs and oddities.
    """

    def __init__(self, head: Head, chunks: HeadChunkTable, mint: int, report: Report) -> None:
        self._head, self._report = head, report
        self._refs = ReplayRefs()
        self._samples = ReplaySamples(head, self._refs, mint, self._flush)
        self._scratch = DecodeScratch()
        self._flush_at = CLOSED_BYTES_KEPT
        wanted = (chunks.maxt >= mint) & ~chunks.out_of_order & (chunks.encoding == 1)
        # By reference, then time: one series' chunks are a slice that searchsorted finds.
        order = np.lexsort((chunks.mint, chunks.series_ref))
        self._order = order[wanted[order]]
        self._chunks = chunks
        self._chunk_refs = chunks.series_ref[self._order]
        self.summary = ReplaySummary()

    def run(self, wal_folder: Path) -> ReplaySummary:
        """Read the log; repair a damaged end.

        Raises:
            WALCorrupt: if a checkpoint is damaged or segments are missing.
        """
        try:
            for reader in log_readers(wal_folder):
                for batch in reader:
                    self._take(batch)
                self.summary.ends_whole = reader.torn is None
        except WALCorrupt as corruption:
            # All good records before the damage have been applied; nothing readable follows it.
            self._repair(wal_folder, corruption)
        self._samples.append()
        self._flush()
        self._count_samples()
        # A reference is never reused, also when only an old chunk remembers it.
        newest = int(self._chunks.series_ref.max(initial=0))
        self._head.tables.meta[NEXT_REF] = max(self._head.next_ref, newest + 1)
        self._warn()
        return self.summary

    def _repair(self, folder: Path, corruption: WALCorrupt) -> None:
        report = repair(folder, corruption)
        self.summary.corruptions += 1
        self.summary.ends_whole = False
        self._report(
            "repaired a damaged write-ahead log",
            {
                "file": corruption.file,
                "offset": corruption.offset,
                "reason": corruption.message,
                "kept_bytes": report.kept_bytes,
                "lost_bytes": report.lost_bytes,
                "set_aside": ", ".join(path.name for path in report.set_aside),
            },
        )

    def _take(self, batch: RecordBatch) -> None:
        """Apply a batch; of one with a damaged record, what a repair will keep and nothing else."""
        counts = count_types(batch)
        if counts[RecordType.SERIES]:
            self._series(self._checked_series(batch))
        try:
            self._samples.take(batch)
        except WALCorrupt as damage:
            counts = count_types(_records_before(batch, damage))
            raise
        finally:
            self.summary.unreadable_records += sum(int(counts[kind]) for kind in _HISTOGRAM_RECORDS)

    def _checked_series(self, batch: RecordBatch) -> SeriesColumns:
        """Return the series of a batch whose samples decode too: no series without its record."""
        try:
            decode_samples(batch, self._scratch)
            return decode_series(batch, self._scratch)
        except WALCorrupt as damage:
            self._take(_records_before(batch, damage))
            raise

    def _series(self, columns: SeriesColumns) -> None:
        if not len(columns):
            return
        known = self._head.rows
        rows = self._head.create(columns.runs, columns.refs)
        others = columns.refs[self._head.refs(rows) != columns.refs]
        self.summary.aliases.update(others.tolist())
        self._attach(columns.refs, rows, known)
        lasts = self._head.tables.rows["last_t"][rows]
        self.summary.series += self._refs.add(columns.refs, rows, lasts)

    def _attach(self, refs: UInt64Array, rows: Int64Array, known: int) -> None:
        """Link chunks to rows, of which those below `known` may have samples already."""
        if not len(self._order):
            return
        first = np.searchsorted(self._chunk_refs, refs, "left")
        stop = np.searchsorted(self._chunk_refs, refs, "right")
        counts = stop - first
        total = int(counts.sum())
        if total == 0:
            return
        if rows[counts > 0].min() < known:
            # Whether a chunk is older than a sample depends on which of them comes first.
            self._samples.append()
        # Slices [first, stop) of all series, one after another.
        places = np.arange(total) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        picks = self._order[places]
        table = self._chunks
        self.summary.chunks += self._head.attach_chunks(
            np.repeat(rows, counts),
            table.mint[picks],
            table.maxt[picks],
            table.chunk_ref[picks],
            table.length[picks].astype(np.int64),
        )

    def _flush(self) -> int:
        """Write closed chunks to their file; return how many bytes of them may wait."""
        try:
            self._head.flush_closed()
        except StorageUnwritable as error:
            # A full disk must not keep the tenant from being read.
            self._flush_at = 2 * self._head.pending_bytes
            self._report("head chunks stay in memory", {"err": str(error)})
        return self._flush_at

    def _count_samples(self) -> None:
        outcome = self._samples.outcome
        skipped = outcome[head_append.DUPLICATE] + outcome[head_append.OUT_OF_BOUNDS]
        self.summary.samples = int(outcome[head_append.STORED])
        self.summary.skipped = int(skipped)
        self.summary.unknown_refs = int(outcome[head_append.UNKNOWN])

    def _warn(self) -> None:
        if self.summary.unknown_refs:
            self._report(
                "the log has samples of unknown series",
                {"samples": self.summary.unknown_refs},
            )
        if self.summary.unreadable_records:
            self._report(
                "the log has native histograms, which are not read yet",
                {"records": self.summary.unreadable_records},
            )


def _records_before(batch: RecordBatch, damage: WALCorrupt) -> RecordBatch:
    count = int(np.searchsorted(batch.positions, damage.offset))
    return RecordBatch(
        batch.data, batch.bounds[: count + 1], batch.segment, batch.positions[:count], batch.path
    )
