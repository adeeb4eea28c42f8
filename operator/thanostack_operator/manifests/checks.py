"""What is wrong with a stack beyond what its schema can say.

Each problem is one sentence that begins with the field and says what to do. A stack with problems
is left as it is: nothing is applied until it is mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from thanostack_operator.api.pod import PodSettings
from thanostack_operator.api.reading import few
from thanostack_operator.api.stack import ThanosStack

from . import args, mounts
from .hashrings import Member, render
from .ingestors import external_labels
from .known_flags import Command, mistakes
from .names import INGESTOR, QUERY, ROUTER, labels

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_COMMANDS: Mapping[str, Command] = {ROUTER: "receive", INGESTOR: "receive", QUERY: "query"}
_NO_TENANTS = (".", "..", "lost+found", "thanostack-drain")
_PATTERNS_COMPARED = 100
_CONFIG_MAP_BYTES_MAX = 1_000_000
_LONGEST_MS = (1 << 63) // 1_000_000  # what a flag holds, in nanoseconds


def problems(stack: ThanosStack) -> tuple[str, ...]:
    """Return what is wrong with a stack, the first few of it; empty if it can be applied."""
    checks: tuple[Callable[[ThanosStack], Iterable[str]], ...] = (
        _tenants,
        _tenancy,
        _external_labels,
        _durations,
        _limits,
        _size,
        _pods,
    )
    return few(problem for check in checks for problem in check(stack))


def _tenants(stack: ThanosStack) -> Iterator[str]:
    """Yield tenants that are no names, or that a ring before surely takes."""
    taken: dict[str, str] = {}
    patterns: list[tuple[str, str]] = []
    for ring in stack.spec.receive.rings:
        where = f"spec.receive.rings[{ring.name}].tenants"
        for tenant in ring.tenants:
            if tenant in _NO_TENANTS or not tenant.isprintable():
                yield f"{where}: {tenant!r} cannot be the name of a folder: use another tenant name"
            matching = (name for glob, name in patterns if fnmatchcase(tenant, glob))
            taking = taken.get(tenant) or next(matching, None)
            if taking is not None:
                yield (
                    f"{where}: {tenant!r} never gets here, ring {taking} takes it before: "
                    "remove it from one of them"
                )
        taken = dict.fromkeys(ring.tenants, ring.name) | taken
        if ring.tenant_matcher_type == "glob":
            # What stands in brackets differs in Go and is not compared, nor are too many patterns.
            plain = [(glob, ring.name) for glob in ring.tenants if "[" not in glob]
            patterns = [*patterns, *plain][:_PATTERNS_COMPARED]


def _tenancy(stack: ThanosStack) -> Iterator[str]:
    tenancy = stack.spec.receive.tenancy
    where = "spec.receive.tenancy"
    if tenancy.default_tenant in _NO_TENANTS or not tenancy.default_tenant.isprintable():
        yield f"{where}.defaultTenant: it is also the name of a folder: use another name"
    if tenancy.split_label_name == tenancy.label_name:
        yield (
            f"{where}.splitLabelName: it is the label that ingestors announce tenants with: use "
            "another label, or another labelName"
        )
    routers = stack.spec.receive.routers.over(stack.spec.pod_defaults)
    given = set(map(args.name_of, routers.extra_args or ()))
    if tenancy.certificate_field and "remote-write.server-tls-client-ca" not in given:
        yield (
            f"{where}.certificateField: senders show no certificate: mount certificates with "
            "routers.secrets and name them in routers.extraArgs, --remote-write.server-tls-cert, "
            "-key and -client-ca"
        )


def _external_labels(stack: ThanosStack) -> Iterator[str]:
    tenant_label = stack.spec.receive.tenancy.label_name
    taken = {
        "replica": "it is the name of each ingestor",
        tenant_label: "it is the tenant",
        "__name__": "it is the name of the metric",
    }
    if stack.spec.cluster_name:
        taken["cluster"] = "it is spec.clusterName: set one of them"
    for ring in stack.spec.receive.rings:
        for name in external_labels(stack, ring):
            where = f"spec.receive.rings[{ring.name}].externalLabels"
            if name not in ring.external_labels:
                where = "spec.externalLabels"
            is_cluster = name == "cluster" and not (
                "cluster" in ring.external_labels or "cluster" in stack.spec.external_labels
            )
            if name in taken and not is_cluster:
                yield f"{where}: {name} is not free, {taken[name]}"


def _durations(stack: ThanosStack) -> Iterator[str]:
    query = stack.spec.query
    rings = stack.spec.receive.rings
    durations = {
        "spec.query.timeout": query.timeout,
        "spec.query.lookbackDelta": query.lookback_delta,
    }
    durations |= {f"spec.receive.rings[{ring.name}].retention": ring.retention for ring in rings}
    for where, text in durations.items():
        if args.duration_ms(text) >= _LONGEST_MS:
            yield f"{where}: {text} is too long: the longest is 292y"
    if args.duration_ms(query.timeout) == 0:
        yield "spec.query.timeout: no query can be answered in no time: use 2m or so"


def _limits(stack: ThanosStack) -> Iterator[str]:
    """Yield limits of routers that only ingestors can hold."""
    limits = stack.spec.receive.routers.limits
    write = limits.write if limits else None
    if write is None or (write.global_ and write.global_.meta_monitoring_url):
        return
    for name, place in {"default": write.default, **write.tenants}.items():
        if place and place.head_series_limit:
            yield (
                f"spec.receive.routers.limits: head_series_limit of {name} has no effect, since "
                "routers have no series: set it in the overrides of rings, or give a "
                "meta_monitoring_url"
            )


def _size(stack: ThanosStack) -> Iterator[str]:
    rings = {
        ring.name: [Member(i, "zone" * 8) for i in range(ring.replicas)]
        for ring in stack.spec.receive.rings
    }
    if len(render(stack, rings).encode()) > _CONFIG_MAP_BYTES_MAX:
        yield (
            "spec.receive.rings: their tenants do not fit into a ConfigMap of 1 MiB: use patterns, "
            "tenantMatcherType: glob"
        )


def _pods(stack: ThanosStack) -> Iterator[str]:
    """Yield what is wrong with settings of pods, named where they are written."""
    spec = stack.spec
    rings = {f"spec.receive.rings[{ring.name}]": ring for ring in spec.receive.rings}
    components: Mapping[str, tuple[str, PodSettings]] = {
        "spec.receive.routers": (ROUTER, spec.receive.routers),
        **{where: (INGESTOR, ring) for where, ring in rings.items()},
        "spec.query": (QUERY, spec.query),
    }
    yield from _settings(stack, "spec.podDefaults", (ROUTER, INGESTOR, QUERY), spec.pod_defaults)
    for where, (component, settings) in components.items():
        yield from _settings(stack, where, (component,), settings)
        yield from mounts.problems(where, settings, spec.pod_defaults)
        yield from _dns(where, settings, spec.pod_defaults)


def _settings(
    stack: ThanosStack, where: str, components: Iterable[str], settings: PodSettings
) -> Iterator[str]:
    extra = settings.extra_args or []
    for component in components:
        owned = args.problems(component, extra)
        for problem in owned:
            yield f"{where}.extraArgs: {problem}"
        if stack.spec.version is None and not owned:
            for mistake in mistakes(_COMMANDS[component], extra):
                yield f"{where}.extraArgs: {mistake}"
    own = labels(stack.name, "", "")
    yield from _metadata(f"{where}.labels", settings.labels or {}, own)
    yield from _metadata(f"{where}.nodeSelector", settings.node_selector or {}, {})
    for key in settings.annotations or {}:
        if not _LABEL_KEY.fullmatch(key):
            yield f"{where}.annotations: {key!r} is no name of an annotation"
    yield from _variables(where, settings)


def _metadata(where: str, given: Mapping[str, str], own: Mapping[str, str]) -> Iterator[str]:
    for key, value in given.items():
        if key in own:
            yield f"{where}: {key} is the operator's: leave it out"
        if not _LABEL_KEY.fullmatch(key):
            yield f"{where}: {key!r} is no name of a label"
        if not _LABEL_VALUE.fullmatch(value):
            yield (
                f"{where}: {key} cannot be {value!r}: a value has at most 63 letters, digits, "
                "dashes, dots and underscores"
            )


def _variables(where: str, settings: PodSettings) -> Iterator[str]:
    for variable in settings.env or ():
        if variable.name.startswith("THANOSTACK_"):
            yield f"{where}.env: {variable.name} is a flag: write it to extraArgs"
        if variable.name == "POD_NAME":
            yield f"{where}.env: POD_NAME is the operator's: leave it out"


def _dns(where: str, settings: PodSettings, defaults: PodSettings) -> Iterator[str]:
    """Yield why a component's pods would not find ingestors by DNS."""
    merged = settings.over(defaults)
    config = merged.dns_config
    if merged.dns_policy == "None" and not (config and config.nameservers and config.searches):
        path = "spec.podDefaults" if settings.dns_policy is None else where
        yield (
            f"{path}.dnsPolicy: None needs dnsConfig.nameservers, and in dnsConfig.searches the "
            "cluster's domain, such as cluster.local: ingestors are named without it"
        )
