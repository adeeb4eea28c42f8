"""One writer a tenant: a FIFO of jobs, run one at a time by whoever comes first.

There is no thread of its own and nobody waits for a lock: a caller appends its job and, if no one
is working, works off the queue until it is empty, its own job included. A caller that finds someone
working leaves; its `done` is called by that other thread.

    caller A: submit ──> [A] ──runs A──runs B──> leaves
    caller B:     submit ──> [A B] ──leaves        (B's done is called on A's thread)

Under steady load the queue may never be empty. So a caller whose own job is done works for others
for `PATIENCE_S` at most, and then leaves the rest to a thread made for it: the event loop is a
caller too, and must not be kept.

Bound: jobs are slices of at most a few milliseconds; long work submits many.
Invariants: at no time do two jobs of one queue run. A job or its `done` may submit, but must not
`run`: it would wait for itself. What a `done` raises is nobody's in particular, so it goes to
`threading.excepthook`, as from a thread, and the queue goes on.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[], Any]
Done = Callable[[Any], None]
PATIENCE_S = 0.005


class JobQueue:
    """The FIFO; every access to a head's arrays goes through it."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Job, Done]] = deque()
        self._working = threading.Lock()

    def submit(self, job: Job, done: Done) -> None:
        """Queue a job; `done` gets its result, or the exception that it raised, from any thread."""
        self._jobs.append((job, done))
        self._help(done)

    def run_now(self, job: Callable[[], T]) -> T | None:
        """Run a job at once and return its result, or raise its exception; None if others wait.

        Then nothing was done. For jobs that never return None.
        """
        if self._jobs or not self._working.acquire(blocking=False):
            return None
        try:
            return job()
        finally:
            self._working.release()
            # Who came meanwhile found someone working, and left.
            self._help(None)

    def _help(self, own: Done | None) -> None:
        """Work the queue off, for others not beyond the patience, unless someone else does."""
        # After the release another look is needed: a job may have come between the last pop and it.
        while self._jobs and self._working.acquire(blocking=False):
            try:
                is_empty = self._work(own, time.monotonic() + PATIENCE_S)
            finally:
                self._working.release()
            if not is_empty:
                threading.Thread(target=self._drain, name="jobs", daemon=True).start()
                return

    def run(self, job: Callable[[], T]) -> T:
        """Queue a job, wait for it, and return its result or raise its exception."""
        finished = threading.Event()
        outcome: list[Any] = []

        def done(result: Any) -> None:
            outcome.append(result)
            finished.set()

        self.submit(job, done)
        finished.wait()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]  # type: ignore[no-any-return]

    def _drain(self) -> None:
        """Work the queue off, however long it takes, unless someone else does."""
        while self._jobs and self._working.acquire(blocking=False):
            try:
                self._work(None, math.inf)
            finally:
                self._working.release()

    def _work(self, own: Done | None, until_s: float) -> bool:
        """Run jobs; return False if some are left after the own one and the time are over."""
        while self._jobs:
            # Someone else may have run the own job meanwhile; a look at the queue tells.
            if time.monotonic() > until_s and all(done is not own for _, done in list(self._jobs)):
                return False
            job, done = self._jobs.popleft()
            try:
                result = job()
            except BaseException as error:  # the exception belongs to the submitter
                result = error
            try:
                done(result)
            except Exception as error:
                hook = threading.ExceptHookArgs(
                    (type(error), error, error.__traceback__, threading.current_thread())
                )
                threading.excepthook(hook)
        return True
