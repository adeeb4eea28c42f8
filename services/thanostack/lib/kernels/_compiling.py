"""The compiling process, as seen by who needs a kernel: asked by a line, it answers by one."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

_SERVICES = Path(__file__).parents[3]
_COMPILER = f"{__package__}._compiler"


class CompilingProcess:
    """One compiler, started at once; it ends when this process does, or when it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _COMPILER],
            env=dict(os.environ, PYTHONPATH=str(_SERVICES)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def compile(self, module: str, name: str) -> bool:
        """Compile one kernel into the store; return False if the process died of it.

        Its last words are on standard error, which is ours.
        """
        try:
            with self._lock:
                self._asked.write(f"{module} {name}\n")
                self._asked.flush()
                return bool(self._answers.readline())
        except OSError:
            return False

    def close(self) -> None:
        """Let the process end and wait for it."""
        with contextlib.suppress(OSError):
            self._asked.close()
        self._answers.close()
        self._process.wait()
