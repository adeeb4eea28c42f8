"""Probes, metrics and plain answers as every container serves them."""

from __future__ import annotations

import pytest
import structlog
from fastapi import FastAPI

from thanostack.runtime.http_common import common_routes
from thanostack.runtime.metrics import new_registry
from thanostack.runtime.probes import Probes
from thanostack.testing.asgi import call


@pytest.fixture
def registry():
    return new_registry("test")


@pytest.fixture
def probes(registry):
    return Probes("test", registry, structlog.get_logger())


@pytest.fixture
def pages(probes, registry):
    pages = FastAPI()
    pages.include_router(common_routes(probes, registry))
    return pages


async def get(pages, path, **headers):
    return await call(pages, path, method="GET", headers=headers)


async def test_probes_show_one_state(pages, probes, registry):
    """503 with the reason until ready, and again when not; the metric and watchers follow."""
    seen = []
    probes.watch(seen.append)
    assert (await get(pages, "/-/healthy")).status == 503
    probes.set_healthy()
    reply = await get(pages, "/-/ready")
    assert ((await get(pages, "/-/healthy")).status, reply.status) == (200, 503)
    assert reply.text == "not ready: starting"
    probes.set_ready()
    reply = await get(pages, "/-/ready")
    assert (reply.status, reply.text) == (200, "OK")
    labels = {"check": "ready", "component": "test"}
    assert registry.get_sample_value("thanos_status", labels) == 1
    probes.set_not_ready("stopping")
    assert (await get(pages, "/-/ready")).text == "not ready: stopping"
    assert registry.get_sample_value("thanos_status", labels) == 0
    assert seen[0] is False
    assert seen[-2:] == [True, False]


async def test_metrics_are_exposed_in_the_form_asked_for(pages):
    """The text format by default, OpenMetrics on request."""
    plain = await get(pages, "/metrics")
    assert plain.headers[b"content-type"].startswith(b"text/plain; version=")
    assert "# TYPE process_cpu_seconds_total counter" in plain.text
    assert 'thanos_build_info{branch=""' in plain.text
    assert "_created" not in plain.text
    open_metrics = await get(pages, "/metrics", accept="application/openmetrics-text")
    assert open_metrics.headers[b"content-type"].startswith(b"application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")
