"""StoreServer: the StoreAPI over local stores, such as a receiver's tenants.

    request bytes -> SeriesRequest -> each LabeledStore: external labels settle matchers,
        its series get them, replica labels go, sort -> merge -> shard, limit -> frames

Whoever sits in the same process takes `select`, which ends before the frames.

Invariants: series leave in ascending label order, each once; external labels win over a series'
own. A store's whole answer is held before the first frame leaves: adding an external label can move
a series behind those it is a prefix of, so order is only known at the end.

Deliberately elsewhere: the transport (`runtime/grpc_server`), fan-out to other processes (`query`).
Source: Thanos `pkg/store/tsdb.go`, `proxy.go`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.model.label_runs import Labels, decode_run, encode_run
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.model.queryable import SeriesQuery, SeriesStore
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.pb import store_pb2
from thanostack.lib.storeapi.batches import (
    empty_batch,
    merge_batches,
    relabel,
    stack,
    take_shard,
)
from thanostack.lib.storeapi.codec import encode_frames, encode_warning
from thanostack.lib.storeapi.external_labels import resolve_matchers
from thanostack.lib.storeapi.info import TIME_MAX, TIME_MIN, EndpointInfo, TSDBInfo, encode_info
from thanostack.lib.storeapi.requests import (
    LabelRequest,
    SeriesRequest,
    parse_label_request,
    parse_series_request,
)

SAMPLES_PER_CHUNK = 120
_NO_MATCHERS = "no matchers specified (excluding external labels)"


@dataclass(frozen=True, slots=True)
class LabeledStore:
    """A store and the external labels of all its series.

    Args:
        external: a canonical label run.
        store: its series carry their own labels only.
        missing: what answers must say is missing from them, "" for nothing.
    """

    external: bytes
    store: SeriesStore
    missing: str = ""

    @property
    def labels(self) -> Labels:
        """Return the external labels, decoded."""
        return decode_run(self.external)


@dataclass(frozen=True, slots=True)
class UnreadableStore:
    """Stands for a store that cannot be read: it may hold anything, and gives nothing.

    Args:
        mint, maxt: the time that it is of, inclusive, ms.
    """

    mint: int = TIME_MIN
    maxt: int = TIME_MAX

    def time_range(self) -> tuple[int, int]:
        """Return the time that it is of."""
        return self.mint, self.maxt

    def series(self, query: SeriesQuery) -> Iterator[SeriesBatch]:
        """Yield nothing."""
        del query
        return iter(())

    def label_names(self, query: SeriesQuery) -> list[str]:
        """Return nothing."""
        del query
        return []

    def label_values(self, name: str, query: SeriesQuery) -> list[str]:
        """Return nothing."""
        del name, query
        return []


@dataclass(frozen=True, slots=True)
class SelectLimits:
    """What one Series call may return; 0 is no limit.

    Args:
        series: number of series.
        samples: number of samples, counted as chunks of 120 as upstream counts them.
    """

    series: int = 0
    samples: int = 0


def check_limits(limits: SelectLimits, n_series: int, n_chunks: int) -> None:
    """Return if one Series call may return so much.

    Raises:
        LimitExceeded: naming the flag.
    """
    if limits.series and n_series > limits.series:
        raise LimitExceeded("store.limits.request-series", limits.series, n_series)
    samples = n_chunks * SAMPLES_PER_CHUNK
    if limits.samples and samples > limits.samples:
        raise LimitExceeded("store.limits.request-samples", limits.samples, samples)


class StoreServer:
    """Answers StoreAPI and Info calls from the stores of this process.

    Args:
        stores: called for every request; returns the stores as they are now.
        component: as Info names this process: `receive`, `query`…
        limits: of one Series call.
        open_ended: whether stores still take samples: they then announce no upper time bound, as
            what arrives between two Info calls would be missed otherwise.
        apis: other APIs that Info announces.
    """

    def __init__(
        self,
        stores: Callable[[], Sequence[LabeledStore]],
        *,
        component: str = "receive",
        limits: SelectLimits = SelectLimits(),
        open_ended: bool = True,
        apis: frozenset[str] = frozenset(),
    ) -> None:
        self._stores, self._component, self._limits = stores, component, limits
        self._open_ended, self._apis = open_ended, apis

    def series(
        self, request: bytes, sent: Callable[[int, int], None] | None = None
    ) -> Iterator[bytes]:
        """Yield the frames that answer a `/thanos.Store/Series` call.

        Args:
            request: the message.
            sent: told the numbers of series and chunks once all frames are taken.

        Raises:
            InvalidInput: for a malformed request, or one without matchers of its own.
            LimitExceeded: for more series or samples than one call may return.
        """
        parsed = parse_series_request(request)
        batch = self.select(parsed)
        yield from map(encode_warning, self.warnings(parsed.matchers, parsed.mint, parsed.maxt))
        yield from encode_frames(batch, parsed.batch_size)
        if sent is not None:
            sent(len(batch), len(batch.chunks))

    def select(self, request: SeriesRequest) -> SeriesBatch:
        """Return the series that a request asks for, merged over all stores.

        Raises:
            InvalidInput: for a request without matchers of its own.
            LimitExceeded: for more series or samples than one call may return.
        """
        answers = [
            self._select_one(store, matchers, request)
            for store, matchers in self._matching(request.matchers, request.mint, request.maxt)
        ]
        merged = merge_batches(answers, request.limit)
        check_limits(self._limits, len(merged), len(merged.chunks))
        return merged

    def warnings(self, matchers: Sequence[Matcher], mint: int, maxt: int) -> list[str]:
        """Return what is missing from the answer to a request, each text once.

        Args:
            matchers: of the request.
            mint: of its time, inclusive, ms.
            maxt: of its time, inclusive, ms.
        """
        texts: dict[str, None] = {}
        for store in self._stores():
            if store.missing and resolve_matchers(matchers, store.labels) is not None:
                first, last = store.store.time_range()
                if first <= maxt and mint <= last:
                    texts[store.missing] = None
        return list(texts)

    def _matching(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, *, need_matchers: bool = True
    ) -> Iterator[tuple[LabeledStore, tuple[Matcher, ...]]]:
        for store in self._stores():
            left = resolve_matchers(matchers, store.labels)
            if left is None:
                continue
            if not left and need_matchers:
                raise InvalidInput(_NO_MATCHERS)
            first, last = store.store.time_range()
            if first <= maxt and (mint <= last or self._open_ended):
                yield store, left

    def _select_one(
        self, store: LabeledStore, matchers: tuple[Matcher, ...], request: SeriesRequest
    ) -> SeriesBatch:
        # Removing labels may join series, and a shard may refuse some: only then is the cap ours.
        plain = request.shard is None and not request.without_replica_labels
        query = SeriesQuery(
            matchers,
            request.mint,
            request.maxt,
            request.skip_chunks,
            request.limit if plain else 0,
        )
        found: list[SeriesBatch] = []
        n_series = n_chunks = 0
        for batch in store.store.series(query):
            n_series, n_chunks = n_series + len(batch), n_chunks + len(batch.chunks)
            check_limits(self._limits, n_series, n_chunks)
            found.append(batch)
        whole = relabel(stack(found), store.external, request.without_replica_labels)
        return take_shard(whole, request.shard) if len(whole) else empty_batch()

    def label_names(self, request: bytes) -> bytes:
        """Return the answer to a `/thanos.Store/LabelNames` call.

        Raises:
            InvalidInput: for a malformed request.
        """
        parsed = parse_label_request(request, values=False)
        warnings = self.warnings(parsed.matchers, parsed.mint, parsed.maxt)
        return store_pb2.LabelNamesResponse(
            names=self.select_names(parsed), warnings=warnings
        ).SerializeToString()

    def select_names(self, request: LabelRequest) -> list[str]:
        """Return the sorted label names that a request asks for."""
        found: set[str] = set()
        for store, query in self._label_queries(request):
            names = store.store.label_names(query)
            if names:
                found.update(names, (name.decode() for name, _ in store.labels))
        return _capped(found.difference(request.without_replica_labels), request.limit)

    def label_values(self, request: bytes) -> bytes:
        """Return the answer to a `/thanos.Store/LabelValues` call.

        Raises:
            InvalidInput: for a malformed request, or one without a label name.
        """
        parsed = parse_label_request(request, values=True)
        warnings = self.warnings(parsed.matchers, parsed.mint, parsed.maxt)
        return store_pb2.LabelValuesResponse(
            values=self.select_values(parsed), warnings=warnings
        ).SerializeToString()

    def select_values(self, request: LabelRequest) -> list[str]:
        """Return the sorted values of a label that a request asks for."""
        if request.label in request.without_replica_labels:
            return []
        found: set[str] = set()
        for store, query in self._label_queries(request):
            external = dict(store.labels).get(request.label.encode())
            if external is None:
                found.update(store.store.label_values(request.label, query))
            elif not query.matchers or _has_series(store.store, query):
                found.add(external.decode(errors="replace"))
        return _capped(found, request.limit)

    def _label_queries(self, request: LabelRequest) -> Iterator[tuple[LabeledStore, SeriesQuery]]:
        matching = self._matching(request.matchers, request.mint, request.maxt, need_matchers=False)
        for store, matchers in matching:
            query = SeriesQuery(
                matchers, request.mint, request.maxt, skip_chunks=True, limit=request.limit
            )
            yield store, query

    def describe(self) -> EndpointInfo:
        """Return what this endpoint says about itself."""
        tsdbs, mint, maxt = [], TIME_MAX, TIME_MIN
        label_sets: dict[Labels, None] = {}
        for store in self._stores():
            first, last = store.store.time_range()
            label_sets[store.labels] = None
            if first > last:
                # Upstream: an empty TSDB begins at the end of time.
                first = TIME_MAX
            last = TIME_MAX if self._open_ended else last
            mint, maxt = min(mint, first), max(maxt, last)
            tsdbs.append(TSDBInfo(store.labels, first, last))
        if not tsdbs:
            mint, maxt = TIME_MAX, TIME_MAX
        return EndpointInfo(
            component=self._component,
            label_sets=tuple(labels for labels in label_sets if labels),
            mint=mint,
            maxt=maxt,
            tsdbs=tuple(tsdb for tsdb in tsdbs if tsdb.labels),
            apis=self._apis,
        )

    def info(self) -> bytes:
        """Return the answer to a `/thanos.info.Info/Info` call."""
        return encode_info(self.describe())


def external_run(labels: Labels | dict[str, str]) -> bytes:
    """Return external labels as the canonical run that `LabeledStore` takes."""
    return encode_run(labels)


def _has_series(store: SeriesStore, query: SeriesQuery) -> bool:
    return any(len(batch) for batch in store.series(query))


def _capped(values: set[str], limit: int) -> list[str]:
    return list(itertools.islice(sorted(values), limit or None))
