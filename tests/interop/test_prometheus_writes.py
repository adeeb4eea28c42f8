"""A real Prometheus scrapes itself and writes to us, with both versions of remote write.

Prometheus ──1.0──> receive a, tenant written-1  <── query (ours), query (real Thanos)
           ──2.0──> receive a, tenant written-2
"""

import http.server
import threading

import pytest

from thanostack.testing import held_samples
from thanostack.testing.ports import free_port
from thanostack.testing.processes import prometheus, until

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
- job_name: short-lived
  static_configs: [{{targets: ["127.0.0.1:{short_lived}"]}}]
remote_write:
- url: http://127.0.0.1:{to}/api/v1/receive
  headers: {{THANOS-TENANT: written-1}}
- url: http://127.0.0.1:{to}/api/v1/receive
  headers: {{THANOS-TENANT: written-2}}
  protobuf_message: io.prometheus.write.v2.Request
"""
NAN = float("nan")
SENT_UNTIL = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"


class ShortLived(http.server.BaseHTTPRequestHandler):
    """Exposes odd values; when its server has ended, its series get stale markers.

    Not negative zero: Prometheus leaves it out of its requests as a default, and so sends zero.
    """

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b'odd{what="nan"} NaN\nodd{what="inf"} -Inf\n')
        self.wfile.write('odd{what="tiny","é"="\\\\ü\\""} 5e-324\n'.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def short_lived():
    with http.server.HTTPServer(("127.0.0.1", 0), ShortLived) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def sender(pair, short_lived, tmp_path_factory):
    """A Prometheus after a minute of scraping, and a time up to which all is sent."""
    port = free_port()
    folder = tmp_path_factory.mktemp("sender") / "prometheus"
    config = CONFIG.format(
        port=port, to=pair.a.write_port, short_lived=short_lived.server_address[1]
    )
    with prometheus(folder, config=config, port=port) as server:
        server.wait_ready()
        until(
            "the short-lived",
            lambda: server.api("query", query="count_over_time(odd[5m])>9")["result"],
        )
        short_lived.shutdown()
        short_lived.server_close()

        def last_of_enough():
            found = server.api("query", query='up{job="self"}[5m]')["result"]
            return found and found[0]["values"][SCRAPES:]

        fence = float(until("a minute of scrapes", last_of_enough, 240)[-1][0])

        def all_sent():
            times = server.metric(SENT_UNTIL)
            return len(times) == 2 and min(times) >= fence + 2

        until("both queues beyond the fence", all_sent)
        pair.await_result('up{tenant_id=~"written-.",job="self"}', fence, 2)
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
    odd = {dict(labels)["what"]: v for labels, v in theirs.items() if ("__name__", "odd") in labels}
    assert set(odd["inf"].values()) == {held_samples.bits(float("-inf")), held_samples.bits(NAN)}
    print(f"{tenant}: {held_samples.size(theirs)} there, {held_samples.size(ours)} here")
    assert held_samples.differences(theirs, held_samples.without(ours, *ADDED)) == []


def test_prometheus_counts_no_loss(sender):
    """Its own metrics say that nothing failed and nothing was dropped."""
    server, *_ = sender
    sent = server.metric("prometheus_remote_storage_samples_total")
    assert len(sent) == 2
    assert min(sent) > SCRAPES * 500
    for kind in ("samples", "histograms", "metadata"):
        assert server.metric(f"prometheus_remote_storage_{kind}_failed_total") == [0, 0]
    # This one has a label set a reason, from the first time on that it happens.
    assert server.metric("prometheus_remote_storage_samples_dropped_total") == []
    print(
        "sent:", sent, "retried:", server.metric("prometheus_remote_storage_samples_retried_total")
    )
