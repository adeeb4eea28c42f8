"""Runs of series in a message, and one body a tenant.

    fields_of       the top level of any message, consecutive series as one run
    count_series    how many series a body has, a few nanoseconds each
    count_all       how many samples and histograms as well
    tenants_of      WriteableStore's request: (tenant, body) parts, as byte ranges
    replica_of      its replica
    split_by_label  a body by the value of the split-tenant label

None of them looks into a sample. A part is a body of the version it came from, with nothing in it
but series (and symbols, in 2.0). 2.0 refers to labels by number, and is split by message objects:
several times slower, on a path that few use.

Source: Thanos `pkg/store/storepb/rpc.proto` (WriteRequest); `pkg/receive/handler.go` (split label).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.kernels import remote_write_counts
from thanostack.lib.kernels import remote_write_split as kernels
from thanostack.lib.model.label_runs import Int64Array, Uint8Array
from thanostack.lib.remotewrite.negotiation import Version

if TYPE_CHECKING:
    from thanostack.lib.pb import remote_write_v2_pb2

SERIES_FIELD: Final[dict[Version, int]] = {1: 1, 2: 5}
FIELDS_MAX: Final = 100_000
SPLIT_SERIES_MAX: Final = 500_000
SPLIT_TENANTS_MAX: Final = 1024
_FIRST_ROOM: Final = 16
_VARINT: Final = 0
_BYTES: Final = 2


class Field(NamedTuple):
    """One field of a message, or a run of one.

    Args:
        number: the field's number.
        wire: wire type; 2 is bytes, 0 varint.
        start: of the content; of the first tag where the field is the run field; of a varint the
            value.
        stop: end.
        entries: how many, 1 but for runs.
    """

    number: int
    wire: int
    start: int
    stop: int
    entries: int


class Part(NamedTuple):
    """One tenant's series of a request."""

    tenant: bytes
    body: Uint8Array


def fields_of(message: Uint8Array, run_field: int, start: int = 0, stop: int = -1) -> list[Field]:
    """Return the fields of the message in [start, stop), runs of one field joined.

    Raises:
        InvalidInput: if it is malformed.
        LimitExceeded: above FIELDS_MAX entries.
    """
    stop = len(message) if stop < 0 else stop
    room = _FIRST_ROOM
    while True:
        runs = np.empty(room * kernels.RUN_WIDTH, np.int64)
        n = int(kernels.message_runs(message, start, stop, run_field, runs))
        if n < 0:
            raise InvalidInput("the request is not a protobuf message")
        if n <= room:
            return [Field(*row) for row in runs.reshape(room, -1)[:n].tolist()]
        if n > FIELDS_MAX:
            raise LimitExceeded("fields_limit", FIELDS_MAX, n)
        room = n


def count_series(body: Uint8Array, version: Version = 1) -> int:
    """Return how many series a write request has.

    Raises:
        InvalidInput: if its top level is malformed.
    """
    number = SERIES_FIELD[version]
    return sum(field.entries for field in fields_of(body, number) if _is_series(field, number))


class Counts(NamedTuple):
    """What a write request carries."""

    series: int
    samples: int
    histograms: int


def count_all(body: Uint8Array, version: Version = 1) -> Counts:
    """Return how many series, float samples and native histograms a write request has.

    Raises:
        InvalidInput: if it is malformed.
    """
    counts = np.zeros(2, np.int64)
    histograms = 4 if version == 1 else 3
    series = remote_write_counts.remote_write_counts(
        body, SERIES_FIELD[version], histograms, counts
    )
    if series < 0:
        raise InvalidInput("the request body is not a valid protobuf write request")
    return Counts(int(series), *counts.tolist())


def _is_series(field: Field, number: int) -> bool:
    return field.number == number and field.wire == _BYTES


def tenants_of(request: Uint8Array) -> list[Part]:
    """Return the parts of a WriteableStore request: the old single tenant, the new tuples.

    Tenants are in order of appearance, each once; a tenant that sent nothing is left out.

    Raises:
        InvalidInput: if the request is malformed.
    """
    fields = fields_of(request, 1)
    messages = [fields]
    for field in fields:
        if field.number == 4 and field.wire == _BYTES:
            messages.append(fields_of(request, 1, field.start, field.stop))
    runs: dict[bytes, list[Uint8Array]] = {}
    for message in messages:
        series = [request[f.start : f.stop] for f in message if _is_series(f, 1)]
        names = [f for f in message if f.number == 2 and f.wire == _BYTES]
        if series:
            tenant = request[names[-1].start : names[-1].stop].tobytes() if names else b""
            runs.setdefault(tenant, []).extend(series)
    return [Part(tenant, _joined(series)) for tenant, series in runs.items()]


def replica_of(request: Uint8Array) -> int:
    """Return the replica that a WriteableStore request is, from 1; 0 if it is none.

    Raises:
        InvalidInput: if the request is malformed, or the number negative.
    """
    numbers = [f.start for f in fields_of(request, 1) if f.number == 3 and f.wire == _VARINT]
    replica = numbers[-1] if numbers else 0
    if replica < 0:
        raise InvalidInput(f"the request's replica is {replica}")
    return replica


def _joined(runs: list[Uint8Array]) -> Uint8Array:
    return runs[0] if len(runs) == 1 else np.concatenate(runs)


def split_by_label(body: Uint8Array, name: bytes, version: Version = 1) -> list[Part]:
    """Return the series of a body by the value of a label, which is removed.

    A series that lacks the label, or has it empty, is in the part with the empty name.

    Args:
        body: uint8[n]; a write request.
        name: the label.
        version: of remote write.

    Raises:
        InvalidInput: if the body is malformed.
        LimitExceeded: for more series or tenants than one request may be split into.
    """
    n_series = count_series(body, version)
    if n_series > SPLIT_SERIES_MAX:
        raise LimitExceeded("series_limit", SPLIT_SERIES_MAX, n_series)
    return _split_v2(body, name) if version == 2 else _split_v1(body, name, n_series)


def _split_v1(body: Uint8Array, name: bytes, n_series: int) -> list[Part]:
    room = min(n_series, SPLIT_TENANTS_MAX) + 1
    rows = np.empty(n_series * kernels.ROW_WIDTH, np.int64)
    groups = np.empty(room * 3, np.int64)
    table = np.full(1 << (2 * room + 1).bit_length(), -1, np.int64)
    label = np.frombuffer(name, np.uint8)
    n_groups = int(kernels.group_by_label(body, label, n_series, rows, table, groups))
    if n_groups == kernels.TOO_MANY_GROUPS:
        raise LimitExceeded("split_tenants_limit", SPLIT_TENANTS_MAX, room)
    if n_groups < 0:
        raise InvalidInput("the request is not a protobuf message")
    return _written(body, rows, n_series, groups.reshape(room, 3)[:n_groups])


def _split_v2(body: Uint8Array, name: bytes) -> list[Part]:
    from google.protobuf.message import DecodeError

    from thanostack.lib.pb import remote_write_v2_pb2

    try:
        request = remote_write_v2_pb2.Request.FromString(body.tobytes())
    except DecodeError as error:
        raise InvalidInput("the request is not a protobuf message") from error
    symbols = [symbol.encode() for symbol in request.symbols]
    groups: dict[bytes, remote_write_v2_pb2.Request] = {}
    for series in request.timeseries:
        value = _take_label_v2(series, symbols, name)
        if value not in groups:
            groups[value] = remote_write_v2_pb2.Request(symbols=request.symbols)
        if len(groups) > SPLIT_TENANTS_MAX:
            raise LimitExceeded("split_tenants_limit", SPLIT_TENANTS_MAX, len(groups))
        groups[value].timeseries.append(series)
    return [
        Part(value, np.frombuffer(group.SerializeToString(), np.uint8))
        for value, group in groups.items()
    ]


def _take_label_v2(
    series: remote_write_v2_pb2.TimeSeries, symbols: Sequence[bytes], name: bytes
) -> bytes:
    """Return the label's value, removed; references beyond the symbols are left to storage."""
    refs = list(series.labels_refs)
    if any(ref >= len(symbols) for ref in refs):
        return b""
    for i in range(0, len(refs) - 1, 2):
        if symbols[refs[i]] == name:
            del series.labels_refs[i : i + 2]
            return symbols[refs[i + 1]]
    return b""


def _written(body: Uint8Array, rows: Int64Array, n_series: int, groups: Int64Array) -> list[Part]:
    ends = np.cumsum(groups[:, 2])
    at = np.ascontiguousarray(ends - groups[:, 2])
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    written = kernels.write_groups(body, rows, n_series, at, out)
    assert written == len(out), "the groups' sizes were counted before"
    starts = ends - groups[:, 2]
    return [
        Part(body[value_start:value_stop].tobytes(), out[start:stop])
        for (value_start, value_stop, _), start, stop in zip(
            groups.tolist(), starts.tolist(), ends.tolist(), strict=True
        )
    ]
