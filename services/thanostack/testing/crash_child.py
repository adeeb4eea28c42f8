"""The process that is killed: it opens a tenant, checks what it finds, then writes and reads.

    open (replay) ── check all of it ── "v" ── writers, maintenance, a reader ── until SIGKILL
                                                                              └─ SIGTERM: close

It is forked from a parent that called `warm_up` and ends by `os._exit`, so nothing is imported or
compiled again.
Its exit code is 0 after a clean stop, `FAULT` when something was not as it should be.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

from thanostack.lib.foundation.errors import NotReady, StorageUnwritable, Unavailable
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.kernels._jit import Kernel
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.lib.tsdb.options import TSDBOptions
from thanostack.lib.tsdb.tsdb import TSDB
from thanostack.lib.wal.writer import WALWriter
from thanostack.testing.crash_phases import (
    REQUESTS_MAX,
    WRITERS,
    Phases,
    SharedPage,
    Target,
    replace_in,
    shrink,
)
from thanostack.testing.crash_samples import (
    ACKNOWLEDGED,
    CHURNING,
    IN_FLIGHT,
    REFUSED,
    STEADY,
    TICK_MS,
    Ledger,
    Request,
    UInt64Array,
    as_request,
    churning_id,
    describe,
    is_among,
    missing_from,
    read_back,
    steady_id,
    times_of,
    writers_of,
)

BLOCK_MS = 60_000
TENANT: Final = Tenant("crash")
OPTIONS: Final = TSDBOptions(
    retention_ms=0,
    min_block_ms=BLOCK_MS,
    max_block_ms=BLOCK_MS,
    too_far_in_future_ms=0,
    series_max=1 << 14,
    segment_bytes=1 << 15,
)
FAULT = 3
BREAKS = ("early-ack", "lose-writes", "invent")
_HANG_S = 100.0


@dataclass(frozen=True)
class Life:
    """One child's.

    Args:
        folder: holds the tenant.
        target: where it will be killed.
        seed: of what it sends.
        only_checks: end cleanly after the check.
        breaks: one of `BREAKS`: what to do wrong on purpose, "" for nothing.
    """

    folder: Path
    target: Target
    seed: int
    only_checks: bool = False
    breaks: str = ""


def warm_up() -> None:
    """Load every kernel that was imported; a child inherits them ready to run."""
    for name, module in list(sys.modules.items()):
        if name.startswith("thanostack.lib.kernels."):
            for value in list(vars(module).values()):
                if isinstance(value, Kernel):
                    value.ready()  # type: ignore[no-untyped-call]


def run(life: Life, ledger: Ledger, page: SharedPage, signal_fd: int) -> NoReturn:
    """Live in a forked process until killed or told to end by SIGTERM.

    Args:
        life: how.
        ledger: what must and may be there.
        page: takes what is sent and found.
        signal_fd: gets "v" after the check, "x" at the target.
    """
    code = FAULT
    try:
        faulthandler.enable()
        faulthandler.dump_traceback_later(_HANG_S, exit=True)
        threading.excepthook = _end_on_exception
        _Child(life, ledger, page, signal_fd).run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_on_exception(hook: threading.ExceptHookArgs) -> None:
    traceback.print_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)
    sys.stderr.flush()
    os._exit(FAULT)


class _VirtualTime:
    """Time that all writers share, so that none is left behind the head's window."""

    def __init__(self, now: int) -> None:
        self._now, self._guard = now, threading.Lock()

    def take(self, after: int, random_source: random.Random) -> int:
        """Return a time later than `after`, a multiple of the tick."""
        with self._guard:
            self._now += TICK_MS * random_source.randint(20, 60)
            self._now = max(self._now, after + TICK_MS)
            return self._now


class _Child:
    def __init__(self, life: Life, ledger: Ledger, page: SharedPage, signal_fd: int) -> None:
        self._life, self._ledger, self._page = life, ledger, page
        self._record = page.record
        self._signal_fd = signal_fd
        self._random = random.Random(life.seed)
        self._stop = threading.Event()
        self._closing = False
        jump = 4 * BLOCK_MS if self._random.random() < 0.05 else TICK_MS
        self._time = _VirtualTime(ledger.newest + jump)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        shrink()
        Phases(self._page, self._life.target, self._signal_fd).install()
        storage = MultiTSDB(self._life.folder, OPTIONS, report=self._report)
        storage.open()
        tsdb = storage.tsdb(TENANT)
        self._check(tsdb)
        os.write(self._signal_fd, b"v")
        if not self._life.only_checks:
            _break(self._life.breaks, self._random)
            self._start(lambda: self._maintain(storage))
            if not self._life.breaks:
                # What is broken on purpose has to be found by the check after a kill.
                self._start(lambda: self._read(tsdb))
            for writer in range(WRITERS):
                source = random.Random(f"{self._life.seed}/{writer}")
                self._start(lambda w=writer, r=source: self._write(tsdb, w, r))  # type: ignore[misc]
            # Waiting with a timeout: signal handlers run in between.
            while not self._stop.wait(0.05):
                pass
        self._closing = True
        storage.close()

    def _start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def _report(self, message: str, facts: Mapping[str, Any]) -> None:
        """Count what a `kill -9` must not lead to: repairs, files set aside, failed work."""
        if message.startswith(("cut a block", "the data directory is on")):
            return
        self._record["reports"] += 1
        print(f"report: {message} {dict(facts)}", file=sys.stderr, flush=True)

    # --- what is there -----------------------------------------------------------------------

    def _check(self, tsdb: TSDB) -> None:
        record, ledger = self._record, self._ledger
        found = read_back(tsdb)
        lost = missing_from(found.keys, ledger.required)
        invented = missing_from(ledger.sent, found.keys)
        seen = missing_from(ledger.required, found.keys[is_among(found.keys, ledger.sent)])
        record["readable"], record["required"] = len(found.keys), len(ledger.required)
        record["lost"], record["invented"] = len(lost), len(invented)
        record["wrong"] = found.wrong + found.mislabelled
        record["blocks"] = len(tsdb.blocks.readers)
        kept = seen[: len(record["seen"])]
        record["seen"][: len(kept)] = kept
        record["n_seen"] = len(kept)
        for name, keys in (("lost", lost), ("invented", invented)):
            if len(keys):
                spans = [(b.meta.mint, b.meta.maxt) for b in tsdb.blocks.readers][-4:]
                print(
                    f"{len(keys)} {name}: {describe(keys)} … {describe(keys[-3:])}; newest blocks "
                    f"{spans}; head {tsdb.head.mint}..{tsdb.head.maxt}",
                    file=sys.stderr,
                )
        record["verified"] = 1

    def _acknowledged(self) -> UInt64Array:
        """Return what this process has been told is stored."""
        parts = [np.zeros(0, np.uint64)]
        for writer in range(WRITERS):
            sent = self._record["requests"][writer][: self._record["sent"][writer]]
            done = sent[sent["outcome"] == ACKNOWLEDGED]
            parts += [as_request(record).keys() for record in done]
        return np.unique(np.concatenate(parts))

    def _read(self, tsdb: TSDB) -> None:
        """Ask for the newest blocks' time, of everyone or of one writer, again and again."""
        source = random.Random(f"{self._life.seed}/reader")
        while not self._stop.is_set():
            acknowledged = self._acknowledged()
            newest = int(times_of(acknowledged).max(initial=self._ledger.newest))
            mint, maxt = newest - source.randint(1, 4) * BLOCK_MS, newest
            writer = source.randrange(2 * WRITERS)
            wanted = np.union1d(self._ledger.required, acknowledged)
            times = times_of(wanted)
            wanted = wanted[(times >= mint) & (times <= maxt)]
            matchers: tuple[Matcher, ...] = ()
            if writer < WRITERS:
                wanted = wanted[writers_of(wanted) == writer]
                matchers = (Matcher(MatchType.EQ, "writer", str(writer)),)
            with contextlib.suppress(Unavailable):
                found = read_back(tsdb, mint, maxt, matchers)
                missing = missing_from(found.keys, wanted)
                bad = len(missing) + found.wrong + found.mislabelled
                if bad:
                    print(f"live read {mint}..{maxt}: {describe(missing)}", file=sys.stderr)
                self._record["live_lost"] += bad
                self._record["live_reads"] += 1
            time.sleep(0.02)

    # --- what is done ------------------------------------------------------------------------

    def _maintain(self, storage: MultiTSDB) -> None:
        while not self._stop.is_set():
            storage.maintain()
            time.sleep(0.005)

    def _write(self, tsdb: TSDB, writer: int, source: random.Random) -> None:
        last = self._ledger.newest
        pending = self._ledger.in_flight[writer] if self._ledger.in_flight else []
        if source.random() < 0.5:
            # As a client does that never got its answer.
            for request in pending:
                self._send(tsdb, writer, request)
        while self._record["sent"][writer] < REQUESTS_MAX:
            request = _choose(writer, self._time.take(last, source), source)
            last = request.maxt
            if not self._send(tsdb, writer, request):
                return
            if source.random() < 0.1 and not self._send(tsdb, writer, request):
                return

    def _send(self, tsdb: TSDB, writer: int, request: Request) -> bool:
        """Send and note; return False when the storage has been closed."""
        request = replace(request, outcome=IN_FLIGHT)
        body = request.body()
        place = int(self._record["sent"][writer])
        if place >= REQUESTS_MAX:
            return False
        entry = self._record["requests"][writer][place]
        self._record["requests"][writer][place] = astuple(request)
        self._record["sent"][writer] = place + 1
        if self._life.breaks == "early-ack":
            entry["outcome"] = ACKNOWLEDGED
        if self._life.breaks == "invent" and place % 20 == 5:
            body += replace(request, t0=request.maxt + TICK_MS, steps=1, faults=0).body()
        try:
            result = tsdb.append_and_wait(body)
        except (StorageUnwritable, NotReady):
            if not self._closing:
                raise
            return False
        entry["outcome"] = ACKNOWLEDGED if request.is_taken(result) else REFUSED
        return True


def _choose(writer: int, t0: int, source: random.Random) -> Request:
    """Return a request that begins at t0; most are small, few are larger than a segment."""
    steps, step = source.choice(((1, TICK_MS), (1, TICK_MS), (2, 300), (3, 500)))
    if source.random() < 0.01:
        steps, step = source.choice(((60, TICK_MS), (300, TICK_MS)))
    if source.random() < 0.3:
        # The last few places are written so seldom that the head forgets them in between.
        place, end = source.randrange(STEADY - 4), STEADY - 4
        if source.random() < 0.05:
            place, end = source.randrange(STEADY - 4, STEADY), STEADY
        first = steady_id(writer, place)
    else:
        place, end = source.randrange(CHURNING // 2), CHURNING
        first = churning_id(writer, place, t0)
    count = source.randint(1, end - place)
    faults = min(count, 3) if source.random() < 0.15 else 0
    is_unsorted = source.random() < 0.2
    return Request(first, count, t0, step, steps, faults, int(is_unsorted))


def _break(how: str, source: random.Random) -> None:
    """Make the log drop writes."""
    if how != "lose-writes":
        return
    log = WALWriter.log

    def lose(writer: WALWriter, records: Any) -> None:
        if source.random() > 0.05:
            log(writer, records)

    replace_in(WALWriter, "log", lose)
