"""What a head's series are made of: the largest metrics, labels and pairs.

The index is copied out by jobs of one slice each, so that writers wait for a slice at most, and is
counted outside of them. A rebuild of the index meanwhile makes the count begin anew.

Source: Prometheus `tsdb/index/postings.go` (Stats), `model/labels` (SizeOfLabels, as Thanos builds
it); Thanos `pkg/api/status/v1.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import Unavailable
from thanostack.lib.kernels import head_pairs
from thanostack.lib.kernels.head_types import PAIRS
from thanostack.lib.model.label_runs import Int64Array, decode_run, uvarint
from thanostack.lib.tsdb.head import Head
from thanostack.lib.tsdb.tsdb import TSDB

SLICE: Final = 1 << 15
_TEXTS_SLICE: Final = 1000
_ATTEMPTS: Final = 5
_METRIC_NAME: Final = b"\x0a\x08__name__"
_STRING_BYTES: Final = 16  # of a Go string, beside its text

Records = npt.NDArray[Any]
Counts = list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Cardinality:
    """Figures of one head; the lists are descending, at most as long as was asked for.

    Args:
        series: how many.
        label_pairs: how many distinct ones.
        chunks: open and closed ones.
        mint, maxt: ms, inclusive; 2^63 - 1 and -2^63 when empty.
        series_by_metric: series by metric name.
        values_by_label: distinct values by label name.
        bytes_by_label: bytes that a Go program would take for a label's texts.
        series_by_pair: series by `name=value`.
    """

    series: int
    label_pairs: int
    chunks: int
    mint: int
    maxt: int
    series_by_metric: Counts
    values_by_label: Counts
    bytes_by_label: Counts
    series_by_pair: Counts


class _IndexChangedError(Exception):
    """The index was rebuilt between two slices."""


def cardinality(tsdb: TSDB, limit: int) -> Cardinality:
    """Return what the series of a tenant's head are made of; not for a job.

    Args:
        tsdb: of the tenant.
        limit: of each list, 0 or more.

    Raises:
        Unavailable: if the index is rebuilt again and again meanwhile.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _Count(tsdb).result(limit)
        except _IndexChangedError:
            continue
    raise Unavailable("the index of the head is being rebuilt", 1)


class _Count:
    """One attempt, on one generation of the index."""

    def __init__(self, tsdb: TSDB) -> None:
        self._head, self._jobs = tsdb.head, tsdb.jobs
        self._generation = self._head.generation

    def result(self, limit: int) -> Cardinality:
        """Count.

        Raises:
            _IndexChangedError: if the generation is over.
        """
        records = self._copied(PAIRS, lambda head: head.tables.pairs)
        chunks = self._in_job(lambda head: head.chunks_made - head.chunks_removed)
        names = records["name"].astype(np.int64)
        pairs = np.flatnonzero((names >= 0) & (records["count"] > 0))
        owners, counts = names[pairs], records["count"][pairs].astype(np.int64)
        metric = self._in_job(
            lambda head: head_pairs.head_find_pair(
                head.tables, np.frombuffer(_METRIC_NAME, np.uint8)
            )
        )
        values = np.bincount(owners, minlength=len(records))
        sizes = np.bincount(owners, _label_bytes(records, pairs, owners) * counts, len(records))
        labels = np.flatnonzero(values)
        of_metric = owners == metric
        return Cardinality(
            series=self._head.series,
            label_pairs=len(pairs),
            chunks=chunks,
            mint=self._head.mint,
            maxt=self._head.maxt,
            series_by_metric=[
                (text.partition("=")[2], n)
                for text, n in self._top(pairs[of_metric], counts[of_metric], limit)
            ],
            values_by_label=self._top(labels, values[labels], limit),
            bytes_by_label=self._top(labels, sizes[labels].astype(np.int64), limit),
            series_by_pair=self._top(pairs, counts, limit),
        )

    def _in_job(self, look: Callable[[Head], Any]) -> Any:
        def job() -> Any:
            if self._head.generation != self._generation:
                raise _IndexChangedError
            return look(self._head)

        return self._jobs.run(job)

    def _copied(self, length: int, table: Callable[[Head], Records]) -> Records:
        """Return a copy of a table, slice by slice, as long as it was at first."""
        n = int(self._in_job(lambda head: head.tables.meta[length]))
        slices = [
            self._in_job(_Slice(table, at, min(at + SLICE, n))) for at in range(0, max(n, 1), SLICE)
        ]
        return np.concatenate(slices)

    def _top(self, records: Int64Array, counts: Int64Array, limit: int) -> Counts:
        order = np.argsort(-counts, kind="stable")[:limit]
        texts = self._texts(records[order].tolist())
        found = list(zip(texts, counts[order].tolist(), strict=True))
        return sorted(found, key=lambda entry: (-entry[1], entry[0]))

    def _texts(self, records: Sequence[int]) -> list[str]:
        texts: list[str] = []
        for at in range(0, len(records), _TEXTS_SLICE):
            texts += self._in_job(_Texts(records[at : at + _TEXTS_SLICE]))
        return texts


@dataclass(frozen=True)
class _Slice:
    """Copies [first, stop) of a table."""

    table: Callable[[Head], Records]
    first: int
    stop: int

    def __call__(self, head: Head) -> Records:
        return self.table(head)[self.first : self.stop].copy()


@dataclass(frozen=True)
class _Texts:
    """Reads the texts of records."""

    records: Sequence[int]

    def __call__(self, head: Head) -> list[str]:
        return [_text(head, record) for record in self.records]


def _label_bytes(records: Records, pairs: Int64Array, owners: Int64Array) -> Int64Array:
    """Return what name and value of each pair take, from the lengths of their records."""
    fields = records["length"].astype(np.int64)
    return (
        _text_bytes(fields[owners]) + _text_bytes(fields[pairs] - fields[owners])
        + 2 * _STRING_BYTES
    )  # fmt: skip


def _text_bytes(field: Int64Array) -> Int64Array:
    """Return the length of a text whose field, tag and length included, has this one."""
    return field - 2 - (field > 1 + 1 + 127) - (field > 1 + 2 + (1 << 14) - 1)


def _text(head: Head, record: int) -> str:
    """Return `name=value` of a pair, or the name of a label."""
    start, length = (int(head.tables.pairs[record][field]) for field in ("start", "length"))
    data = head.tables.pair_bytes[start : start + length].tobytes()
    if head.tables.pairs[record]["name"] < 0:
        data += b"\x12\x00"
        return decode_run(b"\x0a" + uvarint(len(data)) + data)[0][0].decode(errors="replace")
    ((name, value),) = decode_run(b"\x0a" + uvarint(len(data)) + data)
    return f"{name.decode(errors='replace')}={value.decode(errors='replace')}"
