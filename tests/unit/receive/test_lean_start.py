"""What a router imports: a process keeps what it imports, used or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

# The largest, MiB: grpc and protobuf 20, cryptography 9, fastapi 8, rich 4, click 4, hpack 2 (12 in
# passing), numba 100. Of the small ones: yaml 0.9,
# logging.config 0.5, encodings.idna 0.4, difflib 0.2, and the servers behind prometheus_client 2.5.
HEAVY = (
    "bcrypt", "click", "configparser", "cryptography", "difflib", "encodings.idna", "fastapi",
    "google.protobuf", "grpc", "hpack", "http.server", "httpx", "llvmlite", "logging.config",
    "multiprocessing", "numba", "re2", "rich", "starlette",
    "urllib.request", "watchfiles", "wsgiref.simple_server", "yaml", "thanostack.lib.promql",
    "thanostack.lib.storeapi", "thanostack.lib.tsdb.block_meta", "thanostack.lib.tsdb.multi_tsdb",
    "thanostack.runtime.web_config",
)  # fmt: skip
# Modules are imported in the order in which the program does it.
PROGRAM = """
import json, sys
from thanostack.runtime import cli
cli.settings_of("receive")
from thanostack.runtime import process

def run(component, settings, start, log):
    async def start_and_tell(found, life):
        await start(found, life)
        print(json.dumps(sorted(sys.modules)), flush=True)
        life.supervisor.stop("done")

    return run_whole(component, settings, start_and_tell, log)

run_whole, process.run = process.run, run
sys.exit(cli.main([
    "receive", "--label=r=\\"a\\"", "--receive.hashrings-algorithm=ketama",
    '--receive.hashrings=[{"endpoints": ["127.0.0.1:1"]}]',
    "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
    "--remote-write.address=127.0.0.1:0",
]))
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
