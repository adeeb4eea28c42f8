"""The life of a process: named tasks, signals, and an orderly stop.

    start(builder) ──> running ──(SIGTERM, SIGINT, a task ended)──> not ready
                                      ──> drain, all at once ──> release, in reverse ──> exit

*Drain* means finish what was begun: HTTP and gRPC servers refuse new work and wait for the old,
each within its own grace period. *Release* means flush and close. A drain or a release that fails
is logged and does not stop the others. A second signal ends the process at once.

Invariants: the first task to end ends all; what was built last is released first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.runtime.logs import Logger
from thanostack.runtime.probes import Probes

Release = Callable[[], Awaitable[None]]
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """Runs one component from its first line of wiring to its last release.

    Args:
        probes: set to not ready when the stop begins.
        log: told about tasks that fail and about the phases of the stop.
        exit_now: how the process ends on a second signal.
    """

    def __init__(
        self, probes: Probes, log: Logger, *, exit_now: Callable[[int], Any] = os._exit
    ) -> None:
        self._probes, self._log, self._exit_now = probes, log, exit_now
        self._stop = asyncio.Event()
        self._drains: list[tuple[str, Release]] = []
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._code = 0
        self.was_starting = False
        """Whether the stop came while the builder still ran, perhaps in a thread."""

    @property
    def is_stopping(self) -> bool:
        """Return whether the stop has begun."""
        return self._stop.is_set()

    def stop(self, reason: str) -> None:
        """Begin the orderly stop; the first reason counts."""
        if not self._stop.is_set():
            self._log.info("stopping", reason=reason)
            self._stop.set()

    def task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until it ends; its end, good or bad, ends the process."""
        assert self._group is not None, "tasks are started while running"
        task = self._group.create_task(self._guarded(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drain(self, name: str, finish: Release) -> None:
        """Register how running requests are finished; drains run all at once."""
        self._drains.append((name, finish))

    def release(self, name: str, close: Release) -> None:
        """Register how a thing just built is closed; releases run in reverse."""
        self._stack.push_async_callback(self._attempt, "release", name, close)

    async def run(self, build: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Build, run until told to stop, drain and release; return the exit code.

        Raises:
            ThanostackError: nothing is raised for failures of the component: they are logged
                and make the code 1.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            async with self._stack, asyncio.TaskGroup() as self._group:
                building = self._group.create_task(self._guarded("start", build()), name="start")
                await self._stop.wait()
                self._probes.set_stopping()
                self.was_starting = building.cancel()
                await self._attempt_all_drains()
                for task in list(self._tasks):
                    task.cancel()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        self._log.info("stopped", code=self._code)
        return self._code

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._log.error("second signal, leaving at once", signal=number.name)
            self._exit_now(1)
        self.stop(f"received {number.name}")

    async def _guarded(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ThanostackError as error:
            self._fail(name, error, with_traceback=False)
        except Exception as error:
            self._fail(name, error, with_traceback=True)
        else:
            if name != "start":
                self.stop(f"task {name} ended")

    def _fail(self, name: str, error: Exception, *, with_traceback: bool) -> None:
        self._code = 1
        self._log.error("task failed", task=name, err=error, exc_info=with_traceback)
        self.stop(f"task {name} failed")

    async def _attempt_all_drains(self) -> None:
        await asyncio.gather(
            *(self._attempt("drain", name, finish) for name, finish in self._drains)
        )

    async def _attempt(self, what: str, name: str, action: Release) -> None:
        try:
            await action()
        except Exception as error:
            self._code = 1
            self._log.error(f"{what} went wrong, going on", name=name, err=error, exc_info=True)
