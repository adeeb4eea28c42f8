"""All tenants of a process: one directory each, opened in parallel, pruned when idle, revived.

    <folder>/<tenant>/   a Prometheus data directory

A tenant whose directory cannot be opened is quarantined: its writes get a clear error, its files
stay as they are, and the others serve. Where the cause was not damage but a lock, a full disk or
the like, opening it is tried again. Where locks leave none to serve, the folder is another
process's.

Source: Thanos `pkg/receive/multitsdb.go`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from thanostack.lib.foundation.clock import Clock, SystemClock
from thanostack.lib.foundation.errors import (
    DirectoryLocked,
    LimitExceeded,
    NotReady,
    Quarantined,
    StorageUnwritable,
    ThanostackError,
)
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.tsdb.file_system import doubtful_file_system
from thanostack.lib.tsdb.maintenance import Maintenance, remove_folder
from thanostack.lib.tsdb.options import Report, TSDBOptions, quiet
from thanostack.lib.tsdb.tsdb import TSDB

OptionsOf = Callable[[Tenant], TSDBOptions]
"""Gives the options of a tenant."""

_NOT_TENANTS = {"lost+found"}
_RETRY_S, _RETRY_MAX_S = 5.0, 300.0


class MultiTSDB:
    """The tenants below one folder.

    Args:
        folder: created if missing.
        options: for each tenant, until `reconfigure` says otherwise.
        clock: for future bounds, names and pruning.
        report: gets events; facts carry `tenant`.
    """

    def __init__(
        self, folder: Path, options: TSDBOptions, *, clock: Clock | None = None,
        report: Report = quiet,
    ) -> None:  # fmt: skip
        self.folder, self.options = folder, options
        self._clock: Clock = clock or SystemClock()
        self._report = report
        self._options_of: OptionsOf = lambda _: options
        self._tenants: dict[Tenant, TSDB] = {}
        self._quarantined: dict[Tenant, str] = {}
        self._retries: dict[Tenant, tuple[float, float]] = {}
        self._refusal = ""
        self._opening = threading.Lock()
        self._closed = False

    def open(self) -> None:
        """Open every tenant found; blocking, in parallel.

        Raises:
            DirectoryLocked: if no tenant can be opened, and another process has one.
            StorageUnwritable: if the folder itself cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            names = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        except OSError as error:
            raise StorageUnwritable(f"{self.folder}: {error.strerror}") from error
        kind = doubtful_file_system(self.folder)
        if kind:
            self._report(
                "the data directory is not on a local file system: locks and syncs may not hold; "
                "use a local disk",
                {"folder": str(self.folder), "type": kind},
            )
        found = [Tenant(name) for name in names if name not in _NOT_TENANTS]
        with ThreadPoolExecutor(os.cpu_count() or 1, "open-tenant") as pool:
            locked = list(filter(None, pool.map(self._open_or_quarantine, found)))
        if locked and not self._tenants:
            raise locked[0]

    def _open_or_quarantine(self, tenant: Tenant) -> DirectoryLocked | None:
        tsdb = self._try_open(tenant)
        if isinstance(tsdb, TSDB):
            with self._opening:
                self._tenants = {**self._tenants, tenant: tsdb}
            return None
        return tsdb if isinstance(tsdb, DirectoryLocked) else None

    def _try_open(self, tenant: Tenant) -> TSDB | ThanostackError:
        try:
            return self._open(tenant)
        except ThanostackError as error:
            self._quarantined[tenant] = str(error)
            if isinstance(error, StorageUnwritable):
                self._retries[tenant] = (self._clock.monotonic_s() + _RETRY_S, _RETRY_S)
            self._report("tenant is quarantined", {"tenant": tenant, "err": str(error)})
            return error

    def _open(self, tenant: Tenant) -> TSDB:
        def report(message: str, facts: Mapping[str, object]) -> None:
            self._report(message, {"tenant": tenant, **facts})

        options = self._options_of(tenant)
        tsdb = TSDB(self.folder / tenant, options, clock=self._clock, report=report)
        tsdb.refusal = self._refusal
        return tsdb

    def tsdb(self, tenant: Tenant) -> TSDB:
        """Return a tenant's storage, creating it on the first write.

        Raises:
            Quarantined: if its directory could not be opened at start.
            LimitExceeded: if there are as many tenants as there may be.
            StorageUnwritable: if a new directory cannot be made.
            NotReady: after `close`, and for a new one while writes are refused.
        """
        found = self._tenants.get(tenant)
        if found is not None:
            return found
        with self._opening:
            if self._closed:
                raise NotReady("the storage is closed")
            if tenant in self._quarantined:
                raise Quarantined(f"tenant {tenant}", self._quarantined[tenant])
            if tenant not in self._tenants:
                if self._refusal:
                    raise NotReady(self._refusal)
                if len(self._tenants) >= self.options.tenants_max:
                    raise LimitExceeded("tenants", self.options.tenants_max, len(self._tenants) + 1)
                self._tenants = {**self._tenants, tenant: self._open(tenant)}
            return self._tenants[tenant]

    def tenants(self) -> Mapping[Tenant, TSDB]:
        """Return the open tenants; the mapping never changes."""
        return self._tenants

    def quarantined(self) -> Mapping[Tenant, str]:
        """Return the tenants set aside, with the reason."""
        return self._quarantined

    def reconfigure(self, options_of: OptionsOf) -> None:
        """Give each tenant, open or yet to be opened, options of its own; safe at any time.

        Args:
            options_of: called with a tenant; only limits and retention of one that is open may
                differ from what it was opened with.
        """
        self._options_of = options_of
        for tenant, tsdb in self._tenants.items():
            tsdb.options = options_of(tenant)

    def refuse_writes(self, reason: str) -> None:
        """Refuse writes to every tenant, new ones too, or take them again if the reason is empty.

        See `TSDB.refuse_writes`. Tenants are not pruned meanwhile.
        """
        with self._opening:
            self._refusal = reason
            for tsdb in self._tenants.values():
                tsdb.refuse_writes(reason)

    def flush(self, is_wanted: Callable[[], bool]) -> dict[Tenant, str]:
        """Cut all that heads hold into blocks, while writes are refused; blocking.

        Args:
            is_wanted: asked before each block; when it is not, the rest stays in the heads.

        Returns:
            Why a tenant's data is not, or not all, in blocks: the disk, or a quarantine.
        """
        failures = {}
        for tenant, tsdb in self._tenants.items():
            try:
                Maintenance(tsdb).flush(is_wanted)
            except (ThanostackError, OSError) as error:
                failures[tenant] = str(error)
        return {**failures, **self._quarantined}

    def maintain(self) -> None:
        """Do the background work that is due for every tenant; blocking."""
        self._retry_quarantined()
        for tenant, tsdb in self._tenants.items():
            # One that was being opened while options changed has old ones.
            tsdb.options = self._options_of(tenant)
            Maintenance(tsdb).run()
            if self._is_idle(tsdb):
                self._prune(tenant, tsdb)

    def _retry_quarantined(self) -> None:
        """Open the tenants whose directory was locked, full or read-only, now and then.

        These pass by themselves: the process that this one replaces ends, a disk is grown. Damage
        does not, and waits for an operator and a start.
        """
        now_s = self._clock.monotonic_s()
        for tenant, (due_s, wait_s) in list(self._retries.items()):
            if now_s < due_s:
                continue
            with self._opening:
                if self._closed:
                    return
                try:
                    tsdb = self._open(tenant)
                except StorageUnwritable as error:
                    # A lock costs nothing to try, and goes with its holder.
                    is_lock = isinstance(error, DirectoryLocked)
                    longer_s = wait_s if is_lock else min(2 * wait_s, _RETRY_MAX_S)
                    self._retries[tenant] = (now_s + longer_s, longer_s)
                    self._quarantined[tenant] = str(error)
                except ThanostackError as error:
                    del self._retries[tenant]
                    self._quarantined[tenant] = str(error)
                    self._report("tenant is quarantined", {"tenant": tenant, "err": str(error)})
                else:
                    del self._retries[tenant], self._quarantined[tenant]
                    self._tenants = {**self._tenants, tenant: tsdb}
                    self._report("tenant is no longer quarantined", {"tenant": tenant})

    def _is_idle(self, tsdb: TSDB) -> bool:
        """Return whether all samples are older than retention, and nobody writes older ones."""
        retention, now = tsdb.options.retention_ms, self._clock.now_ms()
        maxt = tsdb.time_range()[1]
        # What cannot be read may be younger.
        maxt = max([maxt, *(block.maxt for block in tsdb.blocks.unreadable)])
        if not retention or maxt == -(1 << 63) or now - maxt <= retention:
            return False
        # Upstream looks at the newest sample alone; a back-fill of old data would be thrown away.
        return now - tsdb.last_append_ms > 2 * self.options.max_block_ms

    def _prune(self, tenant: Tenant, tsdb: TSDB) -> None:
        with self._opening:
            if self._refusal:
                return
            # A write meanwhile finds the storage closed, is told to retry, and revives the tenant.
            tsdb.close()
            tenants = {name: t for name, t in self._tenants.items() if name != tenant}
            if not self._is_idle(tsdb):
                revived = self._try_open(tenant)
                self._tenants = tenants
                if isinstance(revived, TSDB):
                    self._tenants = {**tenants, tenant: revived}
                return
            self._tenants = tenants
            try:
                remove_folder(tsdb)
            except StorageUnwritable as error:
                # What is left is opened by the next write or start, and pruned again.
                self._report("an idle tenant stays on disk", {"tenant": tenant, "err": str(error)})
                return
        self._report("pruned an idle tenant", {"tenant": tenant})

    def close(self) -> None:
        """Close every tenant; what was acknowledged is in its log, synced.

        Raises:
            ThanostackError: the first failure, after all have been tried.
        """
        with self._opening:
            self._closed = True
        failures: list[ThanostackError] = []
        for tsdb in self._tenants.values():
            try:
                tsdb.close()
            except ThanostackError as error:
                failures.append(error)
        if failures:
            raise failures[0]
