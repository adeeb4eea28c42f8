"""Hosts gRPC methods on one TCP port: Thanos's services, health and reflection.

    GrpcServer ── Front (TCP) ──┬── grpcio, threaded, on a Unix socket in a private folder
                                └── our own HTTP/2 side, for clients that compress with snappy,
                                    or begin with a queued method

Both run the same handlers. Queued ones, which write, have threads and a bounded queue that both
sides share; whatever else is asked has threads of its own on each side. grpcio's threaded server is
the fast one here: 64 µs for a small message against 139 µs for its asyncio twin.

Health follows Thanos: one status, of the empty service name. Its calls have a thread of their own,
so that a probe is answered while every other thread streams. Reflection lists the services that are
hosted, as real Thanos does; grpcurl works.

Sizes: answers have no limit. Requests have one, which grpcio checks before it buffers them, also
after decompression; real Thanos takes 2 GiB from anybody.

Excluded: what the methods do (`grpc_api` modules), clients, TLS (`tls_ports`).
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from thanostack.runtime.call_queue import CallQueue, CallThreads
from thanostack.runtime.grpc_call import Handlers, Observer, Unary
from thanostack.runtime.grpc_front import Front, Upstream
from thanostack.runtime.grpc_health import HEALTH_CHECK, HEALTH_WATCH, GrpcHealth
from thanostack.runtime.grpc_http2_call import ByteBudget, Http2Service
from thanostack.runtime.grpc_options import GrpcOptions
from thanostack.runtime.http_server import listen, port_of
from thanostack.runtime.logs import Logger
from thanostack.runtime.tls_ports import ServerTLS

if TYPE_CHECKING:
    from thanostack.runtime.grpcio_server import GrpcioServer

_REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class GrpcServer:
    """A gRPC server with Thanos's manners.

    Binding is done at once, so that a busy port is an early error; nothing is served before
    `start`.

    Args:
        address: `host:port` of `--grpc-address`, or a bound socket.
        handlers: by full method name, such as `/thanos.Store/Series`.
        log: told about exceptions that are bugs.
        options: bounds and times.
        observer: told about every call, from any thread.
        tls: of the port; None for plain text.

    Raises:
        SettingsInvalid: if the address cannot be had.
    """

    def __init__(
        self,
        address: str | socket.socket,
        handlers: Handlers,
        *,
        log: Logger,
        options: GrpcOptions | None = None,
        observer: Observer | None = None,
        tls: ServerTLS | None = None,
    ) -> None:
        self._bound = listen(address, "grpc-address") if isinstance(address, str) else address
        self._port = port_of(self._bound)
        self._handlers, self._log, self._tls = dict(handlers), log, tls
        self._options = options or GrpcOptions()
        self._observer = observer or Observer()
        self._health = GrpcHealth()
        self._folder: Path | None = None
        self._front: Front | None = None
        self._upstream: Upstream | None = None
        self._grpcio: GrpcioServer | None = None
        # Streams hold a thread for as long as their reader is slow: writes have others.
        self._queue = CallQueue(self._options.queued_threads, self._options.queued_max)
        self._pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="grpc")
        self._grpcio_pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="grpcio")

    @property
    def port(self) -> int:
        """Return the TCP port."""
        return self._port

    @property
    def n_connections(self) -> Mapping[str, int]:
        """Return the open connections by who serves them: grpcio, ours, undecided."""
        return {} if self._front is None else self._front.n_by_route()

    @property
    def n_queued(self) -> int:
        """Return how many queued calls wait for a thread; from any thread."""
        return self._queue.n_waiting

    def set_serving(self, is_serving: bool) -> None:
        """Set what health checks and watches say; not serving at first. From any thread."""
        self._health.set(is_serving=is_serving)

    async def start(self) -> None:
        """Begin to serve, in the running loop and in threads.

        Raises:
            OSError: if grpcio cannot be started; why is in the log.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="thanostack-grpc-"))  # mode 0700
        path = self._folder / "grpc.sock"
        options = self._options
        service = Http2Service(
            handlers={**self._handlers, HEALTH_CHECK: Unary(self._health.check, inline=True)},
            elsewhere=frozenset({HEALTH_WATCH, _REFLECTION}),
            threads=CallThreads(self._queue, self._pool),
            budget=ByteBudget(options.requests_bytes_max),
            observer=self._observer,
            report=self._report,
            message_bytes_max=options.message_bytes_max,
            connection_age_s=options.connection_age_s,
            role=options.role,
        )
        self._upstream = Upstream(path, lambda: self._start_grpcio(path))
        self._front = Front(
            self._bound, self._upstream, service, limits=options.front, tls=self._tls
        )
        if not options.is_rarely_asked:
            await self._upstream.ready()
        await self._front.start()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let calls finish for a while, then cancel them and close.

        Args:
            grace_s: seconds; 0 to cancel at once.
        """
        self.set_serving(False)
        if self._front is None:
            self._bound.close()
            return
        await self._front.stop_accepting()
        await asyncio.gather(self._stop_grpcio(grace_s), self._front.finish(grace_s))
        await self._front.close()
        for pool in (self._queue, self._pool, self._grpcio_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        self._health.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _stop_grpcio(self, grace_s: float) -> None:
        if self._upstream is not None:
            await self._upstream.settle()
        if self._grpcio is not None:
            await asyncio.to_thread(self._grpcio.stop(grace_s).wait)
            self._grpcio.close()

    async def _start_grpcio(self, path: Path) -> None:
        """Import grpcio and begin to listen."""
        try:
            self._grpcio = await asyncio.to_thread(self._make_grpcio, path)
        except Exception as error:  # whatever it was, clients wait for an end
            self._log.error("grpcio cannot be started", err=error, exc_info=error)
            raise OSError("grpcio cannot be started") from error

    def _make_grpcio(self, path: Path) -> GrpcioServer:
        from thanostack.runtime.grpcio_server import GrpcioServer

        server = GrpcioServer(
            path,
            self._handlers,
            threads=CallThreads(self._queue, self._grpcio_pool),
            checks=self._health,
            observer=self._observer,
            report=self._report,
            peer_of=lambda name: name if self._front is None else self._front.peer_of(name),
            options=self._options,
        )
        server.start()
        return server

    def _report(self, name: str, error: BaseException) -> None:
        self._observer.hit_bug()
        self._log.error("a gRPC method hit a bug", method=name, err=error, exc_info=error)
