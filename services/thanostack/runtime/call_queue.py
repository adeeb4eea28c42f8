"""Threads for the calls of some methods, with a bounded queue in front of them.

    call ──thread free──> runs
       └─> [queue] ──its turn──> runs, unless nobody waits for it any more
              └──full──> UNAVAILABLE, before its request is read

Calls that store what they are sent come in any number, and each keeps its request while it waits.
Those of other methods have other threads, and are answered however many of these there are.

Both sides of a port use the same one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure

FULL: Final = "too many calls of this method are waiting"


class CallQueue(ThreadPoolExecutor):
    """The threads and their queue.

    Args:
        threads: calls that run at once.
        waiting_max: how many may wait.
    """

    def __init__(self, threads: int, waiting_max: int) -> None:
        super().__init__(threads, thread_name_prefix="grpc-queue")
        self._waiting_max = waiting_max

    @property
    def n_waiting(self) -> int:
        """Return how many calls wait, those that were given up meanwhile among them."""
        return self._work_queue.qsize()

    @property
    def is_full(self) -> bool:
        """Return whether too many wait for one more to be taken."""
        return self.n_waiting >= self._waiting_max

    def require_room(self) -> None:
        """Refuse one more call if it is full.

        Raises:
            GrpcFailure: UNAVAILABLE.
        """
        if self.is_full:
            raise GrpcFailure(GrpcCode.UNAVAILABLE, FULL)


class CallThreads(NamedTuple):
    """The threads of one side of a port.

    Args:
        queue: run queued calls; shared with the other side.
        others: run all other calls.
    """

    queue: CallQueue
    others: ThreadPoolExecutor
