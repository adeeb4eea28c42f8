"""Hashrings from a file: loaded, kept when the file goes bad, changed when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.foundation.errors import InvalidInput, NotReady
from thanostack.lib.hashring import Hashrings, config_hash
from thanostack.receive.hashring_file import HashringSource
from thanostack.receive.routing_metrics import HashringMetrics, ShardCollector
from thanostack.runtime.logs import configure
from thanostack.testing import polling

eventually = partial(polling.eventually, within_s=20)


def config(*names, **more):
    return json.dumps([{"hashring": "a", "endpoints": list(names), **more}]).encode()


class Source:
    """A source with its metrics and what it told."""

    def __init__(self):
        self.registry, self.changes = CollectorRegistry(), []
        self.source = HashringSource(
            lambda text: Hashrings.parse(text, algorithm="ketama", replication_factor=2),
            self.changes.append,
            metrics=HashringMetrics(self.registry),
            clock=ManualClock(7_000),
            log=configure("test", level="info", form="logfmt"),
        )

    def value(self, metric, **labels):
        return self.registry.get_sample_value(f"thanos_receive_{metric}", labels)


@pytest.fixture
def source():
    return Source()


def test_nothing_is_in_force_at_first(source):
    """A write then says why."""
    with pytest.raises(NotReady, match="no hashring is loaded yet"):
        source.source.current()


def test_a_file_is_put_in_force(source, tmp_path):
    """It is shown by its hash, its nodes and its tenants, and whoever asked is told once."""
    path = tmp_path / "hashrings.json"
    path.write_bytes(config("x:1", "y:1", tenants=["t"]))
    source.source.refresh(path)
    source.source.refresh(path)
    assert source.source.current().addresses == {"x:1", "y:1"}
    assert source.changes == [source.source.current()]
    assert source.value("config_hash") == config_hash(path.read_bytes())
    assert source.value("config_last_reload_successful") == 1
    assert source.value("config_last_reload_success_timestamp_seconds") == 7
    assert source.value("hashrings_file_refreshes_total") == 2
    assert source.value("hashrings_file_changes_total") == 1
    assert source.value("hashrings_file_errors_total") == 0
    assert source.value("hashring_nodes", name="a") == 2
    assert source.value("hashring_tenants", name="a") == 1


@pytest.mark.parametrize("text", [None, b"", b"[]", b"{", b'[{"endpoints": ["only-one:1"]}]'])
def test_a_bad_file_leaves_the_former_rings(source, tmp_path, text):
    """Missing, empty, malformed or unusable: counted, logged, and shown as unsuccessful."""
    path = tmp_path / "hashrings.json"
    path.write_bytes(config("x:1", "y:1"))
    source.source.refresh(path)
    before = source.source.current()
    path.unlink() if text is None else path.write_bytes(text)
    with capture_logs() as logs:
        source.source.refresh(path)
    assert source.source.current() is before
    assert source.value("hashrings_file_errors_total") == 1
    assert source.value("config_last_reload_successful") == 0
    assert source.value("config_hash") == config_hash(config("x:1", "y:1"))
    assert [log["kept"] for log in logs] == ["the former hashrings stay in force"]
    path.write_bytes(config("x:1", "y:1"))
    source.source.refresh(path)
    assert source.value("config_last_reload_successful") == 1


def test_a_bad_file_at_the_start_is_said_to_be_why(source, tmp_path):
    """Whoever asks for readiness, or writes, reads it."""
    path = tmp_path / "hashrings.json"
    path.write_bytes(b"[]")
    source.source.refresh(path)
    with pytest.raises(NotReady, match="no hashring is loaded yet: "):
        source.source.current()
    path.write_bytes(config("x:1", "y:1"))
    source.source.refresh(path)
    assert source.source.current().addresses == {"x:1", "y:1"}


def test_rings_that_are_gone_are_shown_no_more(source):
    """Their names vanish from the metrics."""
    source.source.load(config("x:1", "y:1"))
    source.source.load(json.dumps([{"hashring": "b", "endpoints": ["x:1", "y:1"]}]).encode())
    assert source.value("hashring_nodes", name="a") is None
    assert source.value("hashring_nodes", name="b") == 2


def test_given_text_that_is_bad_is_an_error(source):
    """The command line is not a file that may become better."""
    with pytest.raises(InvalidInput):
        source.source.load(b"[")


def test_caches_of_shards_are_shown(source):
    """One label set a ring that shards, none before there is a ring."""
    source.registry.register(ShardCollector(lambda: source.source.loaded))
    name, labels = "thanos_shuffle_shard_cache_requests_total", {"hashring": "a"}
    assert source.registry.get_sample_value(name, labels) is None
    shards = {"shard_size": 2}
    source.source.load(config("x:1", "y:1", "z:1", shuffle_sharding_config=shards))
    source.source.current().ring_of("t")
    assert source.registry.get_sample_value(name, labels) == 1
    assert source.registry.get_sample_value("thanos_shuffle_shard_cache_max_items", labels) == 100


@contextlib.asynccontextmanager
async def watched(source, path, interval_s):
    task = asyncio.ensure_future(source.source.watch(path, interval_s))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_change_is_noticed_long_before_the_interval(source, tmp_path):
    """Also one that replaces a link, as the kubelet does for a ConfigMap."""
    for n, names in enumerate((("x:1", "y:1"), ("x:1", "z:1"))):
        (tmp_path / f"v{n}").mkdir()
        (tmp_path / f"v{n}" / "hashrings.json").write_bytes(config(*names))
    (tmp_path / "..data").symlink_to("v0")
    path = tmp_path / "hashrings.json"
    path.symlink_to("..data/hashrings.json")
    async with watched(source, path, 3600):
        await eventually(lambda: source.source.loaded)
        await asyncio.sleep(0.3)  # the watcher is begun by now
        (tmp_path / "new").symlink_to("v1")
        (tmp_path / "new").rename(tmp_path / "..data")
        await eventually(lambda: "z:1" in source.source.current().addresses)


async def test_a_folder_that_cannot_be_watched_leaves_the_interval(source, tmp_path):
    """It is said once, and the file is found when it comes."""
    path = tmp_path / "later" / "hashrings.json"
    async with watched(source, path, 0.05):
        await eventually(lambda: source.value("hashrings_file_errors_total") > 1)
        path.parent.mkdir()
        path.write_bytes(config("x:1", "y:1"))
        await eventually(lambda: source.source.loaded)
