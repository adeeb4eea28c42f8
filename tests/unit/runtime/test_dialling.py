"""Connections to names that lead elsewhere while they are dialled, and to names without DNS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from thanostack.runtime import dialling
from thanostack.runtime.dialling import Dialler

SILENT, REFUSING, THERE, ALSO_THERE = "10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::4"
NO_DNS = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
HANGS = object()


class Network:
    """Look-ups answered in turn, the last one for ever, and peers at some addresses."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.dialled: list[str] = []
        self.n_given_up = 0

    async def getaddrinfo(self, host: str, port: int, **kind: int) -> list[tuple[object, ...]]:
        assert (host, port, kind) == ("ingestor-1", 10901, {"type": socket.SOCK_STREAM})
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if answer is HANGS:
            await asyncio.Event().wait()
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, tuple)
        return [(0, 0, 0, "", (address, port)) for address in answer]

    async def dial(
        self, protocol: Callable[[], asyncio.Protocol], address: str, *, name: str
    ) -> asyncio.BaseTransport:
        assert name == "ingestor-1"
        self.dialled.append(address)
        if address == f"{REFUSING}:10901":
            raise ConnectionRefusedError(address)
        if address == f"{SILENT}:10901":
            try:
                await asyncio.Event().wait()
            finally:
                self.n_given_up += 1
        protocol()
        return asyncio.Transport()

    async def connect(self, dialler: Dialler, timeout_s: float = 5) -> object:
        asyncio.get_running_loop().getaddrinfo = self.getaddrinfo  # type: ignore[method-assign]
        async with asyncio.timeout(timeout_s):
            return await dialler.connect(asyncio.Protocol)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "LOOK_UP_AGAIN_S", 0.01)
    monkeypatch.setattr(dialling, "LOOK_UP_TIMEOUT_S", 0.05)


async def test_a_name_that_leads_elsewhere_is_dialled_anew() -> None:
    """Whenever that is, and whatever look-ups fail before; what was dialled before is given up."""
    network = Network((SILENT,), (SILENT,), NO_DNS, NO_NAME, (SILENT,), (ALSO_THERE,))
    found = await network.connect(Dialler(network.dial, "ingestor-1:10901"))
    assert isinstance(found, asyncio.Protocol)
    assert network.dialled == [f"{SILENT}:10901", f"[{ALSO_THERE}]:10901"]
    assert network.n_given_up == 1


async def test_a_name_that_leads_where_it_did_is_dialled_on() -> None:
    """In whichever order its addresses come."""
    network = Network((SILENT, THERE), (THERE, SILENT), (SILENT, THERE))
    with pytest.raises(TimeoutError):
        await network.connect(Dialler(network.dial, "ingestor-1:10901"), 0.3)
    await asyncio.sleep(0)
    assert (network.dialled, network.n_given_up) == ([f"{SILENT}:10901"], 1)


async def test_addresses_are_dialled_one_after_another() -> None:
    network = Network((REFUSING, THERE))
    await network.connect(Dialler(network.dial, "ingestor-1:10901"))
    assert network.dialled == [f"{REFUSING}:10901", f"{THERE}:10901"]


async def test_a_refusal_is_told_at_once() -> None:
    network = Network((REFUSING,))
    with pytest.raises(ConnectionRefusedError):
        await network.connect(Dialler(network.dial, "ingestor-1:10901"))
    assert network.dialled == [f"{REFUSING}:10901"]


@pytest.mark.parametrize("answer", [NO_DNS, HANGS], ids=["fails", "hangs"])
async def test_without_dns_a_peer_is_looked_for_where_it_was(answer: object) -> None:
    """A process that starts again in its place is there, though nobody knows its name now."""
    network = Network((THERE,), answer)
    dialler = Dialler(network.dial, "ingestor-1:10901")
    for _ in range(2):
        await network.connect(dialler)
    assert network.dialled == [f"{THERE}:10901"] * 2


@pytest.mark.parametrize(
    ("answer", "text"), [(NO_DNS, "Temporary failure"), (HANGS, "ingestor-1: no answer of DNS")]
)
async def test_without_dns_a_peer_that_was_never_found_is_not_there(
    answer: object, text: str
) -> None:
    network = Network(answer)
    with pytest.raises(OSError, match=text):
        await network.connect(Dialler(network.dial, "ingestor-1:10901"))


async def test_a_name_that_is_gone_is_not_looked_for_where_it_was() -> None:
    """Its address may be another one's by now."""
    network = Network((THERE,), NO_NAME)
    dialler = Dialler(network.dial, "ingestor-1:10901")
    await network.connect(dialler)
    with pytest.raises(socket.gaierror, match="not known"):
        await network.connect(dialler)
    assert network.dialled == [f"{THERE}:10901"]
