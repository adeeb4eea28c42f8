"""Bytes a sample in blocks: ours against Prometheus's, the same samples and the same time range."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from thanostack.testing.bodies import Load
from thanostack.testing.processes import our_receive, prometheus

LOAD = Load(series=2_000, rounds=1_440, batch=2_000)
PATIENCE_S = 240


@dataclass(frozen=True)
class BlockSize:
    """The size of one block, by part.

    Args:
        samples: in it.
        chunk_bytes, index_bytes: of its files.
    """

    server: str
    samples: int
    chunk_bytes: int
    index_bytes: int


def _first_block(server: str, folder: Path) -> BlockSize:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        metas = [json.loads(path.read_text()) for path in folder.glob("*/meta.json")]
        if metas:
            oldest = min(metas, key=lambda meta: int(meta["minTime"]))
            block = folder / oldest["ulid"]
            chunks = sum(path.stat().st_size for path in (block / "chunks").iterdir())
            samples = oldest["stats"]["numSamples"]
            return BlockSize(server, samples, chunks, (block / "index").stat().st_size)
        time.sleep(1)
    raise TimeoutError(f"{server} cut no block in {PATIENCE_S} s")


def measure() -> list[BlockSize]:
    """Write six hours to both and return the size of the first two-hour block of each."""
    with tempfile.TemporaryDirectory() as temporary:
        ours, theirs = Path(temporary) / "ours", Path(temporary) / "theirs"
        keep = "--tsdb.retention=0d"
        with our_receive(ours, keep) as a, prometheus(theirs) as b:
            a.wait_ready()
            b.wait_ready()
            for _, bodies in LOAD.requests():
                a.send(bodies)
                b.send(bodies)
            return [
                _first_block("thanostack", ours / "default-tenant"),
                _first_block("prometheus", theirs),
            ]
