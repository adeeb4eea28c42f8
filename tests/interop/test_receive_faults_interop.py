"""Faults that need the kernel's help: a network of its own, a disk that is full or read-only.

Needs root, `ip` and `mount`; without them these tests fail and say what is missing.
"""

from __future__ import annotations

import dataclasses
import errno
import random
import socket
import subprocess
import sys

import pytest

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.foundation.errors import Quarantined, StorageUnwritable
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.testing.hostile_places import network_of_its_own, run, small_disk
from thanostack.testing.receive_cluster import log_tails
from thanostack.testing.receive_faults import hostile_cluster
from thanostack.testing.receive_trial import END, Trial
from thanostack.testing.tsdb_directory import SMALL, expected, samples_of, write
from thanostack.testing.write_senders import Senders

pytestmark = pytest.mark.timeout(600)
EACH = ("black-hole", "kill-ingestor", "full-disk", "kill-ingestor", "flapping-link")


def test_no_write_is_refused_while_a_peer_is_cut_off_or_its_disk_is_full(tmp_path, capsys):
    """With three ingestors in the ring and with five; other nodes are killed in between."""
    with hostile_cluster(tmp_path) as (cluster, faults):
        trial, tallies = Trial(cluster, Senders(1, cluster.service), random.Random(1)), []
        for tally in trial.run((name, faults[name]) for name in (*EACH, "grow", *EACH)):
            tallies.append(tally)
            with capsys.disabled():
                print(f"\n{tally}", end="")
        bad = [(str(tally), tally.details[:10]) for tally in tallies if not tally.is_good]
        assert bad == [], log_tails(cluster)
        assert all(tally.acknowledged == tally.sent for tally in tallies)
        assert all(tally.sent > 20 for tally in tallies if tally.fault != END)


def test_a_black_hole_says_nothing():
    """Neither refused nor unreachable, and it is gone when it is healed."""
    with network_of_its_own() as link:
        program = "import socket; s = socket.create_server(('', 7)); print('on', flush=True); "
        command = [*link.prefix, sys.executable, "-c", program + "[s.accept() for _ in '12']"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"on\n"
        try:
            socket.create_connection((link.host, 7), 5).close()
            link.black_hole()
            with pytest.raises(TimeoutError):
                socket.create_connection((link.host, 7), 4)
            link.heal()
            socket.create_connection((link.host, 7), 5).close()
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def test_a_full_disk_has_no_byte_left(tmp_path):
    """Until it is freed."""
    with small_disk(tmp_path / "disk", 1) as disk:
        file = disk.folder / "file"
        disk.fill()
        with pytest.raises(OSError) as failed:
            file.write_bytes(b"x")
        assert failed.value.errno == errno.ENOSPC
        disk.free()
        assert file.write_bytes(b"x") == 1


@pytest.mark.parametrize("no_lockfile", [False, True])
def test_a_folder_that_cannot_be_written_is_set_aside_until_it_can(tmp_path, no_lockfile):
    """Nothing is acknowledged, nothing ends, and what was stored before is there afterwards."""
    now, clock = 1_000_000_000, ManualClock(1_000_000_000)
    options = dataclasses.replace(SMALL, no_lockfile=no_lockfile)
    with small_disk(tmp_path / "disk", 64) as disk:
        before = MultiTSDB(disk.folder, options, clock=clock)
        before.open()
        write(before.tsdb("old"), ["1"], [now])
        before.close()
        run("mount", "-o", "remount,ro", str(disk.folder))
        after = MultiTSDB(disk.folder, options, clock=clock)
        after.open()
        with pytest.raises(Quarantined, match="Read-only file system"):
            after.tsdb("old")
        with pytest.raises(StorageUnwritable, match="Read-only file system"):
            after.tsdb("new")
        run("mount", "-o", "remount,rw", str(disk.folder))
        clock.advance(5_000)
        after.maintain()
        assert expected(["1"], [now]) == samples_of(after.tsdb("old"))
        after.tsdb("new")
        after.close()
