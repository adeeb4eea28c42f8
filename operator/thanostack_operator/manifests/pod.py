"""The pod template that all components share: one container, nothing it could do without.

Not root, no capability, a root file system that cannot be written to (but for `/tmp`), no token of
the API server. Probes ask the program's own `/-/ready` and `/-/healthy`, with the periods of
kube-thanos. Pods prefer different nodes, and different zones.

Source: kube-thanos, `kube-thanos-receive.libsonnet`, `kube-thanos-query.libsonnet`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thanostack_operator.api.fields import Model
from thanostack_operator.api.pod import PodSettings
from thanostack_operator.api.stack import GROUP, ThanosStack
from thanostack_operator.api.volumes import MountedFiles

from .args import flag, merged
from .names import GRPC_PORT, HTTP_PORT, WRITE_PORT, Object, labels, selector

_USER = 65534  # nobody, as kube-thanos
_GROUP = 65532
CONFIG_FOLDER = "/etc/thanostack"
DATA_FOLDER = "/var/thanostack"
PORTS = {"http": HTTP_PORT, "grpc": GRPC_PORT, "remote-write": WRITE_PORT}
_POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
# Receivers of either role do not start without a label that is their own.
REPLICA_LABEL = '--label=replica="$(POD_NAME)"'
CHECKSUM_ANNOTATION = f"{GROUP}/config-checksum"


@dataclass(frozen=True)
class Config:
    """A ConfigMap of the stack, mounted as a folder: a single file would never change again.

    Args:
        volume: name of the volume and of its folder.
        name: of the ConfigMap.
    """

    volume: str
    name: str


@dataclass(frozen=True)
class Pod:
    """What tells one component's pods from another's.

    Args:
        stack: whose they are.
        component, ring: see `names`.
        settings: the component's, laid over the stack's defaults.
        args: subcommand and flags, as far as fields give them.
        ports: names out of `PORTS`.
        grace_s: what ending may take by default.
        liveness_failures: checks that fail, each 30 s, until a pod is restarted.
        configs: mounted under `CONFIG_FOLDER`.
        checksum: of files that are read only at the start; pods are replaced when it changes.
        data_volume: name of the volume claim mounted at `DATA_FOLDER`; empty for none.
        stop_delay_s: how long a pod that ends goes on serving, until nobody sends any more.
        start_s: how long the program may take until it answers at all; 0 for the liveness probe's.
    """

    stack: ThanosStack
    component: str
    settings: PodSettings
    args: Sequence[str]
    ports: Sequence[str]
    grace_s: int
    liveness_failures: int
    ring: str | None = None
    configs: Sequence[Config] = ()
    checksum: str = ""
    data_volume: str = ""
    stop_delay_s: int = 0
    start_s: int = 0


def template(pod: Pod, operator_version: str) -> Object:
    """Return a pod template."""
    settings = pod.settings
    annotations = dict(settings.annotations or {})
    if pod.checksum:
        annotations[CHECKSUM_ANNOTATION] = pod.checksum
    own_labels = labels(pod.stack.name, pod.component, pod.ring)
    metadata = _given(labels=(settings.labels or {}) | own_labels, annotations=annotations)
    return {"metadata": metadata, "spec": _spec(pod, operator_version)}


def _spec(pod: Pod, operator_version: str) -> Object:
    settings = pod.settings
    grace_s = settings.termination_grace_period_seconds or pod.grace_s
    return _given(
        automountServiceAccountToken=False,
        # A Service's variables, such as THANOSTACK_QUERY_PORT, would be taken for flags.
        enableServiceLinks=False,
        terminationGracePeriodSeconds=grace_s,
        serviceAccountName=settings.service_account_name,
        priorityClassName=settings.priority_class_name,
        imagePullSecrets=[{"name": name} for name in pod.stack.spec.image.pull_secrets],
        nodeSelector=settings.node_selector,
        tolerations=settings.tolerations,
        affinity=_affinity(pod) if settings.affinity is None else settings.affinity,
        topologySpreadConstraints=_spread(pod)
        if settings.topology_spread_constraints is None
        else settings.topology_spread_constraints,
        securityContext=_pod_security(settings.security_context or {}),
        dnsPolicy=settings.dns_policy,
        dnsConfig=_json(settings.dns_config) if settings.dns_config else None,
        hostAliases=[_json(alias) for alias in settings.host_aliases or ()],
        containers=[_container(pod, operator_version)],
        volumes=_volumes(pod),
    )


def image(stack: ThanosStack, operator_version: str) -> str:
    """Return the image of all containers."""
    wanted = stack.spec.image
    digest = f"@{wanted.digest}" if wanted.digest else ""
    return f"{stack.repository}:{stack.spec.version or operator_version}{digest}"


def _container(pod: Pod, operator_version: str) -> Object:
    settings = pod.settings
    resources = settings.resources
    return _given(
        name=labels(pod.stack.name, pod.component)["app.kubernetes.io/name"],
        image=image(pod.stack, operator_version),
        imagePullPolicy=pod.stack.spec.image.pull_policy,
        args=_args(pod),
        env=[_POD_NAME, *(variable.model_dump() for variable in settings.env or ())],
        ports=[{"name": name, "containerPort": PORTS[name]} for name in pod.ports],
        resources=_given(requests=resources.requests, limits=resources.limits)
        if resources
        else None,
        securityContext={
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        volumeMounts=_mounts(pod),
        # The end of its log says why it ended, in the pod's status and so in the stack's.
        terminationMessagePolicy="FallbackToLogsOnError",
        lifecycle={"preStop": {"sleep": {"seconds": pod.stop_delay_s}}}
        if pod.stop_delay_s
        else None,
        **_probes(pod),
    )


def _args(pod: Pod) -> list[str]:
    logs = [
        flag("log.level", pod.settings.log_level or "info"),
        flag("log.format", pod.settings.log_format or "logfmt"),
    ]
    command, *flags = pod.args
    return [command, *merged([*logs, *flags], pod.settings.extra_args or [])]


def _probes(pod: Pod) -> Object:
    ready = _probe("/-/ready", period_s=5, failures=20)
    alive = _probe("/-/healthy", period_s=30, failures=pod.liveness_failures)
    probes = {"readinessProbe": ready, "livenessProbe": alive}
    if pod.start_s:
        # `/-/ready` would end an ingestor that drains: it is never ready again, and is needed.
        probes["startupProbe"] = _probe("/-/healthy", period_s=5, failures=pod.start_s // 5)
    return probes


def _probe(path: str, *, period_s: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _pod_security(overlay: Mapping[str, object]) -> Object:
    security = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _GROUP,
        "fsGroup": _USER,
        # A volume of many files is not walked at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
        **overlay,
    }
    return {key: value for key, value in security.items() if value is not None}


def _affinity(pod: Pod) -> Object:
    pods = {"matchLabels": selector(pod.stack.name, pod.component, pod.ring)}
    apart = {
        "weight": 100,
        "podAffinityTerm": {"labelSelector": pods, "topologyKey": "kubernetes.io/hostname"},
    }
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}}


def _spread(pod: Pod) -> list[Object]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(pod.stack.name, pod.component, pod.ring)},
        }
    ]


def _volumes(pod: Pod) -> list[Object]:
    settings = pod.settings
    return [
        {"name": "tmp", "emptyDir": {}},
        *({"name": c.volume, "configMap": {"name": c.name}} for c in pod.configs),
        *(
            {"name": f"secret-{i}", "secret": {"secretName": files.name}}
            for i, files in enumerate(settings.secrets or ())
        ),
        *(
            {"name": f"configmap-{i}", "configMap": {"name": files.name}}
            for i, files in enumerate(settings.config_maps or ())
        ),
        *map(_json, settings.extra_volumes or ()),
    ]


def _mounts(pod: Pod) -> list[Object]:
    settings = pod.settings
    data = [{"name": pod.data_volume, "mountPath": DATA_FOLDER}] if pod.data_volume else []
    configs = ((c.volume, f"{CONFIG_FOLDER}/{c.volume}") for c in pod.configs)
    files = (
        *configs,
        *_extra("secret", settings.secrets),
        *_extra("configmap", settings.config_maps),
    )
    return [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        *data,
        *({"name": name, "mountPath": path, "readOnly": True} for name, path in files),
        *map(_json, settings.extra_volume_mounts or ()),
    ]


def _extra(kind: str, mounts: Sequence[MountedFiles] | None) -> list[tuple[str, str]]:
    return [(f"{kind}-{i}", files.mount_path) for i, files in enumerate(mounts or ())]


def _json(part: Model) -> Object:
    """Return what a part of the spec says, as it stands in a pod's spec."""
    return part.model_dump(by_alias=True, exclude_defaults=True)


def checksum(*texts: str) -> str:
    """Return what changes when one of the texts does."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _given(**fields: object) -> Object:
    """Return the fields that say something; an empty one would only be a difference to explain."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}
