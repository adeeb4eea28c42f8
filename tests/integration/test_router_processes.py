"""Real receivers of ours in a ring: nodes die, rings grow and shrink, and no write is refused.

sender, without retries ──1.0──> router ──gRPC──> ingestors  <── query
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time

import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.ports import free_port
from thanostack.testing.processes import our_query, our_receive, until

pytestmark = pytest.mark.enable_socket
N_SERIES, N_BODIES = 240, 3
KETAMA = "--receive.hashrings-algorithm=ketama"


def addresses(servers):
    return [f"127.0.0.1:{server.grpc_port}" for server in servers]


def ring_of(names):
    return json.dumps([{"hashring": "default", "endpoints": names}])


class Sender(threading.Thread):
    """Sends a sample of every series again and again, none twice; counts what is not 200."""

    def __init__(self, port, pause_s=0.02):
        super().__init__(daemon=True)
        self.port, self.pause_s = port, pause_s
        self.refused, self.n_rounds = [], 0
        self.begun_ms = int(time.time() * 1000) - 600_000
        self.halt = threading.Event()
        self.start()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        while not self.halt.wait(self.pause_s):
            for body in self.bodies(self.n_rounds):
                try:
                    connection.request("POST", "/api/v1/receive", body, headers)
                    answer = connection.getresponse()
                    text = answer.read()
                    if answer.status != 200:
                        self.refused.append((self.n_rounds, answer.status, text[:300]))
                except (OSError, http.client.HTTPException) as error:
                    self.refused.append((self.n_rounds, 0, repr(error)))
                    connection.close()
            self.n_rounds += 1
        connection.close()

    def bodies(self, number):
        t = self.begun_ms + number * 1000
        for part in range(N_BODIES):
            pods = range(part, N_SERIES, N_BODIES)
            yield request_body(
                ({"__name__": "sent", "pod": f"pod-{n}"}, [(t, float(number))]) for n in pods
            )

    def after(self, n_rounds):
        """Wait until so many more rounds are sent."""
        wanted = self.n_rounds + n_rounds
        until(f"round {wanted}", lambda: self.n_rounds >= wanted or not self.is_alive())
        assert self.is_alive()

    def stop(self):
        self.halt.set()
        self.join()
        print(f"{self.n_rounds} rounds of {N_SERIES} series, refused: {self.refused}")


def samples_of(query, sender):
    """Return the samples of every series by time, whichever nodes have them."""
    at_s, range_s = sender.begun_ms / 1000 + sender.n_rounds, sender.n_rounds + 60
    found = query.api("query", query=f"sent[{range_s}s]", time=at_s, dedup="false")["result"]
    samples = {}
    for series in found:
        samples.setdefault(series["metric"]["pod"], {}).update(series["values"])
    return samples


def check_everything_is_there(query, sender):
    """Every series has every sample, and no other."""
    sent = {sender.begun_ms / 1000 + n: str(n) for n in range(sender.n_rounds)}
    expected = {f"pod-{n}": sent for n in range(N_SERIES)}
    until("all samples", lambda: samples_of(query, sender) == expected, 30)


def check_each_had_everything(ingestors, sender):
    """Each sample came to each once: the last replica later, a few behind a newer one."""

    def total(ingestor, name):
        return sum(ingestor.metric(f"prometheus_tsdb_{name}_total"))

    def n_had(ingestor):
        names = ("head_samples_appended", "out_of_order_samples")
        return sum(total(ingestor, name) for name in names)

    expected = [sender.n_rounds * N_SERIES] * len(ingestors)
    until("each sample at each", lambda: [n_had(i) for i in ingestors] == expected, 30)
    assert max(total(i, "out_of_order_samples") for i in ingestors) <= 3 * N_SERIES


@contextlib.contextmanager
def cluster(folder, n, *flags):
    """Start ingestors and wait for them."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(our_receive(folder / f"i{i}", *flags, replica=f"r{i}"))
            for i in range(n)
        ]
        for server in servers:
            server.wait_ready()
        yield servers


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_a_killed_ingestor_costs_no_write(tmp_path, compression):
    """Three replicas: one is killed under load and comes back; all samples are there in the end."""
    folder = tmp_path / "router"
    with cluster(tmp_path, 3) as ingestors, contextlib.ExitStack() as stack:
        flags = (
            f"--receive.hashrings={ring_of(addresses(ingestors))}", KETAMA,
            "--receive.replication-factor=3", f"--receive.grpc-compression={compression}",
        )  # fmt: skip
        router = stack.enter_context(our_receive(folder, *flags))
        query = stack.enter_context(our_query(tmp_path, *[i.grpc_port for i in ingestors]))
        router.wait_ready()
        query.wait_ready()
        sender = Sender(router.write_port)
        sender.after(20)
        ingestors[1].kill()
        sender.after(40)
        dead = ingestors[1]
        again = our_receive(tmp_path / "i1", replica="r1", grpc_port=dead.grpc_port)
        again = stack.enter_context(again)
        again.wait_ready()
        sender.after(40)
        sender.stop()
        assert sender.refused == []
        check_everything_is_there(query, sender)
        assert not folder.exists(), "a router without storage touched its folder"
        assert router.metric("thanos_receive_forward_requests_total")[1] > 0
        check_each_had_everything(ingestors[::2], sender)


def test_a_ring_that_grows_and_shrinks_costs_no_write(tmp_path):
    """The file changes under load: one node more, then another one less."""
    file = tmp_path / "hashrings.json"
    with cluster(tmp_path, 4) as ingestors, contextlib.ExitStack() as stack:
        names = addresses(ingestors)
        file.write_text(ring_of(names[:3]))
        flags = (f"--receive.hashrings-file={file}", KETAMA, "--receive.replication-factor=2")
        router = stack.enter_context(our_receive(tmp_path / "router", *flags))
        query = stack.enter_context(our_query(tmp_path, *[i.grpc_port for i in ingestors]))
        router.wait_ready()
        query.wait_ready()
        sender = Sender(router.write_port)
        sender.after(20)
        for wanted in (names, names[1:]):
            before = router.metric("thanos_receive_config_hash")
            file.write_text(ring_of(wanted))
            until(
                "the new ring",
                lambda old=before: router.metric("thanos_receive_config_hash") != old,
            )
            assert router.metric("thanos_receive_hashring_nodes") == [len(wanted)]
            sender.after(20)
        file.write_text("[]")
        errors = "thanos_receive_hashrings_file_errors_total"
        until("the bad file to be noticed", lambda: router.metric(errors) != [0.0])
        sender.after(10)
        sender.stop()
        assert sender.refused == []
        check_everything_is_there(query, sender)
        assert min(len(i.metric("prometheus_tsdb_head_series")) for i in ingestors) > 0


def test_three_routers_that_store_are_a_ring(tmp_path):
    """Each takes writes, stores its share without a socket, and hands the rest to the others."""
    ports = [free_port() for _ in range(3)]
    file = tmp_path / "hashrings.json"
    names = [f"127.0.0.1:{port}" for port in ports]
    label = {"external_labels": {"ring": "blue"}, "tenants": ["default-tenant"]}
    file.write_text(json.dumps([{"hashring": "a", "endpoints": names, **label}]))
    with contextlib.ExitStack() as stack:
        servers = []
        for n, name in enumerate(names):
            flags = (
                f"--receive.hashrings-file={file}",
                KETAMA,
                "--receive.replication-factor=3",
                f"--receive.local-endpoint={name}",
            )
            server = our_receive(tmp_path / f"n{n}", *flags, replica=f"r{n}", grpc_port=ports[n])
            servers.append(stack.enter_context(server))
        query = stack.enter_context(our_query(tmp_path, *ports))
        for server in (*servers, query):
            server.wait_ready()
        sender = Sender(servers[0].write_port)
        sender.after(15)
        servers[2].kill()
        sender.after(15)
        sender.stop()
        assert sender.refused == []
        check_everything_is_there(query, sender)
        check_each_had_everything(servers[:2], sender)
        labels = query.api("query", query="group by (ring) (sent)", time=sender.begun_ms / 1000)
        assert [series["metric"] for series in labels["result"]] == [{"ring": "blue"}]
        # The ring's labels change while it runs.
        file.write_text(
            json.dumps(
                [{"hashring": "a", "endpoints": names, "tenants": ["x"]}, {"endpoints": names}]
            )
        )

        def unlabelled():
            found = query.api("query", query="group by (ring) (sent)", time=sender.begun_ms / 1000)
            return [series["metric"] for series in found["result"]] == [{}]

        until("the ring's label to go", unlabelled, 30)


def test_a_router_without_a_ring_says_so(tmp_path):
    """It is not ready, writes are told to come back, and it needs no restart."""
    file = tmp_path / "hashrings.json"
    with (
        cluster(tmp_path, 1) as ingestors,
        our_receive(tmp_path / "router", f"--receive.hashrings-file={file}") as router,
    ):
        until(
            "a listening port", lambda: router.metric("thanos_receive_hashrings_file_errors_total")
        )

        def write():
            body = next(Sender.bodies(FakeSender(), 0))
            connection = http.client.HTTPConnection("127.0.0.1", router.write_port, timeout=30)
            connection.request("POST", "/api/v1/receive", body)
            answer = connection.getresponse()
            return answer.status, answer.headers["Retry-After"], answer.read()

        status, retry_after, text = until("an answer", write)
        assert (status, retry_after) == (503, "5")
        assert b"not ready" in text
        file.write_text(ring_of(addresses(ingestors)))
        router.wait_ready()
        assert write()[0] == 200


class FakeSender:
    begun_ms = 1_700_000_000_000
