"""Start servers to be measured, feed them, and read what they cost.

CPU is the process's user and system time from /proc, memory its peak resident size: both belong to
that process alone, so a busy machine does not change what they mean.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from thanostack.testing.go_programs import cache_folder
from thanostack.testing.ports import free_port

T = TypeVar("T")
_TICKS = os.sysconf("SC_CLK_TCK")
_PRUNES_TOO_EARLY = "receive.(*tenant).shouldBeMarkedInactive"
"""Where a real receiver panics, now and then, that prunes a tenant before it has opened it: v0.42.4
does (github.com/thanos-io/thanos/pull/8990), in one minute of 240."""


def metric(url: str, name: str) -> list[float]:
    """Return the values of a metric of the server at a URL, one a label set."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return [
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith((f"{name} ", name + "{"))
    ]


def until(what: str, claim: Callable[[], T], timeout_s: float = 120) -> T:
    """Ask again and again until an answer is true, and return it; connection errors are false.

    Raises:
        TimeoutError: naming what did not come about.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if answer := claim():
                return answer
        time.sleep(0.1)
    raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")


@dataclass
class Server:
    """A running process under test.

    Args:
        name: for tables.
        process: the process.
        http_port, grpc_port, write_port: where it listens; 0 where it does not.
        write_path: of its remote-write endpoint.
        ready_path: answers 200 when it serves.
        host: its address; of another network namespace perhaps.
        log: file of what it prints.
    """

    name: str
    process: subprocess.Popen[bytes]
    http_port: int = 0
    grpc_port: int = 0
    write_port: int = 0
    write_path: str = "/api/v1/receive"
    ready_path: str = "/-/ready"
    host: str = "127.0.0.1"
    log: Path | None = None

    @property
    def url(self) -> str:
        """Return the base URL of its HTTP API."""
        return f"http://{self.host}:{self.http_port}"

    def api(self, path: str, **parameters: Any) -> Any:
        """Return the `data` of a query API answer, warnings ignored.

        Raises:
            RuntimeError: for an answer that is not a success.
        """
        text = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{text}", timeout=120) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{self.name}: {error.code} {error.read()[:500]!r}") from error

    def metric(self, name: str) -> list[float]:
        """Return the values of a metric of its own, one a label set."""
        return metric(self.url, name)

    def kill(self) -> None:
        """End it at once, as the kernel would."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 60) -> None:
        """Ask it to end and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout_s)

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far, all threads."""
        return sum(self.cpu_times_s())

    def cpu_times_s(self) -> tuple[float, float]:
        """Return the CPU seconds used so far by itself and by the system for it, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS

    def memory_mib(self, key: str = "VmHWM") -> float:
        """Return the peak resident size, or with `VmRSS` the present one."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
        raise ValueError(key)

    def wait_ready(self, timeout_s: float = 300) -> None:
        """Return when it says that it is ready.

        A real receiver that panics as it starts is started again, as a kubelet would: such a panic
        says nothing of what is tested.

        Raises:
            RuntimeError: if it ended, with the last lines that it printed.
            TimeoutError: if it runs and is not ready.
        """
        url = self.url + self.ready_path
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self._start_again()
            with contextlib.suppress(OSError, urllib.error.URLError, http.client.HTTPException):
                if urllib.request.urlopen(url, timeout=2).status == 200:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{self.name} is not ready after {timeout_s} s")

    def _start_again(self) -> None:
        printed = self.log.read_text(errors="replace") if self.log else ""
        if self.log is None or _PRUNES_TOO_EARLY not in printed:
            end = f"{self.name} ended with {self.process.returncode}"
            raise RuntimeError("\n".join([end, *printed.splitlines()[-20:]]))
        print(f"{self.name} panicked as it started, and is started again")
        self.log.rename(self.log.with_suffix(".panic"))
        self.process = launch(self.process.args, self.log)

    def send(self, bodies: Iterable[bytes], *, tenant: str = "") -> None:
        """POST bodies one after another on one connection; anything but 2xx is an error.

        Raises:
            RuntimeError: with the status and the text of the first refusal; later bodies are
                not sent.
        """
        connection = http.client.HTTPConnection(self.host, self.write_port, timeout=120)
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
            **({"THANOS-TENANT": tenant} if tenant else {}),
        }
        for body in bodies:
            connection.request("POST", self.write_path, body, headers)
            response = connection.getresponse()
            text = response.read()
            if response.status // 100 != 2:
                raise RuntimeError(f"{self.name}: {response.status} {text[:300]!r}")
        connection.close()


@contextlib.contextmanager
def running(name: str, command: list[str], log: Path, **where: Any) -> Iterator[Server]:
    """Run a server for the time of the block; `where` are fields of `Server`."""
    server = Server(name, launch(command, log), log=log, **where)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def launch(command: Any, log: Path) -> subprocess.Popen[bytes]:
    """Start a program that prints behind what is in the file."""
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def thanostack() -> list[str]:
    """Return the command line of our program, as installed."""
    return [str(Path(sys.executable).parent / "thanostack")]


def peer_program(name: str) -> Path:
    """Return the path of a real peer that `tests/interop/peers/build.py` has built.

    Raises:
        FileNotFoundError: if it is not there; nothing is skipped for want of a peer.
    """
    found = sorted(cache_folder().glob(f"*/{name}"))
    if not found:
        raise FileNotFoundError(f"no {name} in the peer cache: run tests/interop/peers/build.py")
    return found[-1]


def _receive(
    name: str,
    command: list[str],
    folder: Path,
    flags: tuple[str, ...],
    replica: str,
    grpc_port: int = 0,
) -> AbstractContextManager[Server]:
    http_port, grpc_port, write_port = free_port(), grpc_port or free_port(), free_port()
    command = [
        *command, "receive", f"--tsdb.path={folder}", f'--label=replica="{replica}"',
        f"--http-address=127.0.0.1:{http_port}", f"--grpc-address=127.0.0.1:{grpc_port}",
        f"--remote-write.address=127.0.0.1:{write_port}", *flags,
    ]  # fmt: skip
    return running(
        name, command, folder.with_name(f"{folder.name}-{write_port}.log"), write_port=write_port,
        grpc_port=grpc_port, http_port=http_port,
    )  # fmt: skip


def our_receive(
    folder: Path,
    *flags: str,
    replica: str = "a",
    grpc_port: int = 0,
    prefix: tuple[str, ...] = (),
) -> AbstractContextManager[Server]:
    """Run `thanostack receive`; an ingestor without hashring flags.

    Args:
        folder: of its data.
        flags: besides ports and folder.
        replica: its replica label.
        grpc_port: 0 for any.
        prefix: words before the program, such as a control group's.
    """
    command = [*prefix, *thanostack()]
    return _receive("thanostack receive", command, folder, flags, replica, grpc_port)


def our_standalone(folder: Path, *, cache: Path) -> AbstractContextManager[Server]:
    """Run `thanostack standalone` with a kernel cache of its own."""
    http_port, grpc_port, write_port = free_port(), free_port(), free_port()
    command = [
        "env", f"XDG_CACHE_HOME={cache}", f"TMPDIR={cache}", *thanostack(), "standalone",
        f"--tsdb.path={folder}", f"--http-address=127.0.0.1:{http_port}",
        f"--grpc-address=127.0.0.1:{grpc_port}", f"--remote-write.address=127.0.0.1:{write_port}",
    ]  # fmt: skip
    log = folder.with_suffix(".log")
    where = {"write_port": write_port, "grpc_port": grpc_port, "http_port": http_port}
    return running("thanostack standalone", command, log, **where)


def thanos_receive(
    folder: Path, *flags: str, replica: str = "a", grpc_port: int = 0
) -> AbstractContextManager[Server]:
    """Run the real `thanos receive`; without hashring flags it is an ingestor with its defaults.

    But one that retains for ever, and so does not prune: see _PRUNES_TOO_EARLY.
    """
    capnproto = f"--receive.capnproto-address=127.0.0.1:{free_port()}"
    flags = (*flags, capnproto, "--tsdb.retention=0d")
    command = [str(peer_program("thanos"))]
    return _receive("thanos receive", command, folder, flags, replica, grpc_port)


def _query(
    name: str, command: list[str], folder: Path, endpoints: tuple[int, ...], flags: tuple[str, ...]
) -> AbstractContextManager[Server]:
    http_port, grpc_port = free_port(), free_port()
    command = [
        *command, "query", f"--http-address=127.0.0.1:{http_port}",
        f"--grpc-address=127.0.0.1:{grpc_port}", "--query.replica-label=replica",
        *(f"--endpoint=127.0.0.1:{port}" for port in endpoints), *flags,
    ]  # fmt: skip
    log = folder / f"query-{http_port}.log"
    return running(name, command, log, http_port=http_port, grpc_port=grpc_port)


def our_query(
    folder: Path, *endpoints: int, flags: tuple[str, ...] = ()
) -> AbstractContextManager[Server]:
    """Run `thanostack query` over loopback endpoints."""
    return _query("thanostack query", thanostack(), folder, endpoints, flags)


def thanos_query(
    folder: Path, *endpoints: int, flags: tuple[str, ...] = ()
) -> AbstractContextManager[Server]:
    """Run the real `thanos query` over loopback endpoints."""
    return _query("thanos query", [str(peer_program("thanos"))], folder, endpoints, flags)


def prometheus(
    folder: Path, *flags: str, config: str = "global: {scrape_interval: 1h}\n", port: int = 0
) -> AbstractContextManager[Server]:
    """Run the real Prometheus, its remote-write receiver enabled."""
    port = port or free_port()
    file = folder.with_name(f"{folder.name}-{port}.yml")
    file.write_text(config)
    command = [
        str(peer_program("prometheus")), f"--storage.tsdb.path={folder}", f"--config.file={file}",
        f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=100y", *flags,
    ]  # fmt: skip
    log = folder.with_name(f"{folder.name}-{port}.log")
    return running(
        "prometheus", command, log, write_port=port, http_port=port, write_path="/api/v1/write"
    )


def victoria_metrics(folder: Path) -> AbstractContextManager[Server]:
    """Run VictoriaMetrics, from Debian's package."""
    port = free_port()
    command = [
        "victoria-metrics", f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
    ]  # fmt: skip
    log = folder.with_name(f"{folder.name}-{port}.log")
    return running(
        "victoria-metrics", command, log, write_port=port, http_port=port,
        write_path="/api/v1/write", ready_path="/health",
    )  # fmt: skip
