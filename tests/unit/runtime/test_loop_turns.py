"""A round of the loop takes what it has time for; who has more to say waits in order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
import structlog

from thanostack.runtime import loop_turns
from thanostack.runtime.grpc_call import Unary
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.runtime.loop_turns import LoopTurns
from thanostack.testing.h2_client import H2Client, snappy_message

WRITE = "/thanos.WriteableStore/RemoteWrite"


def spend(seconds: float) -> None:
    """Keep the loop from anything else."""
    time.sleep(seconds)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> LoopTurns:
    monkeypatch.setattr(loop_turns, "TURN_S", 0.01)
    return LoopTurns()


async def test_who_waits_goes_first_and_in_order(turns: LoopTurns) -> None:
    """Each for a piece, then at the end of the line again; one round is not all of it."""
    seen: list[str] = []
    rounds: list[int] = []

    def worker(name: str, n: int):
        def work() -> None:
            spend(0.006)  # two of them are a turn
            seen.append(name)
            rounds.append(n_rounds)
            if seen.count(name) < n:
                turns.wait(work)

        return work

    assert turns.is_free()
    n_rounds = 0
    turns.wait(worker("a", 3))
    turns.wait(worker("b", 2))
    assert not turns.is_free()
    while len(seen) < 5:
        await asyncio.sleep(0)
        n_rounds += 1
    assert seen == ["a", "b", "a", "b", "a"]
    assert max(rounds.count(n) for n in rounds) <= 2
    await asyncio.sleep(0)
    assert turns.is_free()


async def test_time_comes_anew_with_each_round(turns: LoopTurns) -> None:
    """Whether it was used up or not."""
    for _ in range(3):
        assert turns.is_free()
        spend(0.012)
        assert not turns.is_free()
        await asyncio.sleep(0)


async def test_calls_that_come_at_once_are_taken_a_few_a_round() -> None:
    """However many one read brings; all are answered, in order."""
    n_calls, body = 200, random.Random(1).randbytes(2000)
    rounds: Counter[int] = Counter()
    n_rounds = 0

    def write(_: bytes, __: object) -> bytes:
        rounds[n_rounds] += 1
        spend(0.001)
        return b""

    server = GrpcServer(
        "127.0.0.1:0", {WRITE: Unary(write, inline=True)}, log=structlog.get_logger()
    )
    await server.start()
    async with H2Client(server.port) as client:
        assert (await client.call(WRITE, b"x")).status == 0
        answers = []
        for _ in range(n_calls):
            stream_id, answer = client.begin(WRITE)
            await client.send(stream_id, snappy_message(body))
            answers.append(answer)
        while not all(answer.done.is_set() for answer in answers):
            n_rounds += 1
            await asyncio.sleep(0)
        assert [answer.status for answer in answers] == [0] * n_calls
    await server.stop(0)
    assert rounds.total() == n_calls + 1
    assert max(rounds.values()) <= 2 * (1 << 14) // len(body)
