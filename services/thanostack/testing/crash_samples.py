"""What a crash loop sends, so described that a killed process need not be asked about it.

A request is a rectangle of samples: a run of series ids, at a few times. Labels follow from the
id, a value from id and time. So one small record in shared memory says all of it, and what a
storage gives back can be judged sample by sample.

    request   ids [first, first + count) x times t0, t0 + step, …
    key       id << 44 | time - START_MS         one sample
    id        writer << 17 | place; places below STEADY live for ever, the others a generation

A `Ledger` is the set of all keys sent, and of those that have to be readable: acknowledged, or seen
once after a restart.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from thanostack.lib.chunkenc.xor import decode_chunks
from thanostack.lib.model.label_order import get_label_values
from thanostack.lib.model.label_runs import Int64Array, encode_run, uvarint
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.model.queryable import SeriesQuery, SeriesStore
from thanostack.lib.tsdb.options import WriteResult
from thanostack.testing.bodies import label

UInt64Array = npt.NDArray[np.uint64]

START_MS = 1_699_999_980_000
TICK_MS = 10
STEADY, CHURNING = 16, 24
GENERATION_MS = 75_000
MINT, MAXT = -(1 << 63), (1 << 63) - 1
IN_FLIGHT, ACKNOWLEDGED, REFUSED = range(3)

REQUEST_DTYPE = np.dtype(
    [
        (name, np.int64)
        for name in ["first", "count", "t0", "step", "steps", "faults", "unsorted", "outcome"]
    ]
)
_TIME_BITS, _WRITER_BITS = 44, 17


@dataclass(slots=True)
class Request:
    """One request; `outcome` is what its writer knows of it.

    Args:
        first, count: ids.
        t0, step, steps: times, ms; multiples of `TICK_MS`.
        faults: so many series carry two samples more, one out of order and one conflicting.
        unsorted: whether labels are sent in the wrong order.
    """

    first: int
    count: int
    t0: int
    step: int = TICK_MS
    steps: int = 1
    faults: int = 0
    unsorted: int = 0
    outcome: int = IN_FLIGHT

    @property
    def maxt(self) -> int:
        """The newest time, ms."""
        return self.t0 + self.step * (self.steps - 1)

    def keys(self) -> UInt64Array:
        """Return the keys of the samples that a storage should take."""
        ids = np.arange(self.first, self.first + self.count, dtype=np.int64)
        return keys_of(ids[:, None], self._times()).ravel()

    def body(self) -> bytes:
        """Return the protobuf message."""
        ids = np.arange(self.first, self.first + self.count, dtype=np.int64)
        times = self._times()
        patterns = value_bits(ids[:, None], times).tolist()
        out = []
        for i, bits in enumerate(patterns):
            samples = list(zip(times.tolist(), bits, strict=True))
            if i < self.faults:
                samples += [(self.maxt - TICK_MS // 2, bits[-1]), (self.maxt, bits[-1] ^ 1)]
            series = _labels_field(self.first + i, bool(self.unsorted))
            series += b"".join(_sample_field(t, value) for t, value in samples)
            out.append(b"\x0a" + uvarint(len(series)) + series)
        return b"".join(out)

    def is_taken(self, result: WriteResult) -> bool:
        """Return whether a storage took all it should, and refused all it should."""
        expected = {"out_of_order": self.faults, "conflict": self.faults} if self.faults else {}
        whole = result.stored + result.duplicates == self.count * self.steps
        return whole and result.rejected == expected

    def _times(self) -> Int64Array:
        return self.t0 + self.step * np.arange(self.steps, dtype=np.int64)


def steady_id(writer: int, place: int) -> int:
    """Return the id of a series that lives for ever."""
    return writer << _WRITER_BITS | place


def churning_id(writer: int, place: int, t: int) -> int:
    """Return the id of the series that has this place at time t."""
    generation = (t - START_MS) // GENERATION_MS
    return (writer << _WRITER_BITS) + STEADY + generation * CHURNING + place


def writers_of(keys: UInt64Array) -> Int64Array:
    """Return the writer of each sample."""
    return (keys >> np.uint64(_TIME_BITS + _WRITER_BITS)).astype(np.int64)


def times_of(keys: UInt64Array) -> Int64Array:
    """Return the time of each sample, ms."""
    return (keys & np.uint64((1 << _TIME_BITS) - 1)).astype(np.int64) + START_MS


def ids_of(keys: UInt64Array) -> Int64Array:
    """Return the series of each sample."""
    return (keys >> np.uint64(_TIME_BITS)).astype(np.int64)


def keys_of(ids: Int64Array, times: Int64Array) -> UInt64Array:
    """Return the keys of samples."""
    return (ids << _TIME_BITS | times - START_MS).astype(np.uint64)


def value_bits(ids: Int64Array, times: Int64Array) -> UInt64Array:
    """Return the bits of the values: a ramp, a constant, a counter, or anything that fits."""
    ids, times = np.broadcast_arrays(ids, times)
    mixed = ids.astype(np.uint64) << np.uint64(40) ^ times.astype(np.uint64)
    for factor, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    ramp = (times - START_MS).astype(np.float64)
    choices = [
        ramp.view(np.uint64),
        ids.astype(np.float64).view(np.uint64),
        (ramp * ids / 1000).view(np.uint64),
        mixed ^ mixed >> np.uint64(31),
    ]
    return np.choose(ids % 4, choices)


def labels_of(series: int) -> dict[str, str]:
    """Return the labels of a series."""
    labels = {
        "__name__": f"crash_{series % 5}",
        "id": str(series),
        "writer": str(series >> _WRITER_BITS),
        "zone": "z" * (series % 7 + 1),
    }
    if series % 16 == 0:
        labels["long"] = "l" * 300
    return labels


@lru_cache(maxsize=1 << 16)
def label_run(series: int) -> bytes:
    """Return the canonical labels of a series."""
    return encode_run(labels_of(series))


@lru_cache(maxsize=1 << 14)
def _labels_field(series: int, is_unsorted: bool) -> bytes:
    pairs = sorted(labels_of(series).items(), reverse=is_unsorted)
    return b"".join(label(name, value) for name, value in pairs)


def _sample_field(t: int, bits: int) -> bytes:
    body = b"\x09" + struct.pack("<Q", bits) + b"\x10" + uvarint(t)
    return b"\x12" + uvarint(len(body)) + body


@dataclass
class ReadBack:
    """What a storage gave back.

    Args:
        keys: unique, ascending.
        wrong: samples whose value is not what was sent.
        mislabelled: series that were never sent, or given twice.
    """

    keys: UInt64Array
    wrong: int = 0
    mislabelled: int = 0


def read_back(
    store: SeriesStore, mint: int = MINT, maxt: int = MAXT, matchers: tuple[Matcher, ...] = ()
) -> ReadBack:
    """Read all samples of [mint, maxt]."""
    parts, seen = [np.zeros(0, np.uint64)], []
    result = ReadBack(parts[0])
    for batch in store.series(SeriesQuery(matchers, mint, maxt)):
        ids = [int(value) for value in get_label_values(batch.labels, b"id")]
        seen += ids
        runs = [batch.labels.run(i) for i in range(len(batch))]
        result.mislabelled += sum(
            run != label_run(series) for run, series in zip(runs, ids, strict=True)
        )
        decoded = decode_chunks(batch, 0, len(batch), mint, maxt)
        of_chunks = np.repeat(np.array(ids, np.int64), np.diff(batch.chunk_offsets))
        of_samples = np.repeat(of_chunks, np.diff(decoded.offsets))
        bits = value_bits(of_samples, decoded.timestamps)
        result.wrong += int((decoded.values.view(np.uint64) != bits).sum())
        parts.append(keys_of(of_samples, decoded.timestamps))
    result.mislabelled += len(seen) - len(set(seen))
    result.keys = np.unique(np.concatenate(parts))
    return result


@dataclass
class Ledger:
    """All that was sent to one directory; both sets are unique and ascending.

    Args:
        sent: keys.
        required: of these, the ones that must be readable.
        newest: the newest time sent, ms.
        in_flight: requests that ended with the process, by writer.
    """

    sent: UInt64Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    required: UInt64Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    newest: int = START_MS
    in_flight: list[list[Request]] = field(default_factory=list)

    def add(self, requests: list[list[Request]], seen: UInt64Array) -> None:
        """Take over what the writers of one process sent, and keys seen readable by it."""
        everything = [request for part in requests for request in part]
        taken = [request for request in everything if request.outcome == ACKNOWLEDGED]
        self.sent = _union(self.sent, [request.keys() for request in everything])
        self.required = _union(self.required, [seen, *(request.keys() for request in taken)])
        self.newest = max([self.newest, *(request.maxt for request in everything)])
        self.in_flight = [
            [request for request in part if request.outcome == IN_FLIGHT] for part in requests
        ]


def _union(keys: UInt64Array, more: list[UInt64Array]) -> UInt64Array:
    return np.unique(np.concatenate([keys, *more]))


def missing_from(found: UInt64Array, wanted: UInt64Array) -> UInt64Array:
    """Return the keys wanted that were not found; both unique and ascending."""
    return wanted[~is_among(wanted, found)]


def is_among(keys: UInt64Array, ascending: UInt64Array) -> npt.NDArray[np.bool_]:
    """Return which keys are in an ascending array."""
    if not len(ascending):
        return np.zeros(len(keys), np.bool_)
    places = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[places] == keys
    return found


def describe(keys: UInt64Array, most: int = 5) -> str:
    """Return some keys as text."""
    pairs = zip(ids_of(keys[:most]).tolist(), times_of(keys[:most]).tolist(), strict=True)
    return ", ".join(f"series {i} at {t}" for i, t in pairs)


def as_request(record: Any) -> Request:
    """Return a request from its record in shared memory."""
    return Request(*record.item())
