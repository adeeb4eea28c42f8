"""Series in memory as a `Queryable`: for tests of the engine, without storage and network.

Invariant: labels are handed out in ascending label order, samples in the order of time, bounds are
inclusive, as every other source does.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from thanostack.lib.model.label_runs import LabelRuns, Labels, encode_run
from thanostack.lib.model.queryable import SelectRequest, SeriesSource
from thanostack.lib.model.series import SampleBatch

Samples = Iterable[tuple[int, float]]


@dataclass(slots=True)
class MemorySource:
    """The series that one request found."""

    rows: list[tuple[Labels, list[int], list[float]]]
    warnings: tuple[str, ...] = ()
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def labels(self) -> LabelRuns:
        """Return the label sets in ascending order."""
        return LabelRuns.of(encode_run(labels) for labels, _, _ in self.rows)

    def samples(self, first: int, stop: int, mint: int, maxt: int) -> SampleBatch:
        """Return the samples of rows [first, stop) inside [mint, maxt]."""
        self.reads.append((first, stop, mint, maxt))
        offsets, timestamps, values = [0], [], []
        for _, times, numbers in self.rows[first:stop]:
            low, high = bisect.bisect_left(times, mint), bisect.bisect_right(times, maxt)
            timestamps += times[low:high]
            values += numbers[low:high]
            offsets.append(len(timestamps))
        return SampleBatch(
            np.array(offsets, np.int64),
            np.array(timestamps, np.int64),
            np.array(values, np.float64),
        )


@dataclass(slots=True)
class MemoryQueryable:
    """All series; `selected` remembers the sources of every call.

    Args:
        warnings: what each source says is missing.
    """

    warnings: tuple[str, ...] = ()
    selected: list[list[MemorySource]] = field(default_factory=list)
    _series: dict[Labels, dict[int, float]] = field(default_factory=dict)

    @staticmethod
    def of(series: Mapping[tuple[tuple[str, str], ...], Samples]) -> MemoryQueryable:
        """Return a queryable of series given as pairs of labels and (time, value) pairs."""
        queryable = MemoryQueryable()
        for labels, samples in series.items():
            queryable.add(dict(labels), samples)
        return queryable

    def add(self, labels: Mapping[str, str], samples: Samples) -> None:
        """Add samples to a series; a later value at one time replaces the earlier."""
        key = tuple(sorted((n.encode(), v.encode()) for n, v in labels.items() if v))
        self._series.setdefault(key, {}).update(samples)

    def select(self, requests: Sequence[SelectRequest]) -> list[SeriesSource]:
        """Return one source a request."""
        sources = [self._source(request) for request in requests]
        self.selected.append(sources)
        return list(sources)

    def _source(self, request: SelectRequest) -> MemorySource:
        rows = []
        for labels, samples in sorted(self._series.items()):
            values = dict(labels)
            if not all(m.matches(values.get(m.name.encode(), b"")) for m in request.matchers):
                continue
            times = sorted(t for t in samples if request.mint <= t <= request.maxt)
            if times:
                rows.append((labels, times, [samples[t] for t in times]))
        return MemorySource(rows, self.warnings)
