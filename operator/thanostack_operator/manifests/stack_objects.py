"""All objects of a stack, in the order in which they are applied.

a ring: overrides, Service, budget, StatefulSet      each ring in the spec's order
hashrings                                            once a ring was published
routers: limits, rules, Service, budget, Deployment  the Deployment once there are hashrings
queriers: Service, budget, Deployment
ServiceMonitors                                      where asked for and known
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from thanostack_operator.api.stack import ThanosStack

from .checks import problems
from .hashrings import Member
from .ingestors import ingestor_objects
from .monitoring import service_monitors
from .names import Object
from .query import query_objects
from .routers import hashrings_config_map, router_objects


def object_keys(
    stack: ThanosStack, *, knows_service_monitors: bool
) -> set[tuple[tuple[str, str], str]]:
    """Return (apiVersion, kind) and name of everything that a stack may be made of.

    None of a stack that has problems: nothing is made of it.
    """
    if problems(stack):
        return set()
    rings = {ring.name: [Member(0, "")] for ring in stack.spec.receive.rings}
    found = desired_objects(stack, "any", rings, {}, knows_service_monitors=knows_service_monitors)
    return {((each["apiVersion"], each["kind"]), each["metadata"]["name"]) for each in found}


def desired_objects(
    stack: ThanosStack,
    operator_version: str,
    ring_members: Mapping[str, Sequence[Member]] | None,
    replicas: Mapping[str, int],
    *,
    knows_service_monitors: bool = True,
    leaving_rings: Sequence[str] = (),
) -> list[Object]:
    """Return what a stack is made of.

    Args:
        stack: whose spec has no `checks.problems`.
        operator_version: the image's tag, where the spec names none.
        ring_members: who is in each ring, by ring name; None or empty while no ring was published.
        replicas: of the StatefulSet of a ring, by ring name; the spec's where it is missing.
        knows_service_monitors: whether the cluster does.
        leaving_rings: names of rings that left the spec and still have ingestors to read.
    """
    objects = []
    for ring in stack.spec.receive.rings:
        n_pods = replicas.get(ring.name, ring.replicas)
        objects += ingestor_objects(stack, ring, operator_version, n_pods)
    has_ring = any(ring_members.values()) if ring_members else False
    if ring_members and has_ring:
        objects.append(hashrings_config_map(stack, ring_members))
    objects += router_objects(stack, operator_version, has_ring=has_ring)
    objects += query_objects(stack, operator_version, leaving_rings)
    if knows_service_monitors:
        objects += service_monitors(stack)
    return objects
