"""A receive cluster under load is broken in every way that needs no root: no write is refused.

The rest (a link that is cut, a disk that is full) is in `tests/interop`; long runs are `make soak`.
"""

from __future__ import annotations

import http.server
import random
import socket
import threading
import time

import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.processes import until
from thanostack.testing.receive_cluster import log_tails
from thanostack.testing.receive_faults import SLOPPY, SLOPPY_FAULTS, node_cluster, plain_cluster
from thanostack.testing.receive_trial import END, Trial
from thanostack.testing.relay import Relay
from thanostack.testing.write_senders import Senders, Service

pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(600)]
EACH = ("kill-ingestor", "kill-router", "slow-ingestor", "rolling-restart")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """One cluster for most tests: five ingestors, three of them in the ring at first."""
    with plain_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def check(started, seed, names, capsys):
    """Break it in this order; print a line for each fault, whatever becomes of it."""
    cluster, faults = started
    trial = Trial(cluster, Senders(seed, cluster.service), random.Random(seed))
    tallies = []
    for tally in trial.run((name, faults[name]) for name in names):
        tallies.append(tally)
        with capsys.disabled():
            print(f"\n{tally}", end="")
    bad = [(str(tally), tally.details[:10]) for tally in tallies if not tally.is_good]
    assert bad == [], log_tails(cluster)
    # The proof is worth something only if there was a load, and nearly all of it had to be there.
    assert all(tally.acknowledged + tally.cut == tally.sent for tally in tallies)
    # A node that stands still holds up who is connected to it, until it goes on.
    least = {"slow-node": 3, END: -1}
    assert all(tally.sent > least.get(tally.fault, 20) for tally in tallies)
    may_cut = ("kill-router", "kill-node")
    assert all(tally.cut <= 4 * (tally.fault in may_cut) for tally in tallies)


def test_nothing_is_refused_or_lost_with_three_ingestors(started, capsys):
    """Each fault in a row, under one load; then the ring grows."""
    check(started, 3, (*EACH, "grow"), capsys)


def test_nothing_is_refused_or_lost_with_five_ingestors(started, capsys):
    """The same; one is drained, stopped and comes back; and the ring shrinks."""
    check(started, 5, (*EACH, "drain", "shrink"), capsys)


def test_nobody_waits_for_an_ingestor_that_answers_late(started, capsys):
    """Two seconds late: no write takes as long as that, with the two others of three."""
    check(started, 6, ("late-ingestor", "kill-ingestor"), capsys)


def test_nothing_is_refused_or_lost_where_ingestors_are_routers(tmp_path, capsys):
    """A node that dies takes a router and an ingestor with it."""
    with node_cluster(tmp_path) as started:
        check(started, 4, ("kill-node", "slow-node", "rolling-restart"), capsys)


def test_two_may_die_where_the_next_node_takes_their_share(started, capsys):
    """With sloppy quorum; without it the series that both of them have are refused."""
    cluster, _ = started
    for router in cluster.routers:
        router.server.stop()
        router.flags += (SLOPPY,)
        router.restart()
    check((cluster, SLOPPY_FAULTS), 2, ("grow", "kill-two", "slow-ingestor"), capsys)


def test_a_late_relay_is_late():
    """Its answers come in order, as late as it was told, and requests do not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Relay(server.getsockname())
        client = socket.create_connection(("127.0.0.1", relay.port), 5)
        peer, _ = server.accept()
        with client, peer:
            peer.settimeout(20)
            relay.set_delay(60)
            client.sendall(b"ask")
            assert peer.recv(3) == b"ask"
            relay.set_delay(0.4)
            begun_s = time.monotonic()
            peer.sendall(b"a")
            assert client.recv(1) == b"a"
            assert time.monotonic() - begun_s >= 0.4
            peer.sendall(b"late")
            time.sleep(0.1)
            relay.set_delay(0)
            peer.sendall(b"soon")
            # Not recv with MSG_WAITALL: a socket with a timeout returns what is there.
            assert client.makefile("rb").read(8) == b"latesoon"
        relay.close()


class Router(http.server.BaseHTTPRequestHandler):
    """Answers every write alike, and writes nothing; no status for a broken connection."""

    protocol_version = "HTTP/1.1"
    status = 200

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.status:
            self.close_connection = True
            return
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def tally_with(started, status, fault=lambda _: None):
    """Return what the books say of senders whose router is not one."""
    handler = type("Broken", (Router,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        service = Service()
        service.add("broken", server.server_address)
        senders = Senders(100 + status, service)
        trial = Trial(started[0], senders, random.Random(1), patience_s=0.1)
        tally, _ = trial.run([("nothing", fault)])
        server.shutdown()
    return tally


def test_the_books_can_say_no(started):
    """A router that acknowledges and stores nothing, one that refuses, one that hangs up."""
    liar = tally_with(started, 200)
    assert liar.lost >= liar.acknowledged * 24 > 0 == liar.readable
    refuser = tally_with(started, 503)
    assert refuser.refused == {"503": refuser.sent}
    hanging_up = tally_with(started, 0)
    assert hanging_up.refused == {"reset": hanging_up.sent}
    assert not any(tally.is_good for tally in (liar, refuser, hanging_up))


def test_a_sample_that_nobody_sent_is_found_out(started):
    """It is in the cluster, under the labels of a sender, at a time that the sender never had."""

    def invent(trial):
        labels, ((t, _),) = next(trial.senders.senders[0].samples(0))
        started[0].routers[0].server.send([request_body([(labels, [(t - 1, 1.0)])])])
        # A querier that knew nobody with samples needs seconds to hear of them.
        until("the sample", trial.held)

    assert tally_with(started, 503, invent).invented == 1


def test_nobody_behind_a_service_is_a_refusal():
    """As a sender sees it."""
    senders = Senders(1, Service(), n=1)
    senders.await_writes(2)
    senders.halt()
    assert {write.outcome for write in senders.between([0], senders.mark())} == {"no endpoint"}
