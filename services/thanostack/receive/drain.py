"""Draining a receiver: no write is taken any more, and all that heads hold goes into blocks.

    serving ──begin──> draining ──all heads are cut──> drained ──┐
       ^                 │  ^ └──a head could not be──> failed ──┤
       │                 │  └──────────begin─────────────┘       │
       └────────end──────┴───────────────────────────────────────┘

An empty file in the data folder says that it was asked for. It is made before anything else happens
and removed before writes are taken again, so a process that is killed at any moment goes on where
it was: with the file it refuses writes from its first moment on.

Invariants: not ready and no write taken in any state but serving; in state drained no tenant has a
sample outside of a block. A write that comes while a drain begins is either in the head by the time
it is cut, or refused: storage decides which, in the order of its jobs.

Blocks are not uploaded, so none of them ever is. Why it is made like this:
docs/decisions/0010-a-drain-ends-in-local-blocks.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from prometheus_client import CollectorRegistry, Gauge

from thanostack.lib.foundation.errors import NotReady, SettingsInvalid, StorageUnwritable
from thanostack.lib.tenancy.names import DRAIN_NOTE
from thanostack.lib.tsdb.block_meta import sync_folder
from thanostack.runtime.process import Process

if TYPE_CHECKING:
    from thanostack.lib.tsdb.multi_tsdb import MultiTSDB

DrainState = Literal["serving", "draining", "drained", "failed"]
MARKER: Final = DRAIN_NOTE
"""Name of the file, beside the tenants' folders, which are all that storage looks at."""
REFUSAL: Final = "this receiver is being drained and takes no writes"


class Drain:
    """The drain of one receiver; used from the event loop.

    Args:
        storage: its tenants.
        process: that it lives in.
        changed: called after each change of `state`.
    """

    def __init__(self, storage: MultiTSDB, process: Process, changed: Callable[[], None]) -> None:
        self._storage, self._process, self._changed = storage, process, changed
        self._gauge = _gauge(process.registry)
        self._asking, self._flushing = asyncio.Lock(), asyncio.Lock()
        self._wake = asyncio.Event()
        self._is_open = self._is_wanted = False
        self.error: str | None = None
        self.state: DrainState = "draining" if is_marked(storage.folder) else "serving"
        self._show()
        if not self.is_serving:
            storage.refuse_writes(REFUSAL)

    @property
    def is_serving(self) -> bool:
        """Return whether writes are taken, as far as this has a say."""
        return self.state == "serving"

    def opened(self) -> None:
        """Begin to work, now that the storage is open: a drain that was asked for goes on."""
        self._is_open = True
        self._process.supervisor.task("drain", self._work())
        if not self.is_serving:
            self._start()

    def status(self) -> dict[str, Any]:
        """Return the state, each tenant's blocks, and what went wrong; from any thread."""
        tenants = {
            tenant: {
                "blocks": [block.meta.ulid for block in tsdb.blocks.readers],
                "uploaded": False,
            }
            for tenant, tsdb in sorted(self._storage.tenants().items())
        }
        return {"state": self.state, "tenants": tenants, "error": self.error}

    async def begin(self) -> None:
        """Drain, or try again if that failed; nothing if it is under way or done.

        When this returns, it is not forgotten, whatever happens to the process.

        Raises:
            StorageUnwritable: if that cannot be noted down; nothing has changed then.
            NotReady: while the storage is being opened.
        """
        async with self._asking:
            self._require_open()
            if self.state in ("draining", "drained"):
                return
            await asyncio.to_thread(_mark, self._storage.folder)
            self._set("draining")
            self._start()

    async def end(self) -> None:
        """Take writes again; a block that is being cut is finished before.

        Raises:
            StorageUnwritable: if the note cannot be removed; nothing has changed then.
            NotReady: while the storage is being opened.
        """
        async with self._asking:
            self._require_open()
            if self.is_serving:
                return
            await asyncio.to_thread(_unmark, self._storage.folder)
            self._is_wanted = False
            async with self._flushing:
                await asyncio.to_thread(self._storage.refuse_writes, "")
            self._set("serving")

    def _start(self) -> None:
        self._is_wanted = True
        self._wake.set()

    def _require_open(self) -> None:
        if not self._is_open:
            raise NotReady("the storage is being opened")

    def _set(self, state: DrainState, error: str | None = None) -> None:
        self.state, self.error = state, error
        if error is None:
            self._process.log.info("drain changed its state", state=state)
        else:
            self._process.log.error("drain cannot go on, ask for it again", err=error)
        self._show()
        self._changed()

    def _show(self) -> None:
        for state in get_args(DrainState):
            self._gauge.labels(state).set(state == self.state)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            async with self._flushing:
                self._wake.clear()
                await self._flush()

    def _goes_on(self) -> bool:
        return self._is_wanted and not self._process.supervisor.is_stopping

    async def _flush(self) -> None:
        if not self._goes_on():
            return
        await asyncio.to_thread(self._storage.refuse_writes, REFUSAL)
        failures = await asyncio.to_thread(self._storage.flush, self._goes_on)
        if not self._goes_on():
            return
        if failures:
            texts = [f"tenant {tenant}: {text}" for tenant, text in sorted(failures.items())]
            self._set("failed", "; ".join(texts))
        else:
            self._set("drained")


def is_marked(folder: Path) -> bool:
    """Return whether the receiver of a data folder is to be drained."""
    try:
        return (folder / MARKER).is_file()
    except OSError:
        return False  # opening the storage says what is wrong with the folder


def require_unmarked(folder: Path) -> None:
    """Refuse to serve a folder that is being drained, where draining is not enabled.

    Raises:
        SettingsInvalid: naming the file and what to do.
    """
    if is_marked(folder):
        raise SettingsInvalid(
            f"this receiver is being drained, as {folder / MARKER} says: start it with "
            "--receive.enable-drain, or remove the file to take writes again"
        )


def _mark(folder: Path) -> None:
    try:
        os.close(os.open(folder / MARKER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        sync_folder(folder)
    except OSError as error:
        raise StorageUnwritable(f"{folder / MARKER}: {error.strerror}") from error


def _unmark(folder: Path) -> None:
    try:
        (folder / MARKER).unlink(missing_ok=True)
        sync_folder(folder)
    except OSError as error:
        raise StorageUnwritable(f"{folder / MARKER}: {error.strerror}") from error


def _gauge(registry: CollectorRegistry) -> Gauge:
    return Gauge(
        "thanostack_receive_drain_state",
        "1 for the state that the receiver is in, 0 for the others.",
        ["state"],
        registry=registry,
    )
