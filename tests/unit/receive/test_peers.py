"""Peers: how many forwards run, how many wait, and when a peer is left alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.clock import ManualClock
from thanostack.receive import peers
from thanostack.receive.peers import (
    FORWARD_BYTES,
    GIVEN_UP,
    NOT_TRIED,
    SERIES_BYTES,
    SILENT,
    Backoff,
    Peer,
    PeerOptions,
    Peers,
)
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.receive.silence import TRIALS, TRIALS_OF_A_PEER
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.http2_client import OK_END, CallEnd
from thanostack.testing.polling import eventually

DOWN = CallEnd(GrpcCode.UNAVAILABLE, "refused")
IN_VAIN = CallEnd(GrpcCode.DEADLINE_EXCEEDED, "no answer within 5 s")
HELD = FORWARD_BYTES + SERIES_BYTES
"""By a forward of one series besides its message."""


class OpenCall:
    def __init__(self, message, on_end):
        self.message, self.on_end = bytes(message), on_end

    def cancel(self, end):
        self.on_end(end)


class Channel:
    """Calls that end when a test says so."""

    def __init__(self):
        self.calls, self.is_closed = [], False
        self.probes, self.answers = 0, asyncio.Event()
        self.pings, self.pongs = 0, True

    def call(self, message, on_end):
        self.calls.append(OpenCall(message, on_end))
        return self.calls[-1]

    async def probe(self):
        self.probes += 1
        return "" if self.answers.is_set() else "no answer"

    async def is_answering(self, timeout_s):
        self.pings += 1
        return self.pongs

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
            calls=GrpcMetrics(self.registry, "client").unary("/thanos.WriteableStore/RemoteWrite"),
            source=random.Random(1),
        )

    def connect(self, address):
        self.channels.setdefault(address, []).append(Channel())
        return self.channels[address][-1]

    def forward(self, text, address="a:1", **how):
        return self.peers.of(address).forward(memoryview(text), self.ends.append, **how)

    def calls(self, address="a:1"):
        return self.channels[address][-1].calls

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
async def cluster():
    return Cluster(workers=2, queue_bytes_max=1 << 20, backoff_max_s=5.0)


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
    cluster.forward(bytes(1 << 20))
    refused = cluster.forward(b"x")
    assert [end.code for end in cluster.ends] == [GrpcCode.UNAVAILABLE]
    assert "too many bytes" in cluster.ends[0].text
    assert refused.is_over
    cluster.calls()[0].on_end(OK_END)
    cluster.forward(b"x")
    assert len(cluster.calls()) == 2
    assert cluster.peers.held_bytes() == {"a:1": 1 + HELD}


async def test_all_peers_together_are_bounded_and_a_slow_one_leaves_room(cluster):
    """A peer may hold as much as is left then: half of all, a third of it beside another one."""
    cluster = Cluster(queue_bytes_max=1 << 30, all_bytes_max=60 * (HELD + 1))
    for _ in range(100):
        cluster.forward(b"x", "slow:1")
    assert cluster.ends.count(CallEnd(GrpcCode.UNAVAILABLE, "too many bytes wait for it")) == 70
    for _ in range(100):
        cluster.forward(b"x", "slow:2")
    n_held = {name: held // (HELD + 1) for name, held in cluster.peers.held_bytes().items()}
    assert n_held == {"slow:1": 30, "slow:2": 15}
    del cluster.ends[:]
    for n in range(8):
        cluster.forward(b"x", f"quick:{n % 2}")
    assert cluster.ends == []
    cluster.peers.keep({"quick:0", "quick:1"})
    for n in range(0, 30, 5):
        for call in cluster.calls("slow:1")[n : n + 5]:
            call.on_end(OK_END)
    for n in range(0, 15, 5):
        for call in cluster.calls("slow:2")[n : n + 5]:
            call.on_end(OK_END)
    await asyncio.sleep(0)
    for _ in range(100):
        cluster.forward(b"x", "quick:0")
    assert cluster.peers.held_bytes()["quick:0"] // (HELD + 1) == 28


async def test_series_are_counted_too(cluster):
    """What a forward holds besides its message grows with them."""
    cluster.forward(b"x", n_series=1000)
    held = cluster.peers.held_bytes()["a:1"]
    assert held == 1 + FORWARD_BYTES + 1000 * SERIES_BYTES
    cluster.calls()[0].on_end(OK_END)
    assert cluster.peers.held_bytes() == {"a:1": 0}


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
    assert cluster.peers.held_bytes() == {"a:1": 2 * (1 + HELD)}


async def test_an_unavailable_peer_is_left_alone_until_it_answers_a_probe(cluster):
    """Those that wait are told as well; no forward waits for a connection."""
    for text in (b"1", b"2", b"3"):
        cluster.forward(text)
    cluster.calls()[0].on_end(DOWN)
    assert [end.text for end in cluster.ends] == [
        "not tried: it failed a moment ago",
        "refused",
    ]
    channel, peer = cluster.channels["a:1"][0], cluster.peers.of("a:1")
    assert channel.probes == 0
    await eventually(lambda: channel.probes == 2)
    assert peer.is_down
    cluster.forward(b"4")
    assert len(cluster.calls()) == 2
    channel.answers.set()
    await eventually(lambda: not peer.is_down)
    cluster.forward(b"5")
    assert len(cluster.calls()) == 3


async def test_a_peer_that_says_nothing_is_down_after_the_first_forward_in_vain(cluster):
    """It is probed at once and not again by a forward; those that wait are told."""
    late = CallEnd(GrpcCode.DEADLINE_EXCEEDED, "no answer within 5 s")
    running, _, _ = (cluster.forward(text) for text in (b"1", b"2", b"3"))
    cluster.clock.advance(5000)
    running.cancel(late)
    channel, peer = cluster.channels["a:1"][0], cluster.peers.of("a:1")
    assert peer.is_down
    assert [end.code for end in cluster.ends] == [GrpcCode.UNAVAILABLE, late.code]
    await eventually(lambda: channel.probes == 1)
    channel.answers.set()
    await eventually(lambda: not peer.is_down)


async def test_a_silent_peer_has_a_few_forwards_at_a_time(cluster):
    """Those that depend on it, and no others; the first answer ends that."""
    running = cluster.forward(b"0")
    cluster.clock.advance(5000)
    running.cancel(CallEnd(GrpcCode.DEADLINE_EXCEEDED))
    del cluster.ends[:]
    for _ in range(TRIALS_OF_A_PEER + 10):
        cluster.forward(b"1", must_try=True)
    cluster.forward(b"2")
    assert cluster.ends == [SILENT] * 10 + [NOT_TRIED]
    cluster.calls()[1].on_end(CallEnd(GrpcCode.DEADLINE_EXCEEDED, "said by the peer"))
    for _ in range(10):
        cluster.forward(b"3", must_try=True)
    assert SILENT not in cluster.ends[11:]
    cluster.calls()[2].on_end(OK_END)
    cluster.forward(b"4")
    assert NOT_TRIED not in cluster.ends[11:]


async def test_a_trial_that_ends_makes_room_for_another(cluster):
    """As long as nothing was heard."""
    given_up, _ = cluster.forward(b"0"), cluster.forward(b"0")
    cluster.clock.advance(5000)
    given_up.cancel(CallEnd(GrpcCode.DEADLINE_EXCEEDED))
    del cluster.ends[:]
    for _ in range(TRIALS_OF_A_PEER + 1):
        cluster.forward(b"1", must_try=True)
    assert cluster.ends.count(SILENT) == 2
    cluster.calls()[1].on_end(DOWN)
    cluster.forward(b"2", must_try=True)
    assert cluster.ends.count(SILENT) == 2


def fall_silent(cluster, *addresses):
    """Give up a forward to each of these; return how what else was on its way has ended."""
    cluster.ends.clear()
    in_vain = [cluster.forward(b"in vain", address) for address in addresses]
    cluster.clock.advance(5000)
    for forward in in_vain:
        forward.cancel(IN_VAIN)
    ended = [end for end in cluster.ends if end is not IN_VAIN]
    cluster.ends.clear()
    return ended


async def test_silent_peers_share_a_number_of_forwards(cluster):
    """One each, if there are so many; a peer that speaks again leaves its own to another one."""
    addresses = [f"p:{n}" for n in range(TRIALS)]
    fall_silent(cluster, *addresses)
    for address in addresses * 3:
        cluster.forward(b"1", address, must_try=True)
    assert cluster.ends == [SILENT] * 2 * TRIALS
    assert [len(cluster.calls(address)) for address in addresses] == [2] * TRIALS
    fall_silent(cluster, "late:1")
    cluster.forward(b"2", "late:1", must_try=True)
    assert cluster.ends == [SILENT]
    cluster.calls("p:0")[1].on_end(OK_END)
    cluster.forward(b"2", "late:1", must_try=True)
    assert cluster.ends == [SILENT, OK_END]
    cluster.forward(b"3", "p:1", must_try=True)
    cluster.calls("p:1")[1].on_end(DOWN)
    cluster.forward(b"3", "p:1", must_try=True)
    assert cluster.ends == [SILENT, OK_END, SILENT, DOWN]


async def test_what_is_too_much_when_many_fall_silent_is_given_up(cluster):
    """But for what nobody waits for any more: it is in nobody's way."""
    cluster = Cluster(workers=5)
    over = asyncio.get_running_loop().create_future()
    over.set_result(None)
    *first, last = [f"p:{n}" for n in range(TRIALS // 2 + 1)]
    for address in (*first, last):
        for settled in (None, over, None):
            cluster.forward(b"x", address, settled=settled)
    assert fall_silent(cluster, *first) == []
    assert fall_silent(cluster, last) == [GIVEN_UP] * 2
    held = cluster.peers.held_bytes()
    assert (held["p:0"], held[last]) == (3 * (1 + HELD), 1 + HELD)


async def test_a_silent_peer_is_noticed_before_forwards_are_given_up(cluster, monkeypatch):
    """It is asked when nothing was heard for a while; what waits is told, but for the trials."""
    monkeypatch.setattr(peers, "SILENCE_S", 0.05)
    cluster.clock.advance(1000)
    for _ in range(2):
        cluster.forward(b"1")
    for _ in range(6):
        cluster.forward(b"2")
    for _ in range(6):
        cluster.forward(b"3", must_try=True)
    channel, peer = cluster.channels["a:1"][0], cluster.peers.of("a:1")
    channel.pongs = False
    await asyncio.sleep(0.1)
    assert not peer.is_down
    cluster.clock.advance(60)
    await eventually(lambda: peer.is_down)
    assert cluster.ends == [NOT_TRIED] * 6 + [SILENT] * (6 - (TRIALS_OF_A_PEER - 2))
    assert channel.pings == 1


async def test_a_slow_peer_is_not_silent(cluster, monkeypatch):
    """It answers the ping: what waits for it goes on waiting, and it is left in peace."""
    monkeypatch.setattr(peers, "SILENCE_S", 0.02)
    cluster.clock.advance(1000)
    for _ in range(4):
        cluster.forward(b"1")
    cluster.clock.advance(60)
    channel = cluster.channels["a:1"][0]
    await eventually(lambda: channel.pings == 1)
    await asyncio.sleep(0.1)
    assert (channel.pings, cluster.peers.of("a:1").is_down, cluster.ends) == (1, False, [])


async def test_a_peer_with_a_long_queue_goes_down_at_once(cluster):
    """Each of those that wait may ask again when it is told, without end if nobody took care."""
    again = []

    def ended(end):
        again.append(end)
        if end is NOT_TRIED:
            cluster.peers.of("a:1").forward(memoryview(b"2"), again.append, must_try=True)

    for n in range(90):
        cluster.peers.of("a:1").forward(memoryview(b"%d" % (n % 10)), ended)
    cluster.calls()[0].on_end(DOWN)
    assert again == [NOT_TRIED] * 88 + [DOWN]
    for _ in range(88):
        cluster.calls()[-1].on_end(OK_END)
    assert again[-88:] == [OK_END] * 88


async def test_a_peer_that_answers_others_meanwhile_is_up(cluster):
    """A forward that takes too long says something about the forward then."""
    slow = cluster.forward(b"1")
    cluster.clock.advance(5000)
    cluster.forward(b"2")
    cluster.calls()[1].on_end(OK_END)
    slow.cancel(CallEnd(GrpcCode.DEADLINE_EXCEEDED))
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


async def test_a_forward_that_never_ran_says_nothing_about_its_peer(cluster):
    """It is given up while it waits for its turn."""
    cluster.forward(b"1"), cluster.forward(b"2")
    cluster.clock.advance(5000)
    cluster.forward(b"3").cancel(CallEnd(GrpcCode.DEADLINE_EXCEEDED))
    assert not cluster.peers.of("a:1").is_down


async def test_a_peer_that_left_is_there_for_late_forwards_only(cluster):
    """A request that an old ring placed is sent, and leaves no peer behind."""
    cluster.peers.keep({"b:1"})
    cluster.forward(b"late")
    channel = cluster.channels["a:1"][0]
    await asyncio.sleep(0)
    assert not channel.is_closed
    assert cluster.peers.held_bytes() == {}
    cluster.calls()[0].on_end(OK_END)
    await eventually(lambda: channel.is_closed)
    assert cluster.ends == [OK_END]
    assert cluster.value("thanos_receive_forward_delay_seconds_count", worker="a:1") is None
    cluster.peers.keep({"a:1", "b:1"})
    cluster.forward(b"back")
    assert cluster.peers.held_bytes() == {"a:1": 4 + HELD}


async def test_a_peer_that_left_is_not_looked_for(cluster):
    """Its probes end with it."""
    cluster.forward(b"1")
    cluster.calls()[0].on_end(DOWN)
    cluster.peers.keep(())
    await asyncio.sleep(0.3)
    assert cluster.channels["a:1"][0].probes == 0


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


async def test_calls_are_counted_as_gos_client_does(cluster):
    """With upstream's labels; what was not tried is no call."""
    for end in (OK_END, OK_END, CallEnd(GrpcCode.ALREADY_EXISTS), DOWN):
        cluster.forward(b"x")
        cluster.calls()[-1].on_end(end)
    cluster.forward(b"not tried")
    method = {
        "grpc_type": "unary",
        "grpc_service": "thanos.WriteableStore",
        "grpc_method": "RemoteWrite",
    }
    assert cluster.value("grpc_client_started_total", **method) == 4
    for code, count in (("OK", 2), ("AlreadyExists", 1), ("Unavailable", 1), ("Internal", 0)):
        assert cluster.value("grpc_client_handled_total", grpc_code=code, **method) == count
    assert cluster.value("grpc_client_msg_sent_total", **method) == 4
    assert cluster.value("grpc_client_msg_received_total", **method) == 2
    assert cluster.value("grpc_client_handling_seconds_count", **method) == 4


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
    longest = []
    for seed in range(200):
        backoff = Backoff(0.5, random.Random(seed))
        longest.append([backoff.pause_s() for _ in range(5)])
        assert min(longest[-1]) >= 0.1
        backoff.reset()
        assert backoff.pause_s() <= 0.1
    worst = [max(column) for column in zip(*longest, strict=True)]
    assert worst[0] <= 0.1
    assert 0.18 <= worst[1] <= 0.2
    assert 0.35 <= worst[2] <= 0.4
    assert 0.45 <= worst[3] <= 0.5
    assert 0.45 <= worst[4] <= 0.5


async def test_queues_are_shown(cluster):
    """With their bound."""
    cluster.metrics.watch_queues(cluster.peers.held_bytes, 100, 200)
    cluster.forward(b"12345")
    assert cluster.value("thanostack_receive_forward_queue_bytes", worker="a:1") == 5 + HELD
    assert cluster.value("thanostack_receive_forward_queue_bytes_max") == 100
    assert cluster.value("thanostack_receive_forward_queues_bytes_max") == 200


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
