"""What a new user pastes."""

from __future__ import annotations

import shlex

import pytest
import yaml

from thanostack.standalone.banner import banner, demo_banner, reachable


@pytest.mark.parametrize(
    "host, shown",
    [
        ("0.0.0.0", "localhost:1"),
        ("", "localhost:1"),
        ("::", "localhost:1"),
        ("::1", "[::1]:1"),
        ("10.0.0.7", "10.0.0.7:1"),
    ],
)
def test_addresses_are_such_that_one_can_go_there(host, shown):
    """Nobody can connect to 0.0.0.0 by name: this machine's name stands for it."""
    assert reachable(host, 1) == shown


def test_the_block_is_valid_configuration():
    """The remote_write block parses as YAML by itself."""
    lines = banner("http://localhost:10902", "http://localhost:19291").splitlines()
    at = lines.index("remote_write:")
    block = "\n".join(lines[at : lines.index("", at)])
    assert yaml.safe_load(block) == {
        "remote_write": [{"url": "http://localhost:19291/api/v1/receive"}]
    }


def test_shell_lines_are_commands():
    """Lines for curl and promtool split as a shell would split them, under the prefix."""
    lines = banner("http://localhost:10902", "http://localhost:19291", "/thanos").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith(("curl", "promtool"))]
    curl = ["curl", "-s", "http://localhost:10902/thanos/api/v1/query?query=up"]
    promtool = ["promtool", "query", "instant", "http://localhost:10902/thanos", "up"]
    assert commands == [curl, promtool]
    assert "http://localhost:10902/thanos" in lines


def test_the_demo_link_opens_with_deduplication_off():
    """So that the switch has something to show."""
    assert "g0.deduplicate=0" in demo_banner("http://localhost:10902")
