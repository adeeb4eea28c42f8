"""Query results as JSON bodies, streamed in pieces.

    head | points, up to 64 Ki at a time: orjson prints numbers, a kernel puts them in place | tail

A body of any size takes a few MiB here. Floats are in Go's shortest form, timestamps seconds.

Source: Prometheus `util/jsonutil`, `web/api/v1/json_codec.go`; kernels/promapi_json.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from thanostack.lib.kernels import promapi_json as kernels
from thanostack.lib.model.label_runs import Float64Array, Int64Array, LabelRuns
from thanostack.lib.promapi.envelope import closing
from thanostack.lib.promql.engine.result import (
    MatrixResult,
    QueryResult,
    ScalarResult,
    StringResult,
    Value,
    VectorResult,
)

POINTS_PER_PIECE = 1 << 16
LABELS_PER_PIECE = 1 << 14
_LABEL_GROWTH = 6
_SERIES_BYTES = 64
_PRINT_NUMBERS = orjson.OPT_SERIALIZE_NUMPY


def stream_result(result: QueryResult, *, stats: dict[str, Any] | None = None) -> Iterator[bytes]:
    """Yield the body that answers a query.

    Args:
        result: what the engine gave.
        stats: the object to show as `stats`, if it was asked for.
    """
    kind = _kind(result.value)
    yield b'{"status":"success","data":{"resultType":"' + kind + b'","result":'
    yield from _value(result.value)
    if stats is not None:
        yield b',"stats":' + orjson.dumps(stats)
    # Upstream: the object is there, and empty unless `analyze` was asked for.
    yield b',"analysis":{}}' + closing(result.warnings, result.infos)


def _kind(value: Value) -> bytes:
    if isinstance(value, VectorResult):
        return b"vector"
    if isinstance(value, MatrixResult):
        return b"matrix"
    return b"scalar" if isinstance(value, ScalarResult) else b"string"


def _value(value: Value) -> Iterator[bytes]:
    if isinstance(value, ScalarResult):
        number = b"".join(_number(value.value))
        yield b"[" + _seconds(value.time) + b"," + number + b"]"
    elif isinstance(value, StringResult):
        text = value.value.encode("utf-8", "replace").decode()
        yield b"[" + _seconds(value.time) + b"," + orjson.dumps(text) + b"]"
    elif isinstance(value, VectorResult):
        offsets = np.arange(len(value) + 1)
        yield b"["
        yield from stream_points(value.labels, offsets, value.timestamps, value.values, vector=True)
        yield b"]"
    else:
        yield b"["
        yield from stream_points(value.labels, value.offsets, value.timestamps, value.values)
        yield b"]"


def _seconds(time_ms: int) -> bytes:
    # Upstream: the time of a scalar or string is a plain float, not three decimals.
    return orjson.dumps(time_ms / 1000).removesuffix(b".0")


def _number(value: float) -> Iterator[bytes]:
    """Yield a float as a quoted text: what a point without labels has behind its time."""
    columns = np.array([0, 1]), np.array([0]), np.array([value])
    for piece in stream_points(LabelRuns.of([b""]), *columns, vector=True):
        yield piece.removeprefix(b'{"metric":{},"value":[0,').removesuffix(b"]}")


def stream_points(
    labels: LabelRuns,
    offsets: Int64Array,
    timestamps: Int64Array,
    values: Float64Array,
    *,
    vector: bool = False,
) -> Iterator[bytes]:
    """Yield series with their points as members of a JSON array.

    Args:
        labels: S label sets.
        offsets: int64[S + 1]; the points of series s. Series without points are left out.
        timestamps: int64[N], ms.
        values: float64[N].
        vector: whether a series has one point, written as `value`.
    """
    total = int(offsets[-1])
    first = 0
    # Kernels take contiguous columns.
    columns = tuple(np.ascontiguousarray(column) for column in (offsets, timestamps, values))
    while first < total:
        stop = min(first + POINTS_PER_PIECE, total)
        row = int(np.searchsorted(offsets, first, "right")) - 1
        last = int(np.searchsorted(offsets, stop, "left"))
        text = orjson.dumps(columns[2][first:stop], option=_PRINT_NUMBERS)
        label_bytes = int(labels.offsets[last] - labels.offsets[row])
        room = _LABEL_GROWTH * label_bytes + _SERIES_BYTES * (last - row + 1)
        out = np.empty(room + kernels.POINT_BYTES_MAX * (stop - first), np.uint8)
        span = np.array([row, first, stop, vector, first > 0], np.int64)
        size = kernels.write_json_series(
            labels.data, labels.offsets, *columns, np.frombuffer(text, np.uint8), span, out
        )
        assert size >= 0, "results carry canonical label runs"
        yield out[:size].tobytes()
        first = stop


def stream_labels(labels: LabelRuns) -> Iterator[bytes]:
    """Yield label sets as a JSON array of objects."""
    yield b"["
    for first in range(0, len(labels), LABELS_PER_PIECE):
        stop = min(first + LABELS_PER_PIECE, len(labels))
        label_bytes = int(labels.offsets[stop] - labels.offsets[first])
        out = np.empty(_LABEL_GROWTH * label_bytes + 8 * (stop - first), np.uint8)
        ends = np.empty(stop - first + 1, np.int64)
        size = kernels.write_json_labels(labels.data, labels.offsets, first, stop, ends, out)
        assert size >= 0, "results carry canonical label runs"
        yield (b"," if first else b"") + out[:size].tobytes()
    yield b"]"
