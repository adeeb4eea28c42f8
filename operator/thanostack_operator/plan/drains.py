"""Whether an ingestor may go: it is drained, never ran, or had its time.

Used for ingestors that leave their ring, rings that leave the spec, and stacks that are deleted.
An ingestor that may go undrained keeps its volume, as all do: nothing is lost, but what was not
uploaded is not readable until an ingestor has that volume again. One that never ran and never had
a volume has nothing to drain; one that does not run and has a volume may hold what an earlier pod
wrote, and gets its time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .observed import Drain, Observed
from .outcome import Action, Event, StartDrain, Waiting
from .times import Timers

_UNKNOWN = Drain("unknown", "it was not asked yet")


@dataclass
class Drains:
    """Drains of one plan, with what they need done.

    Args:
        observed: what ingestors answer.
        timers: one a drain, named `drain/<pod>`.
        actions: drains that have to start.
        waiting: ingestors that may not go yet, and why.
        overdue: by pod, why it goes undrained.
    """

    observed: Observed
    timers: Timers
    actions: list[Action] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    overdue: dict[str, str] = field(default_factory=dict)

    def may_go(self, pod: str, timeout_s: float, blocked: str = "") -> bool:
        """Return whether an ingestor may go, having it drain if it does not yet.

        Args:
            pod: its name.
            timeout_s: how long its drain may take; then it may go undrained.
            blocked: why its drain must not be started yet; empty if it may. The time of one that
                was started runs on.
        """
        drain = self.observed.drains.get(pod, _UNKNOWN)
        timer = f"drain/{pod}"
        elapsed_s = self.timers.keep(timer) if blocked else self.timers.elapsed_s(timer)
        if (drain.state == "drained" or drain.never_ran) and not blocked:
            return True
        problem = f"its drain is {drain.state}" + (f" ({drain.error})" if drain.error else "")
        if elapsed_s is not None and elapsed_s >= timeout_s and not blocked:
            self.overdue[pod] = problem
            return True
        if not blocked and drain.state in ("serving", "failed"):
            self.actions.append(StartDrain(pod))
        self.waiting.append(Waiting(f"remove {pod} once it is drained", blocked or problem))
        return False

    def gone(self, pod: str) -> Event:
        """Return the event that tells of an ingestor which goes."""
        if pod in self.overdue:
            message = f"{pod} goes undrained after its timeout: {self.overdue[pod]}; "
            return Event("Warning", "DrainTimeout", message + "its volume is kept")
        if self.observed.drains.get(pod, _UNKNOWN).never_ran:
            message = f"{pod} never ran and has no volume: it goes, nothing is to be drained"
            return Event("Normal", "IngestorRemoved", message)
        return Event("Normal", "IngestorRemoved", f"{pod} is drained and goes; its volume is kept")
