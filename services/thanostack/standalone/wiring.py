"""The standalone process, put together; read this to see everything it consists of.

ports    ──bound first: a busy one is an error before anything slow
HTTP     ──serves at once: page, metrics, probes; queries and writes get 503 until ready
kernels  ──of the write path are waited for; others compile in the background
storage  ──replayed in a thread
gRPC     ──serves when storage is open
querier  ──is handed the receiver's StoreServer: no wire lies between them
ready    ──banner, first scrape of its own metrics
"""

from __future__ import annotations

import asyncio
from typing import Final

from thanostack.query.endpoints import LocalEndpoint
from thanostack.query.wiring import Querier
from thanostack.receive.wiring import Receiver
from thanostack.runtime import kernel_pool
from thanostack.runtime.http_common import ASGI
from thanostack.runtime.http_server import HTTPServer, listen, parse_address
from thanostack.runtime.process import Process
from thanostack.runtime.web_port import pages_port
from thanostack.standalone.banner import banner, demo_banner, reachable
from thanostack.standalone.demo import feed
from thanostack.standalone.self_scrape import TENANT, SelfScrape, scrape_forever
from thanostack.standalone.settings import StandaloneSettings
from thanostack.standalone.start_gate import StartGate
from thanostack.standalone.status_route import StatusRoute

LOCAL_NAME: Final = "standalone"
"""How the querier calls the storage of its own process."""


async def start(settings: StandaloneSettings, process: Process) -> None:
    """Build everything and return when it serves."""
    http_socket = listen(settings.http_address, "http-address")
    grpc_socket = listen(settings.grpc_address, "grpc-address")
    write_socket = listen(settings.remote_write_address, "remote-write.address")
    receiver = Receiver(settings, process)
    querier = Querier(
        settings,
        process,
        local=[LocalEndpoint(LOCAL_NAME, receiver.stores)],
        http_metrics=receiver.http_metrics,
    )
    gate = StartGate(_pages(querier, receiver, settings), settings.route_prefix, process.probes)
    pages = pages_port(gate, http_socket, settings, process)
    writes = receiver.write_port(write_socket)
    for name, server in (("http", pages), ("remote-write", writes)):
        process.supervisor.task(name, server.serve())
        process.supervisor.drain(name, server.stop)
    if kernel_pool.is_compiling():
        process.probes.set_not_ready("compiling kernels, once on this machine; see the log")
        await asyncio.to_thread(kernel_pool.wait_for_write_path)
    process.probes.set_not_ready("opening the storage")
    await receiver.open()
    await receiver.serve_grpc(grpc_socket)
    await querier.discover()
    http = _shown(settings.http_address, "http-address", pages)
    write = _shown(settings.remote_write_address, "remote-write.address", writes)
    process.log.info("serving", http=pages.port, grpc=receiver.grpc_port, remote_write=writes.port)
    gate.open()
    receiver.opened()
    _scrape_itself(receiver, process, http.partition("//")[2])
    print(banner(http, write, settings.route_prefix), flush=True)
    if settings.demo:
        process.supervisor.task("demo", feed(f"{write}/api/v1/receive"))
        print(f"\n{demo_banner(http, settings.route_prefix)}", flush=True)


def _pages(querier: Querier, receiver: Receiver, settings: StandaloneSettings) -> ASGI:
    if settings.query_enforce_tenancy:
        # It shows whichever tenant is asked for: the write port has it, which readers do not reach.
        return querier.pages()
    return StatusRoute(querier.pages(), receiver.status_pages, settings.route_prefix)


def _shown(address: str, flag: str, server: HTTPServer) -> str:
    return f"{server.scheme}://{reachable(parse_address(address, flag)[0], server.port)}"


def _scrape_itself(receiver: Receiver, process: Process, instance: str) -> None:
    target = SelfScrape(process.registry, instance, process.clock)
    process.supervisor.task(
        "self-scrape", scrape_forever(target, receiver.target, TENANT, process.log)
    )
