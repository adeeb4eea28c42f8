"""A SeriesStore in memory, and batches from plain samples; for tests of whoever reads stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from thanostack.lib.chunkenc.xor import encode_chunk
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch

Samples = Sequence[tuple[int, float]]
SAMPLES_PER_CHUNK = 120


def chunked_batch(series: Sequence[tuple[Mapping[str, str], Sequence[Samples]]]) -> SeriesBatch:
    """Return a batch of series given as (labels, chunks of samples), in the order given."""
    labels = LabelRuns.of_mappings([mapping for mapping, _ in series])
    flat = [samples for _, chunks in series for samples in chunks]
    bodies = [
        encode_chunk(
            np.array([t for t, _ in samples], np.int64),
            np.array([v for _, v in samples], np.float64),
        )
        for samples in flat
    ]
    rows = np.zeros(len(flat), CHUNK_DTYPE)
    start = 0
    for row, samples, body in zip(rows, flat, bodies, strict=True):
        row["mint"], row["maxt"], row["encoding"] = samples[0][0], samples[-1][0], 1
        row["start"], row["length"] = start, len(body)
        start += len(body)
    offsets = np.cumsum([0] + [len(chunks) for _, chunks in series]).astype(np.int64)
    return SeriesBatch(labels, offsets, rows, np.frombuffer(b"".join(bodies), np.uint8))


@dataclass
class MemoryStore:
    """Series with their samples, answered in batches of a few series.

    Args:
        series: (labels, samples) in any order.
        batch_size: series a batch.
        queries: every SeriesQuery that was asked, for tests to look at.
    """

    series_list: Sequence[tuple[Mapping[str, str], Samples]]
    batch_size: int = 2
    queries: list[SeriesQuery] = field(default_factory=list)

    def time_range(self) -> tuple[int, int]:
        """Return (mint, maxt) of all samples."""
        times = [t for _, samples in self.series_list for t, _ in samples]
        return (min(times), max(times)) if times else ((1 << 63) - 1, -(1 << 63))

    def _matching(self, query: SeriesQuery) -> list[tuple[Mapping[str, str], Samples]]:
        found = [
            (labels, samples)
            for labels, samples in self.series_list
            if all(m.matches(labels.get(m.name, "").encode()) for m in query.matchers)
            and any(query.mint <= t <= query.maxt for t, _ in samples)
        ]
        return sorted(
            found, key=lambda item: sorted((n.encode(), v.encode()) for n, v in item[0].items())
        )

    def series(self, query: SeriesQuery) -> Iterator[SeriesBatch]:
        """Yield matching series in ascending label order."""
        self.queries.append(query)
        found = self._matching(query)[: query.limit or None]
        for first in range(0, len(found), self.batch_size):
            part = found[first : first + self.batch_size]
            if query.skip_chunks:
                runs = LabelRuns.of(encode_run(labels) for labels, _ in part)
                yield SeriesBatch.without_chunks(runs)
                continue
            yield chunked_batch([(labels, _cut(samples)) for labels, samples in part])

    def label_names(self, query: SeriesQuery) -> list[str]:
        """Return the sorted label names of matching series."""
        return sorted({name for labels, _ in self._matching(query) for name in labels})

    def label_values(self, name: str, query: SeriesQuery) -> list[str]:
        """Return the sorted values of one label over matching series."""
        return sorted({labels[name] for labels, _ in self._matching(query) if name in labels})


def _cut(samples: Samples) -> list[Samples]:
    return [
        samples[first : first + SAMPLES_PER_CHUNK]
        for first in range(0, len(samples), SAMPLES_PER_CHUNK)
    ]
