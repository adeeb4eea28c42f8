"""The storing half of `receive`: the tenants' TSDBs, kept open and in order.

open ──replay──> default tenant ──> maintenance every few seconds ──> close
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from thanostack.lib.foundation.errors import (
    DirectoryLocked,
    NotReady,
    Quarantined,
    StorageUnwritable,
    ThanostackError,
)
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.storeapi.server import LabeledStore, UnreadableStore, external_run
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.lib.tsdb.options import MILESTONES, TSDBOptions, TSDBStats
from thanostack.receive.metrics import TSDBCollector
from thanostack.receive.service import WriteService
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.process import Process

MAINTENANCE_INTERVAL_S: Final = 5.0


class Ingestor:
    """The storage of one receiver.

    Args:
        settings: of receive.
        process: that it lives in.
        pool: where large bodies are appended and TSDBs are opened.
        split_label: label whose value is the tenant; empty where a router has split already.
    """

    def __init__(
        self, settings: ReceiveSettings, process: Process, pool: Executor, *, split_label: str = ""
    ) -> None:
        self._settings, self._process = settings, process
        self._maintaining: asyncio.Future[None] | None = None
        self._ring_labels: Callable[[str], Mapping[str, str]] = lambda _: {}
        self._external_runs: dict[Tenant, bytes] = {}
        self.storage = MultiTSDB(
            settings.tsdb_path, tsdb_options(settings), clock=process.clock, report=self._report
        )
        self.service = WriteService(self.storage, pool, split_label=split_label)
        process.registry.register(TSDBCollector(self._stats, self.storage.quarantined))

    async def open(self) -> None:
        """Replay what is on disk, create the default tenant, and begin maintenance.

        Raises:
            DirectoryLocked: if another process has the data folder.
            StorageUnwritable: if the data folder cannot be used, naming its flag.
        """
        started = self._process.clock.monotonic_s()
        with _naming_the_flag():
            await asyncio.to_thread(self.storage.open)
        self._process.supervisor.release("storage", self._close)
        # Upstream: the default tenant is created eagerly, so that an endpoint has labels at once.
        default = Tenant(self._settings.receive_default_tenant_id)
        # Being drained, it gets no new tenants.
        with contextlib.suppress(Quarantined, NotReady), _naming_the_flag():
            await asyncio.to_thread(self.storage.tsdb, default)
        self._process.log.info(
            "storage is open",
            tenants=len(self.storage.tenants()),
            quarantined=len(self.storage.quarantined()),
            duration_s=self._process.clock.monotonic_s() - started,
        )
        self._process.supervisor.task("maintenance", self._maintain())

    def set_ring_labels(self, labels_of: Callable[[str], Mapping[str, str]]) -> None:
        """Announce each tenant's data with labels of its ring from now on, below all others."""
        self._ring_labels = labels_of
        self._external_runs = {}

    def labeled_stores(self) -> Sequence[LabeledStore]:
        """Return every tenant's TSDB with its external labels; what cannot be read warns."""
        tenants = self.storage.tenants()
        serving = [LabeledStore(self._external_run(t), tsdb) for t, tsdb in tenants.items()]
        damaged = [
            LabeledStore(
                self._external_run(tenant),
                UnreadableStore(block.mint, block.maxt - 1),
                f"tenant {tenant} has a block in a receiver that cannot be read: what it holds is "
                "missing",
            )
            for tenant, tsdb in tenants.items()
            for block in tsdb.blocks.unreadable
        ]
        # Whoever reads need not learn the names of files here, which the reason bears.
        missing = [
            LabeledStore(
                self._external_run(tenant),
                UnreadableStore(),
                f"tenant {tenant} is quarantined in a receiver: what it holds is missing",
            )
            for tenant in tuple(self.storage.quarantined())
        ]
        return serving + damaged + missing

    def _external_run(self, tenant: Tenant) -> bytes:
        runs = self._external_runs
        run = runs.get(tenant)
        if run is None:
            labels = {
                **self._ring_labels(tenant),
                **self._settings.external_labels,
                self._settings.receive_tenant_label_name: tenant,
            }
            run = runs.setdefault(tenant, external_run(labels))
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

    async def _close(self) -> None:
        if self._maintaining is not None and not self._maintaining.done():
            await asyncio.wait([self._maintaining])
        await asyncio.to_thread(self.storage.close)


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


@contextlib.contextmanager
def _naming_the_flag() -> Iterator[None]:
    """Add to what is wrong with the data folder which flag names it, and what it has to be."""
    try:
        yield
    except DirectoryLocked:
        raise  # it says what to do
    except StorageUnwritable as error:
        must = f"it has to be a folder that user {os.geteuid()} can write"
        raise StorageUnwritable(f"--tsdb.path: {error}; {must}") from error
