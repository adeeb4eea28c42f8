"""Flags of containers: what fields become, and what `extraArgs` may add or replace.

A flag that a field gives is replaced by an extra one of the same name; flags that may be repeated
are added to. Some flags are the operator's own, since ports, files, hashrings and tenants must
agree between parts: an extra one of these is a problem that names the field to use instead.

Kubernetes replaces `$(NAME)` in arguments, and `$$` by `$`: values of fields are escaped, extra
flags are passed on as written, so `--name=$(POD_NAME)` works there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from .names import INGESTOR, QUERY, ROUTER

REPEATABLE = frozenset({"label", "endpoint", "query.replica-label"})
_PORTS = "probes, Services and the operator itself use the default ports without TLS or passwords"
_TENANCY = "readers and writers must agree: set spec.receive.tenancy"
_RINGS = "routers and ingestors must agree: the operator writes the hashrings"
_ADDRESSES = {"http-address": _PORTS, "grpc-address": _PORTS, "http.config": _PORTS}
_RECEIVE = _ADDRESSES | {
    "remote-write.address": _PORTS,
    "receive.hashrings": _RINGS,
    "receive.hashrings-file": _RINGS,
    "receive.hashrings-algorithm": _RINGS,
    "receive.local-endpoint": _RINGS,
    "receive.replication-factor": "set spec.receive.replicationFactor",
    "receive.tenant-header": _TENANCY,
    "receive.default-tenant-id": _TENANCY,
    "receive.tenant-label-name": _TENANCY,
    "receive.tenant-certificate-field": _TENANCY,
    "receive.split-tenant-label-name": _TENANCY,
    "receive.enable-drain": "the operator drains ingestors before they leave",
    "label": "set externalLabels of the stack or of the ring",
    "tsdb.path": "it is the volume's",
}
# Flag → what to do instead, by component.
OWNED: Mapping[str, Mapping[str, str]] = {
    ROUTER: _RECEIVE,
    INGESTOR: _RECEIVE,
    QUERY: _ADDRESSES
    | {
        "query.tenant-header": _TENANCY,
        "query.default-tenant-id": _TENANCY,
        "query.tenant-label-name": _TENANCY,
        "query.enforce-tenancy": "set spec.query.enforceTenancy",
        "stack.id": "it is the resource's uid",
    },
}


def flag(name: str, value: object) -> str:
    """Return a flag with a value, which Kubernetes leaves as it is."""
    return f"--{name}={escaped(str(value))}"


def switch(name: str, *, is_on: bool) -> str:
    """Return a flag without a value."""
    return f"--{name}" if is_on else f"--no-{name}"


def escaped(text: str) -> str:
    """Return a text that is itself again once Kubernetes has replaced `$(NAME)` in it."""
    return text.replace("$", "$$")


def label_flag(name: str, value: str) -> str:
    """Return `--label=name="value"`, quoted as Go quotes."""
    return flag("label", f"{name}={json.dumps(value, ensure_ascii=False)}")


def name_of(argument: str) -> str:
    """Return the name of a flag; that of a switch without its `no-`."""
    return argument.partition("=")[0].removeprefix("--").removeprefix("no-")


def merged(own: Iterable[str], extra: Sequence[str]) -> list[str]:
    """Return flags given by fields and extra ones, the latter last.

    Args:
        own: given by fields.
        extra: those of `extraArgs`.
    """
    replaced = {name_of(argument) for argument in extra} - REPEATABLE
    return [*(argument for argument in own if name_of(argument) not in replaced), *extra]


def problems(component: str, extra: Iterable[str]) -> list[str]:
    """Return what is wrong with extra flags of a component, a sentence each."""
    owned = OWNED[component]
    return [
        f"--{name_of(argument)} is the operator's: {owned[name_of(argument)]}"
        for argument in extra
        if name_of(argument) in owned
    ]


_DURATION = re.compile(r"([0-9]+)(ms|[ywdhms])")
_UNITS_MS = {
    "y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000,
    "m": 60_000, "s": 1000, "ms": 1,
}  # fmt: skip


def duration_ms(text: str) -> int:
    """Return the milliseconds of a Prometheus duration.

    Example:
        >>> duration_ms("1h30m")
        5400000
    """
    return sum(int(amount) * _UNITS_MS[unit] for amount, unit in _DURATION.findall(text))


def go_duration(text: str) -> str:
    """Return a Prometheus duration as Go's flags take it, which know no days.

    Example:
        >>> go_duration("1d")
        '86400s'
    """
    total_ms = duration_ms(text)
    return f"{total_ms}ms" if total_ms % 1000 else f"{total_ms // 1000}s"
