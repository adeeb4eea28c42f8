"""Each flag of a router reaches what it is about."""

import pytest
import structlog

from thanostack.receive import routing
from thanostack.receive.settings import ReceiveSettings
from thanostack.runtime.command_line import split
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load

BASE = ['--label=replica="0"', '--receive.hashrings=[{"endpoints": ["a:1"]}]']


def made_of(monkeypatch, *arguments):
    """Return the options of peers and router, by class."""
    made = {}
    for name in ("Peers", "Router"):
        real = getattr(routing, name)

        def make(*parts, real=real, **others):
            made.update({type(part).__name__: part for part in parts})
            return real(*parts, **others)

        monkeypatch.setattr(routing, name, make)
    routing_of(*arguments)
    return made


def routing_of(*arguments):
    settings = load(ReceiveSettings, split([*BASE, *arguments], ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    metrics = routing.RoutingMetrics(
        process.registry, replication_factor=settings.replication_factor
    )
    return routing.Routing(
        settings, process, None, metrics=metrics, local=None, changed=lambda _: None
    )


@pytest.mark.parametrize(
    ("argument", "options", "field", "value"),
    [
        ("--receive.forward.async-workers=3", "PeerOptions", "workers", 3),
        ("--receive.forward.async-workers=0", "PeerOptions", "workers", 1),
        ("--receive.forward.queue-bytes-max=1MB", "PeerOptions", "queue_bytes_max", 1 << 20),
        ("--receive.inflight-bytes-max=3MB", "PeerOptions", "all_bytes_max", 6 << 20),
        ("--receive-forward-max-backoff=9s", "PeerOptions", "backoff_max_s", 9),
        ("--receive-forward-timeout=8s", "RouterOptions", "timeout_s", 8),
        ("--receive.sloppy-quorum", "RouterOptions", "is_sloppy", True),
        ("--receive.grpc-compression=none", "RouterOptions", "is_compressed", False),
        ("--receive.replication-factor=3", "RouterOptions", "replication_factor", 3),
        ("--receive.split-tenant-label-name=team", "RouterOptions", "split_label", "team"),
    ],
)
def test_a_flag_is_one_option(monkeypatch, argument, options, field, value):
    """What it sets is not the default."""
    assert value == getattr(made_of(monkeypatch, argument)[options], field)
    assert value != getattr(made_of(monkeypatch)[options], field)


async def test_a_scheme_of_grpc_is_no_part_of_what_is_connected_to():
    """Thanos's rings may have it, as its addresses are gRPC's."""
    channel = routing_of()._connect("dns:///a:1")
    assert channel.address == "a:1"
    await channel.close()


async def test_the_file_is_read_again_as_often_as_asked(monkeypatch, tmp_path):
    """--receive.hashrings-file-refresh-interval, beside what the file system tells."""
    file = tmp_path / "hashrings.json"
    file.write_text('[{"endpoints": ["a:1"]}]')
    arguments = [
        BASE[0], f"--receive.hashrings-file={file}",
        "--receive.hashrings-file-refresh-interval=7s",
    ]  # fmt: skip
    settings = load(ReceiveSettings, split(arguments, ReceiveSettings).flags, {})
    process = new_process("receive", structlog.get_logger())
    metrics = routing.RoutingMetrics(process.registry, replication_factor=1)
    found = routing.Routing(
        settings, process, None, metrics=metrics, local=None, changed=lambda _: None
    )
    seen = []
    monkeypatch.setattr(found.rings, "watch", lambda path, interval_s: seen.append(interval_s))
    monkeypatch.setattr(process.supervisor, "task", lambda *_: None)
    found.start()
    assert seen == [7]
