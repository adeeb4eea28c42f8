"""gRPC through TLS of ours: reached, refused, told why, and certificates that change."""

import asyncio
import contextlib
import dataclasses

import grpc
import grpc.aio
import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import SystemClock
from thanostack.runtime.grpc_call import ServerStream, Unary
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.runtime.tls_options import ClientAuth, ClientTLSOptions, ServerTLSOptions
from thanostack.runtime.tls_ports import TLS
from thanostack.runtime.tls_wire import open_wire
from thanostack.testing.certificates import Authority

pytestmark = pytest.mark.enable_socket
MIB = b"z" * (1 << 20)


@dataclasses.dataclass
class World:
    """A server that wants certificates of the CA, and what its clients need."""

    authority: Authority
    tls: TLS
    server: GrpcServer
    good: ClientTLSOptions

    @property
    def address(self):
        return f"localhost:{self.server.port}"

    async def ask(self, options, address=None, members=()):
        """Return the answer, or what is known about the failure."""
        client = self.tls.client(options, "endpoints")
        wire = open_wire(address or self.address, client, members=members)
        channel = grpc.aio.insecure_channel(wire.target, wire.options)
        try:
            return await channel.unary_unary("/a.B/Who")(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            return wire.explain(error.details())
        finally:
            await channel.close()
            await wire.close()


def server_of(tls, pair, authority, name=b""):
    options = ServerTLSOptions(*pair.pems, client_ca=authority.pem, client_auth=ClientAuth.REQUIRED)
    return GrpcServer(
        "127.0.0.1:0",
        {
            "/a.B/Who": Unary(lambda _, context: name or context.peer.encode()),
            "/a.B/Much": ServerStream(lambda request, _: (MIB for _ in range(int(request)))),
        },
        log=structlog.get_logger(),
        tls=tls.server(options, "grpc", alpn="h2"),
    )


@pytest.fixture
async def world(tmp_path):
    authority = Authority(tmp_path)
    tls = TLS(CollectorRegistry(), structlog.get_logger(), SystemClock())
    server = server_of(tls, authority.issue("server"), authority)
    await server.start()
    cert, key = authority.issue("client", "client").pems
    yield World(authority, tls, server, ClientTLSOptions(ca=authority.pem, cert=cert, key=key))
    await server.stop(0)


async def test_a_call_gets_through(world):
    """The handler sees the client's address; the host's name is what the certificate bears."""
    assert b"127.0.0.1:" in await world.ask(world.good)


async def test_much_gets_through(world):
    """A stream of many messages, and a threaded channel on the same wire."""
    wire = open_wire(world.address, world.tls.client(world.good, "endpoints"))
    options = [*wire.options, ("grpc.max_receive_message_length", -1)]

    def read():
        with grpc.insecure_channel(wire.target, options) as channel:
            return sum(map(len, channel.unary_stream("/a.B/Much")(b"30", timeout=30)))

    assert await asyncio.to_thread(read) == 30 << 20
    await wire.close()


async def test_names(world):
    """A certificate must bear the host or the name given, unless nothing is verified."""
    address = f"127.0.0.2:{world.server.port}"
    world.authority.issue("server", "localhost")
    address = f"127.0.0.1:{world.server.port}"
    assert "IP address mismatch" in await world.ask(world.good, address)
    named = dataclasses.replace(world.good, server_name="localhost")
    assert b"127.0.0.1:" in await world.ask(named, address)
    loose = dataclasses.replace(world.good, skip_verify=True, ca=named.ca)
    assert b"127.0.0.1:" in await world.ask(loose, address)


async def test_failures_are_told(world, tmp_path):
    """Whoever reads the error knows what to mend."""
    foreign = Authority(tmp_path / "foreign")
    no_cert = ClientTLSOptions(ca=world.authority.pem)
    cert, key = foreign.issue("client", "c").pems
    other_cert = ClientTLSOptions(ca=world.authority.pem, cert=cert, key=key)
    plain = GrpcServer("127.0.0.1:0", {}, log=structlog.get_logger())
    await plain.start()
    for options, address, words in (
        (no_cert, world.address, "it may ask for a certificate, and none is configured"),
        (other_cert, world.address, "it may not accept our certificate"),
        (ClientTLSOptions(ca=foreign.pem), world.address, "the certificate is not accepted: "),
        (world.good, f"localhost:{plain.port}", "the connection was closed in the handshake"),
        (world.good, "localhost:1", "connecting to localhost:1: "),
        (world.good, "localhost", "missing port in address"),
    ):
        assert words in await world.ask(options, address)
    await plain.stop(0)


async def test_certificates_change_under_a_channel(world):
    """Both sides: whoever connects next is met with the files as they are."""
    client = world.tls.client(world.good, "endpoints")
    wire = open_wire(world.address, client)
    channel = grpc.aio.insecure_channel(
        wire.target, [*wire.options, ("grpc.initial_reconnect_backoff_ms", 100)]
    )
    assert await channel.unary_unary("/a.B/Who")(b"", timeout=10)
    world.authority.replace_file(Authority(world.authority.file.parent / "next", "ca"))
    changed = Authority(world.authority.file.parent)  # a new CA where the old one was
    changed.issue("server")
    changed.issue("client", "client")
    for splice in list(wire._splices):
        splice.close()
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await channel.unary_unary("/a.B/Who")(b"", timeout=10)
                break
    await channel.close()
    await wire.close()


async def test_members_of_a_group(world):
    """Calls go round all of them, each verified under the group's name."""
    pair = world.authority.issue("member", "group")
    members = [server_of(world.tls, pair, world.authority, b"%d" % i) for i in range(3)]
    for member in members:
        await member.start()
    wire = open_wire(
        "group:10901",
        world.tls.client(world.good, "endpoints"),
        members=[f"127.0.0.1:{member.port}" for member in members],
    )
    config = '{"loadBalancingConfig":[{"round_robin":{}}]}'
    options = [*wire.options, ("grpc.service_config", config)]
    channel = grpc.aio.insecure_channel(wire.target, options)
    found = set()
    async with asyncio.timeout(10):
        while len(found) < 3:
            found.add(await channel.unary_unary("/a.B/Who")(b"", timeout=10))
    await channel.close()
    await wire.close()
    for member in members:
        await member.stop(0)


async def test_plain_text_goes_alone():
    """Without TLS a wire is the address and nothing else."""
    wire = open_wire("dns:///a:1", None)
    assert (wire.target, wire.options, wire.explain("why")) == ("dns:///a:1", (), "why")
    await wire.close()
