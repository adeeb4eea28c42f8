"""Four times what a receiver can take, for a minute, in control groups; needs root.

python tests/benchmarks/overload.py [--seconds 60] [ROLE[,ENCODING] ...]

With an encoding, `snappy` or `identity`, writes come over gRPC, as those of other receivers do.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from thanostack.testing import overload


def main() -> None:
    """Overload each role in turn and print what was seen; fails where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "cases",
        nargs="*",
        default=[
            "IngestorOnly",
            "RouterIngestor",
            "RouterOnly",
            "IngestorOnly,snappy",
            "IngestorOnly,identity",
        ],
    )
    given = parser.parse_args()
    for case in given.cases:
        role, _, encoding = case.partition(",")
        with tempfile.TemporaryDirectory() as folder:
            figures = overload.measure(
                role, Path(folder), duration_s=given.seconds, encoding=encoding
            )
        print(f"{case}: {figures.text()}", flush=True)
        if figures.lost or figures.invented or figures.oom_kills:
            raise SystemExit(f"{figures.oom_kills} kills; {figures.lost}; {figures.invented}")


if __name__ == "__main__":
    main()
