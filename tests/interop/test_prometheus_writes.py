"""A real Prometheus scrapes itself and writes to us, with both versions of remote write.

    Prometheus ──1.0──> receive a, tenant written-1  <── query (ours), query (real Thanos)
               ──2.0──> receive a, tenant written-2
"""

import pytest

from thanostack.testing import held_samples
from thanostack.testing.processes import free_port, prometheus, until

pytestmark = pytest.mark.interop
SCRAPES = 60
EVERYTHING = '{__name__=~".+"}[5m]'
ADDED = ("written_by", "replica", "tenant_id")
CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  external_labels: {{written_by: prometheus}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
- url: http://127.0.0.1:{to}/api/v1/receive
  headers: {{THANOS-TENANT: written-1}}
- url: http://127.0.0.1:{to}/api/v1/receive
  headers: {{THANOS-TENANT: written-2}}
  protobuf_message: io.prometheus.write.v2.Request
"""
SENT_UNTIL = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"


@pytest.fixture(scope="module")
def sender(pair, tmp_path_factory):
    """A Prometheus after a minute of scraping, and a time up to which all is sent."""
    port = free_port()
    folder = tmp_path_factory.mktemp("sender") / "prometheus"
    config = CONFIG.format(port=port, to=pair.a.write_port)
    with prometheus(folder, config=config, port=port) as server:
        server.wait_ready()

        def last_of_enough():
            found = server.api("query", query="up[5m]")["result"]
            return found and found[0]["values"][SCRAPES:]

        fence = float(until("a minute of scrapes", last_of_enough, 240)[-1][0])

        def all_sent():
            times = server.metric(SENT_UNTIL)
            return len(times) == 2 and min(times) >= fence + 2

        until("both queues beyond the fence", all_sent)
        for tenant in ("written-1", "written-2"):
            pair.await_label("tenant_id", tenant)
        yield server, folder, fence


@pytest.fixture(scope="module")
def own(sender):
    """What Prometheus itself answers."""
    server, _, fence = sender
    held = held_samples.of_query(server, EVERYTHING, fence)
    assert held_samples.size(held) > SCRAPES * 500
    return held


@pytest.mark.parametrize("tenant", ["written-1", "written-2"])
@pytest.mark.parametrize("querier", ["ours", "real"])
def test_every_sample_is_here(pair, sender, own, querier, tenant):
    """Whatever Prometheus holds up to the fence both queriers find with us, bit for bit."""
    query = EVERYTHING.replace("{", f'{{tenant_id="{tenant}", ')
    got = held_samples.of_query(getattr(pair, querier), query, sender[2], dedup="false")
    got = held_samples.without(got, *ADDED)
    print(f"{tenant}, {querier}: {held_samples.size(own)} there, {held_samples.size(got)} here")
    assert held_samples.differences(own, got) == []


@pytest.mark.parametrize("tenant", ["written-1", "written-2"])
def test_the_directories_hold_the_same(pair, sender, tenant, tmp_path):
    """The real promtool dumps the same from both directories, stale markers included."""
    _, folder, fence = sender
    theirs = held_samples.of_dump(folder, tmp_path, maxt=int(fence * 1000))
    ours_folder = pair.folder / "a" / tenant
    ours = held_samples.of_dump(ours_folder, tmp_path, maxt=int(fence * 1000))
    print(f"{tenant}: {held_samples.size(theirs)} there, {held_samples.size(ours)} here")
    assert held_samples.differences(theirs, held_samples.without(ours, *ADDED)) == []


def test_prometheus_counts_no_loss(sender):
    """Its own metrics say that nothing failed and nothing was dropped."""
    server, *_ = sender
    sent = server.metric("prometheus_remote_storage_samples_total")
    assert len(sent) == 2
    assert min(sent) > SCRAPES * 500
    for kind in ("samples", "histograms", "metadata"):
        for fate in ("failed", "dropped"):
            counts = server.metric(f"prometheus_remote_storage_{kind}_{fate}_total")
            print(f"{kind} {fate}: {counts}")
            assert not any(counts)
