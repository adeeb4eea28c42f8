"""Kill a storage with `kill -9` again and again, and prove that nothing acknowledged is lost.

    parent ──fork──> child: open, check all, write ── SIGKILL inside a chosen phase
       ^                                                    │
       └────── what was sent and acknowledged, from shared memory; the same directory again

Three writers, head cuts, checkpoints, rolling segments and files, a reader that checks too. Damage
adds up: a directory goes through many kills before it is replaced. Every round, before it writes,
a child compares all that is readable with all that was sent: every acknowledged sample is there
with its bits, nothing else is there but what was sent, and what was seen once stays.

Run it by hand or by `make soak`; `--break` does something wrong on purpose, and must be found out.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from thanostack.testing import crash_child
from thanostack.testing.crash_phases import NAMES, TORN, WRITERS, SharedPage, Target
from thanostack.testing.crash_samples import Ledger, as_request

BLOCKS_MAX = 50
PATIENCE_S = 8.0
VERIFY_S = 120.0
STOP = "clean stop"
ANYWHERE = "anywhere"
SKIPS = {"append": 40, "torn log write": 40, "segment end": 4, "segment roll": 4}
ONCE = ("replay", "close")


@dataclass
class Tally:
    """What happened; `failures` says why the run has failed."""

    seed: int
    kills: int = 0
    kills_inside: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    kills_outside: int = 0
    targets_missed: dict[str, int] = field(default_factory=dict)
    clean_stops: int = 0
    directories: int = 0
    checks: int = 0
    checks_after_clean_stop: int = 0
    samples_sent: int = 0
    samples_acknowledged: int = 0
    samples_checked: int = 0
    sent_unacknowledged_present: int = 0
    requests_refused_or_unclear: int = 0
    requests: int = 0
    blocks: int = 0
    live_reads: int = 0
    lost: int = 0
    lost_after_clean_stop: int = 0
    invented: int = 0
    wrong: int = 0
    live_lost: int = 0
    reports: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print everything, a line each."""
        facts = asdict(self)
        inside, failures = facts.pop("kills_inside"), facts.pop("failures")
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):32} {value}")
        for phase, count in inside.items():
            print(f"  killed inside {phase:24} {count}")
        for text in failures:
            print(f"FAILED: {text}")


class CrashLoop:
    """The parent: chooses where to kill, kills, and keeps the books.

    Args:
        options: the command line.
        folder: for the directories.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._random = random.Random(options.seed)
        self._page = SharedPage()
        self._stopped_cleanly = False
        self.tally = Tally(options.seed)
        self._renew()

    def run(self) -> Tally:
        """Kill as often as wanted, then check a last time."""
        started = time.monotonic()
        while not self._is_enough() and not self.tally.failures:
            self._round(self._next_place())
            self.tally.seconds = round(time.monotonic() - started, 1)
            if self._is_worn_out() and not self.tally.failures:
                self._finish()
                self._renew()
        if not self.tally.failures:
            self._finish()
        self.tally.seconds = round(time.monotonic() - started, 1)
        return self.tally

    def _renew(self) -> None:
        self._ledger = Ledger(in_flight=[[] for _ in range(WRITERS)])
        self._directory = self._folder / f"{self.tally.directories:04d}"
        self._rounds = 0
        self._stopped_cleanly = False
        self.tally.directories += 1

    def _is_worn_out(self) -> bool:
        worn = self._rounds >= self._options.directory_kills
        return worn or int(self._page.record["blocks"]) >= BLOCKS_MAX

    def _is_enough(self) -> bool:
        """Return whether all kills are done, and enough inside each phase."""
        kills, wanted = self.tally.kills, self._options.kills
        least = min(self.tally.kills_inside.values())
        # Bound: a phase that is never met must not keep this going; the tally shows it.
        return kills >= wanted and (least >= self._options.inside or kills >= 2 * wanted)

    def _next_place(self) -> str:
        """Return a phase that was killed in least often; now and then something else."""
        if self._random.random() < 0.15:
            return self._random.choice((STOP, ANYWHERE))
        inside = self.tally.kills_inside
        least = min(inside.values())
        return self._random.choice([name for name in NAMES if inside[name] == least])

    def _finish(self) -> None:
        """Check, stop cleanly, check again, and throw the directory away."""
        for _ in range(2):
            self._live(Target(), only_checks=True, place=STOP)
        if not self.tally.failures:
            shutil.rmtree(self._directory)

    def _round(self, place: str) -> None:
        self._rounds += 1
        target = Target()
        if place in NAMES:
            skip = 0 if place in ONCE else self._random.randint(0, SKIPS.get(place, 1))
            stands_still = place in TORN or self._random.random() < 0.75
            target = Target(place, skip, self._random.random(), stands_still)
        self._live(target, only_checks=False, place=place)

    def _live(self, target: Target, *, only_checks: bool, place: str) -> None:
        """Start a child, end it, and take over what it did."""
        self._page.clear()
        seed = self._random.getrandbits(48)
        life = crash_child.Life(
            self._directory, target, seed, only_checks, getattr(self._options, "break")
        )
        reading, writing = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            crash_child.run(life, self._ledger, self._page, writing)
        os.close(writing)
        try:
            self._attend(pid, reading, place, is_short=only_checks)
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(reading)
        self._take_over()
        self._note_end(place, os.waitstatus_to_exitcode(status))

    def _attend(self, pid: int, signals: int, place: str, *, is_short: bool) -> None:
        """Wait for the right moment and send the signal."""
        if is_short:
            return
        at_target = self._await(signals, VERIFY_S) == b"x"
        if place == "close" and not at_target:
            os.kill(pid, signal.SIGTERM)
        if place in {STOP, ANYWHERE}:
            time.sleep(self._random.uniform(0, 0.4))
        elif not at_target:
            # Some are met before the check; a replay that is over is not met again.
            patience = 0.2 if place == "replay" else PATIENCE_S
            if self._await(signals, patience) != b"x":
                missed = self.tally.targets_missed
                missed[place] = missed.get(place, 0) + 1
        if place == STOP:
            os.kill(pid, signal.SIGTERM)
            return
        time.sleep(self._random.uniform(0, 0.002))
        os.kill(pid, signal.SIGKILL)

    def _await(self, signals: int, seconds: float) -> bytes:
        """Return the next byte of the child, nothing when it ended or takes too long."""
        ready, _, _ = select.select([signals], [], [], seconds)
        return os.read(signals, 1) if ready else b""

    def _note_end(self, place: str, code: int) -> None:
        tally = self.tally
        self._stopped_cleanly = code == 0
        if code not in {0, -signal.SIGKILL}:
            self._fail(f"a child ended by itself with {code} while {place} was the target")
        elif code == 0:
            tally.clean_stops += 1
        else:
            tally.kills += 1
            inside = [
                n for n, count in zip(NAMES, self._page.record["inside"], strict=True) if count
            ]
            for phase in inside:
                tally.kills_inside[phase] += 1
            tally.kills_outside += not inside

    def _take_over(self) -> None:
        """Judge what the child found, then add what it sent to the books."""
        record, tally = self._page.record, self.tally
        if record["verified"]:
            self._judge()
        for name in ("live_reads", "live_lost", "reports"):
            setattr(tally, name, getattr(tally, name) + int(record[name]))
        if record["live_lost"]:
            self._fail(f"a live read missed {record['live_lost']} samples")
        if record["reports"]:
            self._fail("the storage reported a repair or failed work, see above")
        requests = [
            [as_request(entry) for entry in record["requests"][w][: record["sent"][w]]]
            for w in range(WRITERS)
        ]
        before = len(self._ledger.sent), len(self._ledger.required)
        self._ledger.add(requests, record["seen"][: record["n_seen"]])
        tally.samples_sent += len(self._ledger.sent) - before[0]
        tally.samples_acknowledged += len(self._ledger.required) - before[1] - int(record["n_seen"])
        outcomes = Counter(request.outcome for part in requests for request in part)
        tally.requests += outcomes.total()
        tally.requests_refused_or_unclear += outcomes[crash_child.REFUSED]

    def _judge(self) -> None:
        record, tally = self._page.record, self.tally
        tally.checks += 1
        tally.samples_checked += int(record["readable"])
        tally.sent_unacknowledged_present += int(record["n_seen"])
        tally.blocks = max(tally.blocks, int(record["blocks"]))
        for name in ("lost", "invented", "wrong"):
            found = int(record[name])
            setattr(tally, name, getattr(tally, name) + found)
            if found:
                self._fail(f"{found} samples {name}")
        if self._stopped_cleanly:
            tally.checks_after_clean_stop += 1
            tally.lost_after_clean_stop += int(record["lost"])

    def _fail(self, text: str) -> None:
        self.tally.failures.append(f"{text}; after {self.tally.kills} kills, in {self._directory}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--inside", type=int, default=5, help="kills inside each phase, at least")
    parser.add_argument("--seed", type=int, default=None, help="random, and printed, if not given")
    parser.add_argument("--directory-kills", type=int, default=30, help="kills a directory takes")
    parser.add_argument("--break", choices=crash_child.BREAKS, default="", help="must be found out")
    parser.add_argument("--folder", type=Path, help="a temporary one if not given")
    parser.add_argument("--tally", type=Path, help="write the tally to this file as JSON")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().getrandbits(32)
    return options


def main() -> int:
    """Run the loop; the exit code is 1 when anything was lost, invented or in need of repair."""
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="crash-loop-", dir=options.folder))
    print(f"seed {options.seed}, directories in {folder}", flush=True)
    crash_child.warm_up()
    gc.freeze()
    tally = CrashLoop(options, folder).run()
    tally.show()
    if options.tally:
        options.tally.write_text(json.dumps(asdict(tally)), encoding="utf-8")
    if tally.failures:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
