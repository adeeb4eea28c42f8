"""What is wrong with the volumes and mounts that a stack adds to its pods.

A component's pods have its own settings laid over `spec.podDefaults`, field by field. They are
judged so, each component for itself, and a problem names the field where it was written.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from pydantic.alias_generators import to_camel

from thanostack_operator.api.pod import PodSettings

from .pod import CONFIG_FOLDER, DATA_FOLDER

_FOLDERS = ("/tmp", "/proc", "/sys", "/dev", CONFIG_FOLDER, DATA_FOLDER)  # noqa: S108
_OWN_VOLUMES = re.compile(r"tmp|data|hashrings|limits|relabel|overrides|(secret|configmap)-[0-9]+")


def problems(where: str, settings: PodSettings, defaults: PodSettings) -> Iterator[str]:
    """Yield what is wrong with a component's volumes and mounts, a sentence each.

    Args:
        where: path of the component's settings.
        settings: the component's own.
        defaults: `spec.podDefaults`, for what it leaves out.
    """
    written = {
        name: _written(name, where, settings, defaults)
        for name in ("extra_volumes", "extra_volume_mounts", "secrets", "config_maps")
    }
    volumes_path, volumes = written.pop("extra_volumes")
    for volume in volumes:
        if _OWN_VOLUMES.fullmatch(volume.name):
            yield f"{volumes_path}: {volume.name} is a volume of the operator's: use another name"
        if len(volume.sources) != 1:
            found = ", ".join(volume.sources) or "none"
            yield (
                f"{volumes_path}: {volume.name} needs one source, such as persistentVolumeClaim or "
                f"emptyDir, and has {found}"
            )
    names = {volume.name for volume in volumes}
    mounts_path, mounts = written["extra_volume_mounts"]
    for mount in mounts:
        if mount.name not in names:
            yield (
                f"{mounts_path}: {mount.name} is not in {volumes_path}: add the volume there, or "
                "leave the mount out"
            )
    yield from _paths((path, mount.mount_path) for path, of in written.values() for mount in of)


def _written(
    name: str, where: str, settings: PodSettings, defaults: PodSettings
) -> tuple[str, list[Any]]:
    """Return the path of a field where it was written, and its items."""
    own = getattr(settings, name)
    if own is not None:
        return f"{where}.{to_camel(name)}", own
    return f"spec.podDefaults.{to_camel(name)}", getattr(defaults, name) or []


def _paths(mounts: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Yield folders that are not free, of mounts as (field, folder)."""
    taken: dict[str, str] = {}
    for path, folder in mounts:
        plain = posixpath.normpath(f"/{folder.lstrip('/')}")
        if any(_lies_in(plain, own) or _lies_in(own, plain) for own in _FOLDERS):
            yield f"{path}: mountPath {plain} is taken: use a folder such as /etc/secrets/name"
        elif plain in taken:
            yield f"{path}: mountPath {plain} is taken by {taken[plain]}: use another folder"
        taken.setdefault(plain, path)


def _lies_in(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(f"{other.rstrip('/')}/")
