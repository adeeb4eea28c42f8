"""The relabel step of the write path.

Known series cost a kernel pass on the event loop. Requests with many new ones, and large requests,
go to a thread, so that others are answered meanwhile.

Source: Thanos `pkg/receive/handler.go` (relabel, after the limits of a request).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.relabel.config import RelabelConfig
from thanostack.lib.relabel.rewriting import Relabeled, Relabeler
from thanostack.receive.service import INLINE_BYTES_MAX

_INLINE_MISSES_MAX: Final = 32


class Relabeling:
    """Relabels requests and counts what happens.

    Args:
        configs: the rules; none leaves requests as they are.
        registry: where metrics are registered; None for nowhere.
        bytes_max: bound of what is remembered of series.
    """

    def __init__(
        self,
        configs: Sequence[RelabelConfig],
        registry: CollectorRegistry | None,
        *,
        bytes_max: int,
    ) -> None:
        self._relabeler = Relabeler(configs, bytes_max) if configs else None
        self._dropped = Counter(
            "thanostack_receive_relabel_dropped_series_total",
            "Series of write requests that relabeling dropped.",
            registry=registry,
        )
        self._misses = Counter(
            "thanostack_receive_relabel_cache_misses_total",
            "Series of write requests whose labels went through the relabel rules one by one.",
            registry=registry,
        )
        size = Gauge(
            "thanostack_receive_relabel_cache_bytes",
            "Bytes of what is remembered of relabeled series.",
            registry=registry,
        )
        if self._relabeler is not None:
            size.set_function(self._size)

    @property
    def is_on(self) -> bool:
        """Return whether there are rules."""
        return self._relabeler is not None

    def _size(self) -> float:
        return float(self._relabeler.seen.size_bytes) if self._relabeler is not None else 0.0

    def load_kernels(self) -> None:
        """Load, or compile, what the first request would wait for; in a thread."""
        if self._relabeler is not None:
            self._relabeler.load_kernels()

    def relabel_now(self, body: Uint8Array, series: int, version: int) -> Relabeled | None:
        """Return a request relabeled, None if that would hold the loop for long; as `relabel`.

        What is dropped is not counted: whoever uses the result tells `count_dropped`.
        """
        if self._relabeler is None:
            return Relabeled(body, series, 0)
        if len(body) > INLINE_BYTES_MAX:
            return None
        request = self._relabeler.begin(body, series, version)
        if request.misses > _INLINE_MISSES_MAX:
            return None
        self._misses.inc(request.misses)
        return self._relabeler.finish(request)

    async def relabel(self, body: Uint8Array, series: int, version: int) -> Relabeled:
        """Return a request relabeled.

        Args:
            body: uint8[n]; must not change meanwhile.
            series: how many it has.
            version: of remote write.

        Raises:
            InvalidInput: if it is not the message that it should be.
            LimitExceeded: for more series or label bytes than one request may carry.
        """
        result = self.relabel_now(body, series, version)
        if result is None:
            assert self._relabeler is not None
            request = await asyncio.to_thread(self._relabeler.begin, body, series, version)
            self._misses.inc(request.misses)
            result = await asyncio.to_thread(self._relabeler.finish, request)
        self.count_dropped(result.dropped)
        return result

    def count_dropped(self, series: int) -> None:
        """Count series that were dropped."""
        if series:
            self._dropped.inc(series)
