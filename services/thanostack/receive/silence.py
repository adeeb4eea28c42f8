"""What requests wait for at peers that say nothing, all such peers together.

    a request that depends on a silent peer ──room──> trial: it waits as long as it may
                                                └─none──> refused at once

Whoever waits for a silent peer holds a turn of the router (`write_pace`) for seconds, and there are
as many turns as for all rings. So all silent peers together have TRIALS forwards that anybody waits
for, a quarter of the turns; one has TRIALS_OF_A_PEER, fewer if there are so many that an equal
share is less. Each may have one, while any is left: whether it is back only a try can tell, or a
probe.

Invariant: no more than TRIALS at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from thanostack.receive.write_pace import AT_ONCE_MAX

TRIALS: Final = AT_ONCE_MAX // 4
TRIALS_OF_A_PEER: Final = 4


class Silence:
    """Which peers are silent, and what is tried at them; told by object identity."""

    def __init__(self) -> None:
        self._peers: set[object] = set()
        self._trials: set[object] = set()

    @property
    def share(self) -> int:
        """Return how many trials one silent peer may have now."""
        return max(1, min(TRIALS_OF_A_PEER, TRIALS // max(1, len(self._peers))))

    def __contains__(self, peer: object) -> bool:
        """Return whether a peer is silent."""
        return peer in self._peers

    def begin(self, peer: object) -> None:
        """Take note of a peer that is silent from here on."""
        self._peers.add(peer)

    def end(self, peer: object, forwards: Iterable[object]) -> None:
        """Take note that a peer is not silent: none of its forwards is a trial any more."""
        self._peers.discard(peer)
        self._trials.difference_update(forwards)

    def enter(self, forward: object) -> bool:
        """Make a forward a trial if there is room for one more; return whether there is."""
        if len(self._trials) >= TRIALS:
            return False
        self._trials.add(forward)
        return True

    def leave(self, forward: object) -> None:
        """Forget a forward, if it was a trial."""
        self._trials.discard(forward)
