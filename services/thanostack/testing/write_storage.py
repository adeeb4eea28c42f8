"""A storage that only remembers: for tests of what stands in front of storage.

It keeps the contract of the real one as far as writing goes: samples in order are stored, exact
repetitions are duplicates, older or different ones are refused with a reason, a malformed body is
InvalidInput. It can be told to fail, and to answer from another thread as a busy TSDB does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from thanostack.lib.foundation.errors import InvalidInput, ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.pb import prometheus_remote_pb2, remote_write_v2_pb2
from thanostack.lib.tsdb.options import WriteResult

Labels = tuple[tuple[str, str], ...]


@dataclass
class RememberingTSDB:
    """One tenant's samples in dictionaries."""

    series: dict[Labels, dict[int, float]] = field(default_factory=dict)
    failure: ThanostackError | None = None
    answers_elsewhere: bool = False
    bodies: list[bytes] = field(default_factory=list)

    def append(self, body: Any, done: Callable[[Any], None], *, version: int = 1) -> None:
        """Append a body; call back inline, or from a thread of its own."""
        result: Any
        try:
            result = self.append_and_wait(body, version=version)
        except ThanostackError as error:
            result = error
        if self.answers_elsewhere:
            threading.Timer(0.01, done, [result]).start()
        else:
            done(result)

    def append_now(self, body: Any, *, version: int = 1) -> WriteResult | None:
        """Append a body; None if told to answer from elsewhere."""
        return None if self.answers_elsewhere else self.append_and_wait(body, version=version)

    def append_and_wait(self, body: Any, *, version: int = 1) -> WriteResult:
        """Append a body and return what happened."""
        if self.failure is not None:
            raise self.failure
        self.bodies.append(bytes(body))
        result = WriteResult()
        for labels, samples in _decoded(bytes(body), version):
            result.series += 1
            stored = self.series.setdefault(labels, {})
            for timestamp, value in samples:
                self._append_one(stored, timestamp, value, result)
        return result

    def _append_one(
        self, stored: dict[int, float], timestamp: int, value: float, result: WriteResult
    ) -> None:
        result.samples += 1
        newest = max(stored, default=timestamp - 1)
        if stored.get(timestamp) == value:
            result.duplicates += 1
        elif timestamp > newest:
            stored[timestamp] = value
            result.stored += 1
        else:
            reason = "conflict" if timestamp in stored else "out_of_order"
            result.rejected[reason] = result.rejected.get(reason, 0) + 1
            result.example = result.example or f"{reason} at {timestamp}"


def _decoded(body: bytes, version: int) -> list[tuple[Labels, list[tuple[int, float]]]]:
    try:
        if version == 1:
            request = prometheus_remote_pb2.WriteRequest.FromString(body)
            return [
                (
                    tuple((label.name, label.value) for label in series.labels),
                    [(sample.timestamp, sample.value) for sample in series.samples],
                )
                for series in request.timeseries
            ]
        second = remote_write_v2_pb2.Request.FromString(body)
    except DecodeError as error:
        raise InvalidInput(f"malformed write request: {error}") from error
    names = list(second.symbols)
    return [
        (
            tuple(
                (names[series.labels_refs[i]], names[series.labels_refs[i + 1]])
                for i in range(0, len(series.labels_refs), 2)
            ),
            [(sample.timestamp, sample.value) for sample in series.samples],
        )
        for series in second.timeseries
    ]


@dataclass
class RememberingStorage:
    """All tenants, made when first written to."""

    opened: dict[Tenant, RememberingTSDB] = field(default_factory=dict)
    failure: ThanostackError | None = None

    def tsdb(self, tenant: Tenant) -> RememberingTSDB:
        """Return a tenant's samples."""
        if self.failure is not None:
            raise self.failure
        return self.opened.setdefault(tenant, RememberingTSDB())

    def tenants(self) -> Mapping[Tenant, RememberingTSDB]:
        """Return the tenants that were written to."""
        return self.opened


def write_request(*series: tuple[Mapping[str, str], list[tuple[int, float]]]) -> bytes:
    """Return a remote write 1.0 message of (labels, [(timestamp, value)])."""
    request = prometheus_remote_pb2.WriteRequest()
    for labels, samples in series:
        entry = request.timeseries.add()
        for name, value in labels.items():
            entry.labels.add(name=name, value=value)
        for timestamp, number in samples:
            entry.samples.add(timestamp=timestamp, value=number)
    return request.SerializeToString()


def write_request_v2(*series: tuple[Mapping[str, str], list[tuple[int, float]]]) -> bytes:
    """Return a remote write 2.0 message of (labels, [(timestamp, value)])."""
    request = remote_write_v2_pb2.Request(symbols=[""])
    for labels, samples in series:
        entry = request.timeseries.add()
        for pair in labels.items():
            for text in pair:
                if text not in request.symbols:
                    request.symbols.append(text)
                entry.labels_refs.append(list(request.symbols).index(text))
        for timestamp, number in samples:
            entry.samples.add(timestamp=timestamp, value=number)
    return request.SerializeToString()
