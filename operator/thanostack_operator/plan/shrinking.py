"""What cannot be read any more once a ring is smaller, and how to read it again.

Each sample is on as many ingestors as there are copies. A ring that loses as many of them or more
may lose all holders of a sample: it stays on their volumes, which are kept, but no ingestor serves
those until the ring has its former size again. (Object storage will: not built yet.)
"""

from __future__ import annotations

from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.ingestors import DATA_CLAIM
from thanostack_operator.manifests.names import ingestor_pod

from .outcome import Event
from .published import Members
from .ring import RingStep


def hidden_history(stack: ThanosStack, before: Members, step: RingStep) -> list[Event]:
    """Return a warning for each ring that this plan takes a step to shrink by all its copies.

    Args:
        stack: whose rings they are.
        before: the members as they are published.
        step: the hashrings after this plan.
    """
    replicas = {ring.name: ring.replicas for ring in stack.spec.receive.rings}
    copies = stack.spec.receive.replication_factor
    events = []
    for ring in sorted(step.changed):
        former = before.get(ring, ())
        leaving = sorted(m.ordinal for m in former if m.ordinal >= replicas.get(ring, 0))
        if len(step.members.get(ring, ())) < len(former) and len(leaving) >= copies:
            events.append(Event("Warning", "HistoryHidden", _message(stack, ring, leaving)))
    return events


def _message(stack: ThanosStack, ring: str, leaving: list[int]) -> str:
    first, last = (f"{DATA_CLAIM}-{ingestor_pod(stack.name, ring, n)}"
                   for n in (leaving[0], leaving[-1]))  # fmt: skip
    volumes = f"volume {first} is" if first == last else f"volumes {first} to {last} are"
    copies = stack.spec.receive.replication_factor
    return (
        f"ring {ring} is to lose {len(leaving)} ingestors, and a sample has {copies} copies: what "
        f"only those hold cannot be queried until the ring has {leaving[-1] + 1} replicas again; "
        f"their {volumes} kept"
    )
