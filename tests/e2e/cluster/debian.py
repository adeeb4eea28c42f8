"""Debian's packages that clusters and images need, installed when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cluster.node_files import CNI_PROGRAMS

_PACKAGES = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "nsenter": "util-linux",
    "runc": "runc",
    str(CNI_PROGRAMS / "bridge"): "containernetworking-plugins",
}


class MissingProgramError(RuntimeError):
    """Raised when a program is not here and cannot be installed; says which package has it."""


def require(*programs: str) -> None:
    """See to it that programs are there.

    Args:
        programs: names of programs or paths that `_PACKAGES` knows.

    Raises:
        MissingProgramError: if they are not and this is not Debian, or we are not root.
    """
    missing = sorted(_PACKAGES[name] for name in programs if not _is_there(name))
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise MissingProgramError(f"install {', '.join(missing)} and run again")
    subprocess.run(["apt-get", "update", "-q"], check=True)
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
    subprocess.run(command, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def _is_there(name: str) -> bool:
    return (
        Path(name).exists() if "/" in name else shutil.which(name, path=search_path()) is not None
    )


def search_path() -> str:
    """Return where programs are looked for: a user's PATH often lacks the administrator's."""
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
