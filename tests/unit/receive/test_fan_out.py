"""The timeout of a request's forwards is the nodes' time, not that of a loop that stood still."""

import os
import time

import numpy as np
import pytest
import uvloop

from thanostack.receive.fan_out import GRACE_S, FanOut
from thanostack.receive.quorum import Quorum, Verdict
from thanostack.runtime.http2_client import OK_END

pytestmark = pytest.mark.enable_socket
TIMEOUT_S = 0.1


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
