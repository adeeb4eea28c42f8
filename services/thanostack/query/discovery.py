"""From what was configured to addresses: DNS prefixes.

    host:port                 itself
    dns+host:port             its AAAA, or else A addresses
    dnsdualstack+host:port    its AAAA and A addresses
    dnssrv+name[:port]        SRV, then the addresses of each target; a port given wins
    dnssrvnoa+name            SRV, targets by name

A look-up that fails keeps the answer before it; a name that is gone yields nothing, which is
logged when it begins. Names are completed by the search list of resolv.conf, as upstream:
`x.ns.svc` is enough in a Kubernetes pod.

Source: Thanos `pkg/discovery/dns`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.resolver

from thanostack.lib.foundation.errors import EndpointUnavailable
from thanostack.query.metrics import QueryMetrics
from thanostack.runtime.logs import Logger
from thanostack.runtime.tls_options import ClientTLSOptions

PREFIXES: Final = ("dnsdualstack", "dnssrvnoa", "dnssrv", "dns")
_LOOKUP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One configured endpoint.

    Args:
        address: host:port, or a name with a DNS prefix.
        strict: always listed and queried.
        group: interchangeable addresses behind one name; each call goes to one of them.
        tls: how it is spoken to; None for plain text.
        service_config: gRPC's, of a group; empty for ours.
        members: addresses of a group that were looked up here, as they are for one with TLS.
    """

    address: str
    strict: bool = False
    group: bool = False
    tls: ClientTLSOptions | None = None
    service_config: str = ""
    members: tuple[str, ...] = ()


class Resolver:
    """Looks names up, and remembers the last good answer of each.

    Args:
        system: ask the system, hosts file included, rather than DNS.
        metrics: told about look-ups.
        log: told about look-ups that fail.
    """

    def __init__(self, *, system: bool, metrics: QueryMetrics, log: Logger) -> None:
        self._system, self._metrics, self._log = system, metrics, log
        self._known: dict[str, tuple[str, ...]] = {}

    async def resolve(self, specs: Iterable[EndpointSpec]) -> dict[str, EndpointSpec]:
        """Return the endpoints by address, names with a DNS prefix looked up."""
        found: dict[str, EndpointSpec] = {}
        lookups = []
        for spec in specs:
            prefix, _, name = spec.address.partition("+")
            if spec.group and spec.tls is None:
                address = name if prefix in PREFIXES else spec.address
                found[address] = dataclasses.replace(spec, address=address)
            elif prefix in PREFIXES:
                lookups.append((spec, prefix, name))
            elif spec.group:
                lookups.append((spec, "", spec.address))
            else:
                found[spec.address] = spec
        answers = await asyncio.gather(*(self._lookup(p, name) for _, p, name in lookups))
        for (spec, _, name), addresses in zip(lookups, answers, strict=True):
            if spec.group:
                found[name] = dataclasses.replace(spec, address=name, members=tuple(addresses))
                continue
            for address in addresses:
                found.setdefault(address, dataclasses.replace(spec, address=address))
        return found

    async def _lookup(self, prefix: str, name: str) -> Sequence[str]:
        text = f"{prefix}+{name}" if prefix else name
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
                addresses = tuple(sorted(await self._ask(prefix, name)))
        except (OSError, dns.exception.DNSException, EndpointUnavailable, TimeoutError) as error:
            self._metrics.dns_failures.inc()
            self._log.warning("look-up failed, keeping the last answer", name=text, err=error)
            addresses = self._known.get(text, ())
        else:
            if not addresses and self._known.get(text) != ():
                self._log.warning("name has no addresses, so no endpoint comes of it", name=text)
        self._metrics.dns_lookups.inc()
        self._metrics.dns_results.labels(text).set(len(addresses))
        self._known[text] = addresses
        return addresses

    async def _ask(self, prefix: str, name: str) -> set[str]:
        host, _, port = name.rpartition(":")
        if prefix.startswith("dnssrv"):
            targets = await self._services(host or name)
            pairs = {(target, port if host else own) for target, own in targets}
            if prefix == "dnssrvnoa":
                return {f"{target}:{own}" for target, own in pairs}
            answers = [(await self._addresses(target, both=False), own) for target, own in pairs]
            return {_joined(address, own) for addresses, own in answers for address in addresses}
        if not host:
            raise EndpointUnavailable(f"missing port in address given for dns lookup: {name}")
        if not prefix:
            return {_joined(address, port) for address in await _system_addresses(host)}
        addresses = await self._addresses(host, both=prefix == "dnsdualstack")
        return {_joined(address, port) for address in addresses}

    async def _services(self, name: str) -> set[tuple[str, str]]:
        try:
            answer = await dns.asyncresolver.resolve(name, "SRV", search=True)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return set()
        return {(str(item.target).rstrip("."), str(item.port)) for item in answer}

    async def _addresses(self, host: str, *, both: bool) -> set[str]:
        if self._system:
            return await _system_addresses(host)
        addresses: set[str] = set()
        for kind in ("AAAA", "A"):
            try:
                answer = await dns.asyncresolver.resolve(host, kind, search=True)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            addresses |= {str(item.address) for item in answer}
            if addresses and not both:
                break
        return addresses


async def _system_addresses(host: str) -> set[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {str(item[4][0]) for item in found}


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
