"""The receiver, put together; read this to see everything it consists of.

role             stores   routes      by
IngestorOnly     yes      no          no hashring
RouterOnly       no       yes         a hashring; no storage is touched
RouterIngestor   yes      yes         a hashring and --receive.local-endpoint

ports ──bound first: a busy one is an error before anything slow
HTTP  ──serves at once: metrics and probes show the replay
writes ─serves at once: 503 until ready
storage replayed in a thread, hashrings and kernels loaded
gRPC  ──serves when storage is open
ready ──when hashrings are there as well, and no drain was asked for
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.hashring import Hashrings
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.receive.drain_api import DrainPages
from thanostack.receive.grpc_api import ReceiveServicer, WriteForwarded, of_router, of_storage
from thanostack.receive.http_api import WriteAPI, WriteOptions, WriteTarget
from thanostack.receive.limits import Limits
from thanostack.receive.live_limits import LiveLimits
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.request_body import BodyLimits, InflightBytes, inflight_bytes_max
from thanostack.receive.routing import Routing
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.receive.settings import ReceiveSettings
from thanostack.receive.write_pace import WritePace
from thanostack.runtime import kernel_pool
from thanostack.runtime.grpc_call import DEFAULT_THREADS, MESSAGE_BYTES_MAX
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.grpc_options import GrpcOptions
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.runtime.http_common import ASGI, CommonPages, LateApplication
from thanostack.runtime.http_server import HTTPServer, listen
from thanostack.runtime.kernel_cache import ROUTE_PATH, WRITE_PATH
from thanostack.runtime.metrics import HTTPMetrics
from thanostack.runtime.process import Process
from thanostack.runtime.tls_options import GRPC_ALPN
from thanostack.runtime.web_port import pages_port, web_port

if TYPE_CHECKING:  # for those who store, or are asked, only
    from thanostack.lib.storeapi.server import StoreServer
    from thanostack.receive.drain import Drain
    from thanostack.receive.ingestor import Ingestor

_WRITE_THREADS: Final = 4
# As long as a Prometheus keeps samples back at most before it sends them (batch_send_deadline).
_LAST_WRITES_S: Final = 5.0


async def start(settings: ReceiveSettings, process: Process) -> None:
    """Build the receiver and return when it serves."""
    http_socket = listen(settings.http_address, "http-address")
    grpc_socket = listen(settings.grpc_address, "grpc-address")
    write_socket = listen(settings.remote_write_address, "remote-write.address")
    receiver = Receiver(settings, process)
    pages = pages_port(receiver.pages(), http_socket, settings, process)
    writes = receiver.write_port(write_socket)
    for name, server in (("http", pages), ("remote-write", writes)):
        process.supervisor.task(name, server.serve())
        process.supervisor.drain(name, server.stop)
    await receiver.open()
    await receiver.serve_grpc(grpc_socket)
    process.log.info(
        "serving",
        http=pages.port,
        grpc=receiver.grpc_port,
        remote_write=writes.port,
        role=settings.role,
        tenants=len(receiver.ingestor.storage.tenants()) if receiver.ingestor else 0,
    )
    receiver.opened()


class Receiver:
    """The parts of one receiver, without its HTTP ports; `standalone` builds on it too.

    Args:
        settings: of receive.
        process: that it lives in.
    """

    def __init__(self, settings: ReceiveSettings, process: Process) -> None:
        self._settings, self._process = settings, process
        self._is_open = False
        self._grpc: GrpcServer | None = None
        self._inflight_bytes_max = inflight_bytes_max(settings.receive_inflight_bytes_max)
        self._metrics = ReceiveMetrics(
            process.registry, inflight_bytes_max=self._inflight_bytes_max
        )
        routing_metrics = RoutingMetrics(
            process.registry, replication_factor=settings.replication_factor
        )
        self._limits = LiveLimits(settings, process, self._metrics.limits)
        pool = ThreadPoolExecutor(_WRITE_THREADS, thread_name_prefix="write")
        is_router = settings.role != "IngestorOnly"
        split_label = "" if is_router else settings.receive_split_tenant_label_name
        self.ingestor = (
            _ingestor(settings, process, pool, split_label)
            if settings.role != "RouterOnly"
            else None
        )
        self._drain = self._make_drain()
        self._routing = (
            Routing(
                settings,
                process,
                pool,
                metrics=routing_metrics,
                local=self.ingestor.service if self.ingestor else None,
                changed=self._ring_changed,
                tls=process.tls.client(settings.forward_tls, "receivers"),
                failed=self._show_readiness,
            )
            if is_router
            else None
        )
        self._limits.admission.when_changed(self._limit_storage)
        self._other_pages = LateApplication(self._make_other_pages)

    def _make_drain(self) -> Drain | None:
        """Return what drains the ingestor, None where there is none or that is not enabled."""
        if self.ingestor is None or not self._settings.receive_enable_drain:
            return None
        from thanostack.receive.drain import Drain

        return Drain(self.ingestor.storage, self._process, self._show_readiness)

    def _require_no_drain(self) -> None:
        from thanostack.receive.drain import require_unmarked

        require_unmarked(self._settings.tsdb_path)

    @cached_property
    def stores(self) -> StoreServer:
        """Return what answers the StoreAPI, which a router is hardly ever asked for."""
        from thanostack.lib.storeapi.server import SelectLimits, StoreServer

        settings = self._settings
        return StoreServer(
            self.ingestor.labeled_stores if self.ingestor else list,
            limits=SelectLimits(
                settings.store_limits_request_series, settings.store_limits_request_samples
            ),
        )

    @property
    def target(self) -> WriteTarget:
        """Return what takes writes, for writers of this process too."""
        if self._routing is not None:
            return self._routing.router
        assert self.ingestor is not None
        return self.ingestor.service

    def pages(self) -> ASGI:
        """Return the application of the HTTP port."""
        process = self._process
        behind = DrainPages(self._drain or self._no_drain(), self._other_pages)
        return CommonPages(process.probes, process.registry, behind)

    @property
    def status_pages(self) -> ASGI:
        """Return the application that has `/api/v1/status/tsdb` alone."""
        return self._other_pages

    def _no_drain(self) -> str:
        if self.ingestor is None:
            return "a router stores nothing: there is nothing to drain"
        return "draining is not enabled: start with --receive.enable-drain"

    def write_api(self) -> WriteAPI:
        """Return the application of the remote-write port."""
        settings = self._settings
        return WriteAPI(
            self.target,
            WriteOptions(
                TenantRule(
                    settings.receive_tenant_header,
                    Tenant(settings.receive_default_tenant_id),
                    settings.receive_tenant_certificate_field or None,
                ),
                BodyLimits(settings.receive_request_bytes_max, self._inflight_bytes_max),
                settings.receive_replica_header,
            ),
            metrics=self._metrics,
            probes=self._process.probes,
            log=self._process.log,
            pages=self._other_pages,
            admission=self._limits.admission,
            pace=WritePace(
                self._process.registry,
                InflightBytes(self._inflight_bytes_max),
                waiting_max=settings.receive_write_queue_max,
                wait_max_s=settings.receive_write_queue_wait / 1000,
            ),
        )

    def write_port(self, bound: socket.socket) -> HTTPServer:
        """Return the server of the remote-write port.

        Raises:
            SettingsInvalid: if a file of its TLS or its web configuration is bad.
        """
        settings, application = self._settings, self.write_api()
        split_label = settings.receive_split_tenant_label_name
        return web_port(
            application,
            bound,
            "remote-write",
            self._process,
            grace_s=settings.http_grace_period / 1000,
            config=("remote-write.http-config", settings.remote_write_http_config),
            tls=settings.write_tls,
            # A router has to wait for others in any case, a splitter for several tenants.
            direct=None if self._routing is not None or split_label else application,
            last_requests_s=_LAST_WRITES_S,
        )

    def _make_other_pages(self) -> ASGI:
        from thanostack.receive.status_api import status_pages

        settings = self._settings
        return status_pages(
            self.ingestor.storage.tenants if self.ingestor else dict,
            self._process.probes,
            header=settings.receive_tenant_header,
            default=Tenant(settings.receive_default_tenant_id),
        )

    def _kernels(self) -> tuple[str, ...]:
        """Return the kernels that the first write needs."""
        stored = WRITE_PATH if self.ingestor else ()
        return stored + (ROUTE_PATH if self._routing else ())

    def _limit_storage(self, limits: Limits) -> None:
        if self.ingestor is not None:
            storage = self.ingestor.storage
            options = storage.options
            storage.reconfigure(lambda tenant: limits.of(tenant).tsdb_options(options))

    async def open(self) -> None:
        """Open the storage, load the hashrings, as far as the role has them, and the kernels.

        Raises:
            SettingsInvalid: if hashrings given as text cannot be used, or the data folder is being
                drained and that is not enabled.
        """
        if self._routing is not None:
            self._routing.start()
        if self.ingestor is not None:
            if self._drain is None:
                self._require_no_drain()
            await self.ingestor.open()
        if self._drain is not None:
            self._drain.opened()
        if self._routing is not None:
            # Behind the storage, so that it is released before: forwards may still write here.
            self._process.supervisor.release("peers", self._routing.close)
        await self._limits.start()
        await asyncio.to_thread(kernel_pool.load, "receive", self._kernels())

    def opened(self) -> None:
        """Become ready, unless it drains: at once, or when hashrings are loaded."""
        self._is_open = True
        self._show_readiness()

    async def serve_grpc(self, address: Any) -> None:
        """Serve gRPC on a bound socket, with health that follows readiness."""
        settings = self._settings
        default = Tenant(settings.receive_default_tenant_id)
        servicer = ReceiveServicer(
            self._write_forwarded(default),
            lambda: self.stores,
            metrics=self._metrics,
            probes=self._process.probes,
            log=self._process.log,
        )
        handlers = servicer.handlers()
        # A compressed request is held twice.
        requests_bytes_max = 2 * self._inflight_bytes_max
        self._grpc = server = GrpcServer(
            address,
            handlers,
            log=self._process.log,
            options=GrpcOptions(
                message_bytes_max=min(MESSAGE_BYTES_MAX, requests_bytes_max),
                requests_bytes_max=requests_bytes_max,
                connection_age_s=settings.grpc_server_max_connection_age / 1000,
                role=settings.role,
                # Routers wait for others, storage for the interpreter.
                queued_threads=DEFAULT_THREADS if self._routing else _WRITE_THREADS,
                queued_max=settings.receive_write_queue_max,
                is_rarely_asked=settings.role == "RouterOnly",
            ),
            observer=GrpcMetrics(self._process.registry, handlers=handlers),
            tls=self._process.tls.server(settings.grpc_tls, "grpc", alpn=GRPC_ALPN),
        )
        self._metrics.forwarded_waiting.set_function(lambda: server.n_queued)
        await self._grpc.start()
        self._process.probes.watch(self._grpc.set_serving)
        self._process.supervisor.drain("grpc", self._stop_grpc)

    @property
    def http_metrics(self) -> HTTPMetrics:
        """Return the HTTP metrics, which a process can have once only."""
        return self._metrics.http

    @property
    def grpc_port(self) -> int:
        """Return the gRPC port, once it is served."""
        assert self._grpc is not None
        return self._grpc.port

    def _write_forwarded(self, default: Tenant) -> WriteForwarded:
        if self._routing is not None:
            return of_router(self._routing.router, default, asyncio.get_running_loop())
        assert self.ingestor is not None
        return of_storage(self.ingestor.service, default)

    def _ring_changed(self, rings: Hashrings) -> None:
        if self.ingestor is not None:
            self.ingestor.set_ring_labels(rings.external_labels_of)
        self._show_readiness()

    def _show_readiness(self) -> None:
        if not self._is_open:
            return
        if self._drain is not None and not self._drain.is_serving:
            self._process.probes.set_not_ready(self._drain.state)
        elif self._routing is not None and self._routing.rings.loaded is None:
            self._process.probes.set_not_ready(self._routing.rings.trouble)
        elif not self._process.supervisor.is_stopping:
            self._process.probes.set_ready()

    async def _stop_grpc(self) -> None:
        assert self._grpc is not None
        await self._grpc.stop(self._settings.grpc_grace_period / 1000)


def _ingestor(
    settings: ReceiveSettings, process: Process, pool: ThreadPoolExecutor, split_label: str
) -> Ingestor:
    from thanostack.receive.ingestor import Ingestor

    return Ingestor(settings, process, pool, split_label=split_label)
