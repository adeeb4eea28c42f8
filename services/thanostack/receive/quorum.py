"""When a replicated write has succeeded, and when it cannot any more: arithmetic, no I/O.

Every series of a request is sent to `replicas` nodes and needs `needed` of them. A node's answer
to one replica of a series is one of

    success                                           done
    conflict, invalid                                 done: the node stored all of it that it ever
                                                      will, and a repetition changes nothing
    limited, transient                                not done: a repetition may succeed

With s successes, d conflicts and invalids, and w answers that are still waited for, a series is

    stored    s ≥ needed
    refused   s + w < needed ≤ s + d        enough nodes are done, too few of them stored all
    to retry  s + d + w < needed            enough nodes will not be done, whatever still comes
    open      otherwise

and a request is *stored* when all its series are, to *retry* as soon as one series is, *refused*
when no series is open and none is to retry. It is settled at the first answer after which no other
answer could change that: a slow node is not waited for, and no answer is given that a later one
would turn.

Why refused needs a quorum of nodes that are done: as long as fewer are, the samples that nobody
refuses are not safe, and only a repetition makes them so. Once they are, a repetition could not
make them safer; so a sender repeats only what waits for nodes to come back, and never for ever.
docs/decisions/0005 has the alternatives.

Upstream: quorum is 1 for two replicas, otherwise more than half of them.
Source: Thanos `pkg/receive/handler.go` (writeQuorum, canReturnEarly).
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from thanostack.lib.kernels import write_quorum as kernels
from thanostack.lib.model.label_runs import BoolArray
from thanostack.lib.remotewrite.forward import Int32Array


class Answer(Enum):
    """What a node said to one replica of some series."""

    SUCCESS = "success"
    CONFLICT = "conflict"
    INVALID = "invalid"
    LIMITED = "limited"
    TRANSIENT = "transient"


class Verdict(Enum):
    """What became of a request."""

    STORED = "stored"
    CONFLICT = "conflict"
    INVALID = "invalid"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"


def quorum_of(replication_factor: int) -> int:
    """Return how many nodes must store a series.

    Example:
        >>> [quorum_of(n) for n in (1, 2, 3, 4, 5)]
        [1, 1, 2, 3, 3]
    """
    return 1 if replication_factor == 2 else replication_factor // 2 + 1


class Quorum:
    """The answers to one request so far.

    Args:
        n_series: in the request, at least 1.
        replicas: how many answers each series gets.
        needed: successes that make a series stored.
    """

    def __init__(self, n_series: int, replicas: int, needed: int) -> None:
        assert 0 < needed <= replicas
        self.replicas, self.needed = replicas, needed
        self._n_waited = n_series * replicas
        self._waited = np.full(n_series, replicas, np.int32)
        self._n = {answer: np.zeros(n_series, np.int32) for answer in Answer}
        self._n_open = n_series
        self._is_clean = True

    def add(self, series: Int32Array, first: int, answer: Answer) -> None:
        """Take one node's answer to one replica of some series.

        Args:
            series: int32[k]; numbers of series, each once; each gets `replicas` answers in all.
            first: added to each number.
            answer: the same for all of them.
        """
        self._n_waited -= len(series)
        reached = kernels.quorum_count(series, first, self.needed, self._waited, self._n[answer])
        if answer is Answer.SUCCESS:
            self._n_open -= int(reached)
        else:
            self._is_clean = False

    def verdict(self) -> Verdict | None:
        """Return the verdict once it is settled, else None."""
        if not self._n_open:
            return Verdict.STORED
        if self._is_clean:
            return None
        n = self._n
        successes, waited = n[Answer.SUCCESS], self._waited
        done = successes + n[Answer.CONFLICT] + n[Answer.INVALID]
        retry: BoolArray = done + waited < self.needed
        if retry.any():
            is_transient = bool(n[Answer.TRANSIENT][retry].any())
            return Verdict.UNAVAILABLE if is_transient else Verdict.LIMITED
        unstored = successes < self.needed
        is_open = (successes + waited >= self.needed) | (done < self.needed)
        if (unstored & is_open).any():
            return None
        is_conflict = bool(n[Answer.CONFLICT][unstored].any())
        return Verdict.CONFLICT if is_conflict else Verdict.INVALID

    @property
    def is_complete(self) -> bool:
        """Return whether no answer is waited for any more."""
        return not self._n_waited

    @property
    def stored(self) -> BoolArray:
        """Return which series are stored by now: bool[n_series]."""
        return self._n[Answer.SUCCESS] >= self.needed

    @property
    def lost(self) -> BoolArray:
        """Return which series will not be stored, whatever still comes: bool[n_series]."""
        return self._n[Answer.SUCCESS] + self._waited < self.needed
