"""What PromQL asks of whoever has series, and what storage offers to the StoreAPI.

    PromQL engine --SelectRequest--> Queryable --> SeriesSource --samples--> SampleBatch
    StoreAPI server --SeriesQuery--> SeriesStore --> Iterator[SeriesBatch]

Both are protocols: the engine never learns whether series come from a head, a block or a network,
and a store never learns who asks. All time bounds are inclusive milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.model.series import SampleBatch, SeriesBatch


@dataclass(frozen=True, slots=True)
class SelectHints:
    """What the engine will do with a selection; a source may use it to send less.

    Args:
        step_ms: of the query; 0 for an instant query.
        range_ms: of the surrounding range selector, 0 if none.
        function: innermost function or aggregation over the selector, "" if none.
        grouping: labels of the surrounding aggregation.
        by: whether `grouping` is `by` rather than `without`.
    """

    step_ms: int = 0
    range_ms: int = 0
    function: str = ""
    grouping: tuple[str, ...] = ()
    by: bool = False


@dataclass(frozen=True, slots=True)
class SelectRequest:
    """One selector of a query: matchers and the time it needs, [mint, maxt], ms."""

    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int
    hints: SelectHints = SelectHints()


class SeriesSource(Protocol):
    """The series that one selection found, decoded on demand in batches of rows."""

    @property
    def labels(self) -> LabelRuns:
        """Return the label sets, unique and in ascending label order."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what went missing, as texts for the answer's `warnings`."""
        ...

    def samples(self, first: int, stop: int, mint: int, maxt: int) -> SampleBatch:
        """Return the samples of rows [first, stop) inside [mint, maxt], ms.

        Stale markers are kept. Callable from any thread, any number of times.
        """
        ...


class Queryable(Protocol):
    """Selects series; called from a worker thread and may block on the network."""

    def select(self, requests: Sequence[SelectRequest]) -> list[SeriesSource]:
        """Return one source a request, fetched concurrently.

        Raises:
            QueryFailed, Unavailable: when a partial answer is not wanted and one store failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """What a store is asked: matchers, inclusive bounds in ms, labels only, and a series cap."""

    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int
    skip_chunks: bool = False
    limit: int = 0


class SeriesStore(Protocol):
    """One set of series with common external labels: a tenant's TSDB, or a block."""

    def time_range(self) -> tuple[int, int]:
        """Return (mint, maxt) of what is stored, inclusive ms; maxt < mint when empty."""
        ...

    def series(self, query: SeriesQuery) -> Iterator[SeriesBatch]:
        """Yield matching series in ascending label order, a series in one batch only.

        Chunks overlapping the bounds are returned whole. Labels are as stored: no external ones.
        """
        ...

    def label_names(self, query: SeriesQuery) -> list[str]:
        """Return the sorted label names of matching series (all series without matchers)."""
        ...

    def label_values(self, name: str, query: SeriesQuery) -> list[str]:
        """Return the sorted values of one label over matching series."""
        ...
