"""The operator's own port: on both families, since a cluster may be of IPv6 alone."""

import socket

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from thanostack_operator.http_server import serving
from thanostack_operator.metrics import Metrics


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_probes_are_answered_over_either_family(host):
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with (
        serving(Metrics(CollectorRegistry()), 0) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}/healthz") as answer,
    ):
        assert (answer.status, await answer.text()) == (200, "ok\n")


async def test_a_taken_port_is_an_error():
    metrics = Metrics(CollectorRegistry())
    async with serving(metrics, 0) as port:
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            async with serving(metrics, port):
                pass
