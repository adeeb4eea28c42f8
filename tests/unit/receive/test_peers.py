"""Peers: how many forwards run, how many wait, and when a peer is left alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import ManualClock
from thanostack.receive.peers import NOT_TRIED, Backoff, Peer, PeerOptions, Peers
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_client import OK_END, CallEnd

DOWN = CallEnd(GrpcCode.UNAVAILABLE, "refused")


class OpenCall:
    def __init__(self, message, on_end):
        self.message, self.on_end = bytes(message), on_end

    def cancel(self, end):
        self.on_end(end)


class Channel:
    """Calls that end when a test says so."""

    def __init__(self):
        self.calls, self.is_closed = [], False

    def call(self, message, on_end):
        self.calls.append(OpenCall(message, on_end))
        return self.calls[-1]

    async def close(self):
        self.is_closed = True


class Cluster:
    """Peers over channels that tests steer, and a clock that they turn."""

    def __init__(self, **options):
        self.channels, self.clock, self.ends = {}, ManualClock(), []
        self.registry = CollectorRegistry()
        self.metrics = RoutingMetrics(self.registry, replication_factor=3)
        self.peers = Peers(
            self.connect,
            PeerOptions(**options),
            clock=self.clock,
            metrics=self.metrics,
            source=random.Random(1),
        )

    def connect(self, address):
        self.channels.setdefault(address, []).append(Channel())
        return self.channels[address][-1]

    def forward(self, text, address="a:1"):
        return self.peers.of(address).forward(memoryview(text), self.ends.append)

    def calls(self, address="a:1"):
        return self.channels[address][-1].calls

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
async def cluster():
    return Cluster(workers=2, queue_bytes_max=100, backoff_max_s=5.0)


async def test_only_so_many_forwards_run_and_the_others_wait(cluster):
    """In order, each when another one has ended."""
    for text in (b"1", b"2", b"3", b"4"):
        cluster.forward(text)
    assert [call.message for call in cluster.calls()] == [b"1", b"2"]
    cluster.calls()[1].on_end(OK_END)
    cluster.calls()[0].on_end(OK_END)
    assert [call.message for call in cluster.calls()] == [b"1", b"2", b"3", b"4"]
    assert cluster.ends == [OK_END, OK_END]
    assert cluster.value("thanos_receive_forward_delay_seconds_count", worker="a:1") == 4


async def test_a_full_queue_is_unavailable_at_once(cluster):
    """Bytes that wait or are on their way are bounded, but one message always goes."""
    cluster.forward(bytes(1000))
    refused = cluster.forward(b"x")
    assert [end.code for end in cluster.ends] == [GrpcCode.UNAVAILABLE]
    assert "too many bytes" in cluster.ends[0].text
    assert refused.is_over
    cluster.calls()[0].on_end(OK_END)
    cluster.forward(b"x")
    assert len(cluster.calls()) == 2
    assert cluster.peers.held_bytes() == {"a:1": 1}


async def test_a_forward_given_up_while_it_waits_never_runs(cluster):
    """Nor does it hold its place."""
    for text in (b"1", b"2"):
        cluster.forward(text)
    waiting = cluster.forward(b"3")
    cluster.forward(b"4")
    waiting.cancel(DOWN)
    cluster.calls()[0].on_end(OK_END)
    assert [call.message for call in cluster.calls()] == [b"1", b"2", b"4"]
    assert cluster.ends == [DOWN, OK_END]
    assert cluster.peers.held_bytes() == {"a:1": 2}


async def test_an_unavailable_peer_is_left_alone_for_a_while(cluster):
    """Those that wait are told as well; later it is tried again, and success forgets it all."""
    for text in (b"1", b"2", b"3"):
        cluster.forward(text)
    cluster.calls()[0].on_end(DOWN)
    assert [end.text for end in cluster.ends] == [
        "refused",
        "not tried: it failed a moment ago",
    ]
    cluster.clock.advance(100)
    cluster.forward(b"4")
    assert len(cluster.calls()) == 3
    cluster.calls()[1].on_end(OK_END)
    assert not cluster.peers.of("a:1").is_down


async def test_what_must_be_tried_is(cluster):
    """A pause is a belief; what depends on the peer is sent, and success ends the pause."""
    cluster.forward(b"1")
    cluster.calls()[0].on_end(DOWN)
    peer = cluster.peers.of("a:1")
    peer.forward(memoryview(b"2"), cluster.ends.append)
    assert cluster.ends[1] is NOT_TRIED
    peer.forward(memoryview(b"3"), cluster.ends.append, must_try=True)
    assert [call.message for call in cluster.calls()] == [b"1", b"3"]
    cluster.calls()[1].on_end(OK_END)
    assert not peer.is_down


async def test_other_failures_leave_a_peer_up(cluster):
    """A conflict, a deadline: the peer works."""
    for code in (GrpcCode.ALREADY_EXISTS, GrpcCode.DEADLINE_EXCEEDED, GrpcCode.INTERNAL):
        cluster.forward(b"x")
        cluster.calls()[-1].on_end(CallEnd(code))
        assert not cluster.peers.of("a:1").is_down


async def test_forwards_are_counted_as_upstream_does(cluster):
    """A conflict is neither success nor error, and one that was not tried is nothing."""
    for end in (OK_END, CallEnd(GrpcCode.ALREADY_EXISTS), CallEnd(GrpcCode.INTERNAL), DOWN):
        cluster.forward(b"x")
        cluster.calls()[-1].on_end(end)
    cluster.forward(b"not tried")
    for name in ("forward_requests", "replications"):
        assert cluster.value(f"thanos_receive_{name}_total", result="success") == 1
        assert cluster.value(f"thanos_receive_{name}_total", result="error") == 2
    assert cluster.value("thanos_receive_replication_factor") == 3


async def test_a_replica_that_others_made_is_no_replication(cluster):
    """It is a forward all the same."""
    cluster.peers.of("a:1").forward(memoryview(b"x"), cluster.ends.append, is_replication=False)
    cluster.calls()[0].on_end(OK_END)
    assert cluster.value("thanos_receive_forward_requests_total", result="success") == 1
    assert cluster.value("thanos_receive_replications_total", result="success") == 0


async def test_a_ring_change_lets_go_of_peers_behind_their_forwards(cluster):
    """What runs or waits for a peer that left is sent; then its connection is closed."""
    for text in (b"1", b"2", b"3"):
        cluster.forward(text)
    cluster.forward(b"x", "b:1")
    cluster.calls("b:1")[0].on_end(DOWN)
    assert cluster.peers.of("b:1").is_down
    cluster.peers.keep({"b:1"})
    assert not cluster.peers.of("b:1").is_down
    calls, channel = cluster.calls(), cluster.channels["a:1"][0]
    await asyncio.sleep(0)
    for n in range(3):
        assert not channel.is_closed
        calls[n].on_end(OK_END)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert channel.is_closed
    assert cluster.value("thanos_receive_forward_delay_seconds_count", worker="a:1") is None
    cluster.forward(b"again")
    assert len(cluster.channels["a:1"]) == 2


def test_pauses_double_up_to_a_bound():
    """From 100 ms on, each between that and twice the longest before; a reset begins anew."""
    clock = ManualClock()
    longest = []
    for seed in range(200):
        backoff, pauses = Backoff(0.5, clock, random.Random(seed)), []
        for _ in range(5):
            begun = clock.time_ms
            backoff.failed()
            backoff.failed()  # while it pauses nothing adds up
            while backoff.is_down:
                clock.advance(1)
            pauses.append(clock.time_ms - begun)
        longest.append(pauses)
        assert min(pauses) >= 100
        backoff.reset()
        assert not backoff.is_down
    worst = [max(column) for column in zip(*longest, strict=True)]
    assert worst[0] <= 101
    assert 180 <= worst[1] <= 201
    assert 350 <= worst[2] <= 401
    assert 450 <= worst[3] <= 501
    assert 450 <= worst[4] <= 501


async def test_queues_are_shown(cluster):
    """With their bound."""
    cluster.metrics.watch_queues(cluster.peers.held_bytes, 100)
    cluster.forward(b"12345")
    assert cluster.value("thanostack_receive_forward_queue_bytes", worker="a:1") == 5
    assert cluster.value("thanostack_receive_forward_queue_bytes_max") == 100


async def test_a_scrape_does_not_mind_new_peers(cluster, monkeypatch):
    """It runs in a thread, while the loop may meet an address for the first time."""
    for address in ("a:1", "b:1"):
        cluster.forward(b"x", address)

    def held_bytes(peer):
        if len(cluster.channels) < 9:
            cluster.peers.of(f"{peer.address}0")
        return 1

    monkeypatch.setattr(Peer, "held_bytes", property(held_bytes, lambda *_: None), raising=False)
    assert cluster.peers.held_bytes() == {"a:1": 1, "b:1": 1}
