"""What a new user pastes: plain text for standard output, once everything serves."""

from __future__ import annotations

import textwrap
from urllib.parse import urlencode

_UNSPECIFIED = {"", "0.0.0.0", "::"}


def reachable(host: str, port: int) -> str:
    """Return host:port under which this machine reaches an address that is listened on."""
    if host in _UNSPECIFIED:
        host = "localhost"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def banner(http: str, write: str, prefix: str = "") -> str:
    """Return the text.

    Args:
        http: URL of the HTTP port, without a path.
        write: URL of the remote-write port, without a path.
        prefix: path before all routes of the query API.
    """
    base = f"{http}{prefix}"
    text = f"""
        Thanostack is ready: {base}/

        # prometheus.yml
        remote_write:
          - url: {write}/api/v1/receive

        # Grafana: data source of type Prometheus, with this URL
        {base}

        # shell
        curl -s '{base}/api/v1/query?query=up'
        promtool query instant {base} up
    """
    return textwrap.dedent(text).strip("\n")


def demo_banner(http: str, prefix: str = "") -> str:
    """Return what to look at while the demo runs."""
    expr = 'last_over_time(demo_temperature{room="kitchen"}[1m])'
    state = {"g0.expr": expr, "g0.range_input": "1h", "g0.deduplicate": "0"}
    return (
        f"Demo: {http}{prefix}/graph?{urlencode(state)}\n"
        "Two replicas, each with gaps. Switch Use Deduplication on: the gaps are healed.\n"
        "End with Ctrl-C."
    )
