"""Write the golden vectors: random rules and label sets, and what Prometheus makes of them.

python tests/interop/peers/relabel/write_vectors.py
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from build import relabel, version

from thanostack.testing.relabel_cases import random_case

CASES = 300
FILE = Path(__file__).parents[3] / "data" / "relabel" / "vectors.jsonl"


def main() -> None:
    """Write the file."""
    source = random.Random(20)
    cases = [random_case(source, n_series=5) for _ in range(CASES)]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    header = {"program": f"tests/interop/peers/relabel, {version()}", "seed": 20, "cases": CASES}
    with FILE.open("w", encoding="utf-8") as out:
        for row in (header, *({**c, **r} for c, r in zip(cases, relabel(cases), strict=True))):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
