"""One tenant's storage: a directory that Prometheus could open, a head, and blocks.

    append ──scan──> [job: resolve, stage, log, apply] ──> done(result)
    series ──> head snapshots (jobs of 2,000 rows) + blocks, merged in label order
    maintain ──> cut a block from the head, truncate head and log, checkpoint, retention

Invariants: what `append` acknowledged is in the log and readable; a sample is in the head until a
block that readers can see has it; nothing blocks the job queue for longer than one slice.

Source: DESIGN of the storage in docs/architecture.md; Prometheus `tsdb/db.go`, `tsdb/head.go`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from thanostack.lib.foundation.clock import Clock, SystemClock
from thanostack.lib.foundation.errors import NotReady, StorageUnwritable, ThanostackError
from thanostack.lib.kernels import head_append, label_canonical
from thanostack.lib.kernels.head_series import NEVER
from thanostack.lib.model.label_order import merge_series
from thanostack.lib.model.label_runs import Int64Array, LabelRuns, Uint8Array
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb import series_limits, untimely
from thanostack.lib.tsdb.block_list import BlockList
from thanostack.lib.tsdb.chunks_head import ChunksHeadWriter, load_chunks_head
from thanostack.lib.tsdb.head import Head, HeadOptions
from thanostack.lib.tsdb.head_reader import HeadReader, ReaderRegistry
from thanostack.lib.tsdb.job_queue import JobQueue
from thanostack.lib.tsdb.late_samples import count_stored
from thanostack.lib.tsdb.lock_file import LockFile
from thanostack.lib.tsdb.options import Report, TSDBOptions, TSDBStats, WriteResult, quiet
from thanostack.lib.tsdb.replay import Replay
from thanostack.lib.tsdb.write_columns import ColumnsPool, WriteColumns
from thanostack.lib.wal.records import encode_series_record
from thanostack.lib.wal.writer import WALOptions, WALWriter

_PENDING_MAX = 64 * 1024 * 1024
_PENDING_FLUSH = 1024 * 1024
_SAID_EVERY_S = 60.0
_POOL = ColumnsPool()

_REASONS = {
    head_append.OUT_OF_ORDER: "out_of_order",
    head_append.OUT_OF_BOUNDS: "out_of_bounds",
    head_append.TOO_FAR: "too_far_in_future",
    head_append.CONFLICT: "conflict",
    head_append.UNKNOWN: "invalid_labels",
}
_LABEL_FAULTS = {
    label_canonical.MALFORMED: "malformed label",
    label_canonical.EMPTY_NAME: "empty label name",
    label_canonical.DUPLICATE_NAME: "label name repeated",
    label_canonical.NOT_UTF8: "label is not UTF-8",
    label_canonical.TOO_MANY: "too many labels",
    label_canonical.EMPTY_VALUE: "empty label value",
    label_canonical.TOO_LONG: "a label name or value of more than 64 KiB",
    label_canonical.NO_LABELS: "no labels, or a reference beyond the symbol table",
    series_limits.SERIES: "the tenant is above its limit of active series",
    series_limits.LABEL_NAMES: "more labels than the tenant may give a series",
    series_limits.LABEL_NAME: "a label name longer than the tenant may have",
    series_limits.LABEL_VALUE: "a label value longer than the tenant may have",
}


class TSDB:
    """Storage of one tenant; also a `SeriesStore`.

    Args:
        folder: created if missing.
        options: see `TSDBOptions`.
        clock: for the bound on future samples and block names.
        report: gets events worth logging.

    Raises:
        DirectoryLocked: if another process uses the directory.
        StorageUnwritable: if it is read-only or full.
        Corruption: if it is damaged beyond repair; only what the report says was changed then.
    """

    def __init__(
        self, folder: Path, options: TSDBOptions, *, clock: Clock | None = None,
        report: Report = quiet,
    ) -> None:  # fmt: skip
        self.folder, self.options = folder, options
        self.clock: Clock = clock or SystemClock()
        self.report = report
        self.jobs = JobQueue()
        self.counters = TSDBStats()
        self.readers = ReaderRegistry()
        self.maintenance = threading.Lock()
        self._closed = False
        self.is_closing = False
        self.refusal = ""
        """Why writes are refused; empty while they are taken."""
        self.last_append_ms = self.clock.now_ms()
        self._silent_until_s: dict[str, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnwritable(f"{folder}: {error.strerror}") from error
        self._lock = None if options.no_lockfile else LockFile(folder)
        self.counters.clean_start = -1 if self._lock is None else int(not self._lock.was_left)
        try:
            self._open()
        except BaseException as error:
            if self._lock:
                self._lock.release()
            if isinstance(error, OSError):
                text = f"{error.filename or folder}: {error.strerror or error}"
                raise StorageUnwritable(text) from error
            raise

    def _open(self) -> None:
        started = self.clock.monotonic_s()
        self.blocks = BlockList(self.folder, self.report)
        self._report_late_log()
        self.min_valid = self.blocks.maxt
        table = load_chunks_head(self.folder / "chunks_head")
        for text in table.set_aside:
            self.report("set aside damaged head chunks; the log has their samples", {"what": text})
        # A torn end counts, as upstream counts it.
        self.counters.chunk_file_corruptions = int(bool(table.set_aside or table.torn_bytes))
        self.chunk_files = ChunksHeadWriter(self.folder / "chunks_head", known=table)
        head_options = HeadOptions(self.options.min_block_ms, self.options.series_max)
        self.head = Head(head_options, self.chunk_files)
        replay = Replay(self.head, table, self.min_valid, self.report)
        summary = replay.run(self.folder / "wal")
        self.counters.wal_corruptions = summary.corruptions
        self.counters.replay_unknown_refs = summary.unknown_refs
        self.wal = WALWriter(
            self.folder / "wal",
            WALOptions(
                segment_bytes=self.options.segment_bytes,
                compression=self.options.wal_compression,
                fsync=self.options.wal_fsync,
            ),
            ends_whole=summary.ends_whole,
        )
        self.wal_expiries: dict[int, int] = {}
        # Second references of a series: its samples in the log go under them until they are cut.
        self.wal_aliases = dict.fromkeys(summary.aliases, self.head.maxt)
        self.counters.replay_duration_s = self.clock.monotonic_s() - started

    def _report_late_log(self) -> None:
        """Tell of a log of samples out of order, left by a Thanos or Prometheus that takes them."""
        folder = self.folder / "wbl"
        size = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0
        if size:
            facts = {"folder": str(folder), "bytes": size}
            self.report("the folder has samples out of order, which are not read yet", facts)

    # --- write path ------------------------------------------------------------------------

    def append(
        self, body: Uint8Array | bytes, done: Callable[[Any], None], *, version: int = 1
    ) -> None:
        """Store the samples of a decoded write request.

        Args:
            body: protobuf; any message whose field 1 is `TimeSeries`, or a 2.0 request.
            done: gets a `WriteResult`, or the exception; inline, or later from another thread.
            version: of remote write, 1 or 2.
        """
        columns = _POOL.take()
        try:
            data = np.frombuffer(body, np.uint8) if not isinstance(body, np.ndarray) else body
            columns.scan(data, version)
        except ThanostackError as error:
            _POOL.give_back(columns)
            done(error)
            return

        def finished(outcome: Any) -> None:
            _POOL.give_back(columns)
            done(outcome)

        self.jobs.submit(lambda: self._write(columns, data, version), finished)

    def append_now(self, body: Uint8Array, *, version: int = 1) -> WriteResult | None:
        """Store the samples of a request; None, and nothing done, if other jobs are in the way."""
        columns = _POOL.take()
        try:
            columns.scan(body, version)
            return self.jobs.run_now(lambda: self._write(columns, body, version))
        finally:
            _POOL.give_back(columns)

    def append_and_wait(self, body: Uint8Array | bytes, *, version: int = 1) -> WriteResult:
        """Store the samples of a request and return what became of them; see `append`."""
        finished = threading.Event()
        outcome: list[Any] = []

        def done(result: Any) -> None:
            outcome.append(result)
            finished.set()

        self.append(body, done, version=version)
        finished.wait()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        result: WriteResult = outcome[0]
        return result

    def _write(self, columns: WriteColumns, body: Uint8Array, version: int) -> WriteResult:
        head = self.head
        self._check_writable()
        self.last_append_ms = self.clock.now_ms()
        earliest, latest = self._earliest(), self._latest()
        created, statuses = head.resolve(columns, self.options.limits, (earliest, latest))
        outcome, length = head.stage(columns, earliest, latest)
        untimely.recount(columns, outcome)
        if outcome[head_append.OUT_OF_ORDER]:
            self._forgive_duplicates(columns, outcome, earliest, body, version)
        records: list[Uint8Array | bytes] = []
        if head.unlogged:
            rows = np.concatenate(head.unlogged).astype(np.int32)
            records.append(encode_series_record(head.refs(rows), head.labels(rows)))
        if length:
            records.append(columns.record[:length])
        self.wal.log(records)
        head.unlogged.clear()
        head.apply(columns, int(outcome[head_append.STORED]))
        if head.pending_bytes > _PENDING_FLUSH:
            self._try_flush()
        return self._result(columns, outcome.tolist(), statuses, created)

    def refuse_writes(self, reason: str) -> None:
        """Refuse writes for a reason, or take them again if it is empty; not for the event loop.

        By the time this returns, what was acknowledged before is readable, and a write that comes
        later fails with NotReady.
        """
        # A job: it has writes before it and writes behind it, and none is both.
        self.jobs.run(lambda: setattr(self, "refusal", reason))

    def _forgive_duplicates(
        self, columns: WriteColumns, outcome: Int64Array, earliest: int, body: Uint8Array,
        version: int,
    ) -> None:  # fmt: skip
        """Count late samples that are stored already, bit for bit, as duplicates."""
        request = WriteColumns()
        request.scan(body, version)
        again = count_stored(self, request, columns.rows, earliest)
        outcome[head_append.OUT_OF_ORDER] -= again
        outcome[head_append.DUPLICATE] += again
        if again:
            outcome[head_append.FIRST_REJECTED] = -1  # that may have been one of these

    def _check_writable(self) -> None:
        if self._closed:
            raise StorageUnwritable("the storage is closed")
        if self.refusal:
            raise NotReady(self.refusal)
        if self.head.pending_bytes > _PENDING_MAX:
            # Closed chunks pile up in memory while their file refuses them: stop taking more.
            self.head.flush_closed()

    def _try_flush(self) -> None:
        try:
            self.head.flush_closed()
        except StorageUnwritable as error:
            # Every write tries again.
            self.report_rarely("head chunks stay in memory", error)

    def report_rarely(self, message: str, error: Exception) -> None:
        """Report what fails again and again, such as on a full disk: once a minute."""
        now_s = self.clock.monotonic_s()
        if now_s >= self._silent_until_s.get(message, now_s):
            self._silent_until_s[message] = now_s + _SAID_EVERY_S
            self.report(message, {"err": str(error)})

    def _earliest(self) -> int:
        """Return the oldest timestamp that may be appended, ms."""
        if self.head.maxt < self.head.mint:
            return self.min_valid
        return max(self.min_valid, self.head.maxt - self.options.min_block_ms // 2)

    def _latest(self) -> int:
        ahead = self.options.too_far_in_future_ms
        return self.last_append_ms + ahead if ahead else (1 << 63) - 1

    def _result(
        self, columns: WriteColumns, outcome: list[int], statuses: Int64Array, created: int
    ) -> WriteResult:
        result = WriteResult(
            samples=columns.samples,
            stored=outcome[head_append.STORED],
            duplicates=outcome[head_append.DUPLICATE],
            series_created=created,
            exemplars=columns.exemplars,
            histograms=columns.histograms,
            series=columns.count,
        )
        for verdict, reason in _REASONS.items():
            if outcome[verdict]:
                result.rejected[reason] = outcome[verdict]
        if columns.histograms:
            result.rejected["histogram"] = columns.histograms
            result.example = "native histograms are not stored yet"
        if len(statuses) and statuses.any():
            self._count_series(result, columns, statuses)
        if result.rejected:
            result.example = self._example(columns, outcome, statuses) or result.example
        self._count(result, outcome)
        return result

    def _count_series(
        self, result: WriteResult, columns: WriteColumns, statuses: Int64Array
    ) -> None:
        """Tell series that a limit refused from those whose labels are wrong."""
        samples = np.diff(columns.offsets[: columns.count + 1])
        unknown = result.rejected.pop("invalid_labels", 0)
        for reason, codes in series_limits.REASONS.items():
            chosen = np.isin(statuses, codes)
            if chosen.any():
                count = int(samples[chosen].sum())
                result.rejected[reason] = count or int(np.count_nonzero(chosen))
                unknown -= count
        result.series_limit = self.options.limits.series
        invalid = int(np.count_nonzero(~np.isin(statuses, (0, *series_limits.STATUSES))))
        if unknown or invalid:
            result.rejected["invalid_labels"] = unknown or invalid

    def _example(self, columns: WriteColumns, outcome: list[int], statuses: Int64Array) -> str:
        """Return one refused series, why, and which times it may have."""
        s = outcome[head_append.FIRST_REJECTED]
        if s < 0 and len(statuses) and statuses.any():
            s = int(np.flatnonzero(statuses)[0])
        if s < 0:
            return ""
        row = int(columns.rows[s])
        fault = int(statuses[s]) if len(statuses) else 0
        start, stop = columns.bounds[2 * s : 2 * s + 2]
        if fault or (row < 0 and start < 0):
            return f"series {s} of the request: {_LABEL_FAULTS.get(fault, 'not made')}"
        if row < 0:
            labels = LabelRuns.of([columns.data[start:stop].tobytes()]).mapping(0)
        else:
            labels = self.head.labels(np.array([row], np.int32)).mapping(0)
        pairs = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        # With several reasons it is not known which is this series'.
        reasons = [text.replace("_", " ") for v, text in _REASONS.items() if outcome[v]]
        reason = f"{reasons[0]}: " if len(reasons) == 1 else ""
        is_late = outcome[head_append.OUT_OF_ORDER] or outcome[head_append.CONFLICT]
        newest = int(self.head.tables.rows["last_t"][row]) if row >= 0 and is_late else NEVER
        bound = f", its newest sample is of {newest} ms" if newest > NEVER else ""
        if row < 0 or outcome[head_append.OUT_OF_BOUNDS] or outcome[head_append.TOO_FAR]:
            bound += self._span()
        return f"{reason}{{{pairs}}}{bound}"

    def _span(self) -> str:
        """Return which times any series may have, in words; a bound that is none is left out."""
        earliest, bounds = self._earliest(), []
        if earliest > -(1 << 63):
            bounds.append(f"from {earliest} ms on")
        if self.options.too_far_in_future_ms:
            bounds.append(f"up to {self._latest()} ms")
        return f", samples are taken {' and '.join(bounds)}" if bounds else ""

    def _count(self, result: WriteResult, outcome: list[int]) -> None:
        counters = self.counters
        counters.samples_appended += result.stored
        counters.head_series_created += result.series_created
        counters.out_of_order_samples += outcome[head_append.OUT_OF_ORDER]
        counters.out_of_bound_samples += outcome[head_append.OUT_OF_BOUNDS]
        counters.too_far_in_future_samples += outcome[head_append.TOO_FAR]
        counters.duplicate_conflicts += outcome[head_append.CONFLICT]

    # --- reading ---------------------------------------------------------------------------

    def time_range(self) -> tuple[int, int]:
        """Return (mint, maxt) of head and blocks, inclusive ms; maxt < mint when empty."""
        mint, maxt = self.head.mint, self.head.maxt
        if len(self.blocks.readers):
            mint, maxt = min(mint, self.blocks.mint), max(maxt, self.blocks.maxt - 1)
        return mint, maxt

    def series(self, query: SeriesQuery) -> Iterator[SeriesBatch]:
        """Yield matching series in ascending label order; see `SeriesStore`.

        Raises:
            Unavailable: if the head was cut under a reader that held on for minutes; ask again.
        """
        with self.readers.register() as reader:
            # The registration comes first: a cut waits for readers that do not see its block.
            blocks = self.blocks.readers
            sources = [HeadReader(self, reader).series(query)]
            sources += [block.series(query) for block in blocks if _overlaps(block, query)]
            batches = sources[0] if len(sources) == 1 else merge_series(sources)
            yield from _limited(batches, query.limit)

    def label_names(self, query: SeriesQuery) -> list[str]:
        """Return the sorted label names of matching series."""
        with self.readers.register() as reader:
            names = set(HeadReader(self, reader).label_names(query))
            for block in self.blocks.readers:
                if _overlaps(block, query):
                    names.update(block.label_names(query))
        return sorted(names)[: query.limit or None]

    def label_values(self, name: str, query: SeriesQuery) -> list[str]:
        """Return the sorted values of one label over matching series."""
        with self.readers.register() as reader:
            values = set(HeadReader(self, reader).label_values(name, query))
            for block in self.blocks.readers:
                if _overlaps(block, query):
                    values.update(block.label_values(name, query))
        return sorted(values)[: query.limit or None]

    def stats(self) -> TSDBStats:
        """Return the current figures; the object is refreshed by each call."""
        counters, wal = self.counters, self.wal.counters
        head, blocks = self.head, self.blocks
        counters.head_series = head.series
        counters.head_chunks_created = head.chunks_made
        counters.head_chunks_removed = head.chunks_removed
        counters.head_chunks = counters.head_chunks_created - counters.head_chunks_removed
        counters.chunks_mapped = head.chunks_placed
        counters.head_min_time, counters.head_max_time = head.mint, head.maxt
        counters.wal_fsyncs, counters.wal_fsync_duration_s = wal.fsyncs, wal.fsync_ns / 1e9
        counters.wal_page_flushes = wal.page_flushes
        counters.wal_completed_pages = wal.pages_completed
        counters.wal_writes_failed = wal.writes_failed
        counters.wal_truncations = wal.truncations
        counters.wal_truncations_failed = wal.truncations_failed
        counters.wal_segment_current = self.wal.current_segment
        counters.wal_storage_size_bytes = self.wal.size_bytes
        counters.head_chunks_storage_size_bytes = self.chunk_files.size_bytes
        counters.blocks_loaded = len(blocks.readers)
        counters.blocks_unreadable = len(blocks.unreadable)
        counters.blocks_bytes = blocks.size_bytes
        counters.symbol_table_bytes = blocks.symbol_table_bytes
        counters.reloads, counters.reloads_failed = blocks.reloads, blocks.reloads_failed
        counters.retention_limit_bytes = self.options.retention_bytes
        counters.retention_limit_s = self.options.retention_ms / 1000
        counters.lowest_timestamp = self.time_range()[0]
        return counters

    # --- life ------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Return whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Write what is pending, sync the log and let go of the directory.

        A block that is being cut is finished first; others that are due wait for the next start.
        """
        self.is_closing = True
        with self.maintenance:
            if self._closed:
                return
            self.jobs.run(self._shut)
            if self._lock:
                self._lock.release()

    def _shut(self) -> None:
        """Close the files; a job, so that none is written to meanwhile."""
        self._try_flush()
        self._closed = True
        self.readers.close()
        self.chunk_files.close()
        self.wal.close()


def _overlaps(block: Any, query: SeriesQuery) -> bool:
    mint, maxt = block.time_range()
    return bool(mint <= query.maxt and maxt >= query.mint)


def _limited(batches: Iterator[SeriesBatch], limit: int) -> Iterator[SeriesBatch]:
    if limit <= 0:
        yield from batches
        return
    for batch in batches:
        if len(batch) >= limit:
            yield _first_rows(batch, limit)
            return
        limit -= len(batch)
        yield batch


def _first_rows(batch: SeriesBatch, rows: int) -> SeriesBatch:
    labels = type(batch.labels)(batch.labels.data, batch.labels.offsets[: rows + 1])
    offsets = batch.chunk_offsets[: rows + 1]
    return SeriesBatch(labels, offsets, batch.chunks[: offsets[-1]], batch.data)
