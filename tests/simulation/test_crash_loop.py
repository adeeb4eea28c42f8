"""What was acknowledged survives `kill -9` at any moment, and the loop that says so can say no."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("crash_loop.py")


def run_loop(tmp_path, *arguments):
    """Return the exit code, the tally and the text of a run in a process of its own."""
    tally = tmp_path / "tally.json"
    command = [sys.executable, "-P", str(PROGRAM), "--folder", str(tmp_path), "--tally", str(tally)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    return done.returncode, json.loads(tally.read_text()) if tally.exists() else {}, text


def test_acknowledged_samples_survive_kills(tmp_path, capsys):
    """Five kills inside each phase and more: nothing lost, nothing invented, nothing repaired."""
    code, tally, text = run_loop(tmp_path, "--kills", "90", "--seed", "1")
    with capsys.disabled():
        print(f"\n{text}")
    assert code == 0, text
    assert tally["kills"] >= 90
    assert min(tally["kills_inside"].values()) >= 5
    assert tally["checks_after_clean_stop"] >= 5
    assert tally["directories"] >= 2
    nothing = ("lost", "lost_after_clean_stop", "invented", "wrong", "live_lost", "reports")
    assert dict.fromkeys(nothing, 0) == {name: tally[name] for name in nothing}
    # The proof is worth something only if most of what was sent had to be there.
    assert tally["samples_acknowledged"] > 0.8 * tally["samples_sent"] > 10_000
    assert tally["live_reads"] > 50


@pytest.mark.parametrize(
    ("how", "found"), [("early-ack", "lost"), ("lose-writes", "lost"), ("invent", "invented")]
)
def test_a_broken_storage_is_found_out(tmp_path, how, found):
    """A storage that acknowledges too early, drops log writes or makes samples up fails the run."""
    code, tally, text = run_loop(tmp_path, "--kills", "60", "--seed", "1", "--break", how)
    assert code == 1, text
    assert tally[found] > 0, text
    assert any(found in failure for failure in tally["failures"])
