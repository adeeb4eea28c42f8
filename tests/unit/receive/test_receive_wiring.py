"""Which parts of a receiver its flags put together."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.tsdb.maintenance import Maintenance
from thanostack.receive import wiring
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.command_line import split
from thanostack.runtime.kernel_cache import ROUTE_PATH, WRITE_PATH
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.testing.tsdb_directory import BLOCK_MS, opened, write


@pytest.mark.parametrize(
    ("argument", "is_direct"),
    [
        ("--tsdb.wal-compression", True),
        ("--receive.split-tenant-label-name=team", False),
        ('--receive.hashrings=[{"endpoints": ["a:1"]}]', False),
    ],
)
async def test_writes_are_answered_as_they_are_read_where_that_can_be(
    monkeypatch, tmp_path, argument, is_direct
):
    """Where it never can, a write would be decoded and relabeled twice."""
    arguments = ['--label=replica="0"', f"--tsdb.path={tmp_path}", argument]
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    asked = []
    monkeypatch.setattr(wiring, "web_port", lambda *_, direct, **__: asked.append(direct))
    receiver = wiring.Receiver(settings, new_process("receive", structlog.get_logger()))
    receiver.write_port(None)
    assert [direct is not None for direct in asked] == [is_direct]


async def test_what_the_first_write_needs_is_loaded_when_it_is_open(monkeypatch, tmp_path):
    """Whoever opens it, `receive` or `standalone`: else that write would hold the event loop."""
    arguments = [
        '--label=replica="0"', f"--tsdb.path={tmp_path}", "--receive.local-endpoint=a:1",
        '--receive.hashrings=[{"endpoints": ["a:1"]}]',
    ]  # fmt: skip
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process, loaded = new_process("receive", structlog.get_logger()), []
    monkeypatch.setattr(wiring.kernel_pool, "load", lambda _, names: loaded.extend(names))
    receiver = wiring.Receiver(settings, process)

    async def build():
        await receiver.open()
        process.supervisor.stop("it was opened")

    assert await process.supervisor.run(build) == 0
    assert set(loaded) == {*WRITE_PATH, *ROUTE_PATH}


@pytest.mark.parametrize("is_tenants", [False, True])
async def test_a_data_folder_that_cannot_be_used_is_named_with_its_flag(tmp_path, is_tenants):
    """It was "File exists", in a log line that named neither the flag nor what to do."""
    file = tmp_path / "default-tenant" if is_tenants else tmp_path / "file"
    file.write_text("")
    path = tmp_path if is_tenants else file
    arguments = ['--label=replica="0"', f"--tsdb.path={path}"]
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    receiver = wiring.Receiver(settings, process)
    with structlog.testing.capture_logs() as logs:
        assert await process.supervisor.run(receiver.open) == 1
    (error,) = [str(line["err"]) for line in logs if line["log_level"] == "error"]
    assert error.startswith(f"--tsdb.path: {file}: File exists; it has to be a folder that user")


@pytest.mark.parametrize(("endpoint", "is_told"), [("a:1", False), ("b:1", True)])
async def test_a_local_endpoint_that_no_hashring_has_is_told(tmp_path, endpoint, is_told):
    """Such a node stores nothing, whatever its flags say."""
    arguments = [
        '--label=replica="0"', f"--tsdb.path={tmp_path}", f"--receive.local-endpoint={endpoint}",
        '--receive.hashrings=[{"endpoints": ["a:1"]}]',
    ]  # fmt: skip
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    receiver = wiring.Receiver(settings, process)

    async def build():
        await receiver.open()
        process.supervisor.stop("it was opened")

    with structlog.testing.capture_logs() as logs:
        assert await process.supervisor.run(build) == 0
    assert is_told == any(line.get("local_endpoint") == endpoint for line in logs)


async def test_a_limits_file_is_named_by_its_own_flag(tmp_path):
    """A password file that is missing was blamed on the flag that takes text."""
    file = tmp_path / "limits.yaml"
    file.write_text(
        "write: {global: {meta_monitoring_url: 'http://m', meta_monitoring_http_client: "
        "{basic_auth: {username: u, password_file: /nowhere}}}}"
    )
    arguments = ['--label=replica="0"', f"--receive.limits-config-file={file}"]
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    with pytest.raises(SettingsInvalid, match=r"^--receive.limits-config-file: improper http"):
        wiring.Receiver(settings, new_process("receive", structlog.get_logger()))


async def test_readiness_says_what_is_wrong_with_the_hashrings_now(tmp_path):
    """Not what was wrong first; a file that turns bad later changes nothing."""
    file = tmp_path / "hashrings.json"
    arguments = [
        '--label=replica="0"', f"--receive.hashrings-file={file}",
        "--receive.hashrings-file-refresh-interval=50ms",
    ]  # fmt: skip
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    receiver, reasons = wiring.Receiver(settings, process), []

    async def build():
        await receiver.open()
        receiver.opened()
        for text in ("", "{", '[{"endpoints": ["a:1"]}]'):
            reasons.append(process.probes.reason)
            file.write_text(text)
            for _ in range(500):
                if process.probes.reason != reasons[-1]:
                    break
                await asyncio.sleep(0.01)
        file.write_text("{")
        await asyncio.sleep(0.2)
        assert process.probes.is_ready
        process.supervisor.stop("all was seen")

    assert await process.supervisor.run(build) == 0
    assert "No such file" in reasons[0]
    assert "not JSON" in reasons[1]
    assert "not JSON" in reasons[2]
    assert reasons[1] != reasons[2]


async def test_readers_hear_of_a_tenant_that_is_quarantined(tmp_path):
    """Not an answer that looks whole; the names of files stay in the log."""
    (tmp_path / "lost" / "wal" / "00000000").mkdir(parents=True)
    arguments = ['--label=replica="0"', f"--tsdb.path={tmp_path}"]
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    receiver, warnings = wiring.Receiver(settings, process), []

    async def build():
        await receiver.open()
        assert ["lost"] == list(receiver.ingestor.storage.quarantined())
        for tenant in ("lost", "default-tenant"):
            warnings.append(
                receiver.stores.warnings([Matcher(MatchType.EQ, "tenant_id", tenant)], 0, 1)
            )
        process.supervisor.stop("all was seen")

    assert await process.supervisor.run(build) == 0
    assert warnings == [["tenant lost is quarantined in a receiver: what it holds is missing"], []]


async def test_readers_hear_of_a_block_that_cannot_be_read(tmp_path):
    """Those that ask for its time; the tenant's other samples are served."""
    tsdb = opened(tmp_path / "acme")
    write(tsdb, ["1"], range(0, 40_000, 100))
    Maintenance(tsdb).run()
    damaged = tsdb.blocks.readers[0].meta.ulid
    tsdb.close()
    (tmp_path / "acme" / damaged / "index").write_bytes(b"")
    arguments = ['--label=replica="0"', f"--tsdb.path={tmp_path}"]
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    receiver, warnings = wiring.Receiver(settings, process), []

    async def build():
        await receiver.open()
        assert {} == receiver.ingestor.storage.quarantined()
        assert receiver.stores.describe().mint == 0
        for tenant, mint in (("acme", 9999), ("acme", BLOCK_MS), ("default-tenant", 0)):
            matchers = [Matcher(MatchType.EQ, "tenant_id", tenant)]
            warnings.append(receiver.stores.warnings(matchers, mint, 40_000))
        process.supervisor.stop("all was seen")

    assert await process.supervisor.run(build) == 0
    text = "tenant acme has a block in a receiver that cannot be read: what it holds is missing"
    assert warnings == [[text], [], []]
