"""What StoreAPI calls ask for, as values, and their bytes.

All time bounds are inclusive milliseconds. An unset partial-response strategy means WARN, as the
wire has it. Fields that only upstream's own planner reads (query hints, step, range) are dropped.

Source: Thanos `pkg/store/storepb/rpc.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.pb import series_pb2, store_pb2

RAW, COUNT, SUM, MIN, MAX, COUNTER = range(6)
_ABORT = series_pb2.PartialResponseStrategy.ABORT
_WARN = series_pb2.PartialResponseStrategy.WARN


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of all series that a caller wants: those whose labels hash to `index`.

    Args:
        index: from 0.
        total: number of shards; 0 is no sharding.
        by: whether `labels` are the ones that are hashed, rather than the ones left out.
        labels: names.
    """

    index: int
    total: int
    by: bool
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """A `Series` call.

    Args:
        matchers: all must hold.
        mint: ms, inclusive.
        maxt: ms, inclusive.
        without_replica_labels: labels to remove before sorting.
        aggregates: of downsampled data, RAW..COUNTER; empty or RAW is raw data.
        max_resolution_ms: coarsest data wanted; 0 is raw.
        limit: most series; 0 is no limit.
        skip_chunks: labels only.
        abort: whether one failed store fails the call.
        shard: None for all series.
        batch_size: series a frame; 0 or 1 is single frames.
    """

    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int
    without_replica_labels: tuple[str, ...] = ()
    aggregates: tuple[int, ...] = ()
    max_resolution_ms: int = 0
    limit: int = 0
    skip_chunks: bool = False
    abort: bool = False
    shard: Shard | None = None
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A `LabelNames` or `LabelValues` call; `label` is empty for names.

    Args:
        label: whose values.
        matchers: all must hold; none selects everything.
        mint: ms, inclusive.
        maxt: ms, inclusive.
        without_replica_labels: labels that are as if they did not exist.
        limit: most names or values; 0 is no limit.
        abort: whether one failed store fails the call.
    """

    label: str
    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int
    without_replica_labels: tuple[str, ...] = ()
    limit: int = 0
    abort: bool = False


def parse_matchers(messages: Iterable[series_pb2.LabelMatcher]) -> tuple[Matcher, ...]:
    """Return matchers of the wire.

    Raises:
        InvalidMatcher: for an expression that RE2 refuses.
        InvalidInput: for an unknown operator.
    """
    matchers = []
    for message in messages:
        if not 0 <= message.type <= MatchType.NRE:
            raise InvalidInput(f"unknown label matcher type {message.type}")
        matchers.append(Matcher(MatchType(message.type), message.name, message.value))
    return tuple(matchers)


def _matcher_messages(matchers: Iterable[Matcher]) -> list[series_pb2.LabelMatcher]:
    return [
        series_pb2.LabelMatcher(type=int(m.type), name=m.name, value=m.value)  # type: ignore[arg-type]
        for m in matchers
    ]


def parse_series_request(data: bytes) -> SeriesRequest:
    """Return a `Series` call from its bytes.

    Raises:
        InvalidInput: for bytes that are no request, or a matcher that is not usable.
    """
    try:
        message = store_pb2.SeriesRequest.FromString(data)
    except DecodeError as error:
        raise InvalidInput(f"malformed SeriesRequest: {error}") from error
    shard = None
    if message.HasField("shard_info") and message.shard_info.total_shards > 0:
        info = message.shard_info
        shard = Shard(info.shard_index, info.total_shards, info.by, tuple(info.labels))
    return SeriesRequest(
        matchers=parse_matchers(message.matchers),
        mint=message.min_time,
        maxt=message.max_time,
        without_replica_labels=tuple(message.without_replica_labels),
        aggregates=tuple(message.aggregates),
        max_resolution_ms=message.max_resolution_window,
        limit=max(0, message.limit),  # Upstream: below zero is no limit either
        skip_chunks=message.skip_chunks,
        abort=message.partial_response_disabled or message.partial_response_strategy == _ABORT,
        shard=shard,
        batch_size=message.response_batch_size,
    )


def encode_series_request(request: SeriesRequest) -> bytes:
    """Return the bytes of a `Series` call."""
    message = store_pb2.SeriesRequest(
        min_time=request.mint,
        max_time=request.maxt,
        matchers=_matcher_messages(request.matchers),
        max_resolution_window=request.max_resolution_ms,
        aggregates=request.aggregates,  # type: ignore[arg-type]
        partial_response_strategy=_ABORT if request.abort else _WARN,
        skip_chunks=request.skip_chunks,
        without_replica_labels=request.without_replica_labels,
        limit=request.limit,
        response_batch_size=request.batch_size,
    )
    if request.shard is not None:
        message.shard_info.shard_index = request.shard.index
        message.shard_info.total_shards = request.shard.total
        message.shard_info.by = request.shard.by
        message.shard_info.labels.extend(request.shard.labels)
    return message.SerializeToString()


def parse_label_request(data: bytes, *, values: bool) -> LabelRequest:
    """Return a `LabelNames` call, or with `values` a `LabelValues` call, from its bytes.

    Raises:
        InvalidInput: for bytes that are no request, no label name where one is needed, or a
            matcher that is not usable.
    """
    kind = store_pb2.LabelValuesRequest if values else store_pb2.LabelNamesRequest
    try:
        message = kind.FromString(data)
    except DecodeError as error:
        raise InvalidInput(f"malformed {kind.DESCRIPTOR.name}: {error}") from error
    label = message.label if isinstance(message, store_pb2.LabelValuesRequest) else ""
    if values and not label:
        raise InvalidInput("label name parameter cannot be empty")
    return LabelRequest(
        label=label,
        matchers=parse_matchers(message.matchers),
        mint=message.start,
        maxt=message.end,
        without_replica_labels=tuple(message.without_replica_labels),
        limit=max(0, message.limit),  # Upstream: below zero is no limit either
        abort=message.partial_response_disabled or message.partial_response_strategy == _ABORT,
    )


def encode_label_request(request: LabelRequest) -> bytes:
    """Return the bytes of a `LabelNames` call, or of `LabelValues` if it names a label."""
    kind = store_pb2.LabelValuesRequest if request.label else store_pb2.LabelNamesRequest
    message = kind(
        start=request.mint,
        end=request.maxt,
        matchers=_matcher_messages(request.matchers),
        partial_response_strategy=_ABORT if request.abort else _WARN,
        without_replica_labels=request.without_replica_labels,
        limit=request.limit,
    )
    if isinstance(message, store_pb2.LabelValuesRequest):
        message.label = request.label
    return message.SerializeToString()


def aggregates_of(function: str) -> tuple[int, ...]:
    """Return what to ask of downsampled data for the function around a selector.

    Source: Thanos `pkg/query/querier.go`, `aggrsFromFunc`.
    """
    if function == "min" or function.startswith("min_"):
        return (MIN,)
    if function == "max" or function.startswith("max_"):
        return (MAX,)
    if function == "count" or function.startswith("count_"):
        return (COUNT,)
    # Upstream: plain `sum` wants the samples themselves, an average of the downsampled ones.
    if function.startswith("sum_"):
        return (SUM,)
    if function in {"increase", "rate", "irate", "resets", "xincrease", "xrate"}:
        return (COUNTER,)
    return (COUNT, SUM)
