"""Ask probes again and again, as a kubelet does, from a process of its own.

python -m thanostack.testing.probe_times URL… — until its input ends; then it prints what it found:
{"url": [[status, seconds], …], …}, status 0 for no answer.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Final, Self

_INTERVAL_S: Final = 0.1
_PATIENCE_S: Final = 30.0

Answers = dict[str, list[tuple[int, float]]]


class ProbeTimes:
    """The process, for the time of a `with` block; then `answers` has what it found.

    Args:
        urls: asked in turn, on a new connection each time.
    """

    def __init__(self, *urls: str) -> None:
        self._urls = urls
        self.answers: Answers = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "thanostack.testing.probe_times", *self._urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        printed, _error = self._process.communicate()
        self.answers = json.loads(printed)


def _ask(url: str) -> tuple[int, float]:
    started = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, http.client.HTTPException):
        status = 0
    return status, time.monotonic() - started


def main(urls: Sequence[str]) -> None:
    """Ask until the input ends, and print the answers."""
    answers: Answers = {url: [] for url in urls}
    while not select.select([sys.stdin], [], [], _INTERVAL_S)[0]:
        for url in urls:
            answers[url].append(_ask(url))
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
