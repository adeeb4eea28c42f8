"""Receive's gRPC methods: WriteableStore for routers, Store and Info for queriers.

| what | code |
|---|---|
| stored, or an exact duplicate | OK |
| samples refused; the others are stored | AlreadyExists |
| malformed, bad tenant | InvalidArgument |
| not ready, disk full, quarantined | Unavailable |
| a tenant's bound | ResourceExhausted |

A router's request has its series in fields 1 (with the tenant in 2), or, since 2026, for several
tenants at once in field 4; both are taken, also mixed. Series are handed on as byte ranges.

Source: Thanos `pkg/store/storepb/rpc.proto`, `pkg/receive/handler.go` (RemoteWrite).
"""

from __future__ import annotations

import numpy as np

from thanostack.lib.foundation.errors import NotReady
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.remotewrite.split import tenants_of
from thanostack.lib.storeapi.server import StoreServer
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.service import WriteService
from thanostack.runtime.error_mapping import remote_write_status
from thanostack.runtime.grpc_call import CallContext, Handlers, ServerStream, Unary
from thanostack.runtime.probes import Probes

_EMPTY_ANSWER = b""


class ReceiveServicer:
    """The methods of one ingestor.

    Args:
        service: does the writing.
        stores: answers the StoreAPI.
        default: tenant of requests that name none.
        metrics: told about every request.
        probes: while not ready, writes are answered Unavailable.
    """

    def __init__(
        self,
        service: WriteService,
        stores: StoreServer,
        *,
        default: Tenant,
        metrics: ReceiveMetrics,
        probes: Probes,
    ) -> None:
        self._service, self._stores, self._default = service, stores, default
        self._metrics, self._probes = metrics, probes

    def handlers(self) -> Handlers:
        """Return the methods by full name."""
        stores = self._stores
        return {
            "/thanos.WriteableStore/RemoteWrite": Unary(self.remote_write),
            "/thanos.Store/Series": ServerStream(lambda request, _: stores.series(request)),
            "/thanos.Store/LabelNames": Unary(lambda request, _: stores.label_names(request)),
            "/thanos.Store/LabelValues": Unary(lambda request, _: stores.label_values(request)),
            "/thanos.info.Info/Info": Unary(lambda _request, _: stores.info()),
        }

    def remote_write(self, request: bytes, _: CallContext) -> bytes:
        """Write what a router forwards.

        Raises:
            ThanostackError: as the module's table says.
        """
        if not self._probes.is_ready:
            raise NotReady(f"not ready: {self._probes.reason}")
        parts = tenants_of(np.frombuffer(request, np.uint8))
        outcome = self._service.write_parts(parts, self._default)
        error = outcome.error()
        self._metrics.observe(outcome, 200 if error is None else remote_write_status(error))
        if error is not None:
            raise error
        return _EMPTY_ANSWER
