"""From what was configured to addresses: DNS prefixes and the endpoint file.

    host:port                 itself
    dns+host:port             its AAAA, or else A addresses
    dnsdualstack+host:port    its AAAA and A addresses
    dnssrv+name[:port]        SRV, then the addresses of each target; a port given wins
    dnssrvnoa+name            SRV, targets by name

A look-up that fails keeps the answer before it; a name that is gone yields nothing.

Source: Thanos `pkg/discovery/dns`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.resolver
import yaml

from thanostack.lib.foundation.errors import EndpointUnavailable, SettingsInvalid
from thanostack.query.metrics import QueryMetrics
from thanostack.runtime.logs import Logger

PREFIXES: Final = ("dnsdualstack", "dnssrvnoa", "dnssrv", "dns")
_LOOKUP_TIMEOUT_S: Final = 10.0
_SPEC_KEYS: Final = frozenset({"address", "strict", "group", "service_config", "client_config"})


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One configured endpoint.

    Args:
        address: host:port, or a name with a DNS prefix.
        strict: always listed and queried.
        group: interchangeable addresses behind one name; each call goes to one of them.
    """

    address: str
    strict: bool = False
    group: bool = False


def parse_endpoints(text: str, flag: str) -> tuple[EndpointSpec, ...]:
    """Return the endpoints that a YAML text lists.

    Raises:
        SettingsInvalid: naming the flag, if the text is not as documented.
    """
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise SettingsInvalid(f"--{flag}: not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("endpoints", []), list):
        raise SettingsInvalid(f"--{flag}: write a list named endpoints")
    _refuse_unknown(document, frozenset({"endpoints", "default_client_config"}), flag)
    _refuse_tls(document.get("default_client_config"), flag)
    return tuple(_parse_spec(item, flag) for item in document.get("endpoints", []))


def _parse_spec(item: Any, flag: str) -> EndpointSpec:
    if not isinstance(item, dict) or not isinstance(item.get("address"), str):
        raise SettingsInvalid(f"--{flag}: an endpoint needs an address")
    _refuse_unknown(item, _SPEC_KEYS, flag)
    _refuse_tls(item.get("client_config"), flag)
    spec = EndpointSpec(
        item["address"], bool(item.get("strict", False)), bool(item.get("group", False))
    )
    if spec.strict and spec.address.startswith(tuple(f"{name}+" for name in PREFIXES)):
        raise SettingsInvalid(f"--{flag}: {spec.address}: a strict endpoint has no DNS prefix")
    return spec


def _refuse_unknown(item: dict[str, Any], known: frozenset[str], flag: str) -> None:
    unknown = sorted(set(item) - known)
    if unknown:
        raise SettingsInvalid(f"--{flag}: unknown key {unknown[0]!r}")


def _refuse_tls(config: Any, flag: str) -> None:
    tls = (config or {}).get("tls_config") or {}
    if tls.get("enabled") or (config or {}).get("compression") not in {None, "", "none"}:
        raise SettingsInvalid(
            f"--{flag}: TLS and compression towards endpoints are not offered yet"
        )


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
            if spec.group:
                address = name if prefix in PREFIXES else spec.address
                found[address] = EndpointSpec(address, spec.strict, group=True)
            elif prefix in PREFIXES:
                lookups.append((spec, prefix, name))
            else:
                found[spec.address] = spec
        answers = await asyncio.gather(*(self._lookup(p, name) for _, p, name in lookups))
        for (spec, _, _), addresses in zip(lookups, answers, strict=True):
            for address in addresses:
                found.setdefault(address, EndpointSpec(address, spec.strict))
        return found

    async def _lookup(self, prefix: str, name: str) -> Sequence[str]:
        text = f"{prefix}+{name}"
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
                addresses = tuple(sorted(await self._ask(prefix, name)))
        except (OSError, dns.exception.DNSException, EndpointUnavailable, TimeoutError) as error:
            self._metrics.dns_failures.inc()
            self._log.warning("look-up failed, keeping the last answer", name=text, err=error)
            addresses = self._known.get(text, ())
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
        addresses = await self._addresses(host, both=prefix == "dnsdualstack")
        return {_joined(address, port) for address in addresses}

    async def _services(self, name: str) -> set[tuple[str, str]]:
        try:
            answer = await dns.asyncresolver.resolve(name, "SRV")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return set()
        return {(str(item.target).rstrip("."), str(item.port)) for item in answer}

    async def _addresses(self, host: str, *, both: bool) -> set[str]:
        if self._system:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return {str(item[4][0]) for item in found}
        addresses: set[str] = set()
        for kind in ("AAAA", "A"):
            try:
                answer = await dns.asyncresolver.resolve(host, kind)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            addresses |= {str(item.address) for item in answer}
            if addresses and not both:
                break
        return addresses


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
