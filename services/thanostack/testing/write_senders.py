"""Writers that never try again, what stands between them and the routers, and their books.

    Sender ──new connection──> Service ──to one endpoint, in turn──> router
       └──Write: number, outcome, endpoint──> Ledger

A sender writes a sample of each of its series, one request after another, and notes the *first*
answer to each; it never repeats a request. An outcome is `acknowledged` (200), a status, `reset`
(the connection broke before the answer), or `no endpoint`. As any HTTP client does, it looks at an
idle connection before it uses it, and opens another if its server has closed it.

`Service` is what a Kubernetes Service is to a client: it chooses an endpoint when a connection is
opened, passes by those that refuse it, and knows nothing of requests. An endpoint is in it from the
moment it is ready; one that stops is taken out a moment too late, as kube-proxy does.

Series, timestamps and values follow from the run's number: sample n of any series of a sender is n
at `begun_ms + n * STEP_MS`.
"""

from __future__ import annotations

import http.client
import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from thanostack.testing.bodies import request_body
from thanostack.testing.held_samples import Held, bits

ACKNOWLEDGED: Final = "acknowledged"
RESET: Final = "reset"
NO_ENDPOINT: Final = "no endpoint"
# Less than from one request to the next, so that a later run has newer samples: what a node cut
# into blocks for one run is no reason to refuse those of the next.
STEP_MS: Final = 100
_TIMEOUT_S: Final = 30
_HEADERS: Final = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}


class Service:
    """The endpoints that new connections go to, in turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._endpoints: dict[str, tuple[str, int]] = {}
        self._turn = 0

    def add(self, name: str, address: tuple[str, int]) -> None:
        """Send connections there too."""
        with self._lock:
            self._endpoints[name] = address

    def remove(self, name: str) -> None:
        """Send no further connections there; those that are open stay."""
        with self._lock:
            self._endpoints.pop(name, None)

    def connect(self) -> tuple[str, socket.socket]:
        """Return the name of an endpoint and a connection to it.

        Raises:
            ConnectionRefusedError: if there is no endpoint that takes it.
        """
        with self._lock:
            self._turn += 1
            found = list(self._endpoints.items())
        first = self._turn % max(1, len(found))
        for name, address in found[first:] + found[:first]:
            try:
                opened = socket.create_connection(address, _TIMEOUT_S)
            except ConnectionRefusedError:
                continue
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return name, opened
        raise ConnectionRefusedError("no endpoint takes connections")


@dataclass(frozen=True)
class Write:
    """One request and its first answer.

    Args:
        number: of the sender's requests, and the value of its samples.
        outcome: see the module.
        endpoint: that had the connection.
        begun_s, ended_s: monotonic seconds.
        text: of an answer that is not 200.
    """

    number: int
    outcome: str
    endpoint: str
    begun_s: float
    ended_s: float
    text: str = ""


class Sender(threading.Thread):
    """One writer with series of its own.

    Args:
        run, number: labels of its series.
        service: that it writes to.
        n_series: samples a request.
        pause_s: between an answer and the next request.
        begun_ms: time of sample 0.
    """

    def __init__(
        self, run: int, number: int, service: Service, *,
        n_series: int, pause_s: float, begun_ms: int,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True, name=f"sender-{number}")
        self._service, self._pause_s, self._begun_ms = service, pause_s, begun_ms
        self._labels = [
            {"__name__": "sent", "run": str(run), "sender": str(number), "pod": f"pod-{n}"}
            for n in range(n_series)
        ]
        self._random = random.Random(f"{run} {number}")
        # A connection serves so many requests: new and old ones meet every fault.
        self._uses = self._left = self._random.choice((1, 5, 50, 1000))
        self._connection: http.client.HTTPConnection | None = None
        self._endpoint = ""
        self.writes: list[Write] = []
        self.halt = threading.Event()

    def run(self) -> None:
        """Write until told to halt."""
        while not self.halt.wait(self._pause_s * self._random.uniform(0.5, 1.5)):
            self.writes.append(self._write(len(self.writes)))
        self._disconnect()

    def samples(self, number: int) -> Iterator[tuple[dict[str, str], list[tuple[int, float]]]]:
        """Yield what a request carries."""
        t = self._begun_ms + number * STEP_MS
        for labels in self._labels:
            yield labels, [(t, float(number))]

    def held(self, numbers: list[int]) -> Held:
        """Return the samples of some requests as a reader would find them."""
        found = {self._begun_ms + n * STEP_MS: bits(float(n)) for n in numbers}
        return {frozenset(labels.items()): dict(found) for labels in self._labels}

    def _write(self, number: int) -> Write:
        body = request_body(self.samples(number))
        begun_s = time.monotonic()
        outcome, text = RESET, ""
        try:
            connection = self._connected()
            connection.request("POST", "/api/v1/receive", body, _HEADERS)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            outcome = ACKNOWLEDGED if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            text = repr(error)
            if self._connection is None:
                outcome = NO_ENDPOINT
            self._disconnect()
        return Write(number, outcome, self._endpoint, begun_s, time.monotonic(), text[:500])

    def _connected(self) -> http.client.HTTPConnection:
        """Return a connection that its server has not closed."""
        held = self._connection
        if held is not None and self._left > 0 and _is_open(held):
            self._left -= 1
            return held
        self._disconnect()
        self._endpoint, opened = self._service.connect()
        made = http.client.HTTPConnection(opened.getpeername()[0])  # the name is for its header
        made.auto_open, made.sock = 0, opened
        self._connection, self._left = made, self._uses - 1
        return made

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Return whether neither side has closed an idle connection."""
    return connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]


class Senders:
    """Several writers at the same time, as one load.

    Args:
        run: a number of its own, a label of all series.
        service: that they write to.
        n: how many.
        n_series: samples a request.
        pause_s: of each between two requests, on average.
    """

    def __init__(
        self, run: int, service: Service, *, n: int = 4, n_series: int = 24, pause_s: float = 0.15
    ) -> None:
        self.begun_ms = int(time.time() * 1000) - 1_800_000
        self.run = run
        self.senders = [
            Sender(run, number, service, n_series=n_series, pause_s=pause_s, begun_ms=self.begun_ms)
            for number in range(n)
        ]
        for sender in self.senders:
            sender.start()

    def mark(self) -> list[int]:
        """Return how many requests each has had answered."""
        return [len(sender.writes) for sender in self.senders]

    def between(self, before: list[int], after: list[int]) -> list[Write]:
        """Return the requests that were answered between two marks."""
        return [
            write
            for sender, first, last in zip(self.senders, before, after, strict=True)
            for write in sender.writes[first:last]
        ]

    def acknowledged(self, before: list[int], after: list[int]) -> Held:
        """Return the samples acknowledged between two marks."""
        held: Held = {}
        for sender, first, last in zip(self.senders, before, after, strict=True):
            numbers = [w.number for w in sender.writes[first:last] if w.outcome == ACKNOWLEDGED]
            held.update(sender.held(numbers))
        return held

    def sent(self) -> Held:
        """Return all samples that a reader may find: those of the requests on their way too."""
        held: Held = {}
        for sender in self.senders:
            held.update(sender.held(list(range(len(sender.writes) + 1))))
        return held

    @property
    def newest_ms(self) -> int:
        """Return the time of the newest samples of all, those on their way too."""
        return self.begun_ms + (max(self.mark()) + 1) * STEP_MS

    @property
    def passed_ms(self) -> int:
        """Return the time that no sender has older samples than, from now on."""
        return self.begun_ms + min(self.mark()) * STEP_MS

    def await_writes(self, n: int, timeout_s: float = 30) -> None:
        """Return when every sender has had so many more answers.

        Raises:
            TimeoutError: if that takes too long.
        """
        wanted = [count + n for count in self.mark()]
        deadline = time.monotonic() + timeout_s
        while any(count < least for count, least in zip(self.mark(), wanted, strict=True)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{n} writes a sender took more than {timeout_s:g} s")
            time.sleep(0.02)

    def halt(self) -> None:
        """Stop writing, each after the answer to its last request."""
        for sender in self.senders:
            sender.halt.set()
        for sender in self.senders:
            sender.join()
