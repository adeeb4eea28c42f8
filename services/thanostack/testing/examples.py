"""How many examples a property test draws: fewer where kernels run as plain Python.

    @examples(60)
    @given(…)

Without the JIT a kernel is a thousand times slower, and the run is there for its lines and its
tracebacks; the compiled and the checked runs draw all examples.
"""

from __future__ import annotations

from typing import Final

from hypothesis import settings

from thanostack.lib.kernels._jit import DISABLED

_PLAIN_SHARE: Final = 10
_PLAIN_MIN: Final = 5


def examples(most: int) -> settings:
    """Return the settings of a test with at most so many examples, the same ones every time."""
    if DISABLED:
        most = max(most // _PLAIN_SHARE, _PLAIN_MIN)
    return settings(max_examples=most, derandomize=True, deadline=None)
