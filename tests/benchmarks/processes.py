"""Start servers to be measured, feed them, and read what they cost.

CPU is the process's user and system time from /proc, memory its peak resident size: both belong to
that process alone, so a busy machine does not change what they mean.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running process under measurement.

    Args:
        name: for tables.
        process: the process.
        write_url: (port, path) of its remote-write endpoint.
        query_url: base URL of its query API.
    """

    name: str
    process: subprocess.Popen[bytes]
    write_port: int
    write_path: str
    query_url: str = ""

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mib(self, key: str = "VmHWM") -> float:
        """Return the peak resident size, or with `VmRSS` the present one."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
        raise ValueError(key)

    def wait_ready(self, url: str, timeout_s: float = 180) -> None:
        """Return when a URL answers 200."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}")
            with contextlib.suppress(OSError, urllib.error.URLError, http.client.HTTPException):
                if urllib.request.urlopen(url, timeout=2).status == 200:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{self.name} is not ready after {timeout_s} s")

    def send(self, bodies: Iterable[bytes]) -> None:
        """POST bodies one after another on one connection; anything but 2xx is an error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.write_port, timeout=120)
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        for body in bodies:
            connection.request("POST", self.write_path, body, headers)
            response = connection.getresponse()
            text = response.read()
            if response.status // 100 != 2:
                raise RuntimeError(f"{self.name}: {response.status} {text[:300]!r}")
        connection.close()


@contextlib.contextmanager
def running(
    name: str, command: list[str], log: Path, *, write_port: int, write_path: str,
    query_url: str = "", stop: int = signal.SIGTERM,
) -> Iterator[Server]:  # fmt: skip
    """Run a server for the time of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield Server(name, process, write_port, write_path, query_url)
        finally:
            process.send_signal(stop)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def thanostack() -> list[str]:
    """Return the command line of our program, as installed."""
    return [str(Path(sys.executable).parent / "thanostack")]


def our_receive(folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Run `thanostack receive` as ingestor."""
    http_port, grpc_port, write_port = free_port(), free_port(), free_port()
    command = [
        *thanostack(), "receive", f"--tsdb.path={folder}", '--label=replica="a"',
        f"--http-address=127.0.0.1:{http_port}", f"--grpc-address=127.0.0.1:{grpc_port}",
        f"--remote-write.address=127.0.0.1:{write_port}",
    ]  # fmt: skip
    return running(
        "thanostack receive", command, folder.with_suffix(".log"), write_port=write_port,
        write_path="/api/v1/receive", query_url=f"http://127.0.0.1:{http_port}",
    )  # fmt: skip


def thanos_receive(program: Path, folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Run the real `thanos receive` as ingestor, with its defaults."""
    http_port, grpc_port, write_port = free_port(), free_port(), free_port()
    command = [
        str(program), "receive", f"--tsdb.path={folder}", '--label=replica="a"',
        f"--http-address=127.0.0.1:{http_port}", f"--grpc-address=127.0.0.1:{grpc_port}",
        f"--remote-write.address=127.0.0.1:{write_port}",
        f"--receive.capnproto-address=127.0.0.1:{free_port()}",
    ]  # fmt: skip
    return running(
        "thanos receive", command, folder.with_suffix(".log"), write_port=write_port,
        write_path="/api/v1/receive", query_url=f"http://127.0.0.1:{http_port}",
    )  # fmt: skip


def prometheus(program: Path, folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Run the real Prometheus as remote-write receiver."""
    port = free_port()
    config = folder.with_suffix(".yml")
    config.write_text("global: {scrape_interval: 1h}\n")
    command = [
        str(program), f"--storage.tsdb.path={folder}", f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=100y",
    ]  # fmt: skip
    return running(
        "prometheus", command, folder.with_suffix(".log"), write_port=port,
        write_path="/api/v1/write", query_url=f"http://127.0.0.1:{port}",
    )  # fmt: skip


def victoria_metrics(folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Run VictoriaMetrics, from Debian's package."""
    port = free_port()
    command = [
        "victoria-metrics", f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
    ]  # fmt: skip
    return running(
        "victoria-metrics", command, folder.with_suffix(".log"), write_port=port,
        write_path="/api/v1/write", query_url=f"http://127.0.0.1:{port}",
    )  # fmt: skip
