"""Processes that end with us, and processes that may outlive us and are found again.

A process id alone is not an identity: it is given to another process some time. With the time at
which the process began it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_ENDING_S = 20


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, and no other that was given its id later.

    Args:
        pid: as this process sees it.
        started: clock ticks since the machine started.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a process that runs.

        Raises:
            ProcessLookupError: if it does not.
        """
        return cls(pid, _started(pid))

    @classmethod
    def read(cls, path: Path) -> ProcessIdentity | None:
        """Return what `write` left, None if it left nothing."""
        try:
            pid, started = path.read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return None
        return cls(int(pid), int(started))

    def write(self, path: Path) -> None:
        """Leave it in a file."""
        path.write_text(f"{self.pid} {self.started}\n", encoding="ascii")

    def is_running(self) -> bool:
        """Return whether it is there and no zombie."""
        try:
            return _started(self.pid) == self.started
        except ProcessLookupError:
            return False

    def end(self, patience_s: float = _ENDING_S) -> None:
        """Ask it to end, insist when patience runs out, and return when it has ended.

        Raises:
            TimeoutError: if it is there even then.
        """
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _ENDING_S)):
            if not self.is_running():
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            deadline = time.monotonic() + wait_s
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(0.02)
        if self.is_running():
            raise TimeoutError(f"process {self.pid} does not end")


def _started(pid: int) -> int:
    try:
        # The name may hold anything, spaces and brackets too.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError as error:
        raise ProcessLookupError(pid) from error
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def ending_with_us(command: list[str]) -> list[str]:
    """Return a command line whose process the kernel kills when we end, even by SIGKILL.

    "We" is the thread that starts it, which should be the main one.
    """
    return ["setpriv", "--pdeathsig=KILL", *command]


class ProcessGroup:
    """Processes that are started in order and ended in reverse; they end with us in any case.

    Args:
        logs: folder for their output.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start one; its output goes to a file of its name."""
        with (self._logs / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                ending_with_us(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us: we end them in order
            )
        self._running.append(process)
        return process

    def check(self) -> None:
        """Raise if one has ended.

        Raises:
            RuntimeError: with the end of its log.
        """
        for process in self._running:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended: {self.ends_of_logs()}")

    def ends_of_logs(self) -> str:
        """Return the last lines of each log."""
        texts = []
        for path in sorted(self._logs.glob("*.log")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
            texts.append("\n".join([f"== {path.name}", *lines]))
        return "\n".join(texts)

    def stop(self) -> None:
        """End all of them."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            try:
                process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
