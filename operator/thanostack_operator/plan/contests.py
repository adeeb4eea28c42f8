"""Objects that somebody changes back whenever they are applied: a mutating webhook or policy, say.

    drift ──► applied ──► as desired: it was an edit, and is mended
                 └─────► drifted at each look for `CONTEST_S`: contested

To apply such an object for ever would write every few seconds, keep the components after it from
their rollout and never end. It is taken as it is, said to be contested, and tried again now and
then: once nobody objects any more, nothing is left to be done by hand. Files are never given up:
routers act on what stands in them.
"""

from __future__ import annotations

from thanostack_operator.manifests.names import Object

from .comparison import Difference, was_applied
from .observed import Observed
from .times import Timers

CONTEST_S = 60.0
# A stack at rest is looked at each minute, and so at least once in that while of each such time.
RETRY_S = 600.0


class Contests:
    """The contests of one plan: one timer an object, `contest/<kind>/<name>`."""

    def __init__(self, observed: Observed, timers: Timers) -> None:
        self._refused, self._timers = observed.failures, timers

    def age_s(self, target: Object, live: Object, found: list[Difference]) -> float:
        """Return for how long an object was different at each look after it was applied.

        Args:
            target: the stamped desired object.
            live: what there is.
            found: their differences.
        """
        name = f"{target['kind']}/{target['metadata']['name']}"
        is_edited = bool(found) and was_applied(target, live) and name not in self._refused
        if not is_edited or target["kind"] == "ConfigMap":
            return 0.0
        return self._timers.elapsed_s(f"contest/{name}")


def is_contested(age_s: float) -> bool:
    """Return whether somebody objects, rather than has edited."""
    return age_s >= CONTEST_S


def may_try(age_s: float) -> bool:
    """Return whether the object is to be applied all the same."""
    return age_s % RETRY_S < CONTEST_S
