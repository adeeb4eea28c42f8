"""The query API before storage is open."""

from __future__ import annotations

import orjson
import pytest
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from thanostack.runtime.probes import Probes
from thanostack.standalone.start_gate import StartGate
from thanostack.testing.asgi import call


@pytest.fixture
def gate():
    application = FastAPI()
    for path in ("/api/v1/query", "/graph"):
        application.add_api_route(path, lambda: "answered")
    probes = Probes("standalone", CollectorRegistry(), structlog.get_logger())
    probes.set_not_ready("opening the storage")
    return StartGate(application, "", probes)


async def test_a_query_before_the_storage_is_open_is_refused_with_the_reason(gate):
    """It is no empty success, and the client is told to come back."""
    reply = await call(gate, "/api/v1/query", method="GET")
    assert (reply.status, reply.headers[b"retry-after"]) == (503, b"2")
    assert orjson.loads(reply.body) == {
        "status": "error",
        "errorType": "unavailable",
        "error": "not ready: opening the storage",
    }


async def test_other_pages_are_served_from_the_start(gate):
    """The page itself loads while the process starts."""
    assert (await call(gate, "/graph", method="GET")).status == 200


async def test_an_open_gate_lets_queries_through(gate):
    """Opened once, it stays open."""
    gate.open()
    assert (await call(gate, "/api/v1/query", method="GET")).status == 200
