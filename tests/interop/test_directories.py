"""A tenant's directory is a Prometheus's data directory, in both directions.

written, blocks cut, SIGTERM     ours ──> promtool tsdb list, analyze, dump
written, kill -9                 ours ──> Prometheus
written or scraping, kill -9     Prometheus ──> ours ──> Prometheus
"""

import contextlib
import math
import random
import shutil
import subprocess
import threading
import time

import pytest

from thanostack.testing import held_samples
from thanostack.testing.bodies import request_body
from thanostack.testing.ports import free_port
from thanostack.testing.processes import our_query, our_receive, peer_program, prometheus, until

pytestmark = pytest.mark.interop
SMALL = ("--tsdb.min-block-duration=2m", "--tsdb.max-block-duration=2m")
SMALL_UPSTREAM = ("--storage.tsdb.min-block-duration=2m", "--storage.tsdb.max-block-duration=2m")
TENANT = "default-tenant"
SERIES = 200
ADDED_ROUNDS = 400
ODD = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2]
SELF = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Writer:
    """Sends rounds of back-dated samples and remembers which were acknowledged.

    Counters, gauges, odd floats, and series that live for a while only, so that the head also
    forgets some.

    Args:
        server: where to.
        start: ms of the first round; rounds are a second apart.
        tenant: "" for the default one.
    """

    def __init__(self, server, start, *, tenant=""):
        self.server, self.start, self.tenant = server, start, tenant
        self.next = 0
        self.acknowledged, self.in_flight = [], []
        self._source = random.Random(3)

    def round(self):
        """Return the series of the next round."""
        k = self.next
        self.next += 1
        t = self.start + 1000 * k
        for n in range(SERIES):
            if n % 10 == 0:
                value = ODD[(k + n) % len(ODD)]
            elif n % 2:
                value = float(k * n)
            else:
                value = self._source.gauss(n, 1)
            labels = {"__name__": f"written_{n % 4}", "n": str(n), "q": 'a"\\ü'}
            if n % 7 == 3:
                labels["period"] = str(k // 150)
            yield labels, [(t, value)]

    def send(self, rounds, pause_s=0.0):
        """Send rounds, half of the series a request; stop at the first one that breaks off."""
        for _ in range(rounds):
            series = list(self.round())
            for half in (series[: SERIES // 2], series[SERIES // 2 :]):
                self.in_flight = half
                self.server.send([request_body(half)], tenant=self.tenant)
                self.acknowledged += half
            time.sleep(pause_s)

    def send_until_killed(self):
        with contextlib.suppress(OSError):
            self.send(100_000)

    def held(self):
        return held_samples.of_written(self.acknowledged)


def ago_ms(minutes):
    return int(time.time() - 60 * minutes) * 1000


def blocks(folder):
    return [path.parent.name for path in folder.glob("*/meta.json")]


def stored(server, selector='{__name__=~"written_.+"}', **parameters):
    """Return all samples of a few hours, stale markers aside."""
    return held_samples.of_query(server, f"{selector}[3h]", time.time() + 60, **parameters)


def promtool(*arguments):
    command = [str(peer_program("promtool")), "tsdb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_promtool_accepts_blocks_cut_under_load(tmp_path):
    """After SIGTERM promtool lists and analyses our blocks, and dumps exactly what was written."""
    with our_receive(tmp_path / "data", *SMALL) as server:
        server.wait_ready()
        writer = Writer(server, ago_ms(60))
        folder = tmp_path / "data" / TENANT
        writer.send(700)
        # The writes that blocks are cut under.
        while len(blocks(folder)) < 3:
            assert writer.next < 3000
            writer.send(1, pause_s=0.01)
        wanted = (writer.next - 181) // 120
        until("blocks", lambda: len(blocks(folder)) >= wanted)
        server.stop()
    cut = blocks(folder)
    listed = promtool("list", folder)
    assert len(cut) == len(set(cut)) >= 4
    assert [name for name in cut if name not in listed] == []
    for name in (cut[0], cut[-1]):
        assert f"Block ID: {name}" in promtool("analyze", folder, name)
    got = held_samples.of_dump(folder, tmp_path)
    print(f"{held_samples.size(got)} samples, {len(cut)} blocks")
    assert held_samples.differences(writer.held(), got) == []


@pytest.mark.parametrize("flags", [(), SMALL], ids=["default", "small blocks"])
def test_prometheus_opens_what_a_kill_left(tmp_path, flags):
    """After kill -9 amid writes a Prometheus finds all that was acknowledged, and nothing else."""
    folder = tmp_path / "data" / TENANT
    with our_receive(tmp_path / "data", *flags) as server:
        server.wait_ready()
        writer = Writer(server, ago_ms(100))
        sending = threading.Thread(target=writer.send_until_killed)
        sending.start()
        until("rounds", lambda: writer.next > 700 and (not flags or len(blocks(folder)) >= 2))
        server.kill()
        sending.join()
    with prometheus(folder) as server:
        server.wait_ready()
        got = stored(server)
        count = server.api("query", query='sum(count_over_time({__name__=~"written_.+"}[3h]))')
    expected = writer.held()
    maybe = held_samples.of_written([*writer.acknowledged, *writer.in_flight])
    size = held_samples.size(expected)
    print(f"{size} acknowledged, {held_samples.size(got)} found, blocks: {len(blocks(folder))}")
    assert held_samples.missing(expected, got) == []
    assert held_samples.missing(got, maybe) == []
    assert int(count["result"][0]["value"][1]) == held_samples.size(got) >= size


@pytest.fixture(scope="class")
def moved(tmp_path_factory):
    """Directories that Prometheus left when it was killed, as tenants of ours, and copies."""
    root = tmp_path_factory.mktemp("moved")
    port = free_port()
    with contextlib.ExitStack() as stack:
        scraping = stack.enter_context(
            prometheus(root / "scraped", config=SELF.format(port=port), port=port)
        )
        written = stack.enter_context(prometheus(root / "written", *SMALL_UPSTREAM))
        written.wait_ready()
        writer = Writer(written, ago_ms(40))
        writer.send(900)
        until("blocks", lambda: len(blocks(root / "written")) >= 4)
        writer.send(20)
        scraping.wait_ready()
        until("scrapes", lambda: scraping.api("query", query="sum_over_time(up[5m])>20")["result"])
        scraping.kill()
        written.kill()
    for name in ("scraped", "written"):
        shutil.copytree(root / name, root / "copies" / name)
        (root / "tenants").mkdir(exist_ok=True)
        (root / name).rename(root / "tenants" / name)
    return root, writer


@pytest.fixture(scope="class")
def there(moved):
    """What Prometheus itself finds in copies of the directories."""
    root, _ = moved
    held = {}
    for name in ("scraped", "written"):
        with prometheus(root / "copies" / name) as server:
            server.wait_ready()
            held[name] = stored(server, '{__name__!=""}')
    return held


class TestThereAndBack:
    """Prometheus, ours, Prometheus on the same directories."""

    def test_we_open_what_a_kill_left(self, moved, there):
        """Our receiver serves the samples that Prometheus serves from a copy, and can go on."""
        root, writer = moved
        assert held_samples.differences(writer.held(), there["written"]) == []
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(our_receive(root / "tenants", *SMALL))
            querier = stack.enter_context(our_query(root, server.grpc_port))
            server.wait_ready()
            querier.wait_ready()
            until("tenants", lambda: len(querier.api("label/tenant_id/values")) == 2)
            for name, expected in there.items():
                got = stored(querier, f'{{tenant_id="{name}", __name__!=""}}', dedup="false")
                got = held_samples.without(got, "replica", "tenant_id")
                print(f"{name}: {held_samples.size(expected)} there, {held_samples.size(got)} here")
                assert held_samples.size(expected) > 10_000
                assert held_samples.differences(expected, got) == []
            writer.server, writer.tenant = server, "written"
            folder = root / "tenants" / "written"
            n_blocks = len(blocks(folder))
            writer.send(ADDED_ROUNDS)
            until("a block of ours", lambda: len(blocks(folder)) > n_blocks)

    def test_prometheus_goes_on(self, moved, there):
        """Back under Prometheus all three parts are there, and it can go on writing."""
        root, writer = moved
        before = held_samples.size(there["written"])
        assert held_samples.size(writer.held()) == before + ADDED_ROUNDS * SERIES
        with prometheus(root / "tenants" / "written") as server:
            server.wait_ready()
            writer.server, writer.tenant = server, ""
            writer.send(50)
            got = stored(server)
        print(f"{before}, then {held_samples.size(got)} with ours and its own")
        assert held_samples.differences(writer.held(), got) == []
        with prometheus(root / "tenants" / "scraped") as server:
            server.wait_ready()
            got = stored(server, '{__name__!=""}')
        assert held_samples.differences(there["scraped"], got) == []
