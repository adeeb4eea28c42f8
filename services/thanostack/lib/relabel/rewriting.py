"""A write request through relabel rules.

    begin    one kernel pass: every series known before has its outcome
    finish   misses through the rules, and learnt; the body written anew if anything changed

A request whose series are all known, and all stay as they are, is handed back as it came, after
some 45 ns a series. `finish` takes tens of microseconds a miss; whoever calls it on an event loop
looks at `misses` first.

A series whose labels are not well-formed passes as it is: storage refuses it and says why.

Source: Thanos `pkg/receive/handler.go` (relabel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.kernels import relabel as kernels
from thanostack.lib.kernels import remote_write_scan
from thanostack.lib.kernels.relabel import Outcomes
from thanostack.lib.model.label_runs import Int64Array, Uint8Array, uvarint
from thanostack.lib.relabel.config import RelabelConfig
from thanostack.lib.relabel.outcomes import SeenRuns
from thanostack.lib.relabel.rules import Pair, Rule, relabel

OUTCOME_BYTES_MAX: Final = 256 << 20
"""Default bound of what is remembered: about a million series of 200 bytes."""

SERIES_MAX: Final = 1 << 20
"""Most series of one request, as storage has it: an empty one takes two bytes on the wire."""

LABEL_BYTES_MAX: Final = 64 << 20
"""Most label bytes that a 2.0 request may stand for: it can name one long symbol many times."""

_KERNELS: Final = {
    kernels: (
        "relabel_resolve", "relabel_write", "relabel_learn", "relabel_resolve_v2",
        "relabel_write_v2",
    ),
    remote_write_scan: ("remote_write_symbols",),
}  # fmt: skip
_SPARES_MAX: Final = 8
_SPARE_ROWS_MAX: Final = 10_000 * kernels.ROW_WIDTH
_NO_BYTES: Final = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class Pass:
    """A request half-way: known series have their outcome.

    Args:
        body: as it came.
        version: of remote write.
        tables: that rows refer to.
        labels: what label runs index.
        rows: see `kernels/relabel`.
        symbols: how many a 2.0 body has.
        series, misses, dropped, changed: how many; the last two of those known.
        run_bytes: of the new runs of known series.
    """

    body: Uint8Array
    version: int
    tables: Outcomes
    labels: Uint8Array
    rows: Int64Array
    symbols: int
    series: int
    misses: int
    dropped: int
    changed: int
    run_bytes: int


@dataclass(frozen=True)
class Relabeled:
    """What rules made of a request.

    Args:
        body: of the same version; the one that came in if nothing changed.
        series: how many it has.
        dropped: how many it had more.
    """

    body: Uint8Array
    series: int
    dropped: int


@dataclass
class _Decided:
    """What the rules made of the misses."""

    spill: bytearray = field(default_factory=bytearray)
    dropped: int = 0
    changed: int = 0


class Relabeler:
    """Rules, and what they made of series before; safe from any thread.

    Args:
        configs: the rules, in turn.
        bytes_max: bound of what is remembered.
    """

    def __init__(
        self, configs: Sequence[RelabelConfig], bytes_max: int = OUTCOME_BYTES_MAX
    ) -> None:
        self._rules = [Rule(config) for config in configs]
        self.seen = SeenRuns(bytes_max)
        self._spare_rows: list[Int64Array] = []

    def load_kernels(self) -> None:
        """Load, or compile, all that a request may need."""
        for module, names in _KERNELS.items():
            for name in names:
                kernel = getattr(module, name)
                # Once loaded, the name is bound to the compiled function itself.
                if hasattr(kernel, "ready"):
                    kernel.ready()

    def begin(self, body: Uint8Array, series: int, version: int = 1) -> Pass:
        """Return a request with the outcome of every series known before.

        Args:
            body: uint8[n]; must not change until `finish` returns.
            series: how many it has.
            version: of remote write.

        Raises:
            InvalidInput: if it is not the protobuf message that it should be.
            LimitExceeded: for more series or label bytes than one request may carry.
        """
        if series > SERIES_MAX:
            raise LimitExceeded("series_limit", SERIES_MAX, series)
        rows = self._take_rows(series * kernels.ROW_WIDTH)
        totals = np.zeros(4, np.int64)
        tables, labels, symbols = self.seen.tables, body, 0
        if version == 1:
            with self.seen.lock:
                count = int(kernels.relabel_resolve(body, tables, rows, totals))
        else:
            count, labels, symbols = self._begin_v2(body, tables, rows, totals)
        if count < 0:
            raise InvalidInput("the request body is not a valid protobuf write request")
        return Pass(body, version, tables, labels, rows, symbols, count, *totals.tolist())

    def _take_rows(self, size: int) -> Int64Array:
        """Return room for rows, a former request's if possible: fresh pages cost 20 ns a series."""
        try:
            rows = self._spare_rows.pop()
        except IndexError:
            rows = np.empty(0, np.int64)
        return rows if len(rows) >= size else np.empty(size, np.int64)

    def _give_back_rows(self, rows: Int64Array) -> None:
        if len(rows) <= _SPARE_ROWS_MAX and len(self._spare_rows) < _SPARES_MAX:
            self._spare_rows.append(rows)

    def _begin_v2(
        self, body: Uint8Array, tables: Outcomes, rows: Int64Array, totals: Int64Array
    ) -> tuple[int, Uint8Array, int]:
        symbols = _symbols(body)
        size = 2 * len(body) + 1024
        while True:
            labels = np.empty(min(size, LABEL_BYTES_MAX), np.uint8)
            totals[:] = 0
            with self.seen.lock:
                count = int(kernels.relabel_resolve_v2(body, symbols, labels, tables, rows, totals))
            if count != kernels.LABELS_FULL:
                return count, labels, len(symbols) // 2
            if size >= LABEL_BYTES_MAX:
                raise LimitExceeded("size_bytes_limit", LABEL_BYTES_MAX, size + 1)
            size *= 4

    def finish(self, request: Pass) -> Relabeled:
        """Return a request relabeled; its misses go through the rules one by one. Call it once."""
        decided = _Decided()
        spill = _NO_BYTES
        if request.misses:
            states = request.rows[kernels.STATE :: kernels.ROW_WIDTH][: request.series]
            misses = np.flatnonzero(states == kernels.MISS)
            self._decide(request, misses.tolist(), decided)
            spill = np.frombuffer(bytes(decided.spill), np.uint8)
            self.seen.learn(request.tables, request.labels, spill, request.rows, misses)
        dropped = request.dropped + decided.dropped
        changed = request.changed + decided.changed
        body = request.body
        if dropped or changed:
            body = _written(request, spill, changed)
        self._give_back_rows(request.rows)
        return Relabeled(body, request.series - dropped, dropped)

    def _decide(self, request: Pass, misses: list[int], decided: _Decided) -> None:
        rows = request.rows.reshape(-1, kernels.ROW_WIDTH)
        for s in misses:
            pairs = _labels_of(request, rows[s])
            result = None if pairs is None else relabel(pairs, self._rules)
            if result == pairs:
                rows[s, kernels.STATE] = kernels.UNCHANGED
            elif result is None:
                rows[s, kernels.STATE] = kernels.DROPPED
                decided.dropped += 1
            else:
                run = _run(result)
                rows[s, kernels.STATE :] = kernels.CHANGED, -1 - len(decided.spill), len(run)
                decided.spill += run
                decided.changed += 1


def _symbols(body: Uint8Array) -> Int64Array:
    room = 2048
    while True:
        symbols = np.empty(2 * room, np.int64)
        count = int(remote_write_scan.remote_write_symbols(body, symbols))
        if count >= 0:
            return symbols[: 2 * count]
        if count != remote_write_scan.SERIES_FULL:
            raise InvalidInput("the request body is not a valid protobuf write request")
        room *= 4


def _written(request: Pass, spill: Uint8Array, changed: int) -> Uint8Array:
    new_bytes = request.run_bytes + len(spill)
    body, tables, rows = request.body, request.tables, request.rows
    if request.version == 1 or not changed:
        out = np.empty(len(body) + new_bytes + 10 * changed, np.uint8)
        length = kernels.relabel_write(body, tables, spill, rows, request.series, out)
    else:
        out = np.empty(len(body) + 3 * new_bytes + 32 * changed, np.uint8)
        length = kernels.relabel_write_v2(
            body, tables, spill, rows, request.series, request.symbols, out
        )
    return out[:length]


def _labels_of(request: Pass, row: Int64Array) -> list[Pair] | None:
    """Return the labels of a series in the order they came, None if they are not well-formed."""
    from google.protobuf.message import DecodeError

    from thanostack.lib.pb import prometheus_remote_pb2

    start, stop = int(row[kernels.LABELS]), int(row[kernels.LABELS_STOP])
    data = request.labels
    if start < 0:
        # Its label fields do not stand together: the whole series is read.
        start, stop = int(row[kernels.BEGIN]), int(row[kernels.STOP])
    try:
        labels = prometheus_remote_pb2.TimeSeries.FromString(data[start:stop].tobytes()).labels
    except DecodeError:
        return None
    return [(label.name.encode(), label.value.encode()) for label in labels]


def _run(pairs: Sequence[Pair]) -> bytes:
    """Return labels as fields of a series, in their order, whatever they are."""
    run = bytearray()
    for name, value in pairs:
        label = b"\x0a" + uvarint(len(name)) + name + b"\x12" + uvarint(len(value)) + value
        run += b"\x0a" + uvarint(len(label)) + label
    return bytes(run)
