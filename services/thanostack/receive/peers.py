"""The other receivers, as a router sees them: one connection each, a bounded queue, a back-off.

    forward ──down──> NOT_TRIED at once
       └──> [queue] ──at most `workers` at a time──> call ──> answer
                 └──more bytes than allowed──> UNAVAILABLE at once

    up ──UNAVAILABLE, or unreachable──> down ──pause──> probe ──answers──> up
       └─nothing was heard while                └───────┘ does not
         forwards waited──> down, silent ──probe at once

A peer that is down is not tried by forwards: connecting, and waiting for one who does not answer,
happens beside them. But for a forward that a request depends on (`must_try`): a peer that is back
is of use before a probe finds it. Pauses are 100 ms, twice as long with each further failure, up to
a bound, shortened at random so that routers do not come back all at once. A change of the ring
makes every peer be tried again.

A peer whose host is gone does not refuse, it says nothing: only then is a forward that was given up
a failure of the peer and not of the request. It is *silent* even before, if it says nothing for
SILENCE_S and does not answer a ping then. Whatever is sent to such a peer waits as long as it may,
and so does the request behind it, in the way of requests of other rings. So a silent peer has a few
forwards at a time, those of the requests that depend on it; they find out when it is back. The
others end with SILENT at once. All silent peers together have a number of them as well (`silence`);
when many fall silent at once, what is beyond it and awaited ends with GIVEN_UP.

Upstream counts each failure of calls that run at the same time, so that one lost connection makes
five steps; here only a failure of a peer that was up is a step. Upstream's first forward after a
pause waits for the connection.

Source: Thanos `pkg/receive/handler.go` (peerGroup, peerWorker).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

from thanostack.lib.foundation.clock import Clock
from thanostack.receive.request_body import InflightBytes
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.receive.silence import Silence
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_metrics import UnaryCalls
from thanostack.runtime.http2_client import CallEnd, OnEnd

FIRST_BACKOFF_S: Final = 0.1
NOT_TRIED: Final = CallEnd(GrpcCode.UNAVAILABLE, "not tried: it failed a moment ago")
SILENT: Final = CallEnd(GrpcCode.UNAVAILABLE, "not tried: others wait for it in vain")
GIVEN_UP: Final = CallEnd(GrpcCode.UNAVAILABLE, "given up: it says nothing, as many others do")
SILENCE_S: Final = 1.0
"""A peer that said nothing for so long, while forwards waited for it, may be gone."""
ANSWER_S: Final = 1.0
"""For a ping, of a peer that may be gone: one whose disk or CPU is slow has the time for that."""
SLOW_S: Final = 5.0
"""How long a peer that answers pings and nothing else is not asked again."""
FORWARD_BYTES: Final = 7 << 10
SERIES_BYTES: Final = 40
"""What is held for a forward besides its message, for itself and for each series of it: its
request, where its series belong, the answers to it. As measured: 6,800 to 7,300 bytes of resident
memory for each of 6,000 forwards of one series that waited, 38 a series at 2,000 series."""
INGESTOR: Final = "IngestorOnly"


class OpenCall(Protocol):
    """A call that can be given up."""

    def cancel(self, end: CallEnd) -> None:
        """End it with what is given."""


class Channel(Protocol):
    """Calls of RemoteWrite on one peer."""

    def call(self, message: memoryview, on_end: OnEnd) -> OpenCall:
        """Make a call; `on_end` is called once, perhaps before this returns."""

    async def probe(self) -> str:
        """Return why the peer cannot be reached; empty if it answers."""

    async def is_answering(self, timeout_s: float) -> bool:
        """Return whether the peer says anything in time; calls go on in any case."""

    async def close(self) -> None:
        """Take no further calls, and close when the open ones have ended."""


@dataclass(frozen=True)
class PeerOptions:
    """How peers are used.

    Args:
        workers: calls to one peer at a time; `--receive.forward.async-workers`.
        queue_bytes_max: of forwards that wait for one peer or are on their way.
        all_bytes_max: of those for all peers. Each peer may hold as much as then is left: one that
            is slow gets half of it, two a third each, and there is always room for the others.
        backoff_max_s: longest time that a peer is not tried; `--receive-forward-max-backoff`.
    """

    workers: int = 5
    queue_bytes_max: int = 64 << 20
    all_bytes_max: int = 128 << 20
    backoff_max_s: float = 5.0


class Backoff:
    """How long a peer that failed is left alone.

    Args:
        max_s: longest pause.
        source: of the random part.
    """

    def __init__(self, max_s: float, source: random.Random) -> None:
        self._max_s, self._random = max_s, source
        self._attempts = 0

    def pause_s(self) -> float:
        """Return how long to pause after one more failure; longer than last time."""
        longest_s = min(self._max_s, FIRST_BACKOFF_S * 2.0 ** min(self._attempts, 30))
        shortest_s = min(self._max_s, FIRST_BACKOFF_S)
        self._attempts += 1
        return self._random.uniform(shortest_s, longest_s)

    def reset(self) -> None:
        """Forget all failures."""
        self._attempts = 0


class Forward:
    """One message on its way to a peer.

    Args:
        message: gRPC's, prefix included.
        on_end: called once.
        is_replication: whether this router made the replica that it carries.
        must_try: whether it is sent even to a peer that is down.
        n_bytes: that it holds.
        queued_s: when it was handed over.
        settled: done when nobody waits for it any more; None if somebody always does.
    """

    __slots__ = (
        "_settled", "begun_s", "call", "is_given_up", "is_over", "is_replication", "message",
        "must_try", "n_bytes", "on_end", "queued_s",
    )  # fmt: skip

    def __init__(
        self, message: memoryview, on_end: OnEnd, *, is_replication: bool, must_try: bool,
        n_bytes: int, queued_s: float, settled: asyncio.Future[Any] | None,
    ) -> None:  # fmt: skip
        self.message, self.on_end, self.queued_s = message, on_end, queued_s
        self._settled = settled
        self.begun_s, self.n_bytes = queued_s, n_bytes
        self.is_replication, self.must_try = is_replication, must_try
        self.call: OpenCall | None = None
        self.is_over = self.is_given_up = False

    @property
    def is_awaited(self) -> bool:
        """Return whether its request waits for it, or for others beside it."""
        return self._settled is None or not self._settled.done()

    def cancel(self, end: CallEnd) -> None:
        """Give it up, queued or running; it ends with what is given."""
        self.is_given_up = True
        if self.call is not None:
            self.call.cancel(end)
        elif not self.is_over:
            # Its peer finds it over when its turn comes.
            self.is_over = True
            self.on_end(end)


class Peer:
    """One receiver.

    Args:
        address: of the ring.
        channel: its calls.
        options: see `PeerOptions`.
        everything: counts what is held for all peers.
        silence: of all peers.
        backoff: its state.
        clock: its monotonic seconds are used.
        metrics: told about every forward.
        calls: told about those that became calls.
    """

    def __init__(
        self,
        address: str,
        channel: Channel,
        options: PeerOptions,
        *,
        everything: InflightBytes,
        silence: Silence,
        backoff: Backoff,
        clock: Clock,
        metrics: RoutingMetrics,
        calls: UnaryCalls,
    ) -> None:
        self.address, self._backoff, self._calls = address, backoff, calls
        self._channel, self._options, self._clock, self._metrics = channel, options, clock, metrics
        self._delay = metrics.forward_delay(address)
        self._all, self._silence = everything, silence
        self._queue: deque[Forward] = deque()
        self._running: dict[Forward, None] = {}
        """In the order of their beginning."""
        self._idle = asyncio.Event()
        self._heard_s = self._busy_since_s = float("-inf")
        self._revival: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.joins_replicas = False
        """Whether it said that it stores whatever it is sent, whichever replica that is."""
        self.held_bytes = 0

    @property
    def is_down(self) -> bool:
        """Return whether it would refuse a forward at once because it failed lately."""
        return self._revival is not None

    def forward(
        self, message: memoryview, on_end: OnEnd, *,
        is_replication: bool = True, must_try: bool = False, n_series: int = 1,
        settled: asyncio.Future[Any] | None = None,
    ) -> Forward:  # fmt: skip
        """Send a message when its turn comes.

        Args:
            message: gRPC's; as `UnaryChannel.call` says.
            on_end: called once, perhaps before this returns.
            is_replication: whether this router made the replica that it carries.
            must_try: whether it is sent even if the peer is down; else it ends with NOT_TRIED then.
                If the peer is silent, it ends with SILENT unless it is one of a few.
            n_series: in the message.
            settled: done when nobody waits for this any more; None if somebody always does.
        """
        n_bytes = len(message) + FORWARD_BYTES + SERIES_BYTES * n_series
        forward = Forward(
            message, on_end, is_replication=is_replication, must_try=must_try, n_bytes=n_bytes,
            queued_s=self._clock.monotonic_s(), settled=settled,
        )  # fmt: skip
        if self.is_down and not must_try:
            self._refuse(forward, NOT_TRIED)
        elif self.held_bytes and not self._has_room(n_bytes):
            self._refuse(forward, CallEnd(GrpcCode.UNAVAILABLE, "too many bytes wait for it"))
        elif self._is_silent and not self._takes_trial(forward):
            self._refuse(forward, SILENT)
        else:
            self.held_bytes += n_bytes
            self._all.held += n_bytes
            self._queue.append(forward)
            self._begin_next()
        return forward

    async def close(self) -> None:
        """Close the connection behind all that is queued or running."""
        self._idle.clear()
        self._notice_idle()
        await self._idle.wait()
        self._stop_revival()
        if self._watch is not None:
            self._watch.cancel()
        await self._channel.close()

    def try_anew(self) -> None:
        """Forget that it failed."""
        self._backoff.reset()
        self._stop_revival()

    @property
    def _is_silent(self) -> bool:
        return self in self._silence

    def _end_silence(self) -> None:
        if self._is_silent:
            self._silence.end(self, (*self._running, *self._queue))

    def _stop_revival(self) -> None:
        self._end_silence()
        if self._revival is not None:
            self._revival.cancel()
            self._revival = None

    def _go_down(self, pause_s: float) -> None:
        if self._revival is None:
            self._revival = asyncio.ensure_future(self._revive(pause_s))
        self._drop_queued()

    def _go_silent(self) -> None:
        if self._is_silent:
            return
        self._silence.begin(self)
        awaited = [forward for forward in self._running if forward.is_awaited]
        too_many = [forward for forward in awaited if not self._silence.enter(forward)]
        self._go_down(0)
        for forward in too_many:
            forward.cancel(GIVEN_UP)

    async def _revive(self, pause_s: float) -> None:
        """Look for it until it is there again."""
        try:
            failure = "not probed yet"
            while failure:
                await asyncio.sleep(pause_s)
                failure = await self._channel.probe()
                pause_s = self._backoff.pause_s() if failure else 0.0
        finally:
            if self._revival is asyncio.current_task():
                self._revival = None
                self._end_silence()

    async def _watch_out(self) -> None:
        """Notice that it is silent, before all that waits for it is given up."""
        try:
            while self._running and not self._is_silent:
                silent_s = self._clock.monotonic_s() - max(self._heard_s, self._busy_since_s)
                if silent_s < SILENCE_S:
                    await asyncio.sleep(SILENCE_S - silent_s)
                elif await self._channel.is_answering(ANSWER_S):
                    await asyncio.sleep(SLOW_S)
                elif self._heard_s < self._clock.monotonic_s() - SILENCE_S:
                    self._go_silent()
        finally:
            self._watch = None

    def _notice_idle(self) -> None:
        if not self._queue and not self._running:
            self._idle.set()

    def _has_room(self, n_bytes: int) -> bool:
        held = self.held_bytes + n_bytes
        return held <= self._options.queue_bytes_max and held <= self._all.left

    def _release(self, forward: Forward) -> None:
        self.held_bytes -= forward.n_bytes
        self._all.held -= forward.n_bytes
        self._silence.leave(forward)

    def _refuse(self, forward: Forward, end: CallEnd) -> None:
        forward.is_over = True
        forward.on_end(end)

    def _takes_trial(self, forward: Forward) -> bool:
        """Make a forward one of the few that a silent peer has; return whether it may be."""
        n_here = len(self._running) + len(self._queue)
        return n_here < self._silence.share and self._silence.enter(forward)

    def _drop_queued(self) -> None:
        """Tell those that wait that it is down, but for those that are sent all the same."""
        queued, self._queue = self._queue, deque()
        for forward in queued:
            if forward.must_try and (not self._is_silent or self._takes_trial(forward)):
                self._queue.append(forward)
                continue
            self._release(forward)
            if not forward.is_over:
                self._refuse(forward, SILENT if forward.must_try else NOT_TRIED)

    def _begin_next(self) -> None:
        while self._queue and len(self._running) < self._options.workers:
            forward = self._queue.popleft()
            if forward.is_over:
                self._release(forward)
            else:
                self._begin(forward)

    def _begin(self, forward: Forward) -> None:
        forward.begun_s = self._clock.monotonic_s()
        if not self._running:
            self._busy_since_s = forward.begun_s
        self._running[forward] = None
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._watch_out())
        self._delay.observe(forward.begun_s - forward.queued_s)
        self._calls.started()
        call = self._channel.call(forward.message, lambda end: self._ended(forward, end))
        if not forward.is_over:
            forward.call = call

    def _ended(self, forward: Forward, end: CallEnd) -> None:
        del self._running[forward]
        self._release(forward)
        forward.is_over, forward.call = True, None
        self.joins_replicas = end.role == INGESTOR
        now_s = self._clock.monotonic_s()
        self._calls.ended(end.code, now_s - forward.begun_s)
        if forward.is_given_up:
            if self._heard_s < max(forward.begun_s, now_s - SILENCE_S):
                self._go_silent()
        elif end.code is GrpcCode.UNAVAILABLE:
            if self._revival is None:
                self._go_down(self._backoff.pause_s())
        else:
            self._heard_s = now_s
            self._end_silence()
            if end.code is GrpcCode.OK:
                self.try_anew()
        self._metrics.count(end.code, is_replication=forward.is_replication)
        forward.on_end(end)
        self._begin_next()
        self._notice_idle()


class Peers:
    """All peers of a router, made when they are first written to.

    Args:
        connect: makes the channel of an address.
        options: see `PeerOptions`.
        clock: its monotonic seconds are used.
        metrics: told about every forward.
        calls: told about those that became calls.
        source: of randomness.
    """

    def __init__(
        self,
        connect: Callable[[str], Channel],
        options: PeerOptions,
        *,
        clock: Clock,
        metrics: RoutingMetrics,
        calls: UnaryCalls,
        source: random.Random,
    ) -> None:
        self._connect, self._options, self._clock = connect, options, clock
        self._metrics, self._calls, self._random = metrics, calls, source
        self._all, self._silence = InflightBytes(options.all_bytes_max), Silence()
        self._peers: dict[str, Peer] = {}
        self._kept: Collection[str] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, address: str) -> Peer:
        """Return the peer at an address.

        A request that was placed by a ring of before may ask for one that has left: such a peer is
        there for what is forwarded before the loop runs on, and let go behind that.
        """
        peer = self._peers.get(address)
        if peer is not None:
            return peer
        peer = Peer(
            address,
            self._connect(address),
            self._options,
            everything=self._all,
            silence=self._silence,
            backoff=Backoff(self._options.backoff_max_s, self._random),
            clock=self._clock,
            metrics=self._metrics,
            calls=self._calls,
        )
        if self._kept is None or address in self._kept:
            self._peers[address] = peer
        else:
            self._let_go(peer)
        return peer

    def joining(self) -> frozenset[str]:
        """Return the addresses of peers that take several replicas in one message."""
        return frozenset(a for a, peer in self._peers.items() if peer.joins_replicas)

    def held_bytes(self) -> dict[str, int]:
        """Return the bytes that wait for each peer or are on their way to it; from any thread."""
        return {address: peer.held_bytes for address, peer in list(self._peers.items())}

    def keep(self, addresses: Collection[str]) -> None:
        """Let go of all peers but these, and try those anew that were down."""
        self._kept = frozenset(addresses)
        for address in [address for address in self._peers if address not in self._kept]:
            self._let_go(self._peers.pop(address))
        for peer in self._peers.values():
            peer.try_anew()

    def _let_go(self, peer: Peer) -> None:
        self._metrics.forget_peer(peer.address)
        task = asyncio.ensure_future(peer.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Let go of all peers."""
        self.keep(())
        if self._closing:
            await asyncio.wait(list(self._closing))
