"""The recorded hashring vectors are what the real Thanos module answers today."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from thanostack.testing.processes import peer_program

pytestmark = pytest.mark.interop
TESTS = Path(__file__).parents[1]
SOURCE = TESTS / "interop" / "peers" / "vectors" / "main.go"
DATA = TESTS / "data" / "hashring"


def test_recorded_vectors_are_thanos_own():
    """Our half of the comparison, on the recording, is tests/unit/hashring."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = peer_program(f"hashring-vectors-{digest}")
    cases = (DATA / "cases.json").read_bytes()
    answer = subprocess.run([program], input=cases, capture_output=True, check=True)
    recorded = json.loads((DATA / "vectors.json").read_text())
    live = json.loads(answer.stdout)
    assert set(recorded) == set(live)
    for part in sorted(set(live) - {"written_by"}):
        assert recorded[part] == live[part], part
