"""A merged answer of the StoreAPI, as PromQL reads it."""

from __future__ import annotations

from dataclasses import dataclass

from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.series import SampleBatch, SeriesBatch
from thanostack.lib.storeapi.dedup import Dedup, read_samples


@dataclass(frozen=True, slots=True)
class MergedSeries:
    """One selection's series; implements `model.queryable.SeriesSource`.

    Args:
        batch: merged: ascending, unique.
        dedup: how their samples are read.
        warnings: what went missing.
    """

    batch: SeriesBatch
    dedup: Dedup
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> LabelRuns:
        """Return the label sets, unique and in ascending label order."""
        return self.batch.labels

    def samples(self, first: int, stop: int, mint: int, maxt: int) -> SampleBatch:
        """Return the samples of rows [first, stop) inside [mint, maxt], ms.

        Raises:
            ChunkCorrupt: if a chunk's bytes are not a chunk.
            ExecutionFailed: for a native histogram chunk.
        """
        return read_samples(self.batch, first, stop, mint, maxt, self.dedup)
