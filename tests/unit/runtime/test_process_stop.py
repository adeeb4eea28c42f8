"""A whole process: started, asked over its port, and stopped by a signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import thanostack

PROGRAM = """
import asyncio, sys
from fastapi import FastAPI
from thanostack.runtime import process
from thanostack.runtime.http_common import CommonPages
from thanostack.runtime.http_server import HTTPServer, listen
from thanostack.runtime.settings import load
from thanostack.runtime.shared_flags import HTTPServerFlags, LogAndTracingFlags

class Settings(HTTPServerFlags, LogAndTracingFlags):
    pass

async def start(settings, life):
    pages = FastAPI()

    @pages.get("/slow")
    async def slow():
        life.log.info("slow begins")
        await asyncio.sleep(1)
        return "slow ends"

    async def flush():
        await asyncio.sleep(0.1)
        life.log.info("flushed")

    life.supervisor.release("storage", flush)
    application = CommonPages(life.probes, life.registry, pages)
    bound = listen(settings.http_address, "http-address")
    server = HTTPServer(application, bound, grace_s=20)
    life.supervisor.task("http", server.serve())
    life.supervisor.drain("http", server.stop)
    if "hang" in sys.argv:
        life.log.info("hanging")
        await asyncio.to_thread(__import__("time").sleep, 600)
    life.probes.set_ready()
    life.log.info("serving", port=server.port)

settings = load(Settings, {"http-address": ["127.0.0.1:0"]}, {})
sys.exit(process.run("test", settings, start, process.log_of("test", settings)))
"""


class Program:
    """The program in a process of its own, and what it logs."""

    def __init__(self, tmp_path, *arguments):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM, encoding="utf-8")
        root = str(Path(thanostack.__file__).parent.parent)
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            env={**os.environ, "PYTHONPATH": root, "PYTHONSAFEPATH": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, text):
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError("".join(self.lines))

    def end(self):
        self.lines += self.process.stderr
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path):
    programs = []

    def start(*arguments):
        programs.append(Program(tmp_path, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.wait()
        program.process.stderr.close()


def test_a_signal_ends_a_process_gracefully(start):
    """A running request is answered, storage is flushed after it, and the code is 0."""
    program = start()
    port = re.search(r"port=(\d+)", program.wait_for("msg=serving"))[1]
    with (
        httpx.Client(timeout=30) as client,
        client.stream("GET", f"http://127.0.0.1:{port}/-/ready") as ready,
    ):
        assert ready.status_code == 200
    asking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import httpx; print(httpx.get('http://127.0.0.1:{port}/slow', timeout=30).text)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    program.wait_for("slow begins")
    program.process.send_signal(signal.SIGTERM)
    assert asking.communicate(timeout=30)[0].strip() == '"slow ends"'
    assert program.end() == 0
    log = "".join(program.lines)
    order = [log.index(text) for text in ("received SIGTERM", "reason=stopping", "msg=flushed")]
    assert order == sorted(order)
    assert "msg=stopped code=0" in log


def test_a_stop_during_the_start_does_not_wait_for_a_thread(start):
    """A replay that takes minutes does not keep a process that was told to go."""
    program = start("hang")
    program.wait_for("msg=hanging")
    program.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert program.end() == 0
    assert time.monotonic() - began < 20
