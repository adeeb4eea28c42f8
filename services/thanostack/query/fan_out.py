"""Asking many endpoints at once, and making one answer of theirs.

    SeriesRequest --select endpoints--> calls on the event loop --> Gathered (bytes)
                                                        worker thread: decode, strip, merge

An endpoint is asked when its time range overlaps, its label sets contradict no matcher and
`storeMatch[]` lets it. A failure is a warning, or with `abort` the end of the request.

Invariants: merged answers ascend by label order, each series once, whatever the endpoints support.
Source: Thanos `pkg/store/proxy.go`, `proxy_merge.go`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from thanostack.lib.foundation.errors import (
    EndpointUnavailable,
    ExecutionFailed,
    InvalidInput,
    Unavailable,
)
from thanostack.lib.model.label_runs import Labels
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.pb import store_pb2
from thanostack.lib.storeapi.batches import merge_batches, relabel, take_shard
from thanostack.lib.storeapi.codec import decode_frames
from thanostack.lib.storeapi.external_labels import resolve_matchers
from thanostack.lib.storeapi.requests import (
    LabelRequest,
    SeriesRequest,
    encode_label_request,
    encode_series_request,
)
from thanostack.query.endpoints import LABEL_NAMES, LABEL_VALUES, Call, Endpoint, describe
from thanostack.query.metrics import QueryMetrics

T = TypeVar("T")
NO_STORES: Final = "No StoreAPIs available"
_NO_MATCHERS: Final = "no matchers specified (excluding selector labels)"
_ADDRESS: Final = "__address__"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What endpoints answered to one Series request; not yet decoded.

    Args:
        request: as it was asked.
        answers: endpoint and frames; no frames for an endpoint of this process.
        warnings: of endpoints that failed.
    """

    request: SeriesRequest
    answers: tuple[tuple[Endpoint, tuple[bytes, ...]], ...] = ()
    warnings: tuple[str, ...] = ()

    def merge(self) -> tuple[SeriesBatch, tuple[str, ...]]:
        """Return the merged series, and all warnings; for a worker thread.

        Raises:
            EndpointUnavailable: if an endpoint sent what is no answer, and that fails the request.
            ExecutionFailed: for downsampled data that cannot be read as asked.
        """
        request, warnings = self.request, list(self.warnings)
        batches = []
        for endpoint, frames in self.answers:
            try:
                batch, texts = self._decode(endpoint, frames)
            except EndpointUnavailable as error:
                if request.abort:
                    raise
                warnings.append(f"receive series from {describe(endpoint)}: {error}")
                continue
            if texts and request.abort:
                raise EndpointUnavailable(texts[0])
            warnings += texts
            batches.append(batch)
        return merge_batches(batches, request.limit), tuple(dict.fromkeys(warnings))

    def _decode(
        self, endpoint: Endpoint, frames: Sequence[bytes]
    ) -> tuple[SeriesBatch, tuple[str, ...]]:
        request, info = self.request, endpoint.info
        if endpoint.local is not None:
            local = endpoint.local
            missing = local.warnings(request.matchers, request.mint, request.maxt)
            return local.select(request), tuple(missing)
        decoded = decode_frames(frames, request.aggregates, source=endpoint.name)
        batch = decoded.batch
        if request.without_replica_labels and not info.supports_without_replica_labels:
            batch = relabel(batch, b"", request.without_replica_labels)
        if request.shard is not None and not info.supports_sharding:
            batch = take_shard(batch, request.shard)
        return batch, decoded.warnings


class FanOut:
    """Asks the endpoints that a request concerns.

    Args:
        stores: returns the endpoints as they are now.
        selector_labels: labels of this querier; matchers on them are settled here.
        metrics: told about calls.
    """

    def __init__(
        self,
        stores: Callable[[], Sequence[Endpoint]],
        *,
        selector_labels: Labels,
        metrics: QueryMetrics,
    ) -> None:
        self._stores, self._metrics = stores, metrics
        self._selector_labels = selector_labels

    @property
    def metrics(self) -> QueryMetrics:
        """Return what is told about calls."""
        return self._metrics

    async def gather_series(self, requests: Sequence[SeriesRequest], call: Call) -> list[Gathered]:
        """Return what all concerned endpoints answer, one Gathered a request, in order.

        Raises:
            InvalidInput: for a request without matchers of its own.
            EndpointUnavailable: if an endpoint fails, or there is none, and `call.abort`.
            LimitExceeded: when the calls have fetched too much.
        """
        return await _all_of(self._gather_one(request, call) for request in requests)

    async def _gather_one(self, request: SeriesRequest, call: Call) -> Gathered:
        matchers = resolve_matchers(request.matchers, self._selector_labels)
        if matchers is None:
            return Gathered(request)
        if not matchers:
            raise InvalidInput(_NO_MATCHERS)
        request = dataclasses.replace(request, matchers=matchers)
        endpoints = self._choose(matchers, request.mint, request.maxt, call)
        encoded = encode_series_request(request)
        results = await _all_of(self._ask_series(e, encoded, call) for e in endpoints)
        answers, warnings = [], []
        for endpoint, result in zip(endpoints, results, strict=True):
            if isinstance(result, str):
                warnings.append(result)
            else:
                answers.append((endpoint, tuple(result)))
        return Gathered(request, tuple(answers), tuple(warnings))

    def _choose(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, call: Call
    ) -> list[Endpoint]:
        stores = self._stores()
        if not stores and call.abort:
            raise EndpointUnavailable(NO_STORES)
        return [
            endpoint
            for endpoint in stores
            if _is_matched(endpoint, call.store_matchers)
            and endpoint.info.may_hold(matchers, mint, maxt)
        ]

    async def _ask_series(
        self, endpoint: Endpoint, request: bytes, call: Call
    ) -> list[bytes] | str:
        if endpoint.local is not None:
            return []
        try:
            frames = await endpoint.series(request, call)
        except Unavailable as error:
            self._metrics.endpoint_failures.labels("Series").inc()
            text = f"receive series from {describe(endpoint)}: {error}"
            if call.abort:
                raise EndpointUnavailable(text) from error
            return text
        self._metrics.fetched_bytes.inc(sum(map(len, frames)))
        if not frames:
            self._metrics.empty_streams.inc()
        return frames

    async def label_names(self, request: LabelRequest, call: Call) -> tuple[list[str], list[str]]:
        """Return the sorted label names of all concerned endpoints, and warnings.

        Raises:
            EndpointUnavailable: if an endpoint fails, or there is none, and `call.abort`.
        """
        return await self._labels(request, call, LABEL_NAMES)

    async def label_values(self, request: LabelRequest, call: Call) -> tuple[list[str], list[str]]:
        """Return the sorted values of a label at all concerned endpoints, and warnings.

        Raises:
            EndpointUnavailable: if an endpoint fails, or there is none, and `call.abort`.
        """
        return await self._labels(request, call, LABEL_VALUES)

    async def _labels(
        self, request: LabelRequest, call: Call, method: str
    ) -> tuple[list[str], list[str]]:
        matchers = resolve_matchers(request.matchers, self._selector_labels)
        if matchers is None:
            return [], []
        request = dataclasses.replace(request, matchers=matchers)
        endpoints = self._choose(matchers, request.mint, request.maxt, call)
        encoded = encode_label_request(request)
        answers = await _all_of(self._ask_labels(e, method, encoded, call) for e in endpoints)
        found: set[str] = set()
        warnings: dict[str, None] = {}
        for texts, notes in answers:
            found.update(texts)
            warnings |= dict.fromkeys(notes)
        return sorted(found)[: request.limit or None], list(warnings)

    async def _ask_labels(
        self, endpoint: Endpoint, method: str, request: bytes, call: Call
    ) -> tuple[Sequence[str], Sequence[str]]:
        names = method == LABEL_NAMES
        try:
            data = await endpoint.unary(method, request, call)
            if names:
                message = store_pb2.LabelNamesResponse.FromString(data)
                return message.names, message.warnings
            answer = store_pb2.LabelValuesResponse.FromString(data)
        except (Unavailable, ExecutionFailed, DecodeError) as error:
            self._metrics.endpoint_failures.labels(method.rpartition("/")[2]).inc()
            what = "names" if names else "values"
            text = f"fetch label {what} from store {describe(endpoint)}: {error}"
            if call.abort:
                raise EndpointUnavailable(text) from error
            return (), (text,)
        return answer.values, answer.warnings


async def _all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results, in order; the first failure cancels the rest and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


def _is_matched(endpoint: Endpoint, alternatives: Sequence[Sequence[Matcher]]) -> bool:
    """Return whether `storeMatch[]` lets an endpoint; only its address is looked at."""
    if not alternatives:
        return True
    # Upstream: an endpoint of this process has no address, so no store matcher can mean it.
    if endpoint.local is not None:
        return False
    address = endpoint.name.encode()
    return any(
        all(matcher.matches(address) for matcher in matchers if matcher.name == _ADDRESS)
        for matchers in alternatives
    )
