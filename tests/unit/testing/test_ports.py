"""Ports for servers of tests."""

import subprocess
import sys

from thanostack.testing.ports import free_port

TAKES_MANY = """
from thanostack.testing.ports import free_port
print(*(free_port() for _ in range(1500)), flush=True)
input()
"""


def test_no_port_is_given_twice():
    """Not in one process, nor in several at a time; those of one that has ended are free again."""
    command = [sys.executable, "-c", TAKES_MANY]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    others = [subprocess.Popen(command, **pipes) for _ in range(2)]
    taken = [*map(int, b" ".join(other.stdout.readline() for other in others).split())]
    taken += [free_port() for _ in range(500)]
    assert len(set(taken)) == len(taken) == 3500
    for other in others:
        other.communicate(b"\n")
    again = subprocess.run(
        [sys.executable, "-c", TAKES_MANY.replace("1500", "7000")], input=b"\n",
        capture_output=True, check=True,
    )  # fmt: skip
    assert len(again.stdout.split()) == 7000
