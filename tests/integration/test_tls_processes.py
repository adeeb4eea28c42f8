"""A receiver and a querier that speak TLS on every port, as real processes.

sender ──mTLS, password──> receive <──mTLS── query <──mTLS── reader
         tenant: organization                       tenant: common name
"""

import contextlib
import ssl
import subprocess
import time

import bcrypt
import cramjam
import httpx
import pytest

from thanostack.testing.certificates import Authority, replace
from thanostack.testing.processes import our_query, our_receive, thanostack, until
from thanostack.testing.write_storage import write_request

pytestmark = pytest.mark.enable_socket
PASSWORD = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users: {{sender: {PASSWORD}}}\n"


class World:
    """A CA, and the certificates and files of both processes."""

    def __init__(self, folder):
        self.folder, self.authority = folder, Authority(folder / "tls")
        self.server = self.authority.issue("server")
        self.querier = self.authority.issue("querier", "querier")
        self.web = folder / "web.yml"
        self.web.write_text(self.web_text("RequireAndVerifyClientCert"))
        self.write_web = folder / "write.yml"
        self.write_web.write_text(USERS)

    def web_text(self, auth):
        return (
            f"tls_server_config: {{cert_file: tls/server.pem, key_file: {self.server.key}, "
            f"client_auth_type: {auth}, client_ca_file: tls/ca.pem}}\n"
            "http_server_config: {headers: {X-Frame-Options: deny}}\n"
        )

    def receive_flags(self):
        ca, pair = self.authority.file, self.server
        return [
            f"--grpc-server-tls-cert={pair.cert}", f"--grpc-server-tls-key={pair.key}",
            f"--grpc-server-tls-client-ca={ca}", f"--remote-write.server-tls-cert={pair.cert}",
            f"--remote-write.server-tls-key={pair.key}",
            f"--remote-write.server-tls-client-ca={ca}",
            f"--remote-write.http-config={self.write_web}",
            "--receive.tenant-certificate-field=commonName",
        ]  # fmt: skip

    def query_flags(self):
        ca, pair = self.authority.file, self.querier
        return (
            "--grpc-client-tls-secure", f"--grpc-client-tls-ca={ca}",
            f"--grpc-client-tls-cert={pair.cert}", f"--grpc-client-tls-key={pair.key}",
            f"--http.config={self.web}", "--query.enforce-tenancy",
            "--query.tenant-certificate-field=organization",
        )  # fmt: skip

    def client(self, name=None, **subject):
        """Return an HTTP client with a certificate of the CA, or without."""
        context = ssl.create_default_context(cafile=self.authority.file)
        if name is not None:
            pair = self.authority.issue(name, name, **subject)
            context.load_cert_chain(pair.cert, pair.key)
        return httpx.Client(verify=context, trust_env=False, timeout=30)


def write(client, receive, value, auth=("sender", "secret")):
    now = int(time.time() * 1000)
    body = write_request(({"__name__": "height"}, [(now, value)]))
    url = f"https://127.0.0.1:{receive.write_port}/api/v1/receive"
    return client.post(url, content=bytes(cramjam.snappy.compress_raw(body)), auth=auth)


def values(client, query):
    """Return the values of `height` by tenant, as one reader sees them."""
    url = f"https://127.0.0.1:{query.http_port}/api/v1/query"
    answer = client.get(url, params={"query": 'height{tenant_id=~".+"}'}).json()
    return {row["metric"]["tenant_id"]: row["value"][1] for row in answer["data"]["result"]}


@contextlib.contextmanager
def quiet():
    with contextlib.suppress(httpx.TransportError):
        yield


def is_ready(client, query):
    with quiet():
        return client.get(f"https://127.0.0.1:{query.http_port}/-/ready").status_code == 200


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def receive(world):
    with our_receive(world.folder / "data", *world.receive_flags()) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def query(world, receive):
    with our_query(world.folder, receive.grpc_port, flags=world.query_flags()) as server:
        until("the querier", lambda: is_ready(world.client("probe"), server))
        yield server


def test_tenants_are_who_their_certificates_say(world, receive, query):
    """Written and read end to end; headers are not looked at on either side."""
    for tenant in ("red", "blue"):
        sender = world.client(f"sender-{tenant}", common_name=tenant)
        sender.headers["THANOS-TENANT"] = "somebody-else"
        assert write(sender, receive, {"red": 1.0, "blue": 2.0}[tenant]).status_code == 200
    readers = {t: world.client(f"reader-{t}", organization=t) for t in ("red", "blue")}
    readers["red"].headers["THANOS-TENANT"] = "blue"
    for tenant, value in (("red", "1"), ("blue", "2")):
        until("the value", lambda t=tenant: values(readers[t], query))
        assert values(readers[tenant], query) == {tenant: value}
    answer = readers["red"].get(f"https://127.0.0.1:{query.http_port}/-/healthy")
    assert answer.headers["x-frame-options"] == "deny"


def test_others_do_not_get_in(world, receive, query):
    """No certificate, no common name, no password, plain text; and each is counted."""
    nobody = world.client()
    for port in (receive.write_port, query.http_port):
        with pytest.raises(httpx.TransportError):
            nobody.get(f"https://127.0.0.1:{port}/-/healthy")
        with pytest.raises(httpx.TransportError):
            nobody.get(f"http://127.0.0.1:{port}/-/healthy")
    nameless = world.client("nameless")
    answer = write(nameless, receive, 9.0)
    assert (answer.status_code, "commonName" in answer.text) == (400, True)
    sender = world.client("sender-red", common_name="red")
    for auth in (("sender", "wrong"), None):
        assert write(sender, receive, 9.0, auth).status_code == 401
    assert sum(receive.metric("thanostack_tls_handshake_failures_total")) >= 2


def test_everything_is_issued_anew(world, receive, query):
    """A new CA, and certificates of it: whoever connects from then on is met with them."""
    fresh = Authority(world.folder / "fresh")
    for pair, names in ((world.server, ()), (world.querier, ("querier",))):
        issued = fresh.issue(pair.cert.stem, *names)
        replace(pair.key, issued.key.read_bytes())
        replace(pair.cert, issued.cert.read_bytes())
    world.authority.replace_file(fresh)
    world.authority._ca = fresh._ca
    sender = world.client("sender-green", common_name="green")
    assert write(sender, receive, 3.0).status_code == 200
    reader = world.client("reader-green", organization="green")

    def found():
        with quiet():
            return values(reader, query)

    assert until("the value", found) == {"green": "3"}


def test_files_that_turn_bad_change_nothing(world, receive, query):
    """The certificate and the web configuration before them hold on, and the log says so."""
    good_key, good_web = world.server.key.read_bytes(), world.web.read_bytes()
    world.server.key.write_text("torn")
    world.web.write_text("basic_auth_users: [")
    sender = world.client("sender-green", common_name="green")
    assert write(sender, receive, 4.0).status_code == 200
    reader = world.client("reader-green", organization="green")
    assert values(reader, query)["green"] in {"3", "4"}
    log = "".join(path.read_text() for path in world.folder.glob("*.log"))
    assert "TLS files are bad, keeping those before" in log
    assert "web configuration is bad, keeping the one before" in log
    world.server.key.write_bytes(good_key)
    world.web.write_bytes(good_web)


def test_they_stop_in_order(world, receive, query):
    """With connections open, on every port; the code is 0 and nothing is traced back."""
    clients = [world.client("reader-green", organization="green", common_name="green")]
    write(clients[0], receive, 5.0)
    values(clients[0], query)
    for server in (query, receive):
        server.stop()
        assert server.process.returncode == 0
    log = "".join(path.read_text() for path in world.folder.glob("*.log"))
    assert "Traceback" not in log


def test_a_wrong_start_is_one_line(tmp_path):
    """Said at once, with the flag, and the code is 1."""
    flags = ["--grpc-server-tls-cert=/no.pem", "--grpc-server-tls-key=k", '--label=a="b"']
    command = [*thanostack(), "receive", f"--tsdb.path={tmp_path}", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("thanostack receive: error: --grpc-server-tls-cert: cannot read /no.pem")
