"""A receiver is drained under load, killed in the midst, started again, and put back to service.

writers, which repeat what gets 503 ──> receive <── querier
                                           └─ POST /-/drain, kill -9, start, drained?, DELETE
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import threading
import time
import urllib.request

import grpc
import pytest

from thanostack.lib.pb import store_pb2
from thanostack.receive.drain import MARKER
from thanostack.testing import held_samples
from thanostack.testing.bodies import request_body
from thanostack.testing.ports import free_port
from thanostack.testing.processes import our_query, our_receive, running, thanostack, until

pytestmark = pytest.mark.enable_socket
N_KILLS, N_WRITERS, N_PODS = 3, 4, 5
KILLED_WITHIN_S = 0.15
BLOCKS = ("--tsdb.min-block-duration=10s", "--tsdb.max-block-duration=10s")


class Node:
    """One data folder at fixed ports, whatever process serves it."""

    def __init__(self, folder):
        self.folder = folder
        self.ports = {"http_port": free_port(), "grpc_port": free_port(), "write_port": free_port()}

    def serve(self):
        ports = self.ports
        command = [
            *thanostack(), "receive", f"--tsdb.path={self.folder}", '--label=replica="a"',
            "--receive.enable-drain", *BLOCKS, f"--http-address=127.0.0.1:{ports['http_port']}",
            f"--grpc-address=127.0.0.1:{ports['grpc_port']}",
            f"--remote-write.address=127.0.0.1:{ports['write_port']}",
        ]  # fmt: skip
        return running("receive", command, self.folder.with_suffix(".log"), **ports)

    def ask(self, method="GET", path="/-/drain"):
        url = f"http://127.0.0.1:{self.ports['http_port']}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            return answer.status, json.load(answer)

    def until(self, state):
        def there():
            shown = self.ask()[1]
            assert shown["error"] is None
            return shown if shown["state"] == state else None

        return until(state, there)


def post(port, tenant, body):
    """Return the status, 0 for none, and the Retry-After header."""
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "THANOS-TENANT": tenant,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/api/v1/receive", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Retry-After")
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


class Writer(threading.Thread):
    """Sends samples of ever later times; what gets 503, or no answer, it sends again."""

    def __init__(self, number, port, times):
        super().__init__(daemon=True)
        self.number, self.port, self.times = number, port, times
        self.tenant = "ab"[number % 2]
        self.sent, self.acknowledged, self.statuses = [], [], []
        self.halt = threading.Event()
        self.start()

    def run(self):
        for t in self.times:
            self.sent.append(t)
            while not self.halt.is_set():
                begun, (status, retry_after) = time.monotonic(), self.post(t)
                self.statuses.append((status, begun))
                assert status != 503 or retry_after
                if status == 200:
                    self.acknowledged.append(t)
                if status in (200, 409):
                    break
                self.halt.wait(0.1)
            if self.halt.wait(0.02):
                return

    def post(self, t):
        return post(self.port, self.tenant, request_body(self.series([t])))

    def series(self, times, **more):
        for pod in range(N_PODS):
            labels = {"__name__": "sent", "pod": str(pod), "writer": str(self.number), **more}
            yield labels, [(t, float(t % 9973)) for t in times]

    def held(self, times):
        return held_samples.of_written(self.series(times, tenant_id=self.tenant, replica="a"))


@contextlib.contextmanager
def writing(node):
    """Write for the time of the block."""
    first = int(time.time() * 1000) - 3_600_000
    times = itertools.count(first, 200)
    writers = [Writer(n, node.ports["write_port"], times) for n in range(N_WRITERS)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.halt.set()
        for writer in writers:
            writer.join()


def read(querier):
    return held_samples.of_query(querier, '{__name__="sent"}[2h]', time.time(), dedup="false")


def all_of(writers, what):
    return {k: v for writer in writers for k, v in writer.held(list(getattr(writer, what))).items()}


def require_all(writers, querier):
    """What was acknowledged before now is there, and nothing that nobody sent.

    A querier asks endpoints every five seconds what they have; until then it may not ask them.
    """
    required = all_of(writers, "acknowledged")
    assert held_samples.size(required) > 0
    until(
        "all that was acknowledged", lambda: not held_samples.missing(required, read(querier)), 20
    )
    got = read(querier)
    assert held_samples.missing(got, all_of(writers, "sent")) == []


def acknowledged_between(writers, begun, ended):
    return [
        (status, at) for writer in writers for status, at in list(writer.statuses)
        if status == 200 and begun < at < ended
    ]  # fmt: skip


def more_acknowledged(writers):
    before = [len(writer.acknowledged) for writer in writers]
    until(
        "every writer to be acknowledged",
        lambda: all(
            len(w.acknowledged) > n + 5 for w, n in zip(writers, before, strict=True)
        ),
    )  # fmt: skip


def forward(node):
    """Write as a router does, and return the code."""
    request = store_pb2.WriteRequest(tenant="a")
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="forwarded")
    series.samples.add(timestamp=int(time.time() * 1000), value=1.0)
    with grpc.insecure_channel(f"127.0.0.1:{node.ports['grpc_port']}") as channel:
        call = channel.unary_unary("/thanos.WriteableStore/RemoteWrite")
        try:
            call(request.SerializeToString(), timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def health(node):
    with grpc.insecure_channel(f"127.0.0.1:{node.ports['grpc_port']}") as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        return call(b"", timeout=20)[1]


def test_drained_under_load_and_back(tmp_path):
    """What was acknowledged can be read at every moment; the heads are empty once it is drained."""
    node = Node(tmp_path / "data")
    with node.serve() as server, our_query(tmp_path, node.ports["grpc_port"]) as querier:
        server.wait_ready()
        querier.wait_ready()
        with writing(node) as writers:
            for _ in range(3):
                more_acknowledged(writers)
                assert node.ask("POST")[0] == 202
                begun = time.monotonic()
                require_all(writers, querier)
                shown = node.until("drained")
                require_all(writers, querier)
                assert set(shown["tenants"]) == {"a", "b", "default-tenant"}
                assert shown["tenants"]["a"]["blocks"]
                assert shown["tenants"]["a"]["uploaded"] is False
                assert set(server.metric("prometheus_tsdb_head_chunks")) == {0.0}
                assert (forward(node), health(node)) == (grpc.StatusCode.UNAVAILABLE, 2)
                assert acknowledged_between(writers, begun, time.monotonic()) == []
                assert node.ask("DELETE")[1]["state"] == "serving"
            more_acknowledged(writers)
            assert (forward(node), health(node)) == (grpc.StatusCode.OK, 1)
            require_all(writers, querier)


def test_killed_while_it_drains(tmp_path):
    """At any moment: the next process takes no write, ends the drain, and nothing is lost."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source, begun = random.Random(seed), 0.0
    node = Node(tmp_path / "data")
    with our_query(tmp_path, node.ports["grpc_port"]) as querier, writing(node) as writers:
        for life in range(N_KILLS + 1):
            with node.serve() as server:
                if life:
                    assert (node.folder / MARKER).exists()
                    node.until("drained")
                    require_all(writers, querier)
                    assert acknowledged_between(writers, begun, time.monotonic()) == []
                    assert node.ask("DELETE")[1]["state"] == "serving"
                server.wait_ready()
                more_acknowledged(writers)
                assert node.ask("POST")[0] == 202
                begun = time.monotonic()
                time.sleep(source.random() * KILLED_WITHIN_S)
                server.kill()


def test_a_router_takes_a_drained_node_for_one_that_is_away(tmp_path):
    """Its senders are told to come back, and are served once the node is back."""
    node = Node(tmp_path / "data")
    ring = json.dumps([{"endpoints": [f"127.0.0.1:{node.ports['grpc_port']}"]}])
    with node.serve() as server, our_receive(
        tmp_path / "router", f"--receive.hashrings={ring}", replica="router"
    ) as router:  # fmt: skip
        server.wait_ready()
        router.wait_ready()

        def send():
            body = request_body([({"__name__": "sent"}, [(int(time.time() * 1000), 1.0)])])
            return post(router.write_port, "a", body)

        assert send() == (200, None)
        node.ask("POST")
        status, retry_after = send()
        assert (status, bool(retry_after)) == (503, True)
        node.until("drained")
        assert send()[0] == 503
        node.ask("DELETE")
        until("the router to try again", lambda: send()[0] == 200)
