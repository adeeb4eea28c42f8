"""Tasks, signals, drains and releases, in the right order."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.probes import Probes
from thanostack.runtime.supervisor import Supervisor


class Life:
    """A supervisor and what happened under it."""

    def __init__(self):
        log = structlog.get_logger()
        self.story, self.exits = [], []
        self.probes = Probes("test", CollectorRegistry(), log)
        self.supervisor = Supervisor(self.probes, log, exit_now=self.exits.append)

    def note(self, what, *, fails=False):
        async def action():
            self.story.append((what, self.probes.is_ready))
            if fails:
                raise RuntimeError(what)

        return action

    async def forever(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.story.append(("task cancelled", self.probes.is_ready))


@pytest.fixture
def life():
    return Life()


async def test_a_signal_stops_in_order(life):
    """Not ready, then drains, then tasks end, then releases in reverse."""

    async def build():
        life.supervisor.release("storage", life.note("release storage"))
        life.supervisor.release("cache", life.note("release cache"))
        life.supervisor.drain("http", life.note("drain http"))
        life.supervisor.task("work", life.forever())
        life.probes.set_ready()
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)

    assert await life.supervisor.run(build) == 0
    assert life.story == [
        ("drain http", False),
        ("task cancelled", False),
        ("release cache", False),
        ("release storage", False),
    ]
    assert life.probes.reason == "stopping"
    assert not life.supervisor.was_starting


async def test_a_second_signal_leaves_at_once(life):
    """Whoever asks twice does not wait for drains."""

    async def slow():
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)

    async def build():
        life.supervisor.drain("slow", slow)
        os.kill(os.getpid(), signal.SIGTERM)

    await life.supervisor.run(build)
    assert life.exits == [1]


@pytest.mark.parametrize("error", [None, RuntimeError("bug"), SettingsInvalid("port in use")])
async def test_the_first_task_to_end_ends_all(life, error):
    """A task that ends, well or badly, stops the process; only badly makes the code 1."""

    async def end():
        await asyncio.sleep(0)
        if error:
            raise error

    async def build():
        life.supervisor.release("storage", life.note("release"))
        life.supervisor.task("other", life.forever())
        life.supervisor.task("ends", end())

    assert await life.supervisor.run(build) == (1 if error else 0)
    assert [what for what, _ in life.story] == ["task cancelled", "release"]


async def test_a_failed_start_releases_what_was_built(life):
    """An error in the builder is code 1, and nothing stays open."""

    async def build():
        life.supervisor.release("storage", life.note("release"))
        raise SettingsInvalid("no")

    assert await life.supervisor.run(build) == 1
    assert life.story == [("release", False)]


async def test_failing_drains_and_releases_do_not_stop_the_others(life):
    """All are attempted, and the code says that one went wrong."""

    async def build():
        life.supervisor.release("a", life.note("release a"))
        life.supervisor.release("b", life.note("release b", fails=True))
        life.supervisor.drain("c", life.note("drain c", fails=True))
        life.supervisor.drain("d", life.note("drain d"))
        life.supervisor.stop("enough")

    assert await life.supervisor.run(build) == 1
    assert [what for what, _ in life.story] == ["drain c", "drain d", "release b", "release a"]


async def test_a_stop_during_the_start_cancels_it(life):
    """A builder that waits, such as for a replay in a thread, is not waited for."""

    async def build():
        asyncio.get_running_loop().call_later(0.01, life.supervisor.stop, "now")
        await asyncio.sleep(3600)

    assert await asyncio.wait_for(life.supervisor.run(build), 20) == 0
    assert life.supervisor.was_starting
