"""A TLS port: who gets in, what is counted, and certificates that change while it serves."""

import asyncio
import socket
import ssl
from functools import partial

import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import SystemClock
from thanostack.runtime.tls_listener import TLSListener, client_certificate
from thanostack.runtime.tls_options import ClientAuth, ServerTLSOptions
from thanostack.runtime.tls_ports import TLS
from thanostack.testing import polling
from thanostack.testing.certificates import Authority

pytestmark = pytest.mark.enable_socket
eventually = partial(polling.eventually, within_s=30)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        shown = client_certificate(self.transport)
        self.transport.write(data + b" %d" % (0 if shown is None else len(shown)))


class Port:
    """A port that echoes, and what it counted and logged."""

    def __init__(self, pair, **given):
        self.registry, self.lines = CollectorRegistry(), []
        log = structlog.wrap_logger(
            None,
            [lambda _, __, event: self._keep(event)],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        self.tls = TLS(self.registry, log, SystemClock())
        server = self.tls.server(ServerTLSOptions(*pair.pems, **given), "grpc", alpn="h2")
        bound = socket.create_server(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        self.listener = TLSListener(bound, server, Echo, timeout_s=2)
        self.listener.start()

    def _keep(self, event):
        self.lines.append(event)
        raise structlog.DropEvent

    def count(self, name, **labels):
        return self.registry.get_sample_value(name, {"port": "grpc", **labels}) or 0

    @property
    def failures(self):
        return self.count("thanostack_tls_handshake_failures_total")

    async def failed(self, words):
        """Wait until a handshake was counted and logged in these words."""
        told = lambda: any(words in str(line["err"]) for line in self.lines if "err" in line)  # noqa: E731
        await eventually(told)
        assert self.failures

    async def refuses(self, authority, pair=None, **given):
        """Tell a refusal, which TLS 1.3 makes only when the handshake is over for the client."""
        try:
            answer, _ = await self.ask(authority, pair, **given)
        except OSError:
            return True
        return answer == b""

    async def ask(self, authority, pair=None, **given):
        """Return what the port echoes, and the serial number of its certificate."""
        context = ssl.create_default_context(cafile=authority.file)
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        if "most" in given:
            context.maximum_version = given["most"]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="localhost"
        )
        serial = writer.get_extra_info("peercert")["serialNumber"]
        writer.write(b"hello")
        try:
            return await reader.read(100), serial
        finally:
            writer.transport.abort()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
async def opened():
    ports = []

    def make(*given, **named):
        ports.append(Port(*given, **named))
        return ports[-1]

    yield make
    for port in ports:
        port.listener.close()
        await port.listener.wait_closed()


async def test_a_client_gets_in(authority, opened):
    """Without client CA nobody is asked for a certificate."""
    port = opened(authority.issue("server"))
    answer, _ = await port.ask(authority)
    assert answer == b"hello 0"
    assert port.failures == 0
    assert port.count("thanostack_tls_certificate_not_after_timestamp_seconds") > 0


async def test_mutual(authority, opened, tmp_path):
    """With one, certificates of the CA get in and are known; none and others' do not."""
    port = opened(
        authority.issue("server"), client_ca=authority.pem, client_auth=ClientAuth.REQUIRED
    )
    answer, _ = await port.ask(authority, authority.issue("client", "c"))
    assert int(answer.split()[1]) > 100
    foreign = Authority(tmp_path / "foreign").issue("client", "c")
    for pair, words in ((None, "showed no certificate"), (foreign, "is not accepted")):
        port.lines.clear()
        port.listener._tls._logged_s = float("-inf")
        assert await port.refuses(authority, pair)
        await port.failed(words)


async def test_bad_handshakes_hurt_nobody_else(authority, opened):
    """Plain text, silence, an old version, a torn greeting: counted, and others are served."""
    port = opened(authority.issue("server"))
    _, plain = await asyncio.open_connection("127.0.0.1", port.port)
    plain.write(b"GET / HTTP/1.1\r\n\r\n")
    _, silent = await asyncio.open_connection("127.0.0.1", port.port)
    _, gone = await asyncio.open_connection("127.0.0.1", port.port)
    gone.write(b"\x16\x03\x01\x02\x00")  # the beginning of a ClientHello
    await asyncio.sleep(0.1)
    gone.transport.abort()
    assert await port.refuses(authority, most=ssl.TLSVersion.TLSv1_2)
    await eventually(lambda: port.failures == 4)
    assert len([line for line in port.lines if line["event"] == "TLS handshake failed"]) < 4
    assert (await port.ask(authority))[0] == b"hello 0"
    for writer in (plain, silent):
        writer.transport.abort()


async def test_a_look_is_no_handshake(authority, opened):
    """Load balancers connect and leave all day: neither counted nor logged."""
    port = opened(authority.issue("server"))
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.close()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port.port)) as looker:  # ended by a reset
            looker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert (await port.ask(authority))[0] == b"hello 0"
    await asyncio.sleep(0.1)
    assert (port.failures, port.lines) == (0, [])


async def test_a_new_certificate_is_taken(authority, opened):
    """The next connection gets it; one that is there goes on."""
    port = opened(authority.issue("server"))
    _, before = await port.ask(authority)
    authority.issue("server")
    _, after = await port.ask(authority)
    assert before != after
    assert port.count("thanostack_tls_reloads_total", result="success") == 1
    assert port.lines[-1]["event"] == "TLS files reloaded"


async def test_a_bad_certificate_is_not_taken(authority, opened):
    """The one before it serves on, and the log says so once, not with every connection."""
    pair = authority.issue("server")
    port = opened(pair)
    _, before = await port.ask(authority)
    pair.key.write_bytes(authority.issue("other").key.read_bytes())
    for _ in range(3):
        assert before == (await port.ask(authority))[1]
    (line,) = [line for line in port.lines if "keeping" in line["event"]]
    assert "does not belong" in str(line["err"])
    assert port.count("thanostack_tls_reloads_total", result="failure") == 1
    authority.issue("server")
    assert before != (await port.ask(authority))[1]


async def test_a_new_client_ca_is_taken(authority, opened, tmp_path):
    """Certificates of the old one no longer get in: there is no session to resume."""
    port = opened(
        authority.issue("server"), client_ca=authority.pem, client_auth=ClientAuth.REQUIRED
    )
    mine, roots = authority.issue("client", "c"), Authority(tmp_path / "roots")
    roots.replace_file(authority)
    assert (await port.ask(roots, mine))[0]
    other = Authority(tmp_path / "other")
    authority.replace_file(other)
    assert await port.refuses(roots, mine)
    assert (await port.ask(roots, other.issue("client", "c")))[0]


async def test_allowed_names(authority, opened):
    """Of those certificates, only such that bear an allowed name."""
    port = opened(
        authority.issue("server"),
        client_ca=authority.pem,
        client_auth=ClientAuth.REQUIRED,
        allowed_sans=("good", "::1"),
    )
    assert (await port.ask(authority, authority.issue("client", "bad", "good")))[0]
    assert (await port.ask(authority, authority.issue("client", "0:0:0:0:0:0:0:1")))[0]
    assert await port.refuses(authority, authority.issue("client", "bad"))
    await port.failed("bears none of: good, ::1")
