"""Deduplication in plain Python: iterators that behave as Thanos's and Prometheus's do.

The kernels hold all state in one array; here each merge is an object over two others, as the
upstream programs are built, so that the two can only agree by meaning the same. `Lane` can rewind,
as the mock of upstream's own unit tests does; chunks cannot.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np

_START = -(2**63)


class Lane:
    """One replica's samples; `rewind` lets `seek` move backwards, for upstream's own vectors."""

    def __init__(self, samples: Any, counter: bool = False, rewind: bool = False) -> None:
        self.samples, self.counter, self.rewind = list(samples), counter, rewind
        self.at, self.adjust = -1, 0.0

    def next(self) -> Any:
        """Move to the next sample; return whether there is one."""
        self.at += 1
        return self.at < len(self.samples)

    def seek(self, t: Any) -> Any:
        """Move to the first sample at or after a time; return whether there is one."""
        if self.rewind:
            self.at = 0
        while self.at < len(self.samples) and self.samples[self.at][0] < t:
            self.at += 1
        return self.at < len(self.samples)

    def time(self) -> Any:
        """Return the timestamp it stands at."""
        return self.samples[self.at][0]

    def value(self) -> Any:
        """Return the value it stands at."""
        value = self.samples[self.at][1]
        return value + self.adjust if self.counter else value

    def raise_to(self, last: Any) -> None:
        """Raise later values so that the current one is not below a value."""
        if last > self.value():
            self.adjust += last - self.value()


class Penalty:
    """Two sides folded into one by the penalty rule."""

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b
        self.last, self.chosen, self.use_a = _START, a, True
        self.penalty_a = self.penalty_b = 0
        self.alive_a, self.alive_b = a.next(), b.next()

    def next(self) -> Any:
        """Move to the next sample; return whether there is one."""
        before, alive = self.use_a, self.alive_a if self.use_a else self.alive_b
        value = self.chosen.value() if alive else None
        if self.alive_a:
            self.alive_a = self.a.seek(self.last + 1 + self.penalty_a)
        if self.alive_b:
            self.alive_b = self.b.seek(self.last + 1 + self.penalty_b)
        more = self._choose()
        if value is not None and self.use_a != before:
            self.raise_to(value)
        return more

    def _choose(self) -> Any:
        if not self.alive_a:
            self.use_a = False
            if self.alive_b:
                self.last, self.chosen, self.penalty_b = self.b.time(), self.b, 0
            return self.alive_b
        if not self.alive_b:
            self.use_a = True
            self.last, self.chosen, self.penalty_a = self.a.time(), self.a, 0
            return True
        ta, tb = self.a.time(), self.b.time()
        self.use_a = ta <= tb
        t = min(ta, tb)
        penalty = 5000 if self.last == _START else 2 * (t - self.last)
        self.penalty_a, self.penalty_b = (0, penalty) if self.use_a else (penalty, 0)
        self.last, self.chosen = t, self.a if self.use_a else self.b
        return True

    def seek(self, t: Any) -> Any:
        """Move to the first sample at or after a time; return whether there is one."""
        while self.time() < t:
            if not self.next():
                return False
        return True

    def time(self) -> Any:
        """Return the timestamp it stands at."""
        return self.a.time() if self.use_a else self.b.time()

    def value(self) -> Any:
        """Return the value it stands at."""
        return self.chosen.value()

    def raise_to(self, last: Any) -> None:
        """Raise later values so that the current one is not below a value."""
        if self.alive_a:
            self.a.raise_to(last)
        if self.alive_b:
            self.b.raise_to(last)


class _Gauge(Lane):
    def raise_to(self, last: Any) -> None:
        """Leave a gauge as it is."""


def fold(lanes: Any, *, counter: bool = False, rewind: bool = False) -> Any:
    """Return the (t, v) pairs of lanes of (t, v) pairs, folded pairwise from the left."""
    sides = [(Lane if counter else _Gauge)(lane, counter, rewind) for lane in lanes]
    tree: Any = sides[0]
    for side in sides[1:]:
        tree = Penalty(tree, side)
    samples = []
    while tree.next():
        samples.append((tree.time(), tree.value()))
    return samples


def split(chunks: Any) -> Any:
    """Return lanes of chunk numbers for (mint, maxt) pairs in order."""
    lanes: list[list[int]] = []
    for number, (mint, _) in enumerate(chunks):
        for lane in lanes:
            if chunks[lane[-1]][1] < mint:
                lane.append(number)
                break
        else:
            lanes.append([number])
    return lanes or [[]]


def chain(lanes: Any) -> Any:
    """Return the merge of lanes as Prometheus's chained iterator gives it, Go's heap included."""
    heap = _GoHeap()
    at = [-1] + [0] * (len(lanes) - 1)
    for number in range(1, len(lanes)):
        if lanes[number]:
            heap.push(lanes[number][0][0], number)
    samples, current, last = [], 0, _START
    while True:
        at[current] += 1
        if at[current] < len(lanes[current]):
            t = lanes[current][at[current]][0]
            if t == last:
                continue
            if not heap.items or t < heap.items[0][0]:
                samples.append(lanes[current][at[current]])
                last = t
                continue
            heap.push(t, current)
        elif not heap.items:
            return samples
        t, current = heap.pop()
        if t != last:
            samples.append(lanes[current][at[current]])
            last = t


class _GoHeap:
    """A binary heap with the sift order of Go's container/heap, which decides ties."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def push(self, key: Any, item: Any) -> None:
        self.items.append((key, item))
        j = len(self.items) - 1
        while j and self.items[j][0] < self.items[(j - 1) // 2][0]:
            i = (j - 1) // 2
            self.items[i], self.items[j] = self.items[j], self.items[i]
            j = i

    def pop(self) -> Any:
        items = self.items
        n, i = len(items) - 1, 0
        items[0], items[n] = items[n], items[0]
        while 2 * i + 1 < n:
            j = 2 * i + 1
            if j + 1 < n and items[j + 1][0] < items[j][0]:
                j += 1
            if items[j][0] >= items[i][0]:
                break
            items[i], items[j] = items[j], items[i]
            i = j
        return items.pop()


def split_lanes(
    chunk_offsets: Any,
    chunks: Any,
    data: Any,
    scratch: Any,  # noqa: ARG001 - as the kernel
    series_lanes: Any,
    lane_offsets: Any,
    out: Any,
) -> Any:
    """Split each series' chunks into lanes without overlap."""
    lanes = at = 0
    series_lanes[0] = lane_offsets[0] = 0
    for s in range(len(chunk_offsets) - 1):
        rows = [chunks[c].copy() for c in range(chunk_offsets[s], chunk_offsets[s + 1])]

        def key(row: Any) -> Any:
            start = int(row["start"])
            body = bytes(data[start : start + int(row["length"])])
            # Larger bytes first, and a longer text before its own prefix.
            return (row["mint"], row["maxt"], row["encoding"], [255 - b for b in body] + [256])

        rows.sort(key=key)
        for lane in split([(int(row["mint"]), int(row["maxt"])) for row in rows]):
            for number in lane:
                out[at] = rows[number]
                at += 1
            lanes += 1
            lane_offsets[lanes] = at
        series_lanes[s + 1] = lanes
    return lanes


def trim_lanes(
    series_lanes: Any,
    offsets: Any,
    timestamps: Any,
    values: Any,
    options: Any,
    out_offsets: Any,
    out_timestamps: Any,
    out_values: Any,
) -> Any:
    """Keep rising samples inside the bounds, counter resets applied if asked."""
    mint, maxt, counter = (int(option) for option in options)
    kept, lane = [], 0
    out_offsets[0] = 0
    for lanes in _lanes_of(series_lanes, offsets, timestamps, values):
        for samples in lanes:
            samples = _totals(samples) if counter and len(lanes) > 1 else _rising(samples)
            kept += [(t, v) for t, v in samples if mint <= t <= maxt]
            lane += 1
            out_offsets[lane] = len(kept)
    _store(kept, out_timestamps, out_values)
    return len(kept)


def _rising(samples: Any) -> Any:
    kept: list[Any] = []
    for t, v in samples:
        if not kept or t > kept[-1][0]:
            kept.append((t, v))
    return kept


def _totals(samples: Any) -> Any:
    kept: list[Any] = []
    last = total = 0.0
    for t, v in samples:
        if math.isnan(v):
            continue
        if not kept:
            last = total = v
        elif t > kept[-1][0]:
            with np.errstate(all="ignore"):
                total = total + (v - last) if v >= last else total + v
            last = v
        else:
            last = v if t == kept[-1][0] else last
            continue
        kept.append((t, total))
    return kept


def _store(samples: Any, timestamps: Any, values: Any) -> None:
    for n, (t, v) in enumerate(samples):
        timestamps[n], values[n] = t, v


def _lanes_of(series_lanes: Any, offsets: Any, timestamps: Any, values: Any) -> Any:
    for s in range(len(series_lanes) - 1):
        yield [
            [(int(timestamps[k]), values[k]) for k in range(offsets[lane], offsets[lane + 1])]
            for lane in range(series_lanes[s], series_lanes[s + 1])
        ]


def fold_penalty(
    series_lanes: Any,
    offsets: Any,
    timestamps: Any,
    values: Any,
    counter: Any,
    state: Any,  # noqa: ARG001 - as the kernel
    out_offsets: Any,
    out_timestamps: Any,
    out_values: Any,
) -> Any:
    """Fold each series' lanes by the penalty rule."""
    samples = []
    out_offsets[0] = 0
    for s, lanes in enumerate(_lanes_of(series_lanes, offsets, timestamps, values)):
        with np.errstate(all="ignore"):
            samples += lanes[0] if len(lanes) == 1 else fold(lanes, counter=bool(counter))
        out_offsets[s + 1] = len(samples)
    _store(samples, out_timestamps, out_values)
    return len(samples)


def fold_chain(
    series_lanes: Any,
    offsets: Any,
    timestamps: Any,
    values: Any,
    mode: Any,
    state: Any,  # noqa: ARG001 - as the kernel
    out_offsets: Any,
    out_timestamps: Any,
    out_values: Any,
) -> Any:
    """Merge each series' lanes by timestamp, one sample a timestamp."""
    samples = []
    out_offsets[0] = 0
    for s, lanes in enumerate(_lanes_of(series_lanes, offsets, timestamps, values)):
        if mode == 1:
            samples += chain(lanes)
        else:
            first: dict[Any, Any] = {}
            for t, lane, v in heapq.merge(
                *([(t, n, v) for t, v in x] for n, x in enumerate(lanes))
            ):
                first.setdefault(t, (lane, v))
            samples += [(t, v) for t, (_, v) in sorted(first.items())]
        out_offsets[s + 1] = len(samples)
    _store(samples, out_timestamps, out_values)
    return len(samples)
