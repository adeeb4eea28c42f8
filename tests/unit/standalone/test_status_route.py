"""What the storage of standalone is made of, on the port of the querier."""

from __future__ import annotations

import pytest
import structlog
from fastapi import FastAPI

from thanostack.receive.wiring import Receiver
from thanostack.runtime.command_line import split
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.standalone import wiring
from thanostack.standalone.settings import StandaloneSettings
from thanostack.standalone.status_route import StatusRoute
from thanostack.testing.asgi import call

PATH = "/api/v1/status/tsdb"


async def test_one_path_goes_to_the_storage():
    """Below the prefix, and by GET alone."""
    querier, storage = FastAPI(), FastAPI()
    querier.add_api_route("/{path:path}", lambda: "querier", methods=["GET", "POST"])
    storage.add_api_route(PATH, lambda: "storage")
    for prefix in ("", "/p"):
        route = StatusRoute(querier, storage, prefix)
        for method, path, who in (
            ("GET", prefix + PATH, b'"storage"'),
            ("POST", prefix + PATH, b'"querier"'),
            ("GET", f"/q{PATH}", b'"querier"'),
            ("GET", f"{prefix}/api/v1/status/flags", b'"querier"'),
        ):
            assert (await call(route, path, method=method)).body == who


@pytest.mark.parametrize(("flag", "status"), [("", 200), ("--query.enforce-tenancy", 501)])
async def test_standalone_has_it_unless_readers_are_kept_apart(tmp_path, flag, status):
    """It was 501 at all times, though the page about receive promises it."""
    arguments = [f"--tsdb.path={tmp_path}", *([flag] if flag else [])]
    settings = load(StandaloneSettings, split(arguments, StandaloneSettings).flags, {})
    process = new_process("standalone", structlog.get_logger())
    process.probes.set_ready()
    receiver = Receiver(settings, process)
    querier = wiring.Querier(settings, process, http_metrics=receiver.http_metrics)
    pages = wiring._pages(querier, receiver, settings)
    reply = await call(pages, PATH, method="GET")
    assert reply.status == status, reply.body
