"""The drain's states, its routes, and what a start finds; storage is real, the process is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import pytest
import structlog

from thanostack.lib.foundation.errors import NotReady, SettingsInvalid, StorageUnwritable
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.receive import drain as drain_module
from thanostack.receive import wiring
from thanostack.receive.drain import MARKER
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.command_line import split
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.standalone.settings import StandaloneSettings
from thanostack.testing.asgi import call
from thanostack.testing.tsdb_directory import expected, samples_of, write

STATES = ("serving", "draining", "drained", "failed")
ENABLED = "--receive.enable-drain"


def settings_of(folder, *flags, kind=ReceiveSettings):
    arguments = ['--label=replica="0"', f"--tsdb.path={folder}", *flags]
    return load(kind, split(arguments, kind).flags, {})


class Life:
    """A receiver without ports."""

    def __init__(self, folder, *flags):
        self.process = new_process("receive", structlog.get_logger())
        self.receiver = wiring.Receiver(settings_of(folder, *flags), self.process)
        self.pages = self.receiver.pages()
        self.storage = self.receiver.ingestor.storage

    @contextlib.asynccontextmanager
    async def open(self):
        """Run it for the time of the block."""
        begun, over = asyncio.Event(), asyncio.Event()

        async def build():
            await self.receiver.open()
            self.receiver.opened()
            begun.set()
            await over.wait()
            self.process.supervisor.stop("the test is over")

        running = asyncio.ensure_future(self.process.supervisor.run(build))
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        try:
            yield self
        finally:
            over.set()
            self.code = await running

    async def ask(self, method="GET", status=200):
        reply = await call(self.pages, "/-/drain", method=method)
        assert reply.status == status, reply.text
        return json.loads(reply.body) if reply.body.startswith(b"{") else reply

    async def until(self, state):
        for _ in range(500):
            shown = await self.ask()
            if shown["state"] == state:
                return shown
            await asyncio.sleep(0.01)
        raise AssertionError(shown)

    async def ready(self):
        reply = await call(self.pages, "/-/ready", method="GET")
        return reply.status, reply.text

    def metric(self):
        value = self.process.registry.get_sample_value
        found = {s: value("thanostack_receive_drain_state", {"state": s}) for s in STATES}
        return [state for state, on in found.items() if on]

    def write(self, tenant, names, times):
        return write(self.storage.tsdb(tenant), names, times)

    def held(self, tenant):
        return samples_of(self.storage.tenants()[tenant])


async def test_the_way_through_all_states(tmp_path):
    """POST empties the heads, again and again is the same, and DELETE takes writes again."""
    async with Life(tmp_path, ENABLED).open() as life:
        for tenant in "ab":
            life.write(tenant, ["1"], [1000, 90_000_000])
        shown = await life.ask()
        assert (shown["state"], shown["error"]) == ("serving", None)
        assert shown["tenants"]["a"] == {"blocks": [], "uploaded": False}
        assert (life.metric(), await life.ready()) == (["serving"], (200, "OK"))
        assert (await life.ask("PUT", 405)).headers[b"allow"] == b"DELETE, GET, POST"
        assert (await life.ask("POST", 202))["state"] == "draining"
        assert (await life.ready())[0] == 503
        shown = await life.until("drained")
        assert (life.metric(), await life.ready()) == (["drained"], (503, "not ready: drained"))
        assert await life.ask("POST", 202) == shown == await life.ask()
        for tenant in "ab":
            tsdb = life.storage.tenants()[tenant]
            assert tsdb.head.maxt < tsdb.head.mint
            blocks = sorted(path.parent.name for path in tsdb.folder.glob("*/meta.json"))
            assert shown["tenants"][tenant] == {"blocks": blocks, "uploaded": False}
            assert len(blocks) == 2
            assert life.held(tenant) == expected(["1"], [1000, 90_000_000])
            with pytest.raises(NotReady, match="drained"):
                life.write(tenant, ["1"], [90_000_001])
        with pytest.raises(NotReady, match="drained"):
            life.storage.tsdb("new")
        assert (await life.ask("DELETE"))["state"] == "serving"
        assert (await life.ask("DELETE"))["state"] == "serving"
        assert (life.metric(), await life.ready()) == (["serving"], (200, "OK"))
        life.write("a", ["1"], [90_000_001])
        life.write("new", ["1"], [1])
        assert life.held("a") == expected(["1"], [1000, 90_000_000, 90_000_001])
        await life.ask("POST", 202)
        assert "new" in (await life.until("drained"))["tenants"]
    assert life.code == 0


async def test_a_start_goes_on_where_the_process_ended(tmp_path):
    """With the marker no write is ever taken, whatever the log holds; without it, all are."""
    async with Life(tmp_path, ENABLED).open() as life:
        life.write("a", ["1"], [1000])
    (tmp_path / MARKER).touch()
    life = Life(tmp_path, ENABLED)
    assert (await life.ask())["state"] == "draining"
    assert (await life.ask("POST", 503)).headers[b"retry-after"] == b"5"
    async with life.open():
        assert (await life.ready())[0] == 503
        with pytest.raises(NotReady):
            life.write("a", ["1"], [1001])
        shown = await life.until("drained")
        assert sorted(shown["tenants"]) == ["a", "default-tenant"]
        assert life.held("a") == expected(["1"], [1000])
    async with Life(tmp_path, ENABLED).open() as life:
        await life.until("drained")
        await life.ask("DELETE")
        assert not (tmp_path / MARKER).exists()
    async with Life(tmp_path, ENABLED).open() as life:
        assert (await life.ask())["state"] == "serving"
        life.write("a", ["1"], [1001])


async def test_a_folder_of_that_name_is_no_marker(tmp_path):
    """A tenant that was let be called so before does not keep a receiver from starting."""
    (tmp_path / MARKER).mkdir()
    async with Life(tmp_path, ENABLED).open() as life:
        assert (await life.ask())["state"] == "serving"


async def test_an_empty_node_is_drained_at_once(tmp_path):
    """With the marker the default tenant is not even made."""
    (tmp_path / MARKER).touch()
    async with Life(tmp_path, ENABLED).open() as life:
        assert (await life.until("drained"))["tenants"] == {}
    assert life.code == 0


async def test_a_disk_that_refuses_is_a_failure_to_try_again(tmp_path, monkeypatch):
    """The other tenants are drained, writes stay refused, and POST tries again."""
    async with Life(tmp_path, ENABLED).open() as life:
        for tenant in "ab":
            life.write(tenant, ["1"], [1000])
        real = Maintenance._write_block

        def full(self, mint, maxt):
            if self._tsdb.folder.name == "a":
                raise StorageUnwritable("chunks/000001: No space left on device")
            real(self, mint, maxt)

        with monkeypatch.context() as patch:
            patch.setattr(Maintenance, "_write_block", full)
            await life.ask("POST", 202)
            shown = await life.until("failed")
        assert shown["error"] == "tenant a: chunks/000001: No space left on device"
        assert [len(shown["tenants"][t]["blocks"]) for t in "ab"] == [0, 1]
        assert (life.metric(), await life.ready()) == (["failed"], (503, "not ready: failed"))
        with pytest.raises(NotReady):
            life.write("a", ["1"], [1001])
        await life.ask("POST", 202)
        assert (await life.until("drained"))["error"] is None
        assert life.held("a") == life.held("b") == expected(["1"], [1000])


async def test_a_quarantined_tenant_is_never_called_drained(tmp_path):
    """Nobody knows what it holds; the others are drained."""
    async with Life(tmp_path, ENABLED).open() as life:
        for tenant in "ab":
            life.write(tenant, ["1"], [1000])
    (tmp_path / "a" / "wal" / "00000000").unlink()
    (tmp_path / "a" / "wal" / "00000000").mkdir()
    async with Life(tmp_path, ENABLED).open() as life:
        await life.ask("POST", 202)
        shown = await life.until("failed")
        assert shown["error"].startswith("tenant a: ")
        assert len(shown["tenants"]["b"]["blocks"]) == 1


async def test_what_cannot_be_noted_down_is_not_begun(tmp_path, monkeypatch):
    """503, and writes go on: a restart would forget it."""

    def refuse(_):
        raise StorageUnwritable("thanostack-drain: No space left on device")

    async with Life(tmp_path, ENABLED).open() as life:
        monkeypatch.setattr(drain_module, "_mark", refuse)
        reply = await life.ask("POST", 503)
        assert (reply.text, b"retry-after" in reply.headers) == (
            "thanostack-drain: No space left on device\n", True,
        )  # fmt: skip
        assert (await life.ask())["state"] == "serving"
        life.write("a", ["1"], [1000])


async def test_delete_in_the_midst_waits_for_the_block_and_leaves_the_rest(tmp_path, monkeypatch):
    """No write is taken while a block is cut; then all are, and what is left is in the head."""
    begun, go_on = threading.Event(), threading.Event()
    real = Maintenance._write_block

    def slow(self, mint, maxt):
        begun.set()
        go_on.wait(10)
        real(self, mint, maxt)

    async with Life(tmp_path, ENABLED).open() as life:
        life.write("a", ["1"], [1000, 90_000_000])
        monkeypatch.setattr(Maintenance, "_write_block", slow)
        await life.ask("POST", 202)
        await asyncio.to_thread(begun.wait, 10)
        ending = asyncio.ensure_future(life.ask("DELETE"))
        await asyncio.sleep(0.05)
        assert not ending.done()
        assert (await life.ask())["state"] == "draining"
        assert not (tmp_path / MARKER).exists()
        with pytest.raises(NotReady):
            life.write("a", ["1"], [90_000_001])
        go_on.set()
        assert (await ending)["state"] == "serving"
        assert len((await life.ask())["tenants"]["a"]["blocks"]) == 1
        life.write("a", ["1"], [90_000_001])
        assert life.held("a") == expected(["1"], [1000, 90_000_000, 90_000_001])
        await life.ask("POST", 202)
        assert len((await life.until("drained"))["tenants"]["a"]["blocks"]) == 2


async def test_where_it_is_not_enabled(tmp_path):
    """404 says how; a router has nothing to drain; a folder that is drained is not served."""
    reply = await Life(tmp_path).ask("POST", 404)
    assert "--receive.enable-drain" in reply.text
    ring = '--receive.hashrings=[{"endpoints": ["a:1"]}]'
    process = new_process("receive", structlog.get_logger())
    router = wiring.Receiver(settings_of(tmp_path, ring), process)
    assert "nothing to drain" in (await call(router.pages(), "/-/drain", method="POST")).text
    with pytest.raises(SettingsInvalid, match="a router stores nothing"):
        settings_of(tmp_path, ring, ENABLED)
    settings_of(tmp_path, ring, ENABLED, "--receive.local-endpoint=a:1")
    with pytest.raises(SettingsInvalid, match="no other receiver goes on"):
        settings_of(tmp_path, ENABLED, kind=StandaloneSettings)
    (tmp_path / MARKER).touch()
    async with Life(tmp_path).open() as life:
        pass
    assert life.code == 1
