"""The ingestor, put together; read this to see everything it consists of.

ports ──bound first: a busy one is an error before anything slow
HTTP  ──serves at once: metrics and probes show the replay
writes ─serves at once: 503 until ready
storage replayed in a thread
gRPC  ──serves when storage is open
ready
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from fastapi import APIRouter, FastAPI

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.storeapi.server import LabeledStore, SelectLimits, StoreServer, external_run
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.lib.tsdb.options import MILESTONES, TSDBOptions, TSDBStats
from thanostack.receive.grpc_api import ReceiveServicer
from thanostack.receive.http_api import WriteAPI, WriteOptions
from thanostack.receive.limits import Limits
from thanostack.receive.live_limits import LiveLimits
from thanostack.receive.metrics import ReceiveMetrics, TSDBCollector
from thanostack.receive.request_body import BodyLimits
from thanostack.receive.service import WriteService
from thanostack.receive.settings import ReceiveSettings
from thanostack.receive.status_api import status_routes
from thanostack.runtime import kernel_pool
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.grpc_server import GrpcOptions, GrpcServer
from thanostack.runtime.http_common import common_routes
from thanostack.runtime.http_server import HTTPServer, listen
from thanostack.runtime.metrics import HTTPMetrics
from thanostack.runtime.process import Process
from thanostack.runtime.tls_options import GRPC_ALPN
from thanostack.runtime.web_port import pages_port, web_port

MAINTENANCE_INTERVAL_S: Final = 5.0
_WRITE_THREADS: Final = 4


async def start(settings: ReceiveSettings, process: Process) -> None:
    """Build the ingestor and return when it serves."""
    http_socket = listen(settings.http_address, "http-address")
    grpc_socket = listen(settings.grpc_address, "grpc-address")
    write_socket = listen(settings.remote_write_address, "remote-write.address")
    ingestor = Ingestor(settings, process)
    pages = pages_port(ingestor.pages(), http_socket, settings, process)
    writes = write_port(ingestor.write_api(), write_socket, settings, process)
    for name, server in (("http", pages), ("remote-write", writes)):
        process.supervisor.task(name, server.serve())
        process.supervisor.drain(name, server.stop)
    await ingestor.open()
    await ingestor.serve_grpc(grpc_socket)
    await asyncio.to_thread(kernel_pool.load_write_path, "receive")
    process.log.info(
        "serving",
        http=pages.port,
        grpc=ingestor.grpc_port,
        remote_write=writes.port,
        tenants=len(ingestor.storage.tenants()),
    )
    process.probes.set_ready()


class Ingestor:
    """The parts of one ingestor, without its HTTP ports; `standalone` builds on it too.

    Args:
        settings: of receive.
        process: that it lives in.
    """

    def __init__(self, settings: ReceiveSettings, process: Process) -> None:
        self._settings, self._process = settings, process
        self._maintaining: asyncio.Future[None] | None = None
        self._grpc: GrpcServer | None = None
        self._labels = settings.external_labels
        self._external_runs: dict[Tenant, bytes] = {}
        self.storage = MultiTSDB(
            settings.tsdb_path, tsdb_options(settings), clock=process.clock, report=self._report
        )
        self._metrics = ReceiveMetrics(
            process.registry,
            replication_factor=settings.receive_replication_factor,
            inflight_bytes_max=settings.receive_inflight_bytes_max,
        )
        self._limits = LiveLimits(settings, process, self._metrics.limits)
        self._limits.admission.when_changed(self._limit_storage)
        pool = ThreadPoolExecutor(_WRITE_THREADS, thread_name_prefix="write")
        self._service = WriteService(
            self.storage, pool, split_label=settings.receive_split_tenant_label_name
        )
        self.stores = StoreServer(
            self.labeled_stores,
            limits=SelectLimits(
                settings.store_limits_request_series, settings.store_limits_request_samples
            ),
        )
        process.registry.register(TSDBCollector(self._stats, self.storage.quarantined))

    def pages(self) -> FastAPI:
        """Return the application of the HTTP port."""
        pages = FastAPI(title="thanostack receive", docs_url=None, redoc_url=None)
        pages.include_router(common_routes(self._process.probes, self._process.registry))
        pages.include_router(self._status_routes())
        return pages

    def write_api(self) -> WriteAPI:
        """Return the application of the remote-write port."""
        settings = self._settings
        return WriteAPI(
            self._service,
            WriteOptions(
                TenantRule(
                    settings.receive_tenant_header,
                    Tenant(settings.receive_default_tenant_id),
                    settings.receive_tenant_certificate_field or None,
                ),
                BodyLimits(settings.receive_request_bytes_max, settings.receive_inflight_bytes_max),
                settings.receive_replica_header,
            ),
            metrics=self._metrics,
            probes=self._process.probes,
            log=self._process.log,
            pages=self._write_pages(),
            admission=self._limits.admission,
        )

    def _write_pages(self) -> FastAPI:
        pages = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        pages.include_router(self._status_routes())
        return pages

    def _status_routes(self) -> APIRouter:
        settings = self._settings
        return status_routes(
            self.storage.tenants,
            self._process.probes,
            header=settings.receive_tenant_header,
            default=Tenant(settings.receive_default_tenant_id),
        )

    def _limit_storage(self, limits: Limits) -> None:
        options = self.storage.options
        self.storage.reconfigure(lambda tenant: limits.of(tenant).tsdb_options(options))

    async def open(self) -> None:
        """Replay what is on disk, create the default tenant, and begin maintenance."""
        started = self._process.clock.monotonic_s()
        await asyncio.to_thread(self.storage.open)
        self._process.supervisor.release("storage", self._close)
        # Upstream: the default tenant is created eagerly, so that an endpoint has labels at once.
        default = Tenant(self._settings.receive_default_tenant_id)
        if default not in self.storage.quarantined():
            await asyncio.to_thread(self.storage.tsdb, default)
        self._process.log.info(
            "storage is open",
            tenants=len(self.storage.tenants()),
            quarantined=len(self.storage.quarantined()),
            duration_s=self._process.clock.monotonic_s() - started,
        )
        self._process.supervisor.task("maintenance", self._maintain())
        await self._limits.start()

    async def serve_grpc(self, address: Any) -> None:
        """Serve gRPC on a bound socket, with health that follows readiness."""
        settings = self._settings
        servicer = ReceiveServicer(
            self._service,
            self.stores,
            default=Tenant(settings.receive_default_tenant_id),
            metrics=self._metrics,
            probes=self._process.probes,
        )
        handlers = servicer.handlers()
        self._grpc = GrpcServer(
            address,
            handlers,
            log=self._process.log,
            options=GrpcOptions(connection_age_s=settings.grpc_server_max_connection_age / 1000),
            observer=GrpcMetrics(self._process.registry, handlers=handlers),
            tls=self._process.tls.server(settings.grpc_tls, "grpc", alpn=GRPC_ALPN),
        )
        await self._grpc.start()
        self._process.probes.watch(self._grpc.set_serving)
        self._process.supervisor.drain("grpc", self._stop_grpc)

    @property
    def service(self) -> WriteService:
        """Return what does the writing, for writers of this process."""
        return self._service

    @property
    def http_metrics(self) -> HTTPMetrics:
        """Return the HTTP metrics, which a process can have once only."""
        return self._metrics.http

    @property
    def grpc_port(self) -> int:
        """Return the gRPC port, once it is served."""
        assert self._grpc is not None
        return self._grpc.port

    def labeled_stores(self) -> Sequence[LabeledStore]:
        """Return every tenant's TSDB with its external labels."""
        return [
            LabeledStore(self._external_run(tenant), tsdb)
            for tenant, tsdb in self.storage.tenants().items()
        ]

    def _external_run(self, tenant: Tenant) -> bytes:
        run = self._external_runs.get(tenant)
        if run is None:
            labels = {**self._labels, self._settings.receive_tenant_label_name: tenant}
            run = self._external_runs.setdefault(tenant, external_run(labels))
        return run

    def _stats(self) -> dict[Tenant, TSDBStats]:
        return {tenant: tsdb.stats() for tenant, tsdb in self.storage.tenants().items()}

    def _report(self, event: str, facts: Mapping[str, Any]) -> None:
        log = self._process.log
        (log.info if event in MILESTONES else log.warning)(event, **facts)

    async def _maintain(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(MAINTENANCE_INTERVAL_S)
            self._maintaining = asyncio.ensure_future(
                loop.run_in_executor(None, self.storage.maintain)
            )
            try:
                await asyncio.shield(self._maintaining)
            except (ThanostackError, OSError) as error:
                self._process.log.warning("maintenance went wrong, trying again", err=error)

    async def _stop_grpc(self) -> None:
        assert self._grpc is not None
        await self._grpc.stop(self._settings.grpc_grace_period / 1000)

    async def _close(self) -> None:
        if self._maintaining is not None and not self._maintaining.done():
            await asyncio.wait([self._maintaining])
        await asyncio.to_thread(self.storage.close)


def write_port(
    application: WriteAPI, bound: socket.socket, settings: ReceiveSettings, process: Process
) -> HTTPServer:
    """Return the server of the write port.

    Raises:
        SettingsInvalid: if a file of its TLS or its web configuration is bad.
    """
    return web_port(
        application,
        bound,
        "remote-write",
        process,
        grace_s=settings.http_grace_period / 1000,
        config=("remote-write.http-config", settings.remote_write_http_config),
        tls=settings.write_tls,
        direct=application,
    )


def tsdb_options(settings: ReceiveSettings) -> TSDBOptions:
    """Return what settings say about each tenant's TSDB."""
    return TSDBOptions(
        retention_ms=settings.tsdb_retention,
        retention_bytes=settings.tsdb_max_retention_bytes,
        min_block_ms=settings.tsdb_min_block_duration,
        max_block_ms=settings.tsdb_max_block_duration,
        wal_compression="snappy" if settings.tsdb_wal_compression else "none",
        wal_fsync=settings.tsdb_wal_fsync,
        no_lockfile=settings.tsdb_no_lockfile,
        too_far_in_future_ms=settings.too_far_in_future_ms,
    )
