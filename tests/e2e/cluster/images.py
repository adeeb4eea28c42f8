"""Images, built by buildah from Dockerfiles, with nothing pulled: no registry is reached.

    debootstrap ──> debian:bookworm-slim ──┐
    Dockerfile, source ────────────────────┴─buildah──> layers, kept ──> archive for a cluster

Everything is kept outside the checkout, so that a second build only does what changed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import debian

_ARCHIVE_KEPT_S = 3600
BASE = "docker.io/library/debian:bookworm-slim"
_SUITE = "bookworm"
_NOT_IN_SLIM = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt/archives",
    "var/lib/apt/lists",
)  # fmt: skip
_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert")


class BuildError(RuntimeError):
    """Raised when an image cannot be built; says what the builder said last."""


def cache_folder() -> Path:
    """Return the folder that keeps layers and archives."""
    root = os.environ.get("THANOSTACK_IMAGE_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "thanostack" / "images"


def program_image(name: str, program: Path) -> Path:
    """Return an archive of an image that holds one static program and starts it."""
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copy(program, context / "program")
        lines = ["FROM scratch", "COPY program /program", 'ENTRYPOINT ["/program"]']
        (context / "Dockerfile").write_text("\n".join(lines), encoding="utf-8")
        return _built(name, context, context / "Dockerfile")


@functools.cache
def project_image(name: str, root: Path, dockerfile: str) -> Path:
    """Return an archive of an image built from one of the project's Dockerfiles.

    A process builds it once, for all its clusters.

    Args:
        name: with the tag; not `latest`, which pods would try to pull.
        root: of the checkout, which is what the Dockerfile sees.
        dockerfile: below the root.

    Raises:
        BuildError: if it does not build.
    """
    _make_base()
    with tempfile.TemporaryDirectory() as folder:
        return _built(name, root, root / dockerfile, *_machine_flags(Path(folder)))


def _built(name: str, context: Path, dockerfile: Path, *flags: str) -> Path:
    """Build an image and return its archive; the same content is the same file."""
    with tempfile.NamedTemporaryFile() as answer:
        command = ["bud", "--layers", "--isolation=chroot", "--pull-never", f"--tag={name}"]
        command += [f"--file={dockerfile}", f"--iidfile={answer.name}", *flags, str(context)]
        _buildah(*command)
        image = Path(answer.name).read_text("ascii").strip()
    identity = image.rpartition(":")[2][:16]
    archive = cache_folder() / f"{re.sub('[^a-z0-9]+', '-', name)}-{identity}.tar"
    if not archive.exists():
        _remove_old(archive)
        unfinished = archive.with_suffix(f".{os.getpid()}")
        _buildah("push", "--quiet", image, f"docker-archive:{unfinished}:{name}")
        unfinished.rename(archive)
    return archive


def _remove_old(archive: Path) -> None:
    """Delete what the same image was some time ago; nobody is about to load it."""
    name = archive.stem.rpartition("-")[0]
    for other in archive.parent.glob(f"{name}-*.tar"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > _ARCHIVE_KEPT_S:
                other.unlink()


def _make_base() -> None:
    """Make the image that Dockerfiles begin with from Debian's packages, unless it is there."""
    if BASE in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
        return
    debian.require("debootstrap")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        root = context / "root"
        command = ["debootstrap", "--variant=minbase", _SUITE, str(root)]
        subprocess.run(["nice", *command], check=True, stdout=subprocess.DEVNULL)
        for leftover in _NOT_IN_SLIM:
            shutil.rmtree(root / leftover)
            (root / leftover).mkdir()
        lines = ["FROM scratch", "COPY root /", 'CMD ["bash"]']
        (context / "Dockerfile").write_text("\n".join(lines), encoding="utf-8")
        _buildah("bud", "--isolation=chroot", f"--tag={BASE}", str(context))


def _machine_flags(folder: Path) -> list[str]:
    """Return what lets package clients inside a build work as they do on this machine.

    Args:
        folder: for a file that is needed while the image is built.
    """
    settings = _pip_settings()
    volumes = {Path("/etc/apt/apt.conf.d"): "/etc/apt/apt.conf.d"}
    if "cert" in settings:
        volumes[Path(settings["cert"])] = "/run/certificates.crt"
        settings["cert"] = "/run/certificates.crt"
    lines = ["[global]", *(f"{key} = {value}" for key, value in settings.items())]
    (folder / "pip.conf").write_text("\n".join(lines), encoding="utf-8")
    volumes[folder / "pip.conf"] = "/etc/pip.conf"
    # Kernels that were compiled for tests need not be compiled again.
    volumes[Path.home() / ".cache/thanostack/kernels"] = "/mnt/thanostack/kernels"
    return [f"--volume={path}:{place}:ro" for path, place in volumes.items() if path.exists()]


def _pip_settings() -> dict[str, str]:
    """Return how this machine's pip finds its index, as far as its files say."""
    command = ["python3", "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return {key: values[f"global.{key}"].strip("'") for key in _PIP if f"global.{key}" in values}


def _buildah(*arguments: str) -> str:
    debian.require("buildah")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    place = [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}"]
    done = subprocess.run(
        ["buildah", *place, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"buildah {arguments[0]}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout
