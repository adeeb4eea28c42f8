"""Write a block: chunks as they come, then index, tombstones and meta, then its name.

    <ulid>.tmp-for-creation/   chunks/000001 ...   index   tombstones   meta.json
        └── all synced, renamed to <ulid>, and the parent folder synced

A reader that opens the parent folder sees a whole block or none; what a killed writer leaves is
removed by the next opening. Series without chunks are left out, as Prometheus's compactor does.

Bound: see `IndexWriter`; chunk bytes are written batch by batch and never kept.
Source: Prometheus `tsdb/compact.go` (`write`); `docs/formats/block.md`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thanostack.lib.foundation.errors import InvalidLabels, StorageUnwritable
from thanostack.lib.foundation.ids import BlockId
from thanostack.lib.index.writer import IndexWriter
from thanostack.lib.model.label_order import compare_runs, take_runs
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.block_meta import (
    BlockMeta,
    BlockParent,
    BlockStats,
    sync_folder,
    write_meta,
)
from thanostack.lib.tsdb.chunk_segments import SEGMENT_BYTES, ChunkSegmentWriter
from thanostack.lib.tsdb.tombstones import write_tombstones

_CREATION = ".tmp-for-creation"


class BlockWriter:
    """One block in the making.

    Args:
        folder: where blocks live; the block becomes `folder/ulid`.
        mint: ms, inclusive.
        maxt: ms, exclusive.
        ulid: the block's name.
        level: compaction level.
        sources: level 1 blocks in it; itself when empty.
        parents: blocks it is made from.
        segment_bytes: of a chunk segment, at most.
        extra_meta: more keys for `meta.json`.

    Raises:
        StorageUnwritable: if the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mint: int,
        maxt: int,
        ulid: BlockId,
        level: int = 1,
        sources: Sequence[BlockId] = (),
        parents: Sequence[BlockParent] = (),
        segment_bytes: int = SEGMENT_BYTES,
        extra_meta: Mapping[str, Any] | None = None,
    ) -> None:
        self._meta = BlockMeta(
            ulid=ulid,
            mint=mint,
            maxt=maxt,
            level=level,
            sources=tuple(sorted(sources or (ulid,))),
            parents=tuple(parents),
            extra={"": dict(extra_meta)} if extra_meta else {},
        )
        self._target = folder / ulid
        self._building = folder / f"{ulid}{_CREATION}"
        self._index = IndexWriter()
        self._last_run: bytes | None = None
        try:
            shutil.rmtree(self._building, ignore_errors=True)
            (self._building / "chunks").mkdir(parents=True)
        except OSError as error:
            raise StorageUnwritable(f"{self._building}: {error.strerror}") from error
        self._chunks = ChunkSegmentWriter(self._building / "chunks", segment_bytes)

    @property
    def n_series(self) -> int:
        """Return how many series were written."""
        return self._index.n_series

    def write(self, batch: SeriesBatch) -> None:
        """Take a batch of series.

        Args:
            batch: ascending strictly in label order, and above all batches before; chunks of a
                series ascend and do not overlap.

        Raises:
            InvalidLabels: for a run that is not canonical, or series out of order.
            ValueError: for chunks that overlap, descend or lie outside of the batch.
            StorageUnwritable: if the disk refuses; the block is lost, call `abort`.
        """
        filled = np.flatnonzero(np.diff(batch.chunk_offsets))
        if not len(filled):
            return
        if len(filled) < len(batch):
            offsets = np.append(batch.chunk_offsets[filled], len(batch.chunks))
            labels = take_runs(batch.labels, filled)
            batch = SeriesBatch(labels, offsets, batch.chunks, batch.data)
        first, last = batch.labels.run(0), batch.labels.run(len(batch) - 1)
        if self._last_run is not None and compare_runs(self._last_run, first) >= 0:
            raise InvalidLabels(f"series out of label order: {batch.labels.mapping(0)}")
        self._last_run = last
        try:
            meta, offsets = self._chunks.write(batch)
        except OSError as error:
            raise StorageUnwritable(f"{self._building}: {error.strerror}") from error
        self._index.add(batch.labels, meta, offsets)

    def finish(self) -> BlockMeta:
        """Make the block durable and give it its name.

        Raises:
            LimitExceeded: if the index outgrows its format.
            StorageUnwritable: if the disk refuses; call `abort`.
        """
        try:
            return self._finish()
        except OSError as error:
            raise StorageUnwritable(f"{self._building}: {error.strerror}") from error

    def _finish(self) -> BlockMeta:
        chunks = self._chunks
        chunks.close()
        stats = BlockStats(
            samples=chunks.float_samples + chunks.histogram_samples,
            float_samples=chunks.float_samples,
            histogram_samples=chunks.histogram_samples,
            series=self._index.n_series,
            chunks=chunks.n_chunks,
        )
        meta = BlockMeta(
            ulid=self._meta.ulid,
            mint=self._meta.mint,
            maxt=self._meta.maxt,
            stats=stats,
            level=self._meta.level,
            sources=self._meta.sources,
            parents=self._meta.parents,
            hints=self._meta.hints,
            extra=self._meta.extra,
        )
        with (self._building / "index").open("wb") as index:
            for part in self._index.encode():
                index.write(part)
            index.flush()
            os.fsync(index.fileno())
        write_tombstones(self._building, {})
        write_meta(self._building, meta)
        sync_folder(self._building / "chunks")
        sync_folder(self._building)
        self._building.rename(self._target)
        sync_folder(self._target.parent)
        return meta

    def abort(self) -> None:
        """Remove what was written; harmless after `finish` or a second time."""
        try:
            self._chunks.close()
        except OSError:
            # The bytes that could not be synced are about to be removed.
            pass
        finally:
            shutil.rmtree(self._building, ignore_errors=True)
