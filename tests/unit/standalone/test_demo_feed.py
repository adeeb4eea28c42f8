"""The demo's replicas: gaps that never overlap, and samples in order."""

from __future__ import annotations

import itertools

import cramjam
import httpx
import pytest

from thanostack.lib.foundation.units import HOUR_MS, MINUTE_MS
from thanostack.lib.pb import prometheus_remote_pb2
from thanostack.standalone import demo
from thanostack.standalone.demo import REPLICAS, backfill_batches, write_request

NOW = 1_795_343_201_547


def decoded(body):
    return prometheus_remote_pb2.WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))


def test_someone_is_always_there():
    """Each replica is away for longer than the lookback, and never both within a minute."""
    minutes = range(60)
    away = {r.name: {m for m in minutes if r.is_away(m * MINUTE_MS)} for r in REPLICAS}
    assert all(len(missing) > 12 for missing in away.values())
    assert not {m + by for m in away["a"] for by in (-1, 0, 1)} & away["b"]


def test_the_past_hour_is_written_in_order():
    """Batches ascend without overlap, stay within the head's hour and leave no hole."""
    times = [time for batch in backfill_batches(NOW) for time in batch]
    assert times == list(range(times[0], times[-1] + 1, 15_000))
    assert times[0] > NOW - HOUR_MS + MINUTE_MS
    assert NOW - 30_000 < times[-1] <= NOW


def test_a_request_holds_a_replicas_series():
    """Both replicas have the same series but for the replica label, samples ascending."""
    times = next(backfill_batches(10 * HOUR_MS))
    seen = []
    for replica in REPLICAS:
        request = decoded(write_request(replica, times))
        without = set()
        for series in request.timeseries:
            labels = {label.name: label.value for label in series.labels}
            assert labels.pop("prometheus_replica") == replica.name
            stamps = [sample.timestamp for sample in series.samples]
            assert stamps == sorted(set(stamps))
            without.add(tuple(labels.items()))
        seen.append(without)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 6


def test_values_depend_on_the_time_alone():
    """A second feeder repeats what the first one wrote, bit for bit."""
    for times in backfill_batches(NOW):
        for replica in REPLICAS:
            assert write_request(replica, times) == write_request(replica, list(times))
            if all(replica.is_away(time) for time in times):
                assert write_request(replica, times) == b""


def test_the_counter_never_falls_within_a_day():
    """Its rate swings and stays above zero."""
    last = 0.0
    for times in backfill_batches(NOW):
        for series in decoded(write_request(REPLICAS[0], times) or b"\0").timeseries:
            labels = {label.name: label.value for label in series.labels}
            if labels.get("handler") == "/home":
                for sample in series.samples:
                    assert sample.value > last
                    last = sample.value
    assert last > 0


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (httpx.ConnectError("refused"), "unreachable: refused"),
        (httpx.ReadTimeout(""), "unreachable: ReadTimeout"),
        (httpx.Response(503, text="not ready\n"), "answers 503: not ready"),
    ],
)
async def test_a_receiver_that_takes_nothing_is_said(monkeypatch, capsys, trouble, told):
    """At once, and then now and then; it was tried for ever in silence."""
    tries = itertools.count()

    def answer(_):
        if next(tries) > demo._TRIES_UNSAID:
            return httpx.Response(200)
        if isinstance(trouble, Exception):
            raise trouble
        return trouble

    monkeypatch.setattr(demo, "_RETRY_S", 0.0)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await demo._send_until_taken(client, "http://there", b"body")
        await demo._send_until_taken(client, "http://there", b"body")
    first, second, *others = capsys.readouterr().err.splitlines()
    assert f"demo: http://there: {told}; trying again every 0 s" == first == second
    assert others == ["demo: http://there: takes writes again"]
