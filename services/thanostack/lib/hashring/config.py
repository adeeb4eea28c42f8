"""hashrings.json: what an operator wrote, checked as far as one ring can be.

    [{"hashring": "a", "tenants": ["x"], "tenant_matcher_type": "exact" | "glob",
      "endpoints": ["host:10901" | {"address", "az", "capnproto_address"}],
      "algorithm": "hashmod" | "ketama", "external_labels": {"name": "value"},
      "shuffle_sharding_config": {"shard_size", "cache_size", "zone_awareness_disabled",
        "overrides": [{"shard_size", "tenants", "tenant_matcher_type"}]}}]

Keys are found in any case and null is absent, as Go's decoder has it. What upstream takes and then
gets wrong in silence is refused here or, where there is one reasonable reading, warned about.

Source: Thanos v0.42.4 `pkg/receive/config.go`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.hashring.tenants import MATCHERS, TenantSet

ALGORITHMS: Final = ("hashmod", "ketama")
CACHE_SIZE_DEFAULT: Final = 100
_CAPNPROTO_PORT: Final = "19391"
_HASH_BYTES: Final = 6  # a float64 holds 48 bits exactly
# Upstream: gRPC's, of which these two say no more than to connect to what follows.
_SCHEMES: Final = ("dns:///", "passthrough:///")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):[0-9]{1,5}")

T = TypeVar("T")


@dataclass(frozen=True)
class Endpoint:
    """A node of a ring.

    Args:
        address: of its gRPC listener; its identity, and what ketama hashes.
        az: availability zone; empty if it has none.
        capnproto_address: where it would listen for Cap'n Proto.
    """

    address: str
    az: str = ""
    capnproto_address: str = ""


def dialled(address: str) -> str:
    """Return the host:port behind an endpoint's address.

    Example:
        >>> dialled("dns:///a.b:10901"), dialled("a.b:10901")
        ('a.b:10901', 'a.b:10901')
    """
    scheme = next(filter(address.startswith, _SCHEMES), "")
    return address.removeprefix(scheme)


@dataclass(frozen=True)
class ShuffleSharding:
    """How many nodes of a ring a tenant gets.

    Args:
        shard_size: nodes a tenant, over all zones; at least 1.
        cache_size: sub-rings that are kept.
        is_zone_aware: whether every zone gives the same number of nodes.
        overrides: other sizes for some tenants; the first that has the tenant counts.
    """

    shard_size: int
    cache_size: int = CACHE_SIZE_DEFAULT
    is_zone_aware: bool = True
    overrides: tuple[tuple[TenantSet, int], ...] = ()

    def shard_size_of(self, tenant: str) -> int:
        """Return how many nodes a tenant gets."""
        sizes = (size for tenants, size in self.overrides if tenants.has(tenant))
        return next(sizes, self.shard_size)


@dataclass(frozen=True)
class HashringConfig:
    """One ring as configured; `tenants` is None for a ring that takes all."""

    name: str
    tenants: TenantSet | None
    endpoints: tuple[Endpoint, ...]
    algorithm: str
    external_labels: dict[str, str]
    shuffle_sharding: ShuffleSharding | None


def config_hash(text: bytes) -> float:
    """Return `thanos_receive_config_hash`: the first 48 bits of SHA-256, little-endian."""
    return float(int.from_bytes(hashlib.sha256(text).digest()[:_HASH_BYTES], "little"))


def parse_config(
    text: str | bytes, default_algorithm: str
) -> tuple[list[HashringConfig], tuple[str, ...]]:
    """Return the rings of a configuration in their order, and what to warn about.

    Args:
        text: the JSON.
        default_algorithm: of rings that name none.

    Raises:
        InvalidInput: with the place and what to do, if it is no such JSON, empty, or names an
            unknown algorithm or matcher type.
    """
    try:
        rings = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"hashrings configuration: not JSON: {error}") from error
    if not isinstance(rings, list | None):
        raise InvalidInput("hashrings configuration: expected a list of hashrings: put [ ] around")
    if not rings:
        raise InvalidInput("hashrings configuration is empty: it needs at least one hashring")
    warnings: list[str] = []
    checked_choice(default_algorithm, ALGORITHMS, "--receive.hashrings-algorithm")
    parsed = [
        _ring(_Fields(ring, f"hashrings[{i}]", warnings), default_algorithm)
        for i, ring in enumerate(rings)
    ]
    return parsed, tuple(warnings)


def checked_choice(value: str, choices: Iterable[str], what: str) -> str:
    """Return a value that is one of some.

    Raises:
        InvalidInput: if it is not, with the likeliest one.
    """
    # Upstream: an unknown algorithm is hashmod, an unknown matcher type matches nothing.
    choices = tuple(choices)
    if value in choices:
        return value
    close = _close_matches(value.lower(), choices, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"use {' or '.join(map(repr, choices))}"
    raise InvalidInput(f"{what}: {value!r} is unknown; {hint}")


def _close_matches(value: str, choices: Iterable[str], cutoff: float = 0.6) -> list[str]:
    import difflib  # for mistakes only

    return difflib.get_close_matches(value, choices, n=1, cutoff=cutoff)


def _ring(fields: _Fields, default_algorithm: str) -> HashringConfig:
    algorithm = fields.text("algorithm") or default_algorithm
    ring = HashringConfig(
        name=fields.text("hashring"),
        tenants=_tenants(fields),
        endpoints=tuple(fields.each("endpoints", _endpoint)),
        algorithm=checked_choice(algorithm, ALGORITHMS, f"{fields.path}.algorithm"),
        external_labels=fields.texts_by_name("external_labels"),
        shuffle_sharding=_shuffle_sharding(fields.inner("shuffle_sharding_config")),
    )
    fields.close()
    return ring


def _tenants(fields: _Fields) -> TenantSet | None:
    kind = fields.text("tenant_matcher_type") or "exact"
    checked_choice(kind, MATCHERS, f"{fields.path}.tenant_matcher_type")
    names = fields.each("tenants", _text)
    return TenantSet(names, is_glob=kind == "glob") if names else None


def _endpoint(value: Any, path: str, warnings: list[str]) -> Endpoint:
    if isinstance(value, str):
        endpoint = Endpoint(value)
    else:
        fields = _Fields(value, path, warnings)
        names = ("address", "az", "capnproto_address")
        endpoint = Endpoint(*(fields.text(name) for name in names))
        fields.close()
    if not endpoint.address:
        raise InvalidInput(f"{path}: endpoint address must be set")
    if not _HOST_PORT.fullmatch(dialled(endpoint.address)):
        # Not refused: the address of this node itself is a name that nobody connects to.
        warnings.append(f"{path}: {endpoint.address!r} is no host:port: forwards to it will fail")
    if endpoint.capnproto_address:
        return endpoint
    host = endpoint.address.partition(":")[0]
    return Endpoint(endpoint.address, endpoint.az, f"{host}:{_CAPNPROTO_PORT}")


def _shuffle_sharding(fields: _Fields) -> ShuffleSharding | None:
    def override(value: Any, path: str, warnings: list[str]) -> tuple[TenantSet, int]:
        inner = _Fields(value, path, warnings)
        # Upstream: without a matcher type an override matches no tenant at all.
        if not inner.text("tenant_matcher_type"):
            warnings.append(f"{path}: no tenant_matcher_type, taken as exact; Thanos ignores it")
        tenants, size = _tenants(inner) or TenantSet((), is_glob=False), inner.number("shard_size")
        inner.close()
        return tenants, size

    sharding = ShuffleSharding(
        shard_size=fields.number("shard_size"),
        cache_size=max(0, fields.number("cache_size")) or CACHE_SIZE_DEFAULT,
        is_zone_aware=not fields.flag("zone_awareness_disabled"),
        overrides=tuple(fields.each("overrides", override)),
    )
    fields.close()
    if sharding.shard_size > 0:
        return sharding
    if sharding.overrides:
        fields.warnings.append(f"{fields.path}: overrides have no effect without a shard_size")
    return None


def _text(value: Any, path: str, _warnings: list[str]) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{path}: expected a string, not {orjson.dumps(value).decode()}")
    return value


class _Fields:
    """The fields of one JSON object, read one by one."""

    def __init__(self, value: Any, path: str, warnings: list[str]) -> None:
        if not isinstance(value, dict):
            raise InvalidInput(f"{path}: expected an object, not {orjson.dumps(value).decode()}")
        self.path, self.warnings = path, warnings
        self._items = {key.lower(): item for key, item in value.items() if item is not None}
        self._known: list[str] = []

    def close(self) -> None:
        """Warn about fields that nobody asked for."""
        for key in sorted(self._items.keys() - self._known):
            close = _close_matches(key, self._known)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            self.warnings.append(f"{self.path}: unknown field {key!r} has no effect{hint}")

    def text(self, key: str) -> str:
        return self._read(key, str, "a string", "")

    def number(self, key: str) -> int:
        return self._read(key, int, "a whole number", 0)

    def flag(self, key: str) -> bool:
        return self._read(key, bool, "true or false", default=False)

    def inner(self, key: str) -> _Fields:
        return _Fields(self._read(key, dict, "an object", {}), f"{self.path}.{key}", self.warnings)

    def each(self, key: str, read: Callable[[Any, str, list[str]], T]) -> list[T]:
        items = self._read(key, list, "a list", [])
        path = f"{self.path}.{key}"
        return [read(item, f"{path}[{i}]", self.warnings) for i, item in enumerate(items)]

    def texts_by_name(self, key: str) -> dict[str, str]:
        items = self._read(key, dict, "an object", {})
        path = f"{self.path}.{key}"
        return {name: _text(item, f"{path}.{name}", []) for name, item in items.items()}

    def _read(self, key: str, kind: type[T], called: str, default: T) -> T:
        self._known.append(key)
        value = self._items.get(key, default)
        if type(value) is not kind:
            shown = orjson.dumps(value).decode()
            raise InvalidInput(f"{self.path}.{key}: expected {called}, not {shown}")
        return value
