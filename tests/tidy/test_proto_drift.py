"""The committed protobuf modules are what `make proto` writes, and fit into one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "services" / "thanostack" / "lib" / "pb"
SOURCES = sorted(source.stem for source in (ROOT / "proto").glob("*.proto"))


def test_committed_modules_match_their_sources(tmp_path: Path) -> None:
    """Generating again into an empty folder gives the committed files, byte for byte."""
    subprocess.run([sys.executable, "-P", ROOT / "proto" / "generate.py", tmp_path], check=True)
    generated = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    committed = {file.name: file.read_bytes() for file in COMMITTED.glob("*_pb2.py*")}
    assert sorted(generated) == sorted(committed)
    differing = [name for name, body in generated.items() if committed[name] != body]
    assert differing == [], "run `make proto`"


def test_all_messages_share_one_descriptor_pool_without_grpc() -> None:
    """All modules load into one process, and none of them brings grpc with it."""
    modules = [f"thanostack.lib.pb.{name}_pb2" for name in SOURCES]
    program = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'services')!r})\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "assert 'grpc' not in sys.modules, 'a generated module imports grpc'\n"
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
