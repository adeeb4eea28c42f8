"""`ThanosStack`: the resource, its spec, and the few words of metadata that the operator reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from .fields import SET, Duration, LabelName, Model, ObjectName, ShortText, text_like
from .pod import PodSettings
from .query import Query
from .receive import Receive
from .rules import (
    COPIES_ARE_TOLD_APART,
    DIGEST_FOLLOWS_VERSION,
    DIGEST_HAS_A_VERSION,
    rules,
)

GROUP = "thanostack.io"
VERSION = "v1alpha1"
KIND = "ThanosStack"
PLURAL = "thanosstacks"
SHORT_NAME = "tstk"
DEFAULT_REPOSITORY = "thanostack/thanostack"


class Image(Model):
    """The image that all services share: `repository:version`, with a digest `…@digest`."""

    repository: (
        Annotated[
            str,
            text_like(
                r"^[a-z0-9.:/_-]+$",
                "an image is named by registry and path, in small letters; its tag is spec.version",
                255,
            ),
        ]
        | None
    ) = None
    """Name of the image without its tag, `spec.version`; by default beside the operator's."""
    digest: (
        Annotated[
            str,
            text_like(
                r"^sha256:[0-9a-f]{64}$",
                "a digest is sha256: and 64 hexadecimal digits, in small letters",
                71,
            ),
        ]
        | None
    ) = None
    """What nodes pull, whatever the tag says; `spec.version` then only tells which version it is.

    Kubernetes pulls `name:tag@digest` by the digest alone. The version stays in the image's name,
    so that status, pods and people see it; a rule has both change together.
    """
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the image."""
    pull_secrets: Annotated[list[ObjectName], Field(max_length=8, json_schema_extra=SET)] = []
    """Secrets that pulling needs."""


class ServiceMonitor(Model):
    """A ServiceMonitor a component, for those who run prometheus-operator."""

    enabled: bool = False
    """Whether there are any; it has no effect in a cluster that does not know them."""
    labels: Annotated[dict[str, ShortText], Field(max_length=32)] = {}
    """Labels that the Prometheus in charge selects them by."""
    interval: Duration = "30s"
    """How often components are scraped."""


class Monitoring(Model):
    """How the stack itself is watched."""

    service_monitor: ServiceMonitor = ServiceMonitor()
    """ServiceMonitors for prometheus-operator."""


class ThanosStackSpec(Model):
    """What a user asks for. Everything has a default: an empty spec is a working stack."""

    model_config = rules(COPIES_ARE_TOLD_APART, DIGEST_HAS_A_VERSION, DIGEST_FOLLOWS_VERSION)

    version: (
        Annotated[
            str,
            text_like(
                r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
                "an image's tag has letters, digits, dots, dashes and underscores",
                128,
            ),
        ]
        | None
    ) = None
    """Tag of the image; the operator's own version if left out. A change rolls the components."""
    image: Image = Image()
    """The image that all services share."""
    paused: bool = False
    """Change nothing but the status."""
    cluster_name: Annotated[str, Field(max_length=128)] | None = None
    """Name of this cluster: the external label `cluster` of all data."""
    external_labels: Annotated[dict[LabelName, ShortText], Field(max_length=32)] = {}
    """Labels announced with all data of the stack."""
    deletion_policy: Literal["Flush", "Keep"] = "Flush"
    """On deletion, Flush drains every ingestor first; Keep does not. Volumes stay in both cases."""
    pod_defaults: PodSettings = PodSettings()
    """Settings of all pods, where a component does not say otherwise."""
    receive: Receive = Receive()
    """The write side: routers and rings of ingestors."""
    query: Query = Query()
    """The read side: queriers."""
    monitoring: Monitoring = Monitoring()
    """How the stack itself is watched."""


@dataclass(frozen=True)
class ThanosStack:
    """A resource as read from the API server, its spec parsed.

    Args:
        name: at most 30 characters, so that the names made of it fit (see `manifests/names.py`).
        generation: of the spec that ``spec`` was parsed from.
        repository: the spec's, or the operator's own where the spec names none.
        deleting: whether it has a deletion timestamp.
        finalizers: those it had when it was read.
        resource_version: of what was read; changes with every write.
        status: as it was last written, JSON.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    spec: ThanosStackSpec
    repository: str = DEFAULT_REPOSITORY
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    resource_version: str = ""
    status: dict[str, Any] | None = None
