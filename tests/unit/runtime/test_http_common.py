"""Probes, metrics and plain answers as every container serves them."""

from __future__ import annotations

import asyncio
import threading

import pytest
import structlog
from fastapi import FastAPI

from thanostack.runtime.http_common import CommonPages, LateApplication
from thanostack.runtime.http_errors import plain_errors
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
    plain_errors(pages)
    return CommonPages(probes, registry, pages)


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


async def test_a_process_that_stops_answers_what_still_comes(probes):
    """It wants no more, but who sent a request just now could not know; others wait for a start."""
    probes.set_healthy()
    probes.set_stopping()
    assert (probes.is_ready, probes.takes_requests) == (False, False)
    probes.set_ready()
    probes.set_stopping()
    assert (probes.is_ready, probes.takes_requests, probes.reason) == (False, True, "stopping")


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


async def test_unknown_paths_and_methods_are_refused_in_plain_text(pages):
    """As Go's router says it, and not in a framework's JSON."""
    for method, path, status, text in (
        ("GET", "/nope", 404, "404 page not found\n"),
        ("POST", "/-/nope", 404, "404 page not found\n"),
        ("DELETE", "/metrics", 405, "Method Not Allowed\n"),
    ):
        reply = await call(pages, path, method=method)
        assert (reply.status, reply.text) == (status, text)
        assert reply.headers[b"content-type"] == b"text/plain; charset=utf-8"
        assert reply.headers[b"x-content-type-options"] == b"nosniff"
    assert reply.headers[b"allow"] == b"GET, HEAD"


async def test_probes_answer_head(pages, probes):
    """`wget --spider` and load balancers ask so; Thanos answers. It was 405."""
    assert (await call(pages, "/-/ready", method="HEAD")).status == 503
    probes.set_ready()
    assert (await call(pages, "/-/ready", method="HEAD")).status == 200
    assert (await call(pages, "/metrics", method="HEAD")).status == 200


async def test_an_application_is_made_when_it_is_first_asked():
    """Once, in a thread, however many ask at the same time."""
    made = []

    def make():
        made.append(threading.current_thread())
        pages = FastAPI()
        pages.get("/page")(lambda: "here")
        return pages

    late = LateApplication(make)
    assert not made
    replies = await asyncio.gather(*(get(late, "/page") for _ in range(5)))
    assert [reply.status for reply in replies] == [200] * 5
    assert len(made) == 1
    assert made[0] is not threading.main_thread()
