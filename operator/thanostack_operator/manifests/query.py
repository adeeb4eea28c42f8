"""The queriers: Deployment, Service, disruption budget.

They find a ring's ingestors by the SRV records of its headless Service, so that a ring may change
without a restart, and those that drain are still read.
"""

from __future__ import annotations

from collections.abc import Sequence

from thanostack_operator.api.stack import ThanosStack

from .args import flag, go_duration, switch
from .names import QUERY, Object, ingestor_name, query_name
from .pod import Pod
from .routers import GRACE_S, STOP_DELAY_S, deployment
from .services import disruption_budget, service


def query_objects(
    stack: ThanosStack, operator_version: str, leaving_rings: Sequence[str] = ()
) -> list[Object]:
    """Return the objects of the queriers, in order."""
    query = stack.spec.query
    name = query_name(stack.name)
    unavailable = 1 if query.replicas > 1 else 0
    pod = Pod(
        stack=stack,
        component=QUERY,
        settings=query.over(stack.spec.pod_defaults),
        args=query_args(stack, leaving_rings),
        ports=["http", "grpc"],
        grace_s=GRACE_S,
        liveness_failures=4,
        stop_delay_s=STOP_DELAY_S,
    )
    return [
        service(stack, name, QUERY, ["http", "grpc"], query.service),
        *disruption_budget(stack, name, QUERY, unavailable),
        deployment(pod, name, query.replicas, operator_version),
    ]


def query_args(stack: ThanosStack, leaving_rings: Sequence[str] = ()) -> list[str]:
    """Return subcommand and flags of the queriers, as far as fields give them."""
    query, tenancy = stack.spec.query, stack.spec.receive.tenancy
    names = [*(ring.name for ring in stack.spec.receive.rings), *leaving_rings]
    rings = (ingestor_name(stack.name, name) for name in names)
    endpoints = [
        *(f"dnssrv+_grpc._tcp.{ring}.{stack.namespace}.svc" for ring in rings),
        *(endpoint.address for endpoint in query.endpoints),
    ]
    return [
        "query",
        *(flag("endpoint", address) for address in endpoints),
        *(flag("query.replica-label", name) for name in query.replica_labels),
        switch("query.enforce-tenancy", is_on=query.enforce_tenancy),
        flag("query.tenant-header", tenancy.header),
        flag("query.default-tenant-id", tenancy.default_tenant),
        flag("query.tenant-label-name", tenancy.label_name),
        flag("query.timeout", query.timeout),
        flag("query.max-concurrent", query.max_concurrent),
        flag("query.lookback-delta", go_duration(query.lookback_delta)),
        switch("query.partial-response", is_on=query.partial_response),
        flag("stack.id", stack.uid),
    ]
