"""Take the operator's finalizer off all stacks, so that they can be deleted with no operator there.

For the uninstallation: a finalizer that nobody removes would hang every deletion. The operator is
stopped first and its Lease waited for: while it runs it would put the finalizer back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence

from .apply import set_finalizers
from .kube import DEPLOYMENTS, LEASES, STACKS, ApiError, KubeClient
from .lease import LEASE_S
from .manifests.names import FINALIZER, Object
from .plan.observed import dig
from .plan.times import seconds

POLL_S = 0.5
WAIT_MAX_S = 60.0


async def release(
    kube: KubeClient, namespaces: Sequence[str], *, home: str, lease_name: str, deployment: str
) -> int:
    """Stop the operator's Deployment, then take the finalizer off; return from how many stacks.

    Args:
        namespaces: of the stacks; none is the whole cluster.
        kube: the API server.
        home: the namespace of the Deployment and of the Lease.
        lease_name: of the Lease.
        deployment: name of the operator's Deployment; empty if it is stopped already.

    Raises:
        ApiError: if a request is refused, or the operator does not stop within `WAIT_MAX_S`.
    """
    if deployment:
        with _gone_is_well():
            await kube.merge(DEPLOYMENTS, home, deployment, {"spec": {"replicas": 0}})
    await _wait_for_lease(kube, home, lease_name)
    released = 0
    for namespace in namespaces or (None,):
        with _gone_is_well():  # with the CRD go all stacks
            for stack in await kube.list(STACKS, namespace):
                released += await _let_go(kube, stack)
    return released


@contextlib.contextmanager
def _gone_is_well() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise


async def _let_go(kube: KubeClient, stack: Object | None) -> bool:
    """Take the finalizer off one stack; return whether it had it."""
    while stack is not None:
        metadata = stack["metadata"]
        finalizers = metadata.get("finalizers") or []
        if FINALIZER not in finalizers:
            return False
        try:
            rest = [name for name in finalizers if name != FINALIZER]
            await set_finalizers(kube, metadata, rest)
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or written to since it was read
                raise
            stack = await kube.get(STACKS, metadata["namespace"], metadata["name"])
        else:
            return True
    return False


async def _wait_for_lease(kube: KubeClient, home: str, name: str) -> None:
    until = time.monotonic() + WAIT_MAX_S
    while time.monotonic() < until:
        lease = await kube.get(LEASES, home, name)
        if not dig(lease, "spec", "holderIdentity") or _expired(dig(lease, "spec", "renewTime")):
            return
        await asyncio.sleep(POLL_S)
    raise ApiError(0, f"an operator still renews the lease {home}/{name}: stop it first")


def _expired(renewed: object) -> bool:
    at = seconds(renewed)
    return at is None or time.time() - at > LEASE_S
