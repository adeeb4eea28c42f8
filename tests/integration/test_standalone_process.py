"""`thanostack standalone` as a real process: written, asked, killed, started again, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cramjam
import httpx
import pytest

from thanostack.testing.ports import free_port
from thanostack.testing.write_storage import write_request

pytestmark = pytest.mark.enable_socket
SERVICES = str(Path(__file__).parents[2] / "services")
WAIT_S = 120.0


def wait_until(what, claim):
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        found = claim()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


class Standalone:
    """One process on free ports and a data folder that outlives it."""

    def __init__(self, folder, *flags):
        self.folder, self.flags = folder, flags
        self.http, self.write, self.grpc = free_port(), free_port(), free_port()
        self.process = None
        self.client = httpx.Client(timeout=30, trust_env=False)

    def start(self):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "thanostack", "standalone"),
                f"--tsdb.path={self.folder}/data",
                f"--http-address=127.0.0.1:{self.http}",
                f"--grpc-address=127.0.0.1:{self.grpc}",
                f"--remote-write.address=127.0.0.1:{self.write}",
                *self.flags,
            ],
            env={**os.environ, "PYTHONPATH": SERVICES},
            stdout=(self.folder / "stdout").open("wb"),
            stderr=(self.folder / "stderr").open("wb"),
        )
        return self

    def output(self):
        return (self.folder / "stdout").read_text() + (self.folder / "stderr").read_text()

    def is_ready(self):
        assert self.process.poll() is None, self.output()
        try:
            return self.client.get(f"http://127.0.0.1:{self.http}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def send(self, *series):
        block = bytes(cramjam.snappy.compress_raw(write_request(*series)))
        url = f"http://127.0.0.1:{self.write}/api/v1/receive"
        return self.client.post(url, content=block, headers={"Content-Encoding": "snappy"})

    def query(self, text, **parameters):
        response = self.client.get(
            f"http://127.0.0.1:{self.http}/api/v1/query", params={"query": text, **parameters}
        )
        assert response.status_code == 200, response.text
        return [(row["metric"], row["value"][1]) for row in response.json()["data"]["result"]]

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def standalone(tmp_path):
    made = Standalone(tmp_path)
    yield made
    made.client.close()
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(30)


def test_it_stores_answers_and_survives_being_killed(standalone):
    """A write is readable; so it is after kill -9; its own metrics are there; SIGTERM is code 0."""
    standalone.start()
    wait_until("readiness", standalone.is_ready)
    (metric, value), *others = wait_until("the first scrape", lambda: standalone.query("up"))
    assert (metric["job"], value, others) == ("thanos-standalone", "1", [])
    assert metric["instance"] == f"127.0.0.1:{standalone.http}"
    assert metric["tenant_id"] == "thanos-standalone"
    assert "replica" not in metric
    now = int(time.time() * 1000)
    series = {"__name__": "height", "who": "a"}
    kept = ({"__name__": "kept"}, [(now - 5_400_000, 1.0)])
    assert standalone.send(kept).status_code == 200, "its own scrape shuts out an outage's backlog"
    assert standalone.send((series, [(now - 1000, 1.5), (now, 2.5)])).status_code == 200
    found = [({**series, "tenant_id": "default-tenant"}, "2.5")]
    assert standalone.query("height") == found
    assert standalone.query("height", dedup="false")[0][0]["receive_replica"] == "standalone"
    for name in ("replica", "prometheus_replica"):
        pair = [{"__name__": "width", "of": name, name: which} for which in "ab"]
        assert standalone.send(*((row, [(now, 1.0)]) for row in pair)).status_code == 200
        shown = standalone.query(f"width{{of='{name}'}}", dedup="false")
        assert ["a", "b"] == sorted(labels[name] for labels, _ in shown)
        assert len(standalone.query(f"width{{of='{name}'}}")) == 1

    standalone.end(signal.SIGKILL)
    standalone.start()
    wait_until("readiness after a kill", standalone.is_ready)
    assert standalone.query("height") == found
    assert standalone.query("count_over_time(height[1h])")[0][1] == "2"
    assert standalone.send((series, [(now + 1000, 3.5)])).status_code == 200
    assert standalone.end(signal.SIGTERM) == 0
    assert "Traceback" not in standalone.output()
    assert f"url: http://127.0.0.1:{standalone.write}/api/v1/receive" in standalone.output()


def test_a_busy_port_is_named_with_its_flag(standalone):
    """The message says which flag chooses another port, and the code is 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", standalone.write))
        taken.listen()
        standalone.start()
        assert standalone.process.wait(WAIT_S) == 1
    assert "already in use" in standalone.output()
    assert "choose another with --remote-write.address" in standalone.output()


def test_the_demo_has_gaps_that_deduplication_heals(standalone):
    """Without deduplication each replica lacks part of the hour; with it one series is whole."""
    standalone.flags = ("--demo",)
    standalone.start()
    wait_until("readiness", standalone.is_ready)
    counted = 'count_over_time(demo_temperature{room="attic"}[58m])'

    def are_both_backfilled():
        # In this order: the hour may become whole between the two answers.
        newest = standalone.query("max(timestamp(demo_temperature))")
        fresh = newest and time.time() - float(newest[0][1]) < 45
        rows = standalone.query(counted, dedup="false")
        return rows if len(rows) == 2 and fresh else None

    rows = wait_until("the past hour", are_both_backfilled)
    assert {metric["prometheus_replica"] for metric, _ in rows} == {"a", "b"}
    assert all(100 < int(count) < 190 for _, count in rows)
    ((metric, count),) = standalone.query(counted)
    assert "prometheus_replica" not in metric
    assert int(count) > 205
