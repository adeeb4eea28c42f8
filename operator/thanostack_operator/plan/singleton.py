"""How many replicas a compactor may have: one if its locks are held, else none.

Two compactors on one bucket can ruin it, so two locks stand before the one that runs:

    Lease in the cluster (one stack of this cluster a bucket) ──► lock in the bucket (one cluster)

The Lease stops a second stack of the same cluster without touching the bucket, and its holder says
which stack that is. The bucket's lock decides among clusters. Both must be this stack's, and both
must outlast the next look: when that is in doubt the answer is no replica.

Nothing here reads or writes a lock: what was read is handed in, what to take is handed out. No
component uses it before the compactor is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LockName = Literal["lease", "bucket"]


@dataclass(frozen=True)
class Lock:
    """One lock as it was read.

    Args:
        holder: who has it; empty if nobody.
        renewed: when its holder last renewed it, seconds since the epoch.
        ttl_s: how long after that it lapses.
    """

    holder: str = ""
    renewed: float = 0.0
    ttl_s: float = 0.0

    def is_held(self, now: float) -> bool:
        """Return whether it has a holder whose time is not over."""
        return bool(self.holder) and now < self.renewed + self.ttl_s


@dataclass(frozen=True)
class Singleton:
    """What follows from both locks.

    Args:
        replicas: 1 or 0.
        take: the locks to take or to renew now, in this order.
        reason: why there is no replica; empty if there is one.
    """

    replicas: int
    take: tuple[LockName, ...] = ()
    reason: str = ""


def decide(
    holder: str, lease: Lock | None, bucket: Lock | None, *, now: float, margin_s: float
) -> Singleton:
    """Return whether a stack's compactor may run.

    A lock is renewed when half of its time is over. The bucket's is taken only by who has the
    Lease, so that stacks of one cluster never contend for it.

    Args:
        holder: who this stack is in both locks: its uid.
        lease: the cluster's lock on this bucket; None if it could not be read.
        bucket: the bucket's own; None if it could not be read.
        now: seconds since the epoch.
        margin_s: how much time a lock must have left: until the next look, and for a pod to end.
    """
    take: list[LockName] = []
    named: tuple[tuple[LockName, Lock | None], ...] = (("lease", lease), ("bucket", bucket))
    for name, lock in named:
        if lock is None:
            return Singleton(0, tuple(take), f"the {name} lock cannot be read")
        if lock.holder != holder and lock.is_held(now):
            return Singleton(0, tuple(take), f"the {name} lock is held by {lock.holder}")
        if lock.holder != holder or not lock.is_held(now + margin_s):
            return Singleton(0, (*take, name), f"the {name} lock is not held for long enough")
        if now >= lock.renewed + lock.ttl_s / 2:
            take.append(name)
    return Singleton(1, tuple(take))
