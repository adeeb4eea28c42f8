"""Generate the protobuf modules of `services/thanostack/lib/pb` from the sources beside this file.

    python -P proto/generate.py            # into services/thanostack/lib/pb
    python -P proto/generate.py FOLDER     # anywhere else; the drift test does that

protoc is given this folder under the virtual path `thanostack/lib/pb`. Sources import each other
by that path, so that the generated modules import each other as `thanostack.lib.pb.x_pb2` without
being edited afterwards, and no file name can collide with another package's in the process-wide
descriptor pool. Only messages are generated: servers and clients use raw bytes and method names,
so nothing under `lib/pb` imports grpc.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

SOURCES = Path(__file__).resolve().parent
VIRTUAL = "thanostack/lib/pb"
TARGET = SOURCES.parent / "services" / VIRTUAL


def generate(target: Path) -> list[Path]:
    """Write `*_pb2.py` and `*_pb2.pyi` of every source into a folder, and remove stale ones.

    Returns:
        The files that were written.

    Raises:
        SystemExit: if protoc refuses a source; it has printed where and why.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _run_protoc(Path(scratch))
        made = sorted((Path(scratch) / VIRTUAL).iterdir())
        written = [target / file.name for file in made]
        for file, destination in zip(made, written, strict=True):
            destination.write_bytes(file.read_bytes())
    for stale in set(target.glob("*_pb2.py*")) - set(written):
        stale.unlink()
    return written


def _run_protoc(output: Path) -> None:
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    plugin = Path(sys.executable).parent / "protoc-gen-mypy"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={VIRTUAL}={SOURCES}",
            f"--proto_path={well_known}",
            f"--plugin=protoc-gen-mypy={plugin}",
            f"--python_out={output}",
            f"--mypy_out=quiet:{output}",
            *(f"{VIRTUAL}/{source.name}" for source in sorted(SOURCES.glob("*.proto"))),
        ],
    )
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET):
        print(path.name)
