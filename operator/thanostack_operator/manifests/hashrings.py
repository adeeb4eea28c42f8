"""`hashrings.json`: the members of each ring as the routers read them, and the hash they report.

    [{"hashring": "a", "tenants": ["x"], "tenant_matcher_type": "exact", "algorithm": "ketama",
      "endpoints": [{"address": "x-ingestor-a-0.x-ingestor-a.ns.svc:10901", "az": "zone-1"}, …]}]

The text is a function of the members alone, so equal rings have equal hashes. Rings stand in the
order of the spec, because the first that has a tenant takes it; members in numeric order. A ring
without members is left out. The published text is also where the operator reads back who is a
member, so `read_members` is the inverse of `render`.

Source: Thanos v0.42.4 `pkg/receive/config.go`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thanostack_operator.api.receive import Ring
from thanostack_operator.api.stack import ThanosStack

from .names import ingestor_address

_HASH_BYTES = 6  # a float64 holds 48 bits exactly


@dataclass(frozen=True, order=True)
class Member:
    """An ingestor in a ring.

    Args:
        ordinal: of its pod.
        zone: of its node, as far as the ring heeds zones; empty if there is none.
    """

    ordinal: int
    zone: str = ""


def render(stack: ThanosStack, rings: Mapping[str, Sequence[Member]]) -> str:
    """Return the text of `hashrings.json`.

    Args:
        stack: whose rings they are.
        rings: members by ring name; a name that the spec does not have is left out.
    """
    entries = [
        _entry(stack, ring, sorted(rings[ring.name]))
        for ring in stack.spec.receive.rings
        if rings.get(ring.name)
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _entry(stack: ThanosStack, ring: Ring, members: Sequence[Member]) -> dict[str, Any]:
    entry: dict[str, Any] = {"hashring": ring.name}
    if ring.tenants:
        entry |= {"tenants": list(ring.tenants), "tenant_matcher_type": ring.tenant_matcher_type}
    entry["algorithm"] = "ketama"
    entry["endpoints"] = [_endpoint(stack, ring.name, member) for member in members]
    return entry


def _endpoint(stack: ThanosStack, ring: str, member: Member) -> dict[str, str]:
    endpoint = {"address": ingestor_address(stack, ring, member.ordinal)}
    return endpoint | {"az": member.zone} if member.zone else endpoint


def read_members(text: str) -> dict[str, tuple[Member, ...]]:
    """Return the members of each ring of a text that `render` returned.

    Raises:
        ValueError: if it is no such text, because somebody else wrote it.
    """
    try:
        return {
            entry["hashring"]: tuple(map(_member, entry["endpoints"])) for entry in json.loads(text)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a hashrings.json of the operator: {error!r}") from error


def _member(endpoint: Mapping[str, str]) -> Member:
    pod = endpoint["address"].partition(".")[0]
    return Member(int(pod.rpartition("-")[2]), endpoint.get("az", ""))


def config_hash(text: str) -> float:
    """Return `thanos_receive_config_hash` of a text: 48 bits of SHA-256, little-endian."""
    return float(int.from_bytes(hashlib.sha256(text.encode()).digest()[:_HASH_BYTES], "little"))
