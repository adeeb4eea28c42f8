"""The querier, put together; read this to see everything it consists of.

ports      ──bound first: a busy one is an error at once
endpoints  ──looked up and asked for Info, every five seconds
HTTP       ──serves at once; gRPC as well
ready when the first round of discovery is over
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from fastapi import FastAPI

from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.foundation.units import MINUTE_MS
from thanostack.lib.model.label_runs import Labels
from thanostack.lib.promql.engine import Engine, EngineOptions
from thanostack.lib.promql.parser import ParserOptions
from thanostack.lib.storeapi.dedup import DedupMode
from thanostack.lib.storeapi.server import SelectLimits
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.query.configured import configured_endpoints
from thanostack.query.discovery import Resolver
from thanostack.query.endpoint_set import EndpointCollector, EndpointSet, EndpointTimes
from thanostack.query.endpoints import EndpointTLS, LocalEndpoint
from thanostack.query.engine_metrics import TelemetryBuckets
from thanostack.query.fan_out import FanOut
from thanostack.query.grpc_api import QueryServicer
from thanostack.query.http_api import APIOptions, QueryAPI
from thanostack.query.metrics import QueryMetrics
from thanostack.query.service import QueryService, ServiceOptions
from thanostack.query.settings import QuerySettings
from thanostack.query.status import StatusPages
from thanostack.runtime.grpc_call import Handlers
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.grpc_options import GrpcOptions
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.runtime.http_common import ASGI, CommonPages
from thanostack.runtime.http_errors import plain_errors
from thanostack.runtime.http_server import listen
from thanostack.runtime.metrics import HTTPMetrics
from thanostack.runtime.process import Process
from thanostack.runtime.store_server_metrics import StoreServerMetrics
from thanostack.runtime.tls_options import GRPC_ALPN
from thanostack.runtime.web_port import pages_port
from thanostack.web.pages import mount_page

_FIRST_DISCOVERY_MAX_S: Final = 30.0


async def start(settings: QuerySettings, process: Process) -> None:
    """Build the querier and return when it serves."""
    http_socket = listen(settings.http_address, "http-address")
    grpc_socket = listen(settings.grpc_address, "grpc-address")
    querier = Querier(settings, process)
    if not querier.is_told_of_endpoints:
        process.log.warning("no endpoint is configured, so every answer is empty; give --endpoint")
    pages = pages_port(querier.pages(), http_socket, settings, process)
    process.supervisor.task("http", pages.serve())
    process.supervisor.drain("http", pages.stop)
    await querier.serve_grpc(grpc_socket)
    await querier.discover()
    process.log.info(
        "serving", http=pages.port, grpc=querier.grpc_port, endpoints=querier.n_endpoints
    )
    process.probes.set_ready()


class Querier:
    """The parts of one querier, without its HTTP port; `standalone` builds on it too.

    Args:
        settings: of query.
        process: that it lives in.
        local: endpoints of the same process.
        http_metrics: that the process already has; the querier's own by default.
    """

    def __init__(
        self,
        settings: QuerySettings,
        process: Process,
        *,
        local: Sequence[LocalEndpoint] = (),
        http_metrics: HTTPMetrics | None = None,
    ) -> None:
        self._settings, self._process = settings, process
        self._grpc: GrpcServer | None = None
        self._loop = asyncio.get_running_loop()
        self._metrics = QueryMetrics(process.registry, http_metrics, telemetry_buckets(settings))
        self._metrics.queries_max.set(settings.query_max_concurrent)
        self._metrics.engine.queries_max.set(settings.query_max_concurrent)
        resolver = Resolver(
            system=settings.store_sd_dns_resolver == "golang",
            metrics=self._metrics,
            log=process.log,
        )
        tls = EndpointTLS(process.tls, process.grpc_client)
        self._specs = configured_endpoints(settings, process, tls)
        self._endpoints = EndpointSet(
            lambda: resolver.resolve(self._specs()),
            times=_times(settings),
            local=local,
            clock=process.clock,
            log=process.log,
            connect=tls.connect,
        )
        EndpointCollector(self._endpoints, settings.query_conn_metric_label, process.registry)
        self._selector: Labels = tuple(
            sorted((n.encode(), v.encode()) for n, v in settings.selector_labels.items())
        )
        self._fan_out = FanOut(
            self._endpoints.stores, selector_labels=self._selector, metrics=self._metrics
        )
        self._options = service_options(settings)
        self._pool = ThreadPoolExecutor(settings.query_max_concurrent, thread_name_prefix="query")

    @property
    def is_told_of_endpoints(self) -> bool:
        """Return whether flags or the endpoint file name any now."""
        return bool(self._specs())

    @property
    def n_endpoints(self) -> int:
        """Return how many endpoints are listed."""
        return len(self._endpoints.statuses())

    def api(self) -> QueryAPI:
        """Return the HTTP API; its `router` goes into the application of the port."""
        settings, process = self._settings, self._process
        service = QueryService(
            Engine(engine_options(settings)),
            self._fan_out,
            self._loop,
            self._options,
            ParserOptions(enable_experimental_functions=settings.experimental_functions),
            self._metrics,
        )
        return QueryAPI(
            service,
            self._endpoints,
            self._pool,
            options=api_options(settings),
            tenants=TenantRule(
                settings.query_tenant_header,
                Tenant(settings.query_default_tenant_id),
                settings.query_tenant_certificate_field or None,
            ),
            pages=StatusPages(
                settings.effective(), process.clock.now_ms(), settings.query_max_concurrent
            ),
            metrics=self._metrics,
            process=process,
        )

    def pages(self) -> ASGI:
        """Return the application of the HTTP port."""
        pages = FastAPI(title="thanostack query", docs_url=None, redoc_url=None)
        plain_errors(pages)
        pages.include_router(self.api().router())
        mount_page(pages, self._settings.route_prefix)
        return CommonPages(self._process.probes, self._process.registry, pages)

    def handlers(self) -> Handlers:
        """Return the gRPC methods by full name."""
        limits = SelectLimits(
            self._settings.store_limits_request_series, self._settings.store_limits_request_samples
        )
        servicer = QueryServicer(
            self._fan_out,
            self._endpoints,
            self._loop,
            options=self._options,
            limits=limits,
            selector_labels=self._selector,
            metrics=StoreServerMetrics(self._process.registry),
        )
        return servicer.handlers()

    async def serve_grpc(self, address: Any) -> None:
        """Serve gRPC on a bound socket, with health that follows readiness."""
        handlers = self.handlers()
        self._grpc = GrpcServer(
            address,
            handlers,
            log=self._process.log,
            options=GrpcOptions(
                connection_age_s=self._settings.grpc_server_max_connection_age / 1000
            ),
            observer=GrpcMetrics(self._process.registry, handlers=handlers),
            tls=self._process.tls.server(self._settings.grpc_tls, "grpc", alpn=GRPC_ALPN),
        )
        await self._grpc.start()
        self._process.probes.watch(self._grpc.set_serving)
        self._process.supervisor.drain("grpc", self._stop_grpc)

    @property
    def grpc_port(self) -> int:
        """Return the gRPC port, once it is served."""
        assert self._grpc is not None
        return self._grpc.port

    async def discover(self) -> None:
        """Begin discovery and wait for its first round, within bounds."""
        self._process.supervisor.release("endpoints", self._close)
        self._process.supervisor.task("endpoints", self._endpoints.run())
        limit_s = self._settings.store_response_timeout / 1000 or _FIRST_DISCOVERY_MAX_S
        try:
            async with asyncio.timeout(limit_s):
                await self._endpoints.is_discovered.wait()
        except TimeoutError:
            self._process.log.warning("first discovery takes long, serving without it")

    async def _stop_grpc(self) -> None:
        assert self._grpc is not None
        await self._grpc.stop(self._settings.grpc_grace_period / 1000)

    async def _close(self) -> None:
        await self._endpoints.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _times(settings: QuerySettings) -> EndpointTimes:
    return EndpointTimes(
        settings.endpoint_info_timeout / 1000,
        settings.store_unhealthy_timeout / 1000,
        settings.store_sd_dns_interval / 1000,
    )


def engine_options(settings: QuerySettings) -> EngineOptions:
    """Return what settings say about evaluation."""
    return EngineOptions(
        lookback_ms=settings.query_lookback_delta or 5 * MINUTE_MS,
        default_step_ms=settings.query_default_evaluation_interval,
        bytes_max=settings.query_bytes_max,
        samples_max=settings.query_samples_max or None,
    )


def telemetry_buckets(settings: QuerySettings) -> TelemetryBuckets:
    """Return what settings say about the telemetry of requests."""
    return TelemetryBuckets(
        settings.query_telemetry_request_duration_seconds_quantiles,
        settings.query_telemetry_request_samples_quantiles,
        settings.query_telemetry_request_series_seconds_quantiles,
    )


def service_options(settings: QuerySettings) -> ServiceOptions:
    """Return what settings say about all requests."""
    return ServiceOptions(
        timeout_s=settings.query_timeout / 1000,
        lookback_ms=settings.query_lookback_delta or 5 * MINUTE_MS,
        dynamic_lookback=settings.query_dynamic_lookback_delta,
        dedup=DedupMode(settings.deduplication_func),
        response_timeout_s=settings.store_response_timeout / 1000,
        fetched_bytes_max=settings.query_fetched_bytes_max,
        batch_size=settings.query_response_batch_size,
        enforced_label=settings.query_tenant_label_name if settings.query_enforce_tenancy else "",
        stack_id=settings.stack_id or uuid.uuid4().hex,
    )


def api_options(settings: QuerySettings) -> APIOptions:
    """Return the defaults of parameters."""
    return APIOptions(
        replica_labels=settings.query_replica_label,
        partial_response=settings.query_partial_response,
        auto_downsampling=settings.query_auto_downsampling,
        instant_resolution_ms=settings.query_instant_default_max_source_resolution,
        default_step_ms=settings.query_default_step,
        metadata_range_ms=settings.query_metadata_default_time_range,
        cors=not settings.web_disable_cors,
        prefix=settings.route_prefix,
    )
