"""Servers that end as they start."""

import sys

import pytest

from thanostack.testing.ports import free_port
from thanostack.testing.processes import running

PANIC = "panic: nil pointer\nthanos/pkg/receive.(*tenant).shouldBeMarkedInactive(0)"
DIES_ONCE_THEN_SERVES = f"""
import http.server, pathlib, sys
lived = pathlib.Path(sys.argv[1])
if not lived.exists():
    lived.touch()
    sys.exit({PANIC!r})
handler = http.server.SimpleHTTPRequestHandler
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), handler).serve_forever()
"""


@pytest.mark.enable_socket
def test_a_receiver_that_panics_as_it_starts_is_started_again(tmp_path):
    """A real one does, now and then: it prunes a tenant that it is about to open."""
    port = free_port()
    command = [sys.executable, "-c", DIES_ONCE_THEN_SERVES, str(tmp_path / "lived"), str(port)]
    with running("peer", command, tmp_path / "peer.log", http_port=port, ready_path="/") as server:
        server.wait_ready(30)
        assert server.process.poll() is None
    assert PANIC in (tmp_path / "peer.panic").read_text()


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path):
    """Once: nothing else than that panic is forgiven."""
    command = [sys.executable, "-c", "import sys; sys.exit('the disk is full')"]
    with (
        running("peer", command, tmp_path / "peer.log", http_port=free_port()) as server,
        pytest.raises(RuntimeError, match=r"peer ended with 1\nthe disk is full"),
    ):
        server.wait_ready(30)
