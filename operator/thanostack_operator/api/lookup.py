"""How pods look names up, as a pod's spec has it: DNS, and what stands in the hosts file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .fields import SET, Model, text_like

IPAddress = Annotated[
    str,
    text_like(
        r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)$",
        "an address is one of IPv4 or IPv6, such as 10.96.0.10 or fd00::a",
        45,
    ),
]
DomainName = Annotated[
    str,
    text_like(
        r"^[a-z0-9_]([a-z0-9._-]*[a-z0-9])?[.]?$",
        "a domain has small letters, digits, and dashes and dots between them",
        253,
    ),
]


class DNSOption(Model):
    """An option of resolv.conf, such as `ndots`."""

    name: Annotated[
        str,
        text_like(r"^[a-z][a-z0-9-]*$", "an option of resolv.conf has a name such as ndots", 64),
    ]
    """Its name."""
    value: Annotated[str, Field(max_length=64)] | None = None
    """Its value, a text: a number stands in quotes."""


class DNSConfig(Model):
    """What is added to the pods' resolv.conf, or with `dnsPolicy: None` all that is in it."""

    nameservers: Annotated[list[IPAddress], Field(max_length=3, json_schema_extra=SET)] = []
    """Addresses of name servers."""
    searches: Annotated[list[DomainName], Field(max_length=32, json_schema_extra=SET)] = []
    """Domains that names are completed by."""
    options: Annotated[list[DNSOption], Field(max_length=16)] = []
    """Options; the operator sets none."""


class HostAlias(Model):
    """A line of the pods' hosts file."""

    ip: IPAddress
    """The address."""
    hostnames: Annotated[list[DomainName], Field(min_length=1, max_length=8)]
    """The names that it has."""
