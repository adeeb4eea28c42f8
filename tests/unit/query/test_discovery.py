"""Names with a DNS prefix are looked up as the C library would, search list included."""

import asyncio

import dns.asyncresolver
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.query.discovery import EndpointSpec, Resolver
from thanostack.query.metrics import QueryMetrics

SERVICE = "x-ingestor-a.ns.svc.cluster.local."
RECORDS = {
    (f"_grpc._tcp.{SERVICE}", "SRV"): [f"0 50 10901 x-ingestor-a-{i}.{SERVICE}" for i in range(2)],
    (f"x-ingestor-a-0.{SERVICE}", "A"): ["10.0.0.1"],
    (f"x-ingestor-a-1.{SERVICE}", "A"): ["10.0.0.2"],
    (SERVICE, "A"): ["10.0.0.1", "10.0.0.2"],
}


class Server(asyncio.DatagramProtocol):
    """Answers what `RECORDS` has; every other name does not exist."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        (asked,) = question.question
        kind = dns.rdatatype.to_text(asked.rdtype)
        records = RECORDS.get((asked.name.to_text(), kind))
        if records:
            answer.answer.append(dns.rrset.from_text(asked.name, 5, "IN", kind, *records))
        elif asked.name.to_text() not in {name for name, _ in RECORDS}:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def a_pods_resolver(monkeypatch):
    """The resolv.conf that Kubernetes writes, in front of our server."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Server, local_addr=("127.0.0.1", 0)
    )
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], transport.get_extra_info("sockname")[1]
    domains = ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local")
    resolver.search = [dns.name.from_text(domain) for domain in domains]
    resolver.ndots = 5
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    yield
    transport.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("dnssrv+_grpc._tcp.x-ingestor-a.ns.svc", {"10.0.0.1:10901", "10.0.0.2:10901"}),
        ("dnssrv+_grpc._tcp.x-ingestor-a", {"10.0.0.1:10901", "10.0.0.2:10901"}),
        (f"dnssrv+_grpc._tcp.{SERVICE}", {"10.0.0.1:10901", "10.0.0.2:10901"}),
        ("dns+x-ingestor-a.ns.svc:1", {"10.0.0.1:1", "10.0.0.2:1"}),
        ("dnssrv+_grpc._tcp.elsewhere.ns.svc", set()),
    ],
)
async def test_names_are_completed(a_pods_resolver, address, expected):
    """Upstream looks through the search list too, so `.svc` is enough there."""
    resolver = Resolver(
        system=False, metrics=QueryMetrics(CollectorRegistry()), log=structlog.get_logger()
    )
    assert expected == set(await resolver.resolve([EndpointSpec(address)]))


@pytest.mark.parametrize("name", ["dnssrv+_grpc._tcp.elsewhere.ns.svc", "dns+elsewhere.ns.svc:1"])
async def test_a_name_without_addresses_is_told_once(a_pods_resolver, name):
    """A querier that knew a wrong name was ready, had no endpoint, and said nothing."""
    resolver = Resolver(
        system=False, metrics=QueryMetrics(CollectorRegistry()), log=structlog.get_logger()
    )
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert {} == await resolver.resolve([EndpointSpec(name)])
    assert [name] == [line["name"] for line in logs if line["log_level"] == "warning"]
