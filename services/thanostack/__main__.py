"""The entry point: `thanostack …`, or `python -P -m thanostack …`."""

from __future__ import annotations

import sys

from thanostack.runtime.cli import main as _main


def main() -> None:
    """Run the program and leave with its exit code."""
    sys.exit(_main())


if __name__ == "__main__":
    main()
