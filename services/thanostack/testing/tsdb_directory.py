"""Builders for tenant directories: requests, what a TSDB holds, copies as a crash leaves them.

samples_of(tsdb) == {(("a", "1"),): {1000: bits, 2000: bits}}
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thanostack.lib.chunkenc.xor import decode_chunks
from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.model.queryable import SeriesQuery, SeriesStore
from thanostack.lib.tsdb.options import TSDBOptions, WriteResult
from thanostack.lib.tsdb.tsdb import TSDB
from thanostack.testing.write_storage import write_request

Labels = tuple[tuple[str, str], ...]
Held = dict[Labels, dict[int, int]]

MINT, MAXT = -(1 << 63), (1 << 63) - 1
BLOCK_MS = 10_000
SMALL = TSDBOptions(
    retention_ms=0,
    min_block_ms=BLOCK_MS,
    max_block_ms=BLOCK_MS,
    too_far_in_future_ms=0,
    series_max=1 << 14,
    segment_bytes=1 << 15,
)
"""Options whose blocks span ten seconds and whose log segments one page."""


class Reports(list[tuple[str, Mapping[str, Any]]]):
    """Remembers what was reported."""

    def __call__(self, message: str, facts: Mapping[str, Any]) -> None:
        """Take one report."""
        self.append((message, dict(facts)))

    @property
    def messages(self) -> list[str]:
        """The reports without their facts."""
        return [message for message, _ in self]


def opened(folder: Path, options: TSDBOptions = SMALL, reports: Reports | None = None) -> TSDB:
    """Return an open tenant on a clock that stands at 1,000,000 s."""
    report = Reports() if reports is None else reports
    return TSDB(folder, options, clock=ManualClock(1_000_000_000), report=report)


def crashed(tsdb: TSDB, target: Path) -> Path:
    """Return a copy of a directory in use: what a killed process leaves."""

    def vanishing(source: str, copy: str) -> None:
        try:
            shutil.copy2(source, copy)
        except FileNotFoundError:
            assert "wal" in source

    shutil.copytree(tsdb.folder, target, copy_function=vanishing)
    return target


def bits(value: float) -> int:
    """Return the 64-bit pattern of a float."""
    return int.from_bytes(struct.pack(">d", value))


def write(
    tsdb: TSDB, names: Iterable[str], times: Iterable[int], value: float | None = None
) -> WriteResult:
    """Append one request: series {a=name, job=x}, at each time the value, or the time itself."""
    samples = [(t, float(t) if value is None else value) for t in times]
    body = write_request(*(({"a": name, "job": "x"}, samples) for name in names))
    return tsdb.append_and_wait(body)


def expected(names: Iterable[str], times: Iterable[int]) -> Held:
    """Return what a TSDB holds after `write` of these."""
    samples = {t: bits(float(t)) for t in times}
    return {(("a", name), ("job", "x")): dict(samples) for name in names}


def samples_of(
    store: SeriesStore, mint: int = MINT, maxt: int = MAXT, matchers: tuple[Matcher, ...] = ()
) -> Held:
    """Return every sample of a store, by its labels and time; two that differ are an error."""
    held: Held = {}
    order: list[Labels] = []
    for batch in store.series(SeriesQuery(matchers, mint, maxt)):
        decoded = decode_chunks(batch, 0, len(batch), mint, maxt)
        patterns = decoded.values.view("u8").tolist()
        for i in range(len(batch)):
            labels = tuple(batch.labels.mapping(i).items())
            order.append(labels)
            first, stop = (int(decoded.offsets[batch.chunk_offsets[k]]) for k in (i, i + 1))
            found = held.setdefault(labels, {})
            for t, pattern in zip(
                decoded.timestamps[first:stop].tolist(), patterns[first:stop], strict=True
            ):
                assert found.setdefault(t, pattern) == pattern, f"two values at {t}"
    assert order == sorted(set(order)), "series ascend, each once"
    return {labels: found for labels, found in held.items() if found}
