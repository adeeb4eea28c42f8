"""Writes take turns on the event loop, and what is beyond the bounds is refused, slowly."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.errors import Unavailable
from thanostack.receive import request_body, wiring
from thanostack.receive.request_body import InflightBytes, inflight_bytes_of
from thanostack.receive.settings import ReceiveSettings
from thanostack.receive.write_pace import REFUSALS_A_TURN, WRITES_A_TURN, WritePace
from thanostack.runtime.command_line import split
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load

LATER = "too many write requests are waiting"


class Paced:
    """A pace, and the order in which things go on."""

    def __init__(self, *, inflight=1 << 20, **bounds):
        self.registry = CollectorRegistry()
        self.pace = WritePace(self.registry, InflightBytes(inflight), **bounds)
        self.seen = []

    def enter(self, name, n_bytes=0):
        return self.pace.when_turn(n_bytes, lambda error: self.seen.append((name, error)))

    @property
    def went_on(self):
        return [name for name, error in self.seen if error is None]

    @property
    def refused(self):
        return [name for name, error in self.seen if error is not None]

    def value(self, name):
        return self.registry.get_sample_value(f"thanostack_receive_writes_{name}")


async def test_a_turn_is_so_many_writes():
    """The first ones go on at once, the others in order, a turn a round of the loop."""
    paced = Paced()
    everything = list(range(2 * WRITES_A_TURN + 3))
    assert all(paced.enter(n) for n in everything)
    assert paced.went_on == everything[:WRITES_A_TURN]
    assert paced.value("waiting") == WRITES_A_TURN + 3
    await asyncio.sleep(0)
    assert paced.went_on == everything[: 2 * WRITES_A_TURN]
    paced.enter("new")
    assert "new" not in paced.went_on
    await asyncio.sleep(0)
    assert paced.went_on == [*everything, "new"]
    assert (paced.refused, paced.value("waiting")) == ([], 0)


async def test_an_idle_loop_takes_everything_at_once():
    """Turns begin anew with each round, also if nobody waits."""
    paced = Paced()
    for _ in range(3):
        for n in range(WRITES_A_TURN):
            paced.enter(n)
        await asyncio.sleep(0)
    assert paced.went_on == list(range(WRITES_A_TURN)) * 3


async def test_a_full_queue_refuses_in_turns():
    """What is refused need not keep its body, and is answered so many a turn, with Retry-After."""
    paced = Paced(waiting_max=2)
    kept = [paced.enter(n) for n in range(WRITES_A_TURN + 2 + 3 * REFUSALS_A_TURN)]
    assert kept == [True] * (WRITES_A_TURN + 2) + [False] * 3 * REFUSALS_A_TURN
    assert paced.refused == []
    for turn in (1, 2, 3):
        await asyncio.sleep(0)
        assert len(paced.refused) == turn * REFUSALS_A_TURN
    _, error = paced.seen[-1]
    assert (str(error), error.retry_after_s) == (LATER, 1)
    assert paced.value("refused_total") == 3 * REFUSALS_A_TURN


async def test_bytes_that_wait_are_bounded():
    """They count as bytes in flight until the turn comes."""
    paced = Paced(inflight=1000)
    for n in range(WRITES_A_TURN):
        assert paced.enter(n, 5000)
    assert paced.enter("a", 600)
    assert not paced.enter("b", 600)
    assert paced.enter("c", 400)
    assert paced.pace.inflight.held == 1000
    await asyncio.sleep(0)
    assert paced.pace.inflight.held == 0
    assert (paced.refused, paced.went_on[-2:]) == (["b"], ["a", "c"])


async def test_who_waits_too_long_is_refused(monkeypatch):
    """A late answer is worth nothing: its sender has given up."""
    now = 100.0
    monkeypatch.setattr("thanostack.receive.write_pace.time.monotonic", lambda: now)
    paced = Paced(wait_max_s=5.0)
    for n in range(WRITES_A_TURN + 1):
        paced.enter(n)
    now = 106.0
    paced.enter("fresh")
    await asyncio.sleep(0)
    assert (paced.refused, paced.went_on[-1]) == ([WRITES_A_TURN], "fresh")
    assert "no turn within 5 s" in str(paced.seen[-2][1])


async def test_who_waits_too_long_is_refused_also_when_nothing_ends(monkeypatch):
    """The next one that comes sees to it."""
    now = 100.0
    monkeypatch.setattr("thanostack.receive.write_pace.time.monotonic", lambda: now)
    paced = Paced(wait_max_s=5.0, at_once_max=1)
    await paced.pace.come()
    paced.enter("a")
    now = 106.0
    paced.enter("b")
    await asyncio.sleep(0)
    assert (paced.refused, paced.went_on, paced.value("waiting")) == (["a"], [], 1)


async def test_what_is_not_over_is_bounded():
    """Writes that wait for peers keep others waiting until they leave."""
    paced = Paced(at_once_max=2)
    await paced.pace.come()
    await paced.pace.come()
    third = asyncio.create_task(paced.pace.come())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not third.done()
    paced.pace.leave()
    await asyncio.wait_for(third, 20)
    assert paced.value("waiting") == 0


async def test_a_refusal_of_one_who_awaits_comes_at_once():
    """So that what it holds is let go; only its answer waits, for `to_refuse`."""
    paced = Paced(waiting_max=0, at_once_max=1)
    await paced.pace.come()
    with pytest.raises(Unavailable, match=LATER):
        await paced.pace.come()
    answered = [asyncio.create_task(paced.pace.to_refuse()) for _ in range(2 * REFUSALS_A_TURN)]
    for left in (2, 1, 0):
        await asyncio.sleep(0)
        assert len(paced.pace._refusals) == left * REFUSALS_A_TURN
    await asyncio.wait_for(asyncio.gather(*answered), 20)


async def test_giving_up_keeps_no_place():
    """Neither while it waits, nor at the moment that its turn comes."""
    paced = Paced(at_once_max=1)
    await paced.pace.come()
    waiting, coming, last = (asyncio.create_task(paced.pace.come()) for _ in range(3))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    paced.pace.leave()
    await asyncio.sleep(0)
    assert (paced.value("waiting"), coming.done()) == (1, False)
    coming.cancel()
    await asyncio.wait_for(last, 20)
    paced.pace.leave()
    assert paced.pace._running == 0


@pytest.mark.parametrize(
    ("memory", "expected"),
    [(1 << 30, 128 << 20), (100 << 20, 32 << 20), (64 << 30, 512 << 20)],
)
def test_bytes_in_flight_follow_the_memory(memory, expected):
    """An eighth, within bounds."""
    assert inflight_bytes_of(memory) == expected


async def test_flags_and_the_memory_set_the_bounds(tmp_path, monkeypatch):
    """--receive.write-queue-max, --receive.write-queue-wait, --receive.inflight-bytes-max."""
    monkeypatch.setattr(request_body, "memory_limit_bytes", lambda: 1 << 30)
    flags = ["--receive.write-queue-max=3", "--receive.write-queue-wait=7s"]
    for own, expected in ((["--receive.inflight-bytes-max=5MB"], 5 << 20), ([], 128 << 20)):
        arguments = ['--label=replica="0"', f"--tsdb.path={tmp_path}", *flags, *own]
        settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
        process = new_process("receive", structlog.get_logger())
        pace = wiring.Receiver(settings, process).write_api()._pace
        assert (pace._waiting_max, pace._wait_max_s) == (3, 7)
        assert (pace.inflight.has_room(expected), pace.inflight.has_room(expected + 1)) == (
            True,
            False,
        )
        shown = process.registry.get_sample_value("thanostack_receive_inflight_bytes_max")
        assert shown == expected
