"""Warnings and infos that travel with a result, with Prometheus's texts.

An annotation is known by its text; the position, `(line:column)`, is appended when the query is
over, so that one text at several places is told once, with the place that came last. The info on
forced monotonicity collects figures instead.

Source: Prometheus 3.14 `util/annotations/annotations.go`, `promql/parser/posrange`.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field

from thanostack.lib.promql.ast import Position
from thanostack.lib.promql.engine.numbers_text import format_general, quote

WARNING = "PromQL warning: "
INFO = "PromQL info: "

_MONOTONICITY = (
    "input to histogram_quantile needed to be fixed for monotonicity (see "
    "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)


def invalid_quantile(q: float) -> str:
    """Return the warning on a quantile outside of [0, 1]."""
    value = format_general(q)
    return f"{WARNING}quantile value should be between 0 and 1, got {value}"


def invalid_ratio(ratio: float, capped: float) -> str:
    """Return the warning on a ratio outside of [-1, 1]."""
    return (
        f"{WARNING}ratio value should be between -1 and 1, got {format_general(ratio)}, "
        f"capping to {format_general(capped)}"
    )


def bad_bucket_label(metric: str, label: str) -> str:
    """Return the warning on an `le` that is no number."""
    text = f'{WARNING}bucket label "le" is missing or has a malformed value of {quote(label)}'
    return _with_metric(text, metric)


def sort_in_range_query() -> str:
    """Return the warning on sorting what is always ordered by labels."""
    return (
        f"{WARNING}sort is ineffective for range queries since results are always ordered by labels"
    )


def possible_non_counter(metric: str) -> str:
    """Return the info on a rate of something whose name is not that of a counter."""
    return (
        f"{INFO}metric might not be a counter, name does not end in "
        f"_total/_sum/_count/_bucket: {quote(metric)}"
    )


def possible_non_counter_type(metric: str, kind: str) -> str:
    """Return the info on a rate of something whose `__type__` is not that of a counter."""
    return (
        f'{INFO}metric might not be a counter, __type__ label is not set to "counter" or '
        f'"histogram", got {quote(kind)}: {quote(metric)}'
    )


def incompatible_types(left: str, operator: str, right: str) -> str:
    """Return the info on an operator between samples that it does not combine."""
    return (
        f"{INFO}incompatible sample types encountered for binary operator {quote(operator)}: "
        f"{left} {operator} {right}"
    )


def _with_metric(text: str, metric: str) -> str:
    return f"{text} for metric name {quote(metric)}" if metric else text


@dataclass(slots=True)
class ForcedMonotonicity:
    """What histogram_quantile had to mend: bounds of the buckets, the largest fall, when."""

    lowest: float = math.inf
    highest: float = -math.inf
    difference: float = 0.0
    first_ms: int = 2**63 - 1
    last_ms: int = -(2**63)
    count: int = 0

    def merge(self, other: ForcedMonotonicity) -> None:
        """Add the figures of another histogram."""
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        self.difference = max(self.difference, other.difference)
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms = max(self.last_ms, other.last_ms)
        self.count += other.count

    def __str__(self) -> str:
        return (
            f", from buckets {format_general(self.lowest)} to {format_general(self.highest)}, "
            f"with a max diff of {format_general(self.difference, 2)}, over {self.count} samples "
            f"from {_rfc3339(self.first_ms)} to {_rfc3339(self.last_ms)}"
        )


def _rfc3339(time_ms: int) -> str:
    # Go divides towards zero.
    seconds = int(time_ms / 1000)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (moment + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Annotations:
    """The annotations of one query."""

    _places: dict[str, Position] = field(default_factory=dict)
    _forced: dict[str, ForcedMonotonicity] = field(default_factory=dict)

    def add(self, text: str, position: Position) -> None:
        """Remember a text; a repetition only moves it."""
        self._places[text] = position

    def add_forced(self, metric: str, position: Position, figures: ForcedMonotonicity) -> None:
        """Remember that buckets were forced to be monotonic."""
        text = _with_metric(INFO + _MONOTONICITY, metric)
        self._places[text] = position
        self._forced.setdefault(text, ForcedMonotonicity()).merge(figures)

    def texts(self, prefix: str, query: str) -> list[str]:
        """Return the texts that begin with WARNING or INFO, with positions in `query`."""
        return [
            f"{text}{self._forced.get(text, '')} ({_line_column(query, position.start)})"
            for text, position in self._places.items()
            if text.startswith(prefix)
        ]


def _line_column(query: str, start: int) -> str:
    before = query.encode()[:start]
    column = start - before.rfind(b"\n")
    return f"{before.count(10) + 1}:{column}"
