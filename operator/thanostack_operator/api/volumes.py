"""Volumes and mounts that pods have beside the operator's, as a pod's spec has them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from .fields import Model, ObjectName, map_keys, text_like

Folder = Annotated[
    str, text_like(r"^/[^:]*$", "a folder begins with a slash and has no colon", 256)
]
VolumeName = Annotated[
    str,
    text_like(
        r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        "a volume's name has small letters, digits and dashes between them",
        63,
    ),
]


class MountedFiles(Model):
    """A Secret or ConfigMap of the stack's namespace, mounted read-only for `extraArgs` to name."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    mount_path: Folder
    """Folder in the container where its keys are files."""


class ExtraVolume(Model):
    """A volume: its name, and one source, such as `persistentVolumeClaim`, as in a pod's spec."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )

    name: VolumeName
    """Name of the volume, for `extraVolumeMounts`; those of the operator's own are not free."""

    @property
    def sources(self) -> dict[str, Any]:
        """Return what it has beside its name."""
        return self.model_extra or {}


class ExtraVolumeMount(Model):
    """Where one of `extraVolumes` is mounted."""

    name: VolumeName
    """Name of the volume."""
    mount_path: Folder
    """Folder in the container."""
    sub_path: (
        Annotated[str, text_like(r"^[^/].*$", "a path in a volume begins with no slash", 256)]
        | None
    ) = None
    """Path in the volume that is mounted; all of it if left out."""
    read_only: bool = False
    """Whether the container may only read it."""


Mounts = Annotated[
    list[MountedFiles], Field(max_length=16, json_schema_extra=map_keys("mountPath"))
]
ExtraVolumes = Annotated[
    list[ExtraVolume], Field(max_length=16, json_schema_extra=map_keys("name"))
]
ExtraVolumeMounts = Annotated[
    list[ExtraVolumeMount], Field(max_length=32, json_schema_extra=map_keys("mountPath"))
]
