"""A request's forwards at their timeout, which is the nodes' time, not a loop's that stood still.

What is open is given up, and nothing is begun any more.
"""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest
import uvloop

from thanostack.receive.fan_out import GRACE_S, FanOut
from thanostack.receive.peers import NOT_TRIED
from thanostack.receive.quorum import Quorum, Verdict
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_client import OK_END

pytestmark = pytest.mark.enable_socket
TIMEOUT_S = 0.1
SERIES = np.arange(1, dtype=np.int32)


async def verdict_of(says, standstill_s):
    """Return what becomes of a request whose one node answers while the loop stands still."""
    fan_out = FanOut(Quorum(1, 1, 1), TIMEOUT_S)
    loop = fan_out.settled.get_loop()
    reads, writes = os.pipe()
    others_reads, others_writes = os.pipe()

    def stand_still():
        # Stopped while it handles what another node said: then timers go before further reads.
        os.read(others_reads, 1)
        os.write(writes, says)
        time.sleep(standstill_s)

    def answer():
        if os.read(reads, 1) == b"y":
            fan_out.answer(np.zeros(1, np.int32), 0, "node", OK_END)

    loop.add_reader(others_reads, stand_still)
    loop.add_reader(reads, answer)
    os.write(others_writes, b"x")
    try:
        return await fan_out.settled
    finally:
        for end in (reads, others_reads):
            loop.remove_reader(end)
        for end in (reads, writes, others_reads, others_writes):
            os.close(end)


def test_what_came_while_the_loop_stood_still_is_read():
    """On the loop that receivers have."""
    assert uvloop.run(verdict_of(b"y", 3 * TIMEOUT_S)) is Verdict.STORED


@pytest.mark.parametrize(("standstill_s", "least_s"), [(0, TIMEOUT_S), (0.3, 0.3 + GRACE_S)])
def test_a_silent_node_is_given_up(standstill_s, least_s):
    """At the timeout, or once what came meanwhile could have been read."""
    begun_s = time.monotonic()
    assert uvloop.run(verdict_of(b"n", standstill_s)) is Verdict.UNAVAILABLE
    assert least_s - 0.01 <= time.monotonic() - begun_s < least_s + 5


class Forward:
    """One that is open until it is given up, and says so then."""

    def __init__(self, fan_out, key, node):
        self.fan_out, self.key, self.node = fan_out, key, node

    def cancel(self, end):
        self.fan_out.ended(self.key)
        self.fan_out.answer(SERIES, 0, self.node, end)


async def test_no_forward_is_begun_once_the_time_is_over():
    """Two of three are given up: more in trouble than a quorum can spare, and too late to try."""
    fan_out = FanOut(Quorum(1, 3, 2), 0.05)
    for key, node in enumerate(("a", "b")):
        fan_out.begun(key, Forward(fan_out, key, node))
    tried = []
    fan_out.postpone(SERIES, 0, "c", NOT_TRIED, lambda: tried.append("c"))
    fan_out._impatience.cancel()  # it would be tried after a while, and is not yet
    assert await asyncio.wait_for(fan_out.settled, 20) is Verdict.UNAVAILABLE
    assert (tried, fan_out._open) == ([], {})
    assert fan_out._quorum.is_complete
    assert "DeadlineExceeded" in str(fan_out.error(Verdict.UNAVAILABLE))


async def test_a_forward_whose_turn_is_over_too_is_not_tried():
    """It was refused by its peer in the very moment, as the peer went down."""
    fan_out = FanOut(Quorum(1, 1, 1), 0.05)
    tried = []

    class Late(Forward):
        def cancel(self, end):
            assert end.code is GrpcCode.DEADLINE_EXCEEDED
            self.fan_out.ended(self.key)
            self.fan_out.postpone(SERIES, 0, self.node, NOT_TRIED, lambda: tried.append("a"))

    fan_out.begun(0, Late(fan_out, 0, "a"))
    assert await asyncio.wait_for(fan_out.settled, 20) is Verdict.UNAVAILABLE
    assert tried == []


async def test_series_that_are_still_waited_for_are_not_called_lost():
    """The first series that cannot be stored settles a request; the others may be all right."""
    fan_out = FanOut(Quorum(2, 3, 2), 60)
    for node in "ab":
        fan_out.answer(SERIES, 0, node, NOT_TRIED)
    verdict = await asyncio.wait_for(fan_out.settled, 20)
    assert verdict is Verdict.UNAVAILABLE
    assert "at least 1 of 2 series are not on 2 of 3 replicas" in str(fan_out.error(verdict))
    fan_out.answer(SERIES, 0, "c", OK_END)
    for node in "abc":
        fan_out.answer(SERIES, 1, node, OK_END)
    assert str(fan_out.error(verdict)).startswith("1 of 2 series")
