"""What every container's pods can be told: resources, placement, metadata, further flags and files.

A component's own settings are laid over `spec.podDefaults` field by field: a list or a map that the
component names replaces the default's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import (
    Amount,
    LabelName,
    Model,
    ObjectName,
    Passthrough,
    ShortText,
    map_keys,
    text_like,
)
from .lookup import DNSConfig, HostAlias
from .volumes import ExtraVolumeMounts, ExtraVolumes, Mounts


class Resources(Model):
    """Requests and limits of a container, by resource name."""

    requests: Annotated[dict[str, Amount], Field(max_length=8)] = {}
    """What the node must have free, such as `cpu: 500m` and `memory: 1Gi`."""
    limits: Annotated[dict[str, Amount], Field(max_length=8)] = {}
    """The most that the container may take."""


class EnvVar(Model):
    """One environment variable of the container."""

    name: LabelName
    """Name of the variable."""
    value: ShortText = ""
    """Its value; `$(NAME)` is replaced by an earlier variable, as Kubernetes does."""


# One item a flag: `--name=value`, or `--name` and `--no-name` for switches.
ExtraArg = Annotated[
    str,
    text_like(
        r"^--[a-z][A-Za-z0-9_.-]*(=[\s\S]*)?$",
        "write one item a flag: --name=value, and --name or --no-name for switches",
        2048,
    ),
]


class PodSettings(Model):
    """Settings of a component's pods; what is left out comes from `spec.podDefaults`."""

    resources: Resources | None = None
    """CPU and memory of the container."""
    labels: Annotated[dict[str, ShortText], Field(max_length=64)] | None = None
    """Further labels of the pods."""
    annotations: Annotated[dict[str, ShortText], Field(max_length=64)] | None = None
    """Annotations of the pods."""
    node_selector: Annotated[dict[str, ShortText], Field(max_length=32)] | None = None
    """Labels that a node must have."""
    tolerations: Annotated[list[Passthrough], Field(max_length=32)] | None = None
    """Taints that the pods tolerate, as in a pod's spec."""
    affinity: Passthrough | None = None
    """Affinity as in a pod's spec; replaces the default, which prefers different nodes."""
    topology_spread_constraints: Annotated[list[Passthrough], Field(max_length=8)] | None = None
    """Spreading as in a pod's spec; replaces the default, which prefers different zones."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods; none of them talks to the API server."""
    security_context: Passthrough | None = None
    """Fields laid over the pods' security context; null removes one of the operator's."""
    log_level: Literal["debug", "info", "warn", "error"] | None = None
    """Least level that is logged; info by default."""
    log_format: Literal["logfmt", "json"] | None = None
    """Form of log lines; logfmt by default."""
    env: (
        Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=map_keys("name"))] | None
    ) = None
    """Further environment variables."""
    extra_args: Annotated[list[ExtraArg], Field(max_length=64)] | None = None
    """Further flags, `--name=value`, after those of fields; one of the same name is replaced."""
    secrets: Mounts | None = None
    """Secrets mounted for `extraArgs` to name, such as certificates."""
    config_maps: Mounts | None = None
    """ConfigMaps mounted for `extraArgs` to name."""
    extra_volumes: ExtraVolumes | None = None
    """Further volumes of the pods."""
    extra_volume_mounts: ExtraVolumeMounts | None = None
    """Where `extraVolumes` are mounted."""
    dns_policy: Literal["ClusterFirst", "None"] | None = None
    """Whether pods ask the cluster's DNS, as by default, or only what `dnsConfig` names."""
    dns_config: DNSConfig | None = None
    """Additions to the pods' resolv.conf."""
    host_aliases: (
        Annotated[list[HostAlias], Field(max_length=16, json_schema_extra=map_keys("ip"))] | None
    ) = None
    """Lines added to the pods' hosts file."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None
    """How long a pod may take to end: 900 for ingestors, 150 for the others by default."""

    def over(self, defaults: PodSettings) -> PodSettings:
        """Return these settings with what they leave out taken from ``defaults``."""
        fields = PodSettings.model_fields
        return PodSettings.model_construct(
            **{
                name: getattr(defaults, name)
                if getattr(self, name) is None
                else getattr(self, name)
                for name in fields
            }
        )
