"""Lines about failed writes: few of what repeats, all of what may be a bug."""

from prometheus_client import CollectorRegistry
from structlog import get_logger
from structlog.testing import capture_logs

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.foundation.errors import NotReady, StorageUnwritable
from thanostack.receive.failure_log import KINDS_MAX, FailureLog
from thanostack.receive.metrics import ReceiveMetrics


class World:
    """A log over a clock that stands still."""

    def __init__(self):
        self.registry, self.clock = CollectorRegistry(), ManualClock()
        metrics = ReceiveMetrics(self.registry, inflight_bytes_max=1)
        self.failures = FailureLog(get_logger(), metrics.failed, self.clock.monotonic_s)

    def add(self, error, times=1):
        with capture_logs() as lines:
            for _ in range(times):
                self.failures.add("a", error)
        return [line.get("more_since", 0) for line in lines]

    def count(self, kind):
        name = "thanostack_receive_failed_writes_total"
        return self.registry.get_sample_value(name, {"error": kind})


def test_a_full_disk_is_said_once_a_minute():
    """At once, then with the number of those in between; the metric has them all."""
    world, full = World(), StorageUnwritable("no space left on device")
    assert world.add(full, 1000) == [0]
    world.clock.advance(59_999)
    assert world.add(full) == []
    world.clock.advance(1)
    assert world.add(full, 5) == [1000]
    world.clock.advance(60_000)
    assert world.add(full) == [4]
    assert world.count("StorageUnwritable") == 1007


def test_kinds_do_not_hide_each_other():
    """Another failure is said at once, in the middle of a minute."""
    world = World()
    world.add(StorageUnwritable("full"), 3)
    assert world.add(NotReady("replaying"), 2) == [0]


def test_bugs_are_all_said():
    """With a traceback each, and under one name in the metric."""
    world = World()
    with capture_logs() as lines:
        for error in (KeyError("x"), KeyError("x")):
            world.failures.add("a", error)
    assert [type(line["exc_info"]) for line in lines] == [KeyError, KeyError]
    assert world.count("bug") == 2


def test_refused_samples_are_said_once_a_minute_and_tenant():
    """Nothing was said: whoever asked why samples are missing had the sender's log alone."""
    world = World()
    with capture_logs() as lines:
        for tenant in ("a", "a", "b"):
            world.failures.refused(tenant, {"out_of_order": 3, "conflict": 1})
        world.clock.advance(60_000)
        world.failures.refused("a", {"conflict": 1})
    said = [(line["tenant"], line["reasons"], line.get("more_since", 0)) for line in lines]
    both = "conflict: 1, out_of_order: 3"
    assert [("a", both, 0), ("b", both, 0), ("a", "conflict: 1", 1)] == said
    assert world.count("SampleRejected") is None


def test_more_tenants_than_are_known_do_not_fill_the_log():
    """Each was said anew once all were forgotten; errors are said whatever tenants there are."""
    world = World()
    with capture_logs() as lines:
        for tenant in [f"t{n}" for n in range(KINDS_MAX + 100)] * 2:
            world.failures.refused(tenant, {"conflict": 1})
    assert len(lines) == KINDS_MAX
    assert world.add(StorageUnwritable("full")) == [0]
    world.clock.advance(60_000)
    with capture_logs() as lines:
        world.failures.refused("another", {"conflict": 1})
    assert len(lines) == 1
