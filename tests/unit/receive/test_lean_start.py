"""What a router imports: a process keeps what it imports, used or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

# The largest, MiB: grpc and protobuf 20, cryptography 9, fastapi 8, rich 4, click 4, hpack 2 (12 in
# passing), numba 100.
HEAVY = (
    "bcrypt", "click", "cryptography", "fastapi", "google.protobuf", "grpc", "hpack", "httpx",
    "llvmlite", "multiprocessing", "numba", "re2", "rich", "starlette", "watchfiles",
    "thanostack.lib.promql", "thanostack.lib.storeapi", "thanostack.lib.tsdb.multi_tsdb",
)  # fmt: skip
PROGRAM = """
import asyncio, json, os, sys
from thanostack.receive import settings, wiring
from thanostack.runtime import kernel_pool, process
from thanostack.runtime.settings import load

async def start(found, life):
    await wiring.start(found, life)
    print(json.dumps(sorted(sys.modules)), flush=True)
    life.supervisor.stop("done")

given = {
    "label": ['r="a"'], "receive.hashrings": ['[{"endpoints": ["127.0.0.1:1"]}]'],
    "http-address": ["127.0.0.1:0"], "grpc-address": ["127.0.0.1:0"],
    "remote-write.address": ["127.0.0.1:0"], "receive.hashrings-algorithm": ["ketama"],
}
found = load(settings.ReceiveSettings, given)
found.check()
sys.exit(process.run("receive", found, start, process.log_of("receive", found)))
"""


def test_a_router_imports_nothing_that_it_does_not_use():
    """It serves, and has none of the heavy libraries that others, or rare requests, need."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        capture_output=True, env=environment, timeout=120, check=True,
    )  # fmt: skip
    modules = json.loads(ran.stdout)
    assert "thanostack.receive.router" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_a_client_for_the_meta_monitoring_is_imported_where_the_file_is_parsed():
    """In a thread, and only if one is asked for: on the event loop all writes would wait for it."""
    program = """
import sys
from thanostack.receive.live_limits import _parse
_parse(b"write: {}")
before = "httpx" in sys.modules
_parse(b"write: {global: {meta_monitoring_url: 'http://a:1'}}")
print(before, "httpx" in sys.modules)
"""
    command = [sys.executable, "-P", "-c", program]
    ran = subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert ran.stdout.split() == [b"False", b"True"]
