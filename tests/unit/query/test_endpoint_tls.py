"""Endpoints with TLS: groups that are looked up here, and configurations that change under them."""

import asyncio
import dataclasses
import threading

import pytest
import structlog

from thanostack.lib.foundation.clock import SystemClock
from thanostack.lib.storeapi.info import EndpointInfo, encode_info
from thanostack.query.discovery import EndpointSpec, Resolver
from thanostack.query.endpoint_set import EndpointSet, EndpointTimes
from thanostack.query.endpoints import EndpointTLS
from thanostack.query.metrics import QueryMetrics
from thanostack.runtime.grpc_call import ServerStream, Unary
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.runtime.logs import configure
from thanostack.runtime.process import new_process
from thanostack.runtime.tls_options import ClientTLSOptions, ServerTLSOptions
from thanostack.testing.certificates import Authority
from thanostack.testing.polling import eventually

pytestmark = pytest.mark.enable_socket
LOG = configure("query", level="error", form="logfmt")


@pytest.fixture
def process():
    return new_process("query", LOG)


async def test_a_group_with_tls_is_looked_up_here(process):
    """By the system, as grpcio would; its name stays, for certificates must bear it."""
    resolver = Resolver(system=False, metrics=QueryMetrics(process.registry), log=LOG)
    spec = EndpointSpec("localhost:7", group=True, tls=ClientTLSOptions())
    plain = EndpointSpec("dns+other:7", group=True)
    found = await resolver.resolve([spec, plain])
    assert set(found) == {"localhost:7", "other:7"}
    assert "127.0.0.1:7" in found["localhost:7"].members
    assert found["localhost:7"].tls == spec.tls
    assert found["other:7"].members == ()


class Store:
    """An endpoint behind TLS whose Series call can be held."""

    def __init__(self, process, authority):
        self.asked, self.held = threading.Event(), threading.Event()
        info = encode_info(EndpointInfo("receive", has_store=True))
        self.server = GrpcServer(
            "127.0.0.1:0",
            {
                "/thanos.info.Info/Info": Unary(lambda *_: info),
                "/thanos.Store/Series": ServerStream(self._series),
            },
            log=structlog.get_logger(),
            tls=process.tls.server(
                ServerTLSOptions(*authority.issue("server").pems), "grpc", alpn="h2"
            ),
        )

    def _series(self, _request, _context):
        self.asked.set()
        yield b"1"
        self.held.wait(20)
        yield b"2"


async def test_a_changed_endpoint_lets_its_calls_end(process, tmp_path):
    """It is connected to anew at once; what was asked before still answers."""
    from thanostack.query.endpoints import Call

    authority = Authority(tmp_path)
    store = Store(process, authority)
    await store.server.start()
    address = f"localhost:{store.server.port}"
    spec = EndpointSpec(address, tls=ClientTLSOptions(ca=authority.pem))
    specs, tls = {address: spec}, EndpointTLS(process.tls)

    async def resolve():
        tls.prepare(specs.values())
        return dict(specs)

    times = EndpointTimes(dns_interval_s=0)
    found = EndpointSet(resolve, times=times, clock=SystemClock(), log=LOG, connect=tls.connect)
    await found.update()
    (before,) = found.stores()
    asked = asyncio.ensure_future(before.series(b"", Call()))
    await eventually(store.asked.is_set)
    options = dataclasses.replace(spec.tls, server_name="localhost")
    specs[address] = dataclasses.replace(spec, tls=options)
    await found.update()
    (after,) = found.stores()
    assert after is not before
    store.held.set()
    assert await asked == [b"1", b"2"]
    await found.close()
    await store.server.stop(0)


async def test_an_endpoint_that_is_not_believed(process, tmp_path):
    """It is not listed, and a strict one says why."""
    store = Store(process, Authority(tmp_path / "its"))
    await store.server.start()
    address = f"localhost:{store.server.port}"
    options = ClientTLSOptions(ca=Authority(tmp_path / "ours").pem)
    spec = EndpointSpec(address, strict=True, tls=options)
    tls = EndpointTLS(process.tls)
    tls.prepare([spec])

    async def resolve():
        return {address: spec}

    found = EndpointSet(
        resolve, times=EndpointTimes(), clock=SystemClock(), log=LOG, connect=tls.connect
    )
    await found.update()
    (status,) = found.statuses()
    assert "the certificate is not accepted" in status.error
    await found.close()
    await store.server.stop(0)
