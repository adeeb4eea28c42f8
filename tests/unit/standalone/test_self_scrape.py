"""The process's own metrics, as they reach the write path."""

from __future__ import annotations

import struct

from prometheus_client import CollectorRegistry, Counter, Gauge

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.pb import prometheus_remote_pb2
from thanostack.standalone.self_scrape import SelfScrape

STALE_BITS = 0x7FF0000000000002


def scrape(target):
    """Return {labels: (timestamp, value bits)} of one scrape."""
    request = prometheus_remote_pb2.WriteRequest.FromString(target.scrape())
    found = {}
    for series in request.timeseries:
        labels = tuple((label.name, label.value) for label in series.labels)
        assert list(labels) == sorted(labels)
        (sample,) = series.samples
        found[labels] = (sample.timestamp, sample.value)
    assert len(found) == len(request.timeseries)
    return found


def of(name, **labels):
    target = {"job": "thanos-standalone", "instance": "localhost:10902"}
    return tuple(sorted({"__name__": name, **target, **labels}.items()))


def bits(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def test_a_scrape_has_samples_and_what_prometheus_adds():
    """Samples carry job and instance; up, duration and count come with them, at one time."""
    registry = CollectorRegistry()
    Gauge("height", "h", registry=registry).set(2.5)
    found = scrape(SelfScrape(registry, "localhost:10902", ManualClock(5000)))
    assert found[of("height")] == (5000, 2.5)
    assert found[of("up")] == (5000, 1.0)
    assert found[of("scrape_samples_scraped")] == (5000, 1.0)
    assert found[of("scrape_duration_seconds")] == (5000, 0.0)
    assert len(found) == 4


def test_a_series_that_vanishes_gets_one_stale_marker():
    """The marker has the bits that mean the end, and is not repeated."""
    registry = CollectorRegistry()
    gauge = Gauge("height", "h", ["who"], registry=registry)
    gauge.labels("a").set(1)
    gauge.labels("b").set(2)
    clock = ManualClock(1000)
    target = SelfScrape(registry, "localhost:10902", clock)
    scrape(target)
    gauge.remove("a")
    clock.advance(15_000)
    found = scrape(target)
    timestamp, value = found[of("height", who="a")]
    assert (timestamp, bits(value)) == (16_000, STALE_BITS)
    assert found[of("height", who="b")] == (16_000, 2.0)
    assert of("height", who="a") not in scrape(target)


def test_a_collector_that_breaks_takes_the_target_down():
    """Then up is 0, nothing else is written, and what was there before is stale."""
    registry = CollectorRegistry()
    is_broken = False

    def value():
        if is_broken:
            raise RuntimeError("broken")
        return 1.0

    Gauge("height", "h", registry=registry).set_function(value)
    target = SelfScrape(registry, "localhost:10902", ManualClock(1))
    assert scrape(target)[of("up")] == (1, 1.0)
    is_broken = True
    found = scrape(target)
    assert found[of("up")] == (1, 0.0)
    assert found[of("scrape_samples_scraped")] == (1, 0.0)
    assert bits(found[of("height")][1]) == STALE_BITS


def test_labels_of_the_target_win():
    """A metric's own label job is kept as exported_job; an empty label is no label."""
    registry = CollectorRegistry()
    Counter("calls", "c", ["job", "code"], registry=registry).labels("mine", "").inc()
    found = scrape(SelfScrape(registry, "localhost:10902", ManualClock(1)))
    assert found[of("calls_total", exported_job="mine")] == (1, 1.0)
