"""Connections to names that lead elsewhere while they are dialled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from thanostack.runtime import dialling

OLD, NEW = frozenset({"10.0.0.1"}), frozenset({"10.0.0.2"})


class Network:
    """Answers look-ups in turn, the last one for ever; connects where somebody answers.

    Args:
        answers: where the name leads, or the error of its look-up.
        at: where dials of it go: nobody answers but at `NEW`.
    """

    def __init__(self, answers: list[frozenset[str] | OSError], at: list[frozenset[str]]) -> None:
        self._answers, self._at = answers, at
        self.dialled: list[frozenset[str]] = []
        self.given_up = 0

    async def look_up(self, host: str, port: int) -> frozenset[str]:
        assert (host, port) == ("ingestor-1", 10901)
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def dial(
        self, protocol: Callable[[], asyncio.Protocol], address: str
    ) -> asyncio.BaseTransport:
        assert address == "ingestor-1:10901"
        target = self._at[0] if len(self._at) == 1 else self._at.pop(0)
        self.dialled.append(target)
        if target == NEW:
            protocol()
            return asyncio.Transport()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1
        raise AssertionError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "LOOK_UP_AGAIN_S", 0.01)


async def dialled(network: Network, monkeypatch: pytest.MonkeyPatch, timeout_s: float) -> object:
    monkeypatch.setattr(dialling, "_look_up", network.look_up)
    async with asyncio.timeout(timeout_s):
        return await dialling.dial_where_it_leads(
            network.dial, asyncio.Protocol, "ingestor-1:10901"
        )


async def test_a_name_that_leads_elsewhere_is_dialled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever that is, and whatever look-ups fail before; what was dialled before is given up."""
    answers = [OLD, OLD, OSError("no answer"), OLD, NEW]
    network = Network(answers, at=[OLD, OLD, NEW])
    assert isinstance(await dialled(network, monkeypatch, 5), asyncio.Protocol)
    assert (network.dialled, network.given_up) == ([OLD, OLD, NEW], 2)


async def test_a_name_that_leads_where_it_did_is_dialled_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for the first look-up, since the first dial does not tell where it went."""
    network = Network([OLD], at=[OLD])
    with pytest.raises(TimeoutError):
        await dialled(network, monkeypatch, 0.5)
    await asyncio.sleep(0)
    assert (network.dialled, network.given_up) == ([OLD, OLD], 2)


async def test_a_refusal_is_told_at_once() -> None:
    """Nothing is looked up for it."""

    async def refuse(_: Callable[[], asyncio.Protocol], address: str) -> asyncio.BaseTransport:
        raise ConnectionRefusedError(address)

    with pytest.raises(ConnectionRefusedError, match="nobody:1"):
        await dialling.dial_where_it_leads(refuse, asyncio.Protocol, "nobody:1")


async def test_a_name_is_looked_up_as_it_is_dialled() -> None:
    """By the system's resolver, a number too."""
    assert await dialling._look_up("127.0.0.1", 1) == frozenset({"127.0.0.1"})
