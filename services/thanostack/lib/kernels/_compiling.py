"""The compiling process, from both its ends.

whoever needs a kernel ──"MODULE KERNEL"──> python -m thanostack.lib.kernels._compiling
                       <──an empty line──── it is in the store
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

_SERVICES = Path(__file__).parents[3]


class CompilingProcess:
    """One compiler, started at once; it ends when this process does, or when it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}._compiling"],
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


def main() -> None:
    """Compile what standard input says, line by line, until it or its reader is gone."""
    # A terminal interrupts its whole group; it is for the other process to say what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from thanostack.lib.kernels._compiler import compiler

    compile_kernel = compiler()
    for line in sys.stdin:
        compile_kernel(*line.split())
        try:
            print(flush=True)
        except BrokenPipeError:
            # Python would flush once more at its exit, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


if __name__ == "__main__":
    main()
