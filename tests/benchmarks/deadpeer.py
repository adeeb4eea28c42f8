"""Seconds a write takes while one of three ingestors is dead, or says nothing: ours, the real one.

    none · killed · none · silent · none · killed · …

Phases take turns in one run, so that a busy machine hurts all of them. *Killed* is SIGKILL: its
port refuses. *Silent* is a host that is gone: connections stay and no byte comes back; a relay
before the ingestor that stops reading does that. The steady part of a phase begins when a router
has had time to notice; of what was before, the slowest write is kept.

Writes are paced, so that a slow one does not keep others from being sent and counted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from thanostack.testing.bodies import Load
from thanostack.testing.ports import free_port
from thanostack.testing.processes import Server, our_receive, thanos_receive
from thanostack.testing.relay import Relay

INGESTORS = 3
LOAD = Load(series=2_000, batch=500)
SENDERS = 4
WRITES_A_SECOND = 60
NOTICE_S = 6.0
PHASE_S = 10.0
CYCLES = 3
PHASES = ("none", "killed", "none", "silent")
ROUTERS: dict[str, Callable[..., AbstractContextManager[Server]]] = {
    "thanos": thanos_receive,
    "thanostack": our_receive,
}


@dataclass
class Times:
    """What writes took in all phases of a kind.

    Args:
        steady_s: of those after the router had time to notice.
        early_s: of those before.
        failed: writes that were not acknowledged.
    """

    steady_s: list[float] = field(default_factory=list)
    early_s: list[float] = field(default_factory=list)
    failed: int = 0

    def quantile(self, share: float) -> float:
        """Return a quantile of the steady writes, in seconds."""
        return statistics.quantiles(self.steady_s, n=1000, method="inclusive")[
            int(share * 1000) - 1
        ]


class Ingestor:
    """One that can be killed, and started again with what it had, behind a relay.

    Args:
        folder: of its data.
        stack: ends it.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack, self._port = folder, stack, free_port()
        self.start()
        self.relay = Relay(("127.0.0.1", self._port))
        stack.callback(self.relay.close)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.server = self._stack.enter_context(our_receive(self._folder, grpc_port=self._port))
        self.server.wait_ready()


def measure() -> Iterator[tuple[str, str, Times]]:
    """Yield (router, kind of phase, times), the routers one after another."""
    for name, start in ROUTERS.items():
        with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
            folder = Path(temporary)
            ingestors = [Ingestor(folder / f"i{n}", stack) for n in range(INGESTORS)]
            ring = json.dumps([{"endpoints": [f"127.0.0.1:{i.relay.port}" for i in ingestors]}])
            flags = (
                f"--receive.hashrings={ring}",
                "--receive.hashrings-algorithm=ketama",
                f"--receive.replication-factor={INGESTORS}",
            )
            router = stack.enter_context(start(folder / "router", *flags))
            router.wait_ready()
            for kind, times in _phases(router, ingestors[-1]).items():
                yield name, kind, times


def _phases(router: Server, victim: Ingestor) -> dict[str, Times]:
    found = {kind: Times() for kind in PHASES}
    bodies = [body for _, of_round in LOAD.requests() for body in of_round]
    router.send(bodies[:20])
    for kind in PHASES * CYCLES:
        if kind == "killed":
            victim.server.kill()
        victim.relay.set_silent(kind == "silent")
        _write(router, bodies, found[kind])
        if kind == "killed":
            victim.start()
        victim.relay.set_silent(False)
    return found


def _write(router: Server, bodies: list[bytes], times: Times) -> None:
    begun = time.monotonic()
    senders = [
        threading.Thread(target=_send, args=(router, bodies, begun, n, times))
        for n in range(SENDERS)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def _send(router: Server, bodies: list[bytes], begun: float, number: int, times: Times) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", router.write_port, timeout=30)
    interval_s = SENDERS / WRITES_A_SECOND
    due, count = begun + interval_s * number / SENDERS, number
    while due < begun + NOTICE_S + PHASE_S:
        time.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        connection.request(
            "POST", router.write_path, bodies[count % len(bodies)], {"Content-Encoding": "snappy"}
        )
        answer = connection.getresponse()
        answer.read()
        took = time.monotonic() - started
        (times.early_s if started < begun + NOTICE_S else times.steady_s).append(took)
        times.failed += answer.status // 100 != 2
        due, count = due + interval_s, count + SENDERS
    connection.close()
