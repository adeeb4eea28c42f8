"""Install what the interop suite needs of the system: `ip` and `mount`, by Debian's package names.

    python tests/interop/tools.py

This module uses the standard library only: `make interop` runs it before the suite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = {"ip": "iproute2", "mount": "mount"}


def main() -> None:
    """Install the packages of programs that are missing, where that can be done."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        sys.exit(f"the interop suite needs {' and '.join(missing)}: install them and run again")
    subprocess.run(["apt-get", "update", "-q"], check=True)
    subprocess.run(["apt-get", "install", "-q", "-y", *missing], check=True)


if __name__ == "__main__":
    main()
