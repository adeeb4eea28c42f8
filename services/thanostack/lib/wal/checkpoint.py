"""Checkpoints: the older part of a log, without what nobody needs any more.

    wal/checkpoint.00000007/00000000 …   what is still wanted of segments ..7
    wal/00000008 …                       the rest of the log

A checkpoint is a log itself. It is written beside its place, synced and renamed, so there is
always a whole one; a leftover `.tmp` is deleted before the next. Reading a log means the newest
checkpoint and then the segments after its number: `log_readers`.

    series               kept while `keep` says so
    samples              kept series, t >= mint
    tombstones           kept series, maxt >= mint
    metadata             the newest of each kept series, in the last records
    exemplars, histograms   records as they are, while any entry has t >= mint
    unknown types        dropped, as upstream does

Start times of samples (record type 11) are not kept: samples are written as type 2.

Source: Prometheus `tsdb/wlog/checkpoint.go`; `docs/formats/checkpoint.md`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thanostack.lib.foundation.errors import StorageUnwritable, WALCorrupt
from thanostack.lib.kernels.wal_ages import wal_locate_metadata, wal_newest_times
from thanostack.lib.model.label_runs import BoolArray
from thanostack.lib.wal.reader import RecordBatch, RecordReader
from thanostack.lib.wal.records import (
    DecodeScratch,
    RecordType,
    TombstoneColumns,
    Uint64Array,
    decode_samples,
    decode_series,
    decode_tombstones,
    encode_samples_record,
    encode_series_record,
    encode_tombstones_record,
    record_types,
)
from thanostack.lib.wal.segments import sync_folder
from thanostack.lib.wal.writer import WALOptions, WALWriter

_PREFIX = "checkpoint."
_TEMPORARY = ".tmp"
_METADATA_RECORD_BYTES = 1024 * 1024
_CARRIED = (
    RecordType.EXEMPLARS,
    RecordType.HISTOGRAMS,
    RecordType.FLOAT_HISTOGRAMS,
    RecordType.CUSTOM_BUCKET_HISTOGRAMS,
    RecordType.CUSTOM_BUCKET_FLOAT_HISTOGRAMS,
    RecordType.HISTOGRAMS_V2,
    RecordType.FLOAT_HISTOGRAMS_V2,
)


@dataclass(slots=True)
class CheckpointStats:
    """What went into a checkpoint and what was left out."""

    series: int = 0
    series_dropped: int = 0
    samples: int = 0
    samples_dropped: int = 0
    tombstones: int = 0
    tombstones_dropped: int = 0
    metadata: int = 0
    metadata_dropped: int = 0
    carried_records: int = 0
    carried_records_dropped: int = 0
    size_bytes: int = 0


def checkpoint_path(folder: Path, number: int) -> Path:
    """Return the path of the checkpoint that ends with segment `number`."""
    return folder / f"{_PREFIX}{number:08d}"


def list_checkpoints(folder: Path) -> list[tuple[Path, int]]:
    """Return the finished checkpoints of a log, the oldest first."""
    if not folder.is_dir():
        return []
    found = []
    for entry in os.scandir(folder):
        digits = entry.name.removeprefix(_PREFIX)
        if entry.name != digits and digits.isascii() and digits.isdigit() and entry.is_dir():
            found.append((folder / entry.name, int(digits)))
    return sorted(found, key=lambda pair: pair[1])


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Return the newest checkpoint and the last segment folded into it, None if there is none."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def log_readers(folder: Path) -> Iterator[RecordReader]:
    """Yield the readers of a whole log in order: the newest checkpoint, then what follows it.

    Only the last one may end torn.

    Raises:
        WALCorrupt: if segments are missing between the checkpoint and the rest.
    """
    newest = last_checkpoint(folder)
    if newest is None:
        yield RecordReader(folder)
        return
    yield _WholeReader(newest[0])
    rest = RecordReader(folder, first=newest[1] + 1)
    if rest.first is not None and rest.first > newest[1] + 1:
        missing = f"the log goes on with segment {rest.first}, its checkpoint ends with {newest[1]}"
        raise WALCorrupt(str(newest[0]), 0, missing)
    yield rest


def delete_checkpoints(folder: Path, before: int) -> None:
    """Delete the checkpoints whose number is below `before`."""
    for path, number in list_checkpoints(folder):
        if number < before:
            shutil.rmtree(path)


def write_checkpoint(
    wal_folder: Path,
    first: int,
    last: int,
    *,
    keep: Callable[[Uint64Array], BoolArray],
    mint: int,
    options: WALOptions | None = None,
) -> CheckpointStats:
    """Fold the newest checkpoint and segments `first..last` into checkpoint `last`.

    Deleting what it replaces is the caller's: `WALWriter.truncate(last + 1)`, then
    `delete_checkpoints(last)`.

    Args:
        wal_folder: the log.
        first: the first segment wanted; those that a checkpoint has already are passed over.
        last: inclusive; must not be written any more.
        keep: tells of uint64[n] series references which are still wanted, with no side effects;
            it must not change its mind while this runs.
        mint: ms; samples before it are dropped.
        options: how it is written; syncing is always done.

    Raises:
        WALCorrupt: if anything does not read or decode: repairing is no way out here.
        StorageUnwritable: if the disk refuses. Nothing is left behind in either case.

    Cost: one pass over its input; memory is a batch, and the newest metadata of each series.
    """
    for leftover in wal_folder.glob(f"{_PREFIX}*{_TEMPORARY}"):
        shutil.rmtree(leftover)
    target = checkpoint_path(wal_folder, last)
    temporary = target.with_name(target.name + _TEMPORARY)
    options = replace(options or WALOptions(), fsync="segment")
    try:
        writer = WALWriter(temporary, options)
        try:
            folding = _Folding(writer, keep, mint)
            for reader in _sources(wal_folder, first, last):
                for batch in reader:
                    folding.add(batch)
            folding.finish()
        finally:
            writer.close()
        _publish(writer, temporary, target)
    except OSError as error:
        raise StorageUnwritable(f"checkpoint {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    folding.stats.size_bytes = sum(path.stat().st_size for path in target.iterdir())
    return folding.stats


def _sources(folder: Path, first: int, last: int) -> Iterator[RecordReader]:
    newest = last_checkpoint(folder)
    if newest is not None:
        path, number = newest
        if first > number + 1:
            found = f"segments after {number} are folded next, not from {first} on"
            raise WALCorrupt(str(path), 0, found)
        first = number + 1
        yield _WholeReader(path)
    yield _WholeReader(folder, first, last)


class _WholeReader(RecordReader):
    """A reader for logs that nothing may be missing of: a torn end is damage too."""

    def __iter__(self) -> Iterator[RecordBatch]:
        yield from super().__iter__()
        if self.torn is not None:
            raise self.torn


def _publish(writer: WALWriter, temporary: Path, target: Path) -> None:
    if writer.counters.fsyncs_failed:
        raise StorageUnwritable(f"checkpoint {target}: the disk did not take it")
    sync_folder(temporary)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    sync_folder(target.parent)


class _Folding:
    """Filter batches into a writer."""

    def __init__(
        self, writer: WALWriter, keep: Callable[[Uint64Array], BoolArray], mint: int
    ) -> None:
        self.stats = CheckpointStats()
        self._writer, self._keep, self._mint = writer, keep, mint
        self._scratch = DecodeScratch()
        self._metadata: dict[int, bytes] = {}

    def add(self, batch: RecordBatch) -> None:
        """Write what is wanted of a batch, its series first."""
        records = [self._series(batch), self._samples(batch), self._tombstones(batch)]
        self._writer.log([record for record in records if len(record) > 1])
        self._carry(batch)
        self._note_metadata(batch)

    def finish(self) -> None:
        """Write the newest metadata of each series."""
        record = bytearray((RecordType.METADATA,))
        for entry in self._metadata.values():
            record += entry
            if len(record) >= _METADATA_RECORD_BYTES:
                self._writer.log([bytes(record)])
                del record[1:]
        if len(record) > 1:
            self._writer.log([bytes(record)])
        self.stats.metadata = len(self._metadata)
        self.stats.metadata_dropped -= len(self._metadata)

    def _series(self, batch: RecordBatch) -> bytes:
        series = decode_series(batch, self._scratch)
        mask = self._wanted(series.refs)
        self.stats.series += int(mask.sum())
        self.stats.series_dropped += int((~mask).sum())
        return encode_series_record(series.refs, series.runs, mask)

    def _samples(self, batch: RecordBatch) -> bytes:
        samples = decode_samples(batch, self._scratch)
        mask = samples.timestamps >= self._mint
        mask &= self._wanted(samples.refs)
        self.stats.samples += int(mask.sum())
        self.stats.samples_dropped += int((~mask).sum())
        return encode_samples_record(samples, mask)

    def _tombstones(self, batch: RecordBatch) -> bytes:
        stones = decode_tombstones(batch)
        mask = (stones.maxt >= self._mint) & self._wanted(stones.refs)
        self.stats.tombstones += int(mask.sum())
        self.stats.tombstones_dropped += int((~mask).sum())
        kept = TombstoneColumns(stones.refs[mask], stones.mint[mask], stones.maxt[mask])
        return encode_tombstones_record(kept)

    def _carry(self, batch: RecordBatch) -> None:
        carried = np.flatnonzero(np.isin(record_types(batch), _CARRIED))
        if not len(carried):
            return
        times = np.empty(len(batch), np.int64)
        wal_newest_times(batch.data, batch.bounds, times)
        young = carried[times[carried] >= self._mint]
        self._writer.log([batch.record(i) for i in young.tolist()])
        self.stats.carried_records += len(young)
        self.stats.carried_records_dropped += len(carried) - len(young)

    def _note_metadata(self, batch: RecordBatch) -> None:
        for i in np.flatnonzero(record_types(batch) == RecordType.METADATA).tolist():
            start, stop = int(batch.bounds[i]) + 1, int(batch.bounds[i + 1])
            # An entry is a reference, a type and a count: at least three bytes.
            room = (stop - start) // 3 + 1
            refs, offsets = np.empty(room, np.uint64), np.empty(room + 1, np.int64)
            count = wal_locate_metadata(batch.data, start, stop, refs, offsets)
            if count < 0:
                raise batch.corrupt(i, "a metadata record that does not decode")
            wanted = self._wanted(refs[:count])
            self.stats.metadata_dropped += count
            for k in np.flatnonzero(wanted).tolist():
                entry = batch.data[offsets[k] : offsets[k + 1]].tobytes()
                # Popped first: the newest comes last, in the order of the log.
                self._metadata.pop(int(refs[k]), None)
                self._metadata[int(refs[k])] = entry

    def _wanted(self, refs: Uint64Array) -> BoolArray:
        return self._keep(refs) if len(refs) else np.zeros(0, np.bool_)
