"""Faults that need the kernel's help: an ingestor in a network of its own, a disk that is full.

Needs root, `ip` and `mount`; without them these tests fail and say what is missing.
"""

from __future__ import annotations

import errno
import random
import socket
import subprocess
import sys

import pytest

from thanostack.testing.hostile_places import network_of_its_own, small_disk
from thanostack.testing.receive_cluster import log_tails
from thanostack.testing.receive_faults import hostile_cluster
from thanostack.testing.receive_trial import END, Trial
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
