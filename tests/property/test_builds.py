"""The builds in which the property suites run would notice a kernel that reads out of bounds.

    compiled    bytes end at a guard page                         an over-read is a crash
    checked     NUMBA_BOUNDSCHECK=1: every index, wide loads too  an over-read is an IndexError
    plain       NUMBA_DISABLE_JIT=1, for lines and tracebacks     an over-read is an IndexError

`make test` runs the suites in all three.
"""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from thanostack.lib.kernels import index_write
from thanostack.lib.kernels._jit import CHECKED
from thanostack.testing.guard_page import guarded

OVER_READ = """
import sys
import numpy as np
from thanostack.lib.kernels import index_write
from thanostack.testing.guard_page import guarded
stop = int(sys.argv[1])
data, numbers = guarded(bytes(range(16))), lambda n: np.array([n], np.int64)
arguments = (data, numbers(0), numbers(stop), numbers(0), numbers(0), np.empty(64, np.uint8))
print(index_write.encode_postings_table(*arguments))
"""


def read_until(stop, *, checked):
    """Return how a process ended whose kernel copied so many of sixteen bytes, and its output."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", OVER_READ, str(stop)],
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1" if checked else "0", "NUMBA_DISABLE_JIT": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_planted_over_read_is_a_crash():
    """Eight bytes too many, read at once by the unchecked wide load, run into the guard page."""
    assert read_until(16, checked=False)[0] == 0
    assert read_until(24, checked=False)[0] == -signal.SIGSEGV


def test_a_planted_over_read_is_an_error_in_the_checked_build():
    """The same wide load names itself; a cache of the other build has not been taken for it."""
    assert read_until(16, checked=True)[0] == 0
    code, text = read_until(24, checked=True)
    assert code == 1
    assert "IndexError: load64 out of bounds" in text


@pytest.mark.skipif(not CHECKED, reason="the checked run alone has checked kernels")
def test_this_process_is_checked():
    """What the environment asks for is what the kernels of this very process are."""
    numbers = [np.array([n], np.int64) for n in (0, 24, 0, 0)]
    with pytest.raises(IndexError, match="load64"):
        index_write.encode_postings_table(guarded(bytes(16)), *numbers, np.empty(64, np.uint8))


def test_guarded_bytes():
    """They are the bytes that were given, none included, and may be written to."""
    for size in (0, 1, 4095, 4096, 4097):
        data = os.urandom(size)
        array = guarded(data)
        assert data == array.tobytes()
        array[:] = 7
