"""Many tenants: opened together, made when first written to, pruned and revived, closed."""

import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.foundation.errors import (
    DirectoryLocked,
    LimitExceeded,
    NotReady,
    Quarantined,
    StorageUnwritable,
)
from thanostack.lib.tsdb import multi_tsdb as multi_tsdb_module
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.lib.tsdb.options import MILESTONES
from thanostack.lib.tsdb.write_columns import WriteColumns
from thanostack.testing.tsdb_directory import (
    BLOCK_MS,
    SMALL,
    Reports,
    expected,
    samples_of,
    write,
)
from thanostack.testing.write_storage import write_request

NOW = 1_000_000_000
OPTIONS = dataclasses.replace(SMALL, retention_ms=100_000)


def multi(folder, options=OPTIONS, now=NOW):
    reports = Reports()
    found = MultiTSDB(folder, options, clock=ManualClock(now), report=reports)
    found.open()
    return found, reports


def test_tenants(tmp_path):
    """A tenant is made by its first write, found by the next start, and apart from the others."""
    db, reports = multi(tmp_path / "data")
    assert db.tenants() == {}
    for tenant in ("a", "b"):
        write(db.tsdb(tenant), [tenant], [NOW])
    before = db.tenants()
    assert db.tsdb("a") is before["a"]
    db.tsdb("c")
    assert (["a", "b"], ["a", "b", "c"]) == (sorted(before), sorted(db.tenants()))
    db.close()
    with pytest.raises(NotReady):
        db.tsdb("new")
    with pytest.raises(StorageUnwritable, match="closed"):
        write(db.tsdb("a"), ["a"], [NOW + 1])
    (tmp_path / "data" / "lost+found").mkdir()
    (tmp_path / "data" / "file").write_text("")
    again, reports = multi(tmp_path / "data")
    assert ["a", "b", "c"] == sorted(again.tenants())
    for tenant in ("a", "b"):
        assert expected([tenant], [NOW]) == samples_of(again.tsdb(tenant))
    assert reports == []
    again.close()


def test_one_tenant_is_made_once(tmp_path):
    """Threads that write to a new tenant at once share one storage."""
    db, _ = multi(tmp_path)
    found, barrier = [], threading.Barrier(6)

    def ask():
        barrier.wait()
        found.append(db.tsdb("a"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(tsdb) for tsdb in found}) == 1
    db.close()


def test_quarantine(tmp_path):
    """Tenants that cannot be opened, however, are set aside with a reason; the others serve."""
    db, _ = multi(tmp_path)
    for tenant in ("good", "gap", "dir", "locked"):
        write(db.tsdb(tenant), ["1"], [NOW])
    db.close()
    (tmp_path / "gap" / "wal" / "00000000").rename(tmp_path / "gap" / "wal" / "00000007")
    (tmp_path / "gap" / "wal" / "00000009").write_bytes(b"")
    (tmp_path / "dir" / "chunks_head" / "000009").mkdir(parents=True)
    held = multi_tsdb_module.TSDB(tmp_path / "locked", OPTIONS)
    again, reports = multi(tmp_path)
    assert ["good"] == list(again.tenants())
    assert {"gap", "dir", "locked"} == again.quarantined().keys()
    assert "00000009" in again.quarantined()["gap"]
    assert "locked/lock is locked by process" in again.quarantined()["locked"]
    assert {"tenant is quarantined"} == set(reports.messages)
    for tenant in ("gap", "dir", "locked"):
        with pytest.raises(Quarantined, match=tenant):
            again.tsdb(tenant)
    assert write(again.tsdb("good"), ["1"], [NOW + 1]).stored == 1
    assert (tmp_path / "gap" / "wal" / "00000007").stat().st_size > 0
    again.close()
    held.close()


@pytest.mark.parametrize("is_one_damaged", [False, True])
def test_a_folder_that_another_process_uses(tmp_path, is_one_damaged):
    """With no tenant left to serve, the start ends; the tenants stay as they are."""
    db, _ = multi(tmp_path)
    for tenant in ("a", "b"):
        write(db.tsdb(tenant), ["1"], [NOW])
    if is_one_damaged:
        (tmp_path / "damaged" / "chunks_head" / "000009").mkdir(parents=True)
    second = MultiTSDB(tmp_path, OPTIONS, clock=ManualClock(NOW), report=Reports())
    holder = f"a/lock is locked by process {os.getpid()}: another process uses this directory"
    with pytest.raises(DirectoryLocked, match=holder):
        second.open()
    assert write(db.tsdb("a"), ["1"], [NOW + 1]).stored == 1
    db.close()


def test_a_full_disk_is_tried_ever_less_often(monkeypatch, tmp_path):
    """Opening a tenant replays its log: that is no thing for every few seconds."""
    db, _ = multi(tmp_path)
    write(db.tsdb("a"), ["1"], [NOW])
    db.close()
    tried = []

    def full(_):
        tried.append(clock.now_ms() - NOW)
        raise StorageUnwritable("full")

    clock = ManualClock(NOW)
    again = MultiTSDB(tmp_path, OPTIONS, clock=clock, report=Reports())
    monkeypatch.setattr(again, "_open", full)
    again.open()
    for _ in range(8):
        clock.advance(5_000)
        again.maintain()
    assert tried == [0, 5_000, 15_000, 35_000]
    again.close()


def test_a_lock_that_is_let_go(tmp_path):
    """A tenant that another process still held comes back by itself; a damaged one does not."""
    db, _ = multi(tmp_path)
    for tenant in ("gap", "good", "locked"):
        write(db.tsdb(tenant), ["1"], [NOW])
    db.close()
    (tmp_path / "gap" / "wal" / "00000000").rename(tmp_path / "gap" / "wal" / "00000007")
    (tmp_path / "gap" / "wal" / "00000009").write_bytes(b"")
    held = multi_tsdb_module.TSDB(tmp_path / "locked", OPTIONS)
    clock = ManualClock(NOW)
    again = MultiTSDB(tmp_path, OPTIONS, clock=clock, report=Reports())
    again.open()
    clock.advance(5_000)
    again.maintain()
    assert {"gap", "locked"} == again.quarantined().keys()
    held.close()
    clock.advance(4_999)
    again.maintain()
    assert {"gap", "locked"} == again.quarantined().keys(), "not all the time"
    clock.advance(1)
    again.maintain()
    assert {"gap"} == again.quarantined().keys()
    assert expected(["1"], [NOW]) == samples_of(again.tsdb("locked"))
    again.close()


def test_prune_and_revive(tmp_path):
    """A tenant idle for longer than retention goes with its directory, and may come back."""
    db, reports = multi(tmp_path)
    write(db.tsdb("idle"), ["1"], [NOW - 100_001])
    write(db.tsdb("busy"), ["1"], [NOW - 100_000])
    db.tsdb("empty")
    old = db.tsdb("idle")
    db.maintain()
    assert ["busy", "empty", "idle"] == sorted(db.tenants())
    db._clock.advance(2 * BLOCK_MS + 1)
    write(db.tsdb("busy"), ["1"], [NOW])
    db.maintain()
    assert ["busy", "empty"] == sorted(db.tenants())
    assert not (tmp_path / "idle").exists()
    assert ("pruned an idle tenant", {"tenant": "idle"}) in reports
    with pytest.raises(StorageUnwritable, match="closed"):
        write(old, ["1"], [NOW])
    write(db.tsdb("idle"), ["2"], [NOW])
    assert expected(["2"], [NOW]) == samples_of(db.tsdb("idle"))
    db.maintain()
    assert "idle" in db.tenants()
    db.close()


def test_write_during_prune(tmp_path, monkeypatch):
    """A sample that comes while its idle tenant is being closed is kept, and so is the tenant."""
    db, _ = multi(tmp_path)
    tsdb = db.tsdb("a")
    write(tsdb, ["1"], [NOW - 200_000])
    real, columns = tsdb._shut, WriteColumns()
    body = write_request(({"a": "late", "job": "x"}, [(NOW, float(NOW))]))
    data = np.frombuffer(body, np.uint8)
    columns.scan(data)

    def late():
        tsdb._write(columns, data, 1)
        real()

    db._clock.advance(2 * BLOCK_MS + 1)
    monkeypatch.setattr(tsdb, "_shut", late)
    db.maintain()
    assert db.tsdb("a") is not tsdb
    assert samples_of(db.tsdb("a"))[("a", "late"), ("job", "x")].keys() == {NOW}
    db.close()


def test_prune_that_fails(tmp_path, monkeypatch):
    """A directory that cannot be removed is reported; the other tenants are maintained."""
    db, reports = multi(tmp_path)
    write(db.tsdb("a"), ["1"], [NOW - 200_000])
    write(db.tsdb("b"), ["1"], [NOW - 200_000])

    def refuse(tsdb):
        raise StorageUnwritable("busy")

    monkeypatch.setattr(multi_tsdb_module, "remove_folder", refuse)
    db._clock.advance(2 * BLOCK_MS + 1)
    db.maintain()
    assert db.tenants() == {}
    assert ["an idle tenant stays on disk"] * 2 == reports.messages
    assert expected(["1"], [NOW - 200_000]) == samples_of(db.tsdb("a"))
    db.close()


def test_close_tries_all(tmp_path, monkeypatch):
    """One tenant that fails to close does not keep the others open; its error comes at the end."""
    db, _ = multi(tmp_path)
    first, second = db.tsdb("a"), db.tsdb("b")
    real = first.close

    def failing():
        real()
        raise StorageUnwritable("full")

    monkeypatch.setattr(first, "close", failing)
    with pytest.raises(StorageUnwritable, match="full"):
        db.close()
    assert second.is_closed


def test_tenants_are_bounded(tmp_path):
    """A sender that makes tenants up is refused beyond the bound; those there are go on."""
    db, _ = multi(tmp_path, dataclasses.replace(OPTIONS, tenants_max=2))
    db.tsdb("a")
    db.tsdb("b")
    with pytest.raises(LimitExceeded, match="tenants"):
        db.tsdb("c")
    write(db.tsdb("a"), ["1"], [NOW])
    db.close()


def test_milestones_are_events_that_are_reported():
    """A renamed event would silently become a warning."""
    folder = Path(multi_tsdb_module.__file__).parent
    text = "".join(p.read_text() for p in folder.glob("*.py") if p.name != "options.py")
    assert [event for event in sorted(MILESTONES) if f'"{event}"' not in text] == []
