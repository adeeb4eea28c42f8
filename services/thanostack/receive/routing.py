"""The routing half of `receive`, put together: hashrings, peers, router.

hashrings file ──> HashringSource ──changed──> peers that left are let go, labels of the ring
└──current──> Router ──> Peers ──> one UnaryChannel each
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from thanostack.lib.foundation.errors import InvalidInput, SettingsInvalid
from thanostack.lib.hashring import Hashrings
from thanostack.lib.hashring.config import dialled
from thanostack.receive.hashring_file import HashringSource
from thanostack.receive.peers import PeerOptions, Peers
from thanostack.receive.request_body import inflight_bytes_max
from thanostack.receive.router import LocalWriter, Router, RouterOptions
from thanostack.receive.routing_metrics import HashringMetrics, RoutingMetrics, ShardCollector
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.dialling import dial_plain
from thanostack.runtime.grpc_client import UnaryChannel
from thanostack.runtime.process import Process
from thanostack.runtime.tls_ports import ClientTLS

REMOTE_WRITE: Final = "/thanos.WriteableStore/RemoteWrite"
_HASHMOD: Final = (
    "hashmod moves nearly every series to another node when a hashring changes; to move 1/N only, "
    "set --receive.hashrings-algorithm=ketama on all receivers at the same time"
)


class Routing:
    """What a router consists of.

    Args:
        settings: of receive.
        process: that it lives in.
        pool: where large bodies are taken apart.
        metrics: of forwards.
        local: this node's storage, if it has any.
        changed: called with new hashrings once they are in force.
        tls: towards peers; None for plain text.
        failed: called when a hashrings file could not be used.
    """

    def __init__(
        self,
        settings: ReceiveSettings,
        process: Process,
        pool: Executor,
        *,
        metrics: RoutingMetrics,
        local: LocalWriter | None,
        changed: Callable[[Hashrings], None],
        tls: ClientTLS | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._process, self._changed = settings, process, changed
        self._tls = tls
        self.rings = HashringSource(
            self._parse,
            self._put_in_force,
            metrics=HashringMetrics(process.registry),
            clock=process.clock,
            log=process.log,
            failed=failed,
        )
        options = PeerOptions(
            workers=max(1, settings.receive_forward_async_workers),
            queue_bytes_max=settings.receive_forward_queue_bytes_max,
            all_bytes_max=2 * inflight_bytes_max(settings.receive_inflight_bytes_max),
            backoff_max_s=settings.receive_forward_max_backoff / 1000,
        )
        self._peers = Peers(
            self._connect,
            options,
            clock=process.clock,
            metrics=metrics,
            calls=process.grpc_client.unary(REMOTE_WRITE),
            source=random.Random(),
        )
        metrics.watch_queues(self._peers.held_bytes, options.queue_bytes_max, options.all_bytes_max)
        self.router = Router(
            self.rings.current,
            self._peers,
            RouterOptions(
                replication_factor=settings.replication_factor,
                timeout_s=settings.receive_forward_timeout / 1000,
                local_endpoint=settings.receive_local_endpoint,
                split_label=settings.receive_split_tenant_label_name,
                is_sloppy=settings.receive_sloppy_quorum,
                is_compressed=settings.receive_grpc_compression == "snappy",
            ),
            pool=pool,
            metrics=metrics,
            local=local,
        )
        process.registry.register(ShardCollector(lambda: self.rings.loaded))

    def start(self) -> None:
        """Load the hashrings, and watch their file if there is one.

        Raises:
            SettingsInvalid: if hashrings given as text cannot be used. A file may become usable.
        """
        settings, process = self._settings, self._process
        if settings.receive_hashrings_algorithm == "hashmod":
            process.log.warning(_HASHMOD)
        if not settings.receive_hashrings_file:
            try:
                self.rings.load(settings.receive_hashrings.encode())
            except InvalidInput as error:
                raise SettingsInvalid(f"--receive.hashrings: {error}") from error
            return
        path = Path(settings.receive_hashrings_file)
        self.rings.refresh(path)
        interval_s = settings.receive_hashrings_file_refresh_interval / 1000
        process.supervisor.task("hashrings", self.rings.watch(path, interval_s))

    def _parse(self, text: bytes) -> Hashrings:
        return Hashrings.parse(
            text,
            algorithm=self._settings.receive_hashrings_algorithm,
            replication_factor=self._settings.replication_factor,
        )

    def _put_in_force(self, rings: Hashrings) -> None:
        self._peers.keep(rings.addresses)
        local = self._settings.receive_local_endpoint
        if local and local not in rings.addresses:
            self._process.log.warning(
                "--receive.local-endpoint is in no hashring, so no series is stored here",
                local_endpoint=local,
            )
        self._changed(rings)

    def _connect(self, address: str) -> UnaryChannel:
        settings = self._settings
        return UnaryChannel(
            dialled(address),
            REMOTE_WRITE,
            timeout_s=settings.receive_forward_timeout / 1000,
            encoding=settings.receive_grpc_compression.replace("none", "identity"),
            dial=dial_plain if self._tls is None else self._tls.connect,
            refused=_refused_plainly if self._tls is None else self._tls.refused,
        )

    async def close(self) -> None:
        """Wait for what is being written here and let go of the peers behind their forwards."""
        await self.router.close()
        await self._peers.close()


def _refused_plainly(_: str, error: Exception | None) -> str:
    reason = f" ({error})" if error else ""
    return (
        f"the peer closed the connection at once{reason}: if it wants TLS, give "
        "--remote-write.client-tls-secure"
    )
