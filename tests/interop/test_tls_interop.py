"""TLS beside the real Prometheus and Thanos: they speak it to us and we to them, both ways mutual.

Prometheus ──mTLS, password──> receive (ours) <──mTLS── query (real), query (ours)
router (real) ──mTLS, snappy──> receive (ours)
router (ours) ──mTLS, snappy──> receive (ours), receive (real)
receive (real) <──mTLS── query (ours)
"""

import contextlib
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.certificates import Authority, Pair
from thanostack.testing.ports import free_port
from thanostack.testing.processes import (
    Server,
    our_query,
    our_receive,
    peer_program,
    prometheus,
    thanos_query,
    thanos_receive,
    until,
)

pytestmark = [pytest.mark.interop, pytest.mark.enable_socket]
APPENDED = "prometheus_tsdb_head_samples_appended_total"
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
- url: https://127.0.0.1:{to}/api/v1/receive
  tls_config: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}
  basic_auth: {{username: sender, password: secret}}
"""


@dataclass
class Files:
    """A CA, a server's certificate and a client's, in one folder."""

    folder: Path
    authority: Authority
    server: Pair
    client: Pair

    def server_flags(self, prefix):
        return [
            f"--{prefix}-cert={self.server.cert}",
            f"--{prefix}-key={self.server.key}",
            f"--{prefix}-client-ca={self.authority.file}",
        ]

    def client_flags(self, prefix):
        return [
            f"--{prefix}-secure",
            f"--{prefix}-cert={self.client.cert}",
            f"--{prefix}-key={self.client.key}",
            f"--{prefix}-ca={self.authority.file}",
        ]

    def sd_config(self, port):
        """Return an endpoint file where TLS is the endpoint's own."""
        tls = {
            "enabled": True,
            "cert_file": str(self.client.cert),
            "key_file": str(self.client.key),
            "ca_file": str(self.authority.file),
        }
        endpoint = {"address": f"127.0.0.1:{port}", "client_config": {"tls_config": tls}}
        return json.dumps({"endpoints": [endpoint]})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    server = authority.issue("server")
    return Files(folder, authority, server, authority.issue("client", common_name="certified"))


@pytest.fixture(scope="module")
def receive(files):
    """Our receiver, TLS on both ports, connections of gRPC clients at most two seconds old."""
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    web = files.folder / "write.yml"
    web.write_text(f"basic_auth_users: {{sender: {hashed}}}\n")
    flags = [
        *files.server_flags("grpc-server-tls"),
        *files.server_flags("remote-write.server-tls"),
        f"--remote-write.http-config={web}",
        "--receive.tenant-certificate-field=commonName",
        "--grpc-server-max-connection-age=2s",
    ]
    with our_receive(files.folder / "ours", *flags) as server:
        server.wait_ready()
        yield server


def count_of(server: Server, query):
    found = server.api("query", query=query)["result"]
    return float(found[0]["value"][1]) if found else 0.0


def queriers(files, receiver):
    """Return both queriers, told by flags, and both told by the endpoint file, as contexts."""
    by_flag = ("--endpoint", *files.client_flags("grpc-client-tls"))
    flags = (f"--endpoint=127.0.0.1:{receiver.grpc_port}", *by_flag[1:])
    by_file = (f"--endpoint.sd-config={files.sd_config(receiver.grpc_port)}",)
    return {
        "real, flags": thanos_query(files.folder, flags=flags),
        "real, file": thanos_query(files.folder, flags=by_file),
        "ours, flags": our_query(files.folder, flags=flags),
        "ours, file": our_query(files.folder, flags=by_file),
    }


def test_prometheus_writes_and_everybody_reads(files, receive):
    """With its certificate and its password; the tenant is the certificate's common name."""
    port = free_port()
    config = CONFIG.format(
        port=port, to=receive.write_port, ca=files.authority.file, cert=files.client.cert,
        key=files.client.key,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = files.folder / "prometheus"
        server = stack.enter_context(prometheus(folder, config=config, port=port))
        server.wait_ready()
        found = {name: stack.enter_context(made) for name, made in queriers(files, receive).items()}
        for querier in found.values():
            querier.wait_ready()
        query = 'count({tenant_id="certified", __name__=~".+"})'
        for name, querier in found.items():
            until(f"series at {name}", lambda q=querier: count_of(q, query) > 100)
        assert server.metric("prometheus_remote_storage_samples_failed_total") == [0]
        assert server.metric("prometheus_remote_storage_samples_total")[0] > 100
        # Before they are stopped, perhaps in a handshake.
        assert sum(receive.metric("thanostack_tls_handshake_failures_total")) == 0


def test_a_wrong_password_is_prometheus_problem(files, receive):
    """It is told 401 and drops: nothing is stored for another tenant."""
    other = files.authority.issue("other", common_name="other")
    port = free_port()
    config = CONFIG.format(
        port=port, to=receive.write_port, ca=files.authority.file, cert=other.cert, key=other.key
    ).replace("secret", "wrong")
    folder = files.folder / "wrong"
    with prometheus(folder, config=config, port=port) as server:
        server.wait_ready()
        failed = "prometheus_remote_storage_samples_failed_total"
        until("refusals", lambda: sum(server.metric(failed)) > 0)


def test_a_router_forwards(files, receive):
    """The real router, with its defaults, snappy among them, as the hashring's client."""
    ring = json.dumps([{"endpoints": [f"127.0.0.1:{receive.grpc_port}"]}])
    flags = [f"--receive.hashrings={ring}", *files.client_flags("remote-write.client-tls")]
    with thanos_receive(files.folder / "router", *flags) as router:
        router.wait_ready()
        now = int(time.time() * 1000)
        rows = [({"__name__": "routed", "n": str(n)}, [(now, 1.0)]) for n in range(50)]
        until("a forward", lambda: _sends(router, request_body(rows)))
    query_flags = (
        f"--endpoint=127.0.0.1:{receive.grpc_port}",
        *files.client_flags("grpc-client-tls"),
    )
    with our_query(files.folder, flags=query_flags) as ours:
        ours.wait_ready()
        until("routed series", lambda: count_of(ours, 'count(routed{tenant_id="routed"})') == 50)


def routed_rows(name):
    now = int(time.time() * 1000)
    return [({"__name__": name, "n": str(n)}, [(now, 1.0)]) for n in range(50)]


def refusal(router, name):
    """Return what a router says of a write that no node takes."""
    with pytest.raises(RuntimeError, match=r" 503 ") as raised:
        router.send([request_body(routed_rows(name))])
    return str(raised.value)


@pytest.fixture(scope="module")
def real(files):
    """A real receiver, which asks gRPC clients for a certificate as ours does."""
    folder = files.folder / "beside"
    with thanos_receive(folder, *files.server_flags("grpc-server-tls")) as server:
        server.wait_ready()
        yield server


def our_router(files, name, nodes, *flags):
    ring = json.dumps([{"endpoints": [f"127.0.0.1:{node.grpc_port}" for node in nodes]}])
    flags = (f"--receive.hashrings={ring}", f"--receive.replication-factor={len(nodes)}", *flags)
    return our_receive(files.folder / name, *flags)


def test_our_router_forwards(files, receive, real):
    """To receivers of both kinds, and with a new certificate once it is there."""
    tls = files.client_flags("remote-write.client-tls")
    with our_router(files, "our-router", [receive, real], *tls) as router:
        router.wait_ready()
        before = [sum(node.metric(APPENDED)) for node in (receive, real)]
        router.send([request_body(routed_rows("forwarded"))])
        for node, count in zip((receive, real), before, strict=True):
            until("all series", lambda n=node, c=count: sum(n.metric(APPENDED)) == c + 50)
        assert sum(router.metric("thanostack_tls_handshake_failures_total")) == 0


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("ours", "no certificate", "and none is configured"),
        ("real", "no certificate", "none is given"),
        ("ours", "foreign certificate", "may not accept our certificate"),
        ("real", "foreign certificate", "not trust the certificate's CA"),
        ("ours", "name", "certificate is not accepted: .*elsewhere"),
        ("ours", "foreign CA", "certificate is not accepted: .*certificate"),
        ("ours", "no TLS", "if it wants TLS, give --remote-write.client-tls-secure"),
    ],
)
def test_a_wrong_certificate_is_what_the_sender_is_told(files, receive, real, kind, wrong, said):
    """And to come back; what each side can know, as ours cannot send TLS's own words for it."""
    other = Authority(files.folder / "other")
    ours = files.client_flags("remote-write.client-tls")
    flags = {
        "no certificate": [ours[0], ours[3]],
        "foreign certificate": [*ours[::3], *_pair_flags(other.issue("foreign"))],
        "name": [*ours, "--remote-write.client-server-name=elsewhere"],
        "foreign CA": [*ours[:3], f"--remote-write.client-tls-ca={other.file}"],
        "no TLS": [],
    }[wrong]
    node = receive if kind == "ours" else real
    with our_router(files, "wrong-router", [node], *flags) as router:
        router.wait_ready()
        with pytest.raises(RuntimeError, match=f" 503 .*{said}"):
            router.send([request_body(routed_rows("never"))])


def _pair_flags(pair):
    prefix = "--remote-write.client-tls"
    return [f"{prefix}-cert={pair.cert}", f"{prefix}-key={pair.key}"]


def _sends(router, body):
    try:
        router.send([body], tenant="routed")
    except RuntimeError:  # not ready yet, or the first connection is being made
        return False
    return True


def test_a_new_certificate_under_real_clients(files, receive):
    """A real querier whose connections age away meets the new one, and goes on answering."""
    failures = "thanostack_tls_handshake_failures_total"
    before = sum(receive.metric(failures))
    flags = (
        f"--endpoint=127.0.0.1:{receive.grpc_port}",
        *files.client_flags("grpc-client-tls"),
    )
    with thanos_query(files.folder, flags=flags) as real:
        real.wait_ready()
        query = 'count(last_over_time({tenant_id=~".+", __name__=~".+"}[1h]))'
        until("an answer", lambda: count_of(real, query) > 0)
        files.authority.issue("server")
        reloads = "thanostack_tls_reloads_total"
        until("the new certificate", lambda: sum(receive.metric(reloads)) > 0)
        ends = time.monotonic() + 8
        while time.monotonic() < ends:
            assert count_of(real, query) > 0
            time.sleep(0.5)
        assert sum(receive.metric(failures)) == before


def test_we_read_a_real_receiver(files):
    """Over its mTLS; without our certificate we are refused, and say so."""
    folder = files.folder / "real"
    with contextlib.ExitStack() as stack:
        flags = files.server_flags("grpc-server-tls")
        real = stack.enter_context(thanos_receive(folder, *flags))
        real.wait_ready()
        now = int(time.time() * 1000)
        real.send([request_body([({"__name__": "there"}, [(now, 7.0)])])])
        by = {name: made for name, made in queriers(files, real).items() if "ours" in name}
        for name, made in by.items():
            ours = stack.enter_context(made)
            ours.wait_ready()
            until(f"the value at {name}", lambda q=ours: count_of(q, "there") == 7.0)
        bare = (
            f"--endpoint-strict=127.0.0.1:{real.grpc_port}",
            "--grpc-client-tls-secure",
            f"--grpc-client-tls-ca={files.authority.file}",
        )
        ours = stack.enter_context(our_query(files.folder, flags=bare))
        ours.wait_ready()

        def error():
            page = ours.api("stores")
            return next((one["lastError"] for kind in page.values() for one in kind), None)

        assert "asks for a certificate, none is given" in until("the refusal", error)


def test_promtool_reads_through_a_web_configuration(files, receive):
    """HTTPS and a password on our querier's HTTP port, for Prometheus's own client."""
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    web = files.folder / "web.yml"
    web.write_text(
        f"tls_server_config: {{cert_file: {files.server.cert}, key_file: {files.server.key}}}\n"
        f"basic_auth_users: {{reader: {hashed}}}\n"
    )
    client = files.folder / "client.yml"
    with our_query(files.folder, flags=(f"--http.config={web}",)) as ours:

        def ask(password):
            client.write_text(
                f"tls_config: {{ca_file: {files.authority.file}}}\n"
                f"basic_auth: {{username: reader, password: {password}}}\n"
            )
            url = f"https://127.0.0.1:{ours.http_port}"
            command = [
                str(peer_program("promtool")), "query", "instant",
                f"--http.config.file={client}", url, "vector(42)",
            ]  # fmt: skip
            return subprocess.run(command, capture_output=True, text=True, check=False)

        until("an answer", lambda: "42" in ask("secret").stdout)
        assert "401" in ask("wrong").stderr or "nauthorized" in ask("wrong").stderr
