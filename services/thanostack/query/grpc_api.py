"""The querier as a StoreAPI endpoint, so that queriers stack.

    /thanos.Store/Series, LabelNames, LabelValues   passed on to the endpoints, merged
    /thanos.info.Info/Info                          what they say, taken together

A call carries the stack ids it came through. One that has been here already, or through more than
eight queriers, is refused: in a cycle it would never end.

Source: Thanos `pkg/store/proxy.go`, `cmd/thanos/query.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from thanostack.lib.foundation.errors import EndpointUnavailable
from thanostack.lib.model.label_runs import Labels
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.pb import store_pb2
from thanostack.lib.promql.engine import Deadline
from thanostack.lib.storeapi.codec import encode_frames, encode_warning
from thanostack.lib.storeapi.info import TIME_MAX, TIME_MIN, EndpointInfo, encode_info
from thanostack.lib.storeapi.requests import parse_label_request, parse_series_request
from thanostack.lib.storeapi.server import SelectLimits, check_limits
from thanostack.lib.tenancy.rule import DEFAULT_TENANT
from thanostack.query.endpoint_set import EndpointSet
from thanostack.query.endpoints import Call
from thanostack.query.fan_out import FanOut
from thanostack.query.queryable import wait_for
from thanostack.query.service import PATH_METADATA, TENANT_METADATA, ServiceOptions
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure
from thanostack.runtime.grpc_call import CallContext, Handlers, ServerStream, Unary
from thanostack.runtime.store_server_metrics import StoreServerMetrics

PATH_LENGTH_MAX: Final = 8


class QueryServicer:
    """The gRPC methods of one querier; they run in the server's threads.

    Args:
        fan_out: asks endpoints.
        endpoints: what Info tells about.
        loop: where calls run.
        options: time and byte limits, and this querier's stack id.
        limits: of one Series call.
        selector_labels: announced with every label set.
    """

    def __init__(
        self,
        fan_out: FanOut,
        endpoints: EndpointSet,
        loop: asyncio.AbstractEventLoop,
        *,
        options: ServiceOptions,
        limits: SelectLimits,
        selector_labels: Labels,
        metrics: StoreServerMetrics,
    ) -> None:
        self._metrics = metrics
        self._fan_out, self._endpoints, self._loop = fan_out, endpoints, loop
        self._options, self._limits, self._selector_labels = options, limits, selector_labels

    def handlers(self) -> Handlers:
        """Return the methods by full name."""
        return {
            "/thanos.Store/Series": ServerStream(self.series),
            "/thanos.Store/LabelNames": Unary(self.label_names),
            "/thanos.Store/LabelValues": Unary(self.label_values),
            "/thanos.info.Info/Info": Unary(lambda _request, _: encode_info(self.describe())),
        }

    def series(self, request: bytes, context: CallContext) -> Iterator[bytes]:
        """Yield the merged answer of all endpoints, warnings first."""
        with self._metrics.pending():
            batch, warnings, batch_size = self._gathered(request, context)
            yield from map(encode_warning, warnings)
            yield from encode_frames(batch, batch_size)
            self._metrics.sent(len(batch), len(batch.chunks))

    def _gathered(
        self, request: bytes, context: CallContext
    ) -> tuple[SeriesBatch, tuple[str, ...], int]:
        parsed = parse_series_request(request)
        call = self._call(context, abort=parsed.abort)
        try:
            work = self._fan_out.gather_series([parsed], call)
            (gathered,) = wait_for(work, self._loop, call.deadline)
            batch, warnings = gathered.merge()
        except EndpointUnavailable as error:
            raise GrpcFailure(GrpcCode.ABORTED, str(error)) from error
        check_limits(self._limits, len(batch), len(batch.chunks))
        return batch, warnings, parsed.batch_size

    def label_names(self, request: bytes, context: CallContext) -> bytes:
        """Return the label names of all endpoints."""
        parsed = parse_label_request(request, values=False)
        call = self._call(context, abort=parsed.abort)
        names, warnings = wait_for(
            self._fan_out.label_names(parsed, call), self._loop, call.deadline
        )
        return store_pb2.LabelNamesResponse(names=names, warnings=warnings).SerializeToString()

    def label_values(self, request: bytes, context: CallContext) -> bytes:
        """Return the values of a label at all endpoints."""
        parsed = parse_label_request(request, values=True)
        call = self._call(context, abort=parsed.abort)
        values, warnings = wait_for(
            self._fan_out.label_values(parsed, call), self._loop, call.deadline
        )
        return store_pb2.LabelValuesResponse(values=values, warnings=warnings).SerializeToString()

    def describe(self) -> EndpointInfo:
        """Return what all endpoints say, taken together."""
        stores = self._endpoints.stores()
        sets = {_with(labels, self._selector_labels) for labels in self._endpoints.label_sets()}
        if not sets and self._selector_labels:
            sets = {self._selector_labels}
        return EndpointInfo(
            component="query",
            label_sets=tuple(sorted(sets)),
            mint=min((store.info.mint for store in stores), default=TIME_MIN),
            maxt=max((store.info.maxt for store in stores), default=TIME_MAX),
            tsdbs=tuple(self._endpoints.tsdbs()),
        )

    def _call(self, context: CallContext, *, abort: bool) -> Call:
        remaining = context.time_remaining_s()
        limit = self._options.timeout_s
        deadline = Deadline.after(limit if remaining is None else min(limit, remaining))
        context.on_cancel(deadline.cancel)
        # Upstream: the tenant is handed on, a default named, and nothing enforced.
        tenant = context.metadata.get(TENANT_METADATA, DEFAULT_TENANT)
        path = self._path(context.metadata.get(PATH_METADATA, ""))
        metadata = ((PATH_METADATA, path), (TENANT_METADATA, tenant))
        return Call(
            deadline=deadline,
            metadata=metadata,
            response_timeout_s=self._options.response_timeout_s,
            bytes_max=self._options.fetched_bytes_max,
            abort=abort,
        )

    def _path(self, text: str) -> str:
        ids = [part for part in text.split(",") if part]
        if self._options.stack_id in ids or len(ids) > PATH_LENGTH_MAX:
            raise GrpcFailure(
                GrpcCode.FAILED_PRECONDITION,
                f"query cycle: this querier ({self._options.stack_id}) was asked through "
                f"{text}; endpoints must not lead back to it",
            )
        return ",".join([*ids, self._options.stack_id])


def _with(labels: Labels, selector: Labels) -> Labels:
    return tuple(sorted({**dict(labels), **dict(selector)}.items()))
