"""One compactor a bucket: both locks, or none runs."""

import pytest

from thanostack_operator.plan.singleton import Lock, Singleton, decide

NOW, MARGIN_S = 1000.0, 20.0
OURS = Lock("me", NOW - 5, 60)
OLD = Lock("me", NOW - 35, 60)
LAPSING = Lock("me", NOW - 45, 60)
LAPSED = Lock("me", NOW - 61, 60)
THEIRS = Lock("you", NOW - 5, 60)
THEIRS_LAPSED = Lock("you", NOW - 61, 60)
FREE = Lock()


@pytest.mark.parametrize(
    ("lease", "bucket", "replicas", "take", "reason"),
    [
        (OURS, OURS, 1, (), ""),
        (OLD, OURS, 1, ("lease",), ""),
        (OURS, OLD, 1, ("bucket",), ""),
        (OLD, OLD, 1, ("lease", "bucket"), ""),
        (FREE, FREE, 0, ("lease",), "the lease lock is not held for long enough"),
        (OURS, FREE, 0, ("bucket",), "the bucket lock is not held for long enough"),
        (OURS, THEIRS_LAPSED, 0, ("bucket",), "the bucket lock is not held for long enough"),
        (LAPSING, OURS, 0, ("lease",), "the lease lock is not held for long enough"),
        (OURS, LAPSING, 0, ("bucket",), "the bucket lock is not held for long enough"),
        (LAPSED, OURS, 0, ("lease",), "the lease lock is not held for long enough"),
        (THEIRS, OURS, 0, (), "the lease lock is held by you"),
        (THEIRS, FREE, 0, (), "the lease lock is held by you"),
        (OURS, THEIRS, 0, (), "the bucket lock is held by you"),
        (OLD, THEIRS, 0, ("lease",), "the bucket lock is held by you"),
        (None, OURS, 0, (), "the lease lock cannot be read"),
        (OURS, None, 0, (), "the bucket lock cannot be read"),
    ],
)
def test_who_may_run(lease, bucket, replicas, take, reason):
    found = decide("me", lease, bucket, now=NOW, margin_s=MARGIN_S)
    assert found == Singleton(replicas, take, reason)


@pytest.mark.parametrize("bucket", [OURS, THEIRS, FREE, None])
def test_two_stacks_of_one_cluster_never_both_run(bucket):
    """Whatever the bucket says, one of them does not have the Lease."""
    lease = OURS
    both = [decide(who, lease, bucket, now=NOW, margin_s=MARGIN_S) for who in ("me", "you")]
    assert sum(found.replicas for found in both) <= 1
    assert both[1] == Singleton(0, (), "the lease lock is held by me")
