"""Write requests as a Prometheus sends them: one sample a series, ten labels, snappy.

The series look like a Kubernetes fleet's: 50 metric names, a pod a series, shared job, namespace
and handler values. Values are counters. Everything follows from the seed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import cramjam

from thanostack.lib.model.label_runs import uvarint

START_MS = 1_700_000_000_000
STEP_MS = 15_000


def label(name: str, value: str) -> bytes:
    """Return one Label field of a TimeSeries."""
    name_bytes, value_bytes = name.encode(), value.encode()
    body = b"\x0a" + uvarint(len(name_bytes)) + name_bytes
    body += b"\x12" + uvarint(len(value_bytes)) + value_bytes
    return b"\x0a" + uvarint(len(body)) + body


def request_body(series: Iterable[tuple[Mapping[str, str], Iterable[tuple[int, float]]]]) -> bytes:
    """Return a compressed request of (labels, [(timestamp, value)])."""
    out = bytearray()
    for labels, samples in series:
        entry = b"".join(label(name, labels[name]) for name in sorted(labels))
        for t, value in samples:
            sample = b"\x09" + struct.pack("<d", value) + b"\x10" + uvarint(t)
            entry += b"\x12" + uvarint(len(sample)) + sample
        out += b"\x0a" + uvarint(len(entry)) + entry
    return bytes(cramjam.snappy.compress_raw(bytes(out)))


def series_labels(i: int) -> bytes:
    """Return the ten labels of series i, sorted by name."""
    pairs = {
        "__name__": f"http_requests_total_{i % 50}",
        "cluster": "prod-eu-1",
        "code": "200",
        "container": f"app-{i % 97}",
        "endpoint": "metrics",
        "handler": f"/api/v1/{i % 13}",
        "instance": f"10.0.{i // 250 % 250}.{i % 250}:8080",
        "job": f"svc-{i % 31}",
        "namespace": f"ns-{i % 17}",
        "pod": f"app-{i % 97}-abcde-{i}",
    }
    return b"".join(label(name, value) for name, value in pairs.items())


@dataclass(frozen=True)
class Load:
    """What is sent.

    Args:
        series: active at a time.
        rounds: samples a series.
        batch: series a request.
        shuffled: whether each round has an order of its own.
        churn: share of series replaced by new ones each round.
        seed: of everything random.
    """

    series: int = 100_000
    rounds: int = 8
    batch: int = 2_000
    shuffled: bool = False
    churn: float = 0.0
    seed: int = 1

    @property
    def samples(self) -> int:
        """Return how many samples all requests carry."""
        return self.series * self.rounds

    def requests(self, first_round: int = 0) -> Iterator[tuple[int, list[bytes]]]:
        """Yield (round, compressed bodies) in order."""
        source = random.Random(self.seed)
        labels = [series_labels(i) for i in range(self.series)]
        values = [float(source.randrange(1_000_000)) for _ in labels]
        fresh = self.series
        for number in range(self.rounds):
            for _ in range(int(self.churn * self.series) if number else 0):
                labels[source.randrange(self.series)] = series_labels(fresh)
                fresh += 1
            values = [value + source.randrange(100) for value in values]
            order = list(range(self.series))
            if self.shuffled:
                source.shuffle(order)
            t = START_MS + number * STEP_MS
            if number >= first_round:
                yield (
                    number,
                    [
                        self._body(labels, values, order[at : at + self.batch], t)
                        for at in range(0, self.series, self.batch)
                    ],
                )

    @staticmethod
    def _body(labels: list[bytes], values: list[float], rows: list[int], t: int) -> bytes:
        stamp = b"\x10" + uvarint(t)
        out = bytearray()
        for row in rows:
            sample = b"\x09" + struct.pack("<d", values[row]) + stamp
            series = labels[row] + b"\x12" + uvarint(len(sample)) + sample
            out += b"\x0a" + uvarint(len(series)) + series
        return bytes(cramjam.snappy.compress_raw(bytes(out)))
