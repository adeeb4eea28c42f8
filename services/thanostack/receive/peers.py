"""The other receivers, as a router sees them: one connection each, a bounded queue, a back-off.

    forward ──down──> NOT_TRIED at once
       └──> [queue] ──at most `workers` at a time──> call ──> answer
                 └──more bytes than allowed──> UNAVAILABLE at once

A peer that answers UNAVAILABLE, or cannot be reached, is down for a while: 100 ms, twice as long
with each further failure, up to a bound, shortened at random so that routers do not come back all
at once. A change of the ring makes every peer be tried again, and so does a forward that a request
depends on (`must_try`): a peer that is back is of use before its pause is over.

Upstream counts each failure of calls that run at the same time, so that one lost connection makes
five steps; here only a failure of a peer that was up is a step.

Source: Thanos `pkg/receive/handler.go` (peerGroup, peerWorker).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from thanostack.lib.foundation.clock import Clock
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_client import CallEnd, OnEnd

FIRST_BACKOFF_S: Final = 0.1
NOT_TRIED: Final = CallEnd(GrpcCode.UNAVAILABLE, "not tried: it failed a moment ago")
INGESTOR: Final = "IngestorOnly"


class OpenCall(Protocol):
    """A call that can be given up."""

    def cancel(self, end: CallEnd) -> None:
        """End it with what is given."""


class Channel(Protocol):
    """Calls of RemoteWrite on one peer."""

    def call(self, message: memoryview, on_end: OnEnd) -> OpenCall:
        """Make a call; `on_end` is called once, perhaps before this returns."""

    async def close(self) -> None:
        """Take no further calls, and close when the open ones have ended."""


@dataclass(frozen=True)
class PeerOptions:
    """How peers are used.

    Args:
        workers: calls to one peer at a time; `--receive.forward.async-workers`.
        queue_bytes_max: of messages that wait for one peer or are on their way.
        backoff_max_s: longest time that a peer is not tried; `--receive-forward-max-backoff`.
    """

    workers: int = 5
    queue_bytes_max: int = 64 << 20
    backoff_max_s: float = 5.0


class Backoff:
    """Whether a peer is worth a try.

    Args:
        max_s: longest pause.
        clock: its monotonic seconds are used.
        source: of the random part.
    """

    def __init__(self, max_s: float, clock: Clock, source: random.Random) -> None:
        self._max_s, self._clock, self._random = max_s, clock, source
        self._attempts = 0
        self._until_s = 0.0

    @property
    def is_down(self) -> bool:
        """Return whether the peer is not to be tried now."""
        return self._attempts > 0 and self._clock.monotonic_s() < self._until_s

    def failed(self) -> None:
        """Pause, longer than last time; nothing if it pauses already."""
        if self.is_down:
            return
        longest_s = min(self._max_s, FIRST_BACKOFF_S * 2.0 ** min(self._attempts, 30))
        shortest_s = min(self._max_s, FIRST_BACKOFF_S)
        self._attempts += 1
        self._until_s = self._clock.monotonic_s() + self._random.uniform(shortest_s, longest_s)

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
        queued_s: when it was handed over.
    """

    __slots__ = ("call", "is_over", "is_replication", "message", "must_try", "on_end", "queued_s")

    def __init__(
        self, message: memoryview, on_end: OnEnd, *,
        is_replication: bool, must_try: bool, queued_s: float,
    ) -> None:  # fmt: skip
        self.message, self.on_end, self.queued_s = message, on_end, queued_s
        self.is_replication, self.must_try = is_replication, must_try
        self.call: OpenCall | None = None
        self.is_over = False

    def cancel(self, end: CallEnd) -> None:
        """Give it up, queued or running; it ends with what is given."""
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
        backoff: its state.
        clock: its monotonic seconds are used.
        metrics: told about every forward.
    """

    def __init__(
        self,
        address: str,
        channel: Channel,
        options: PeerOptions,
        *,
        backoff: Backoff,
        clock: Clock,
        metrics: RoutingMetrics,
    ) -> None:
        self.address, self.backoff = address, backoff
        self._channel, self._options, self._clock, self._metrics = channel, options, clock, metrics
        self._delay = metrics.forward_delay(address)
        self._queue: deque[Forward] = deque()
        self._n_running = 0
        self._idle = asyncio.Event()
        self.joins_replicas = False
        """Whether it said that it stores whatever it is sent, whichever replica that is."""
        self.held_bytes = 0

    @property
    def is_down(self) -> bool:
        """Return whether it would refuse a forward at once because it failed lately."""
        return self.backoff.is_down

    def forward(
        self, message: memoryview, on_end: OnEnd, *,
        is_replication: bool = True, must_try: bool = False,
    ) -> Forward:  # fmt: skip
        """Send a message when its turn comes.

        Args:
            message: gRPC's; as `UnaryChannel.call` says.
            on_end: called once, perhaps before this returns.
            is_replication: whether this router made the replica that it carries.
            must_try: whether it is sent even if the peer is down; else it ends with NOT_TRIED then.
        """
        forward = Forward(
            message, on_end, is_replication=is_replication, must_try=must_try,
            queued_s=self._clock.monotonic_s(),
        )  # fmt: skip
        if self.is_down and not must_try:
            self._refuse(forward, NOT_TRIED)
        elif self.held_bytes + len(message) > self._options.queue_bytes_max and self.held_bytes:
            self._refuse(forward, CallEnd(GrpcCode.UNAVAILABLE, "too many bytes wait for it"))
        else:
            self.held_bytes += len(message)
            self._queue.append(forward)
            self._begin_next()
        return forward

    async def close(self) -> None:
        """Close the connection behind all that is queued or running."""
        self._idle.clear()
        self._notice_idle()
        await self._idle.wait()
        await self._channel.close()

    def _notice_idle(self) -> None:
        if not self._queue and not self._n_running:
            self._idle.set()

    def _refuse(self, forward: Forward, end: CallEnd) -> None:
        forward.is_over = True
        forward.on_end(end)

    def _drop(self, forward: Forward) -> None:
        self.held_bytes -= len(forward.message)
        if not forward.is_over:
            self._refuse(forward, NOT_TRIED)

    def _begin_next(self) -> None:
        while self._queue and self._n_running < self._options.workers:
            forward = self._queue.popleft()
            if forward.is_over:
                self.held_bytes -= len(forward.message)
            elif self.is_down and not forward.must_try:
                self._drop(forward)
            else:
                self._begin(forward)

    def _begin(self, forward: Forward) -> None:
        self._n_running += 1
        self._delay.observe(self._clock.monotonic_s() - forward.queued_s)
        call = self._channel.call(forward.message, lambda end: self._ended(forward, end))
        if not forward.is_over:
            forward.call = call

    def _ended(self, forward: Forward, end: CallEnd) -> None:
        self._n_running -= 1
        self.held_bytes -= len(forward.message)
        forward.is_over, forward.call = True, None
        self.joins_replicas = end.role == INGESTOR
        if end.code is GrpcCode.UNAVAILABLE:
            self.backoff.failed()
        elif end.code is GrpcCode.OK:
            self.backoff.reset()
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
        source: of randomness.
    """

    def __init__(
        self,
        connect: Callable[[str], Channel],
        options: PeerOptions,
        *,
        clock: Clock,
        metrics: RoutingMetrics,
        source: random.Random,
    ) -> None:
        self._connect, self._options, self._clock = connect, options, clock
        self._metrics, self._random = metrics, source
        self._peers: dict[str, Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, address: str) -> Peer:
        """Return the peer at an address."""
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(
                address,
                self._connect(address),
                self._options,
                backoff=Backoff(self._options.backoff_max_s, self._clock, self._random),
                clock=self._clock,
                metrics=self._metrics,
            )
        return peer

    def joining(self) -> frozenset[str]:
        """Return the addresses of peers that take several replicas in one message."""
        return frozenset(a for a, peer in self._peers.items() if peer.joins_replicas)

    def held_bytes(self) -> dict[str, int]:
        """Return the bytes that wait for each peer or are on their way to it; from any thread."""
        return {address: peer.held_bytes for address, peer in list(self._peers.items())}

    def keep(self, addresses: Collection[str]) -> None:
        """Let go of all peers but these, and try those anew that were down."""
        for address in [address for address in self._peers if address not in addresses]:
            self._metrics.forget_peer(address)
            task = asyncio.ensure_future(self._peers.pop(address).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for peer in self._peers.values():
            peer.backoff.reset()

    async def close(self) -> None:
        """Let go of all peers."""
        self.keep(())
        if self._closing:
            await asyncio.wait(list(self._closing))
