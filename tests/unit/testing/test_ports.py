"""Ports for servers of tests."""

import subprocess
import sys

import pytest

from thanostack.testing import ports
from thanostack.testing.ports import free_port

OWN = (30_000, 31_000)
TAKES_MANY = f"""
from thanostack.testing import ports
ports._FIRST, ports._END = {OWN}
print(*(ports.free_port() for _ in range(350)), flush=True)
input()
"""


def test_no_port_is_given_twice(monkeypatch):
    """Not in one process, nor in several at a time; those of one that has ended are free again."""
    for name, value in (("_FIRST", OWN[0]), ("_END", OWN[1]), ("_LEFT", [])):
        monkeypatch.setattr(ports, name, value)
    command = [sys.executable, "-c", TAKES_MANY]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    others = [subprocess.Popen(command, **pipes) for _ in range(2)]
    taken = [*map(int, b" ".join(other.stdout.readline() for other in others).split())]
    taken += [free_port() for _ in range(100)]
    assert len(set(taken)) == len(taken) == 800
    with pytest.raises(RuntimeError, match="no free port is left between 30000 and 31000"):
        taken.extend(free_port() for _ in range(101))
    for other in others:
        other.communicate(b"\n")
    taken += [free_port() for _ in range(700)]
