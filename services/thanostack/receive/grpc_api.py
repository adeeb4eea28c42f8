"""Receive's gRPC methods: WriteableStore for routers, Store and Info for queriers.

| what | code |
|---|---|
| stored, or an exact duplicate | OK |
| samples refused; the others are stored | AlreadyExists |
| malformed, bad tenant, bad replica | InvalidArgument |
| too many wait, or bytes in flight; not ready, disk full, quarantined; no quorum | Unavailable |
| a tenant's bound | ResourceExhausted |

A router's request has its series in fields 1 (with the tenant in 2), or, since 2026, for several
tenants at once in field 4; both are taken, also mixed. Series are handed on as byte ranges. A
receiver with hashrings routes what it is sent, by the replica in field 3 if it stores as well.

Source: Thanos `pkg/store/storepb/rpc.proto`, `pkg/receive/handler.go` (RemoteWrite).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from thanostack.lib.foundation.errors import NotReady
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.remotewrite.split import replica_of, tenants_of
from thanostack.receive.failure_log import FailureLog
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.router import Router
from thanostack.receive.service import Outcome, WriteService
from thanostack.runtime.error_mapping import remote_write_status
from thanostack.runtime.grpc_call import CallContext, Handlers, ServerStream, Unary
from thanostack.runtime.logs import Logger
from thanostack.runtime.probes import Probes

if TYPE_CHECKING:  # for those who are asked only
    from thanostack.lib.storeapi.server import StoreServer

_EMPTY_ANSWER = b""

WriteForwarded = Callable[[Uint8Array], Outcome]
"""Writes a WriteableStore request and waits; called in a thread of the gRPC server."""


def of_storage(service: WriteService, default: Tenant) -> WriteForwarded:
    """Return what writes forwarded requests to this node's storage.

    Args:
        service: does the writing.
        default: tenant of requests that name none.
    """
    return lambda request: service.write_parts(tenants_of(request), default)


def of_router(router: Router, default: Tenant, loop: asyncio.AbstractEventLoop) -> WriteForwarded:
    """Return what routes forwarded requests.

    Args:
        router: does the routing, on its loop.
        default: tenant of requests that name none.
        loop: the router's.
    """
    name = default.encode()

    def write(request: Uint8Array) -> Outcome:
        replica = replica_of(request)
        parts = [part._replace(tenant=part.tenant or name) for part in tenants_of(request)]
        routed = router.write_parts(parts, replica)
        return asyncio.run_coroutine_threadsafe(routed, loop).result()

    return write


class ReceiveServicer:
    """The methods of one receiver.

    Args:
        write: does the writing.
        stores: returns what answers the StoreAPI.
        metrics: told about every request.
        probes: until ready, writes are answered Unavailable.
        log: told that samples are refused, which a router does not say.
    """

    def __init__(
        self,
        write: WriteForwarded,
        stores: Callable[[], StoreServer],
        *,
        metrics: ReceiveMetrics,
        probes: Probes,
        log: Logger,
    ) -> None:
        self._write, self._stores = write, stores
        self._metrics, self._probes = metrics, probes
        self._failures = FailureLog(log, metrics.failed)

    def handlers(self) -> Handlers:
        """Return the methods by full name."""
        stores = self._stores
        return {
            "/thanos.WriteableStore/RemoteWrite": Unary(self.remote_write, is_queued=True),
            "/thanos.Store/Series": ServerStream(self.series),
            "/thanos.Store/LabelNames": Unary(lambda request, _: stores().label_names(request)),
            "/thanos.Store/LabelValues": Unary(lambda request, _: stores().label_values(request)),
            "/thanos.info.Info/Info": Unary(lambda _request, _: stores().info()),
        }

    def series(self, request: bytes, _: CallContext) -> Iterator[bytes]:
        """Yield the series that a querier asks for."""
        metrics = self._metrics.store_server
        with metrics.pending():
            yield from self._stores().series(request, metrics.sent)

    def remote_write(self, request: bytes, _: CallContext) -> bytes:
        """Write what a router forwards.

        Raises:
            ThanostackError: as the module's table says.
        """
        if not self._probes.takes_requests:
            raise NotReady(f"not ready: {self._probes.reason}")
        outcome = self._write(np.frombuffer(request, np.uint8))
        error = outcome.error()
        self._metrics.observe(outcome, 200 if error is None else remote_write_status(error))
        for tenant, reasons in outcome.refusals():
            self._failures.refused(tenant, reasons)
        if error is not None:
            raise error
        return _EMPTY_ANSWER
